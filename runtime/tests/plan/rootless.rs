// SPDX-License-Identifier: Apache-2.0
//! Plans of those who are not root of the host: who writes the maps, what happens to groups, what is refused.

#![forbid(unsafe_code)]

use corten::cgroup::Version;
use corten::facts::Facts;
use corten::facts::{IdMaps, ids::parse};
use corten::plan::ids::{self, Writer, Writers};
use corten::plan::mounts::MountStep;
use corten::plan::{Plan, namespaces};
use corten::spec::{self, Spec};
use serde_json::{Value, json};

use crate::errors::put;
use crate::hosts;

/// What `corten spec --rootless` writes, for user 1000, with these changes.
fn config(changes: &[(&str, Value)]) -> Spec {
    let mut config: Value = serde_json::from_str(include_str!("../data/plan/rootless.json")).unwrap();
    put(&mut config, "/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
    put(&mut config, "/linux/gidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
    changes.iter().for_each(|(pointer, value)| put(&mut config, pointer, value.clone()));
    spec::read("config.json", config.to_string().as_bytes()).unwrap()
}

fn plan(facts: &Facts, changes: &[(&str, Value)]) -> Plan {
    hosts::plan(&config(changes), facts).unwrap()
}

fn refused(facts: &Facts, changes: &[(&str, Value)], words: &str) {
    let error = hosts::plan(&config(changes), facts).unwrap_err().to_string();
    assert!(error.contains(words), "lacks {words:?}: {error}");
}

/// A map of the user's own id and of those that /etc/subuid gives.
fn range() -> Value {
    json!([{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 100_000, "size": 65_536}])
}

/// Root of a user namespace in which only one id is mapped and setgroups(2) is denied: `unshare -Ur`.
fn unshared() -> Facts {
    let one = parse("         0       1000          1\n");
    Facts {
        in_userns: true,
        setgroups_denied: true,
        copies_mounts: false,
        ids: Some(IdMaps { uid: one.clone(), gid: one }),
        delegated: Some(Vec::new()),
        ..hosts::nested()
    }
}

#[test]
fn who_writes_the_maps() {
    let writers = |facts: &Facts, changes: &[(&str, Value)]| plan(facts, changes).writers.unwrap();
    let user = hosts::user();
    assert_eq!(writers(&user, &[]), Writers { uid: Writer::Us, gid: Writer::UsWithoutGroups });
    let both = [("/linux/uidMappings", range()), ("/linux/gidMappings", range())];
    assert_eq!(writers(&user, &both), Writers { uid: Writer::Tool, gid: Writer::Tool });
    assert_eq!(writers(&user, &both[..1]), Writers { uid: Writer::Tool, gid: Writer::UsWithoutGroups });
    let other = [("/linux/uidMappings", json!([{"containerID": 0, "hostID": 7, "size": 1}]))];
    assert_eq!(writers(&user, &other).uid, Writer::Tool);
    let root = Writers { uid: Writer::Us, gid: Writer::Us };
    assert_eq!((writers(&hosts::v2(), &both), writers(&hosts::v2(), &[])), (root, root));
    assert_eq!(writers(&unshared(), &[]), root);
}

#[test]
fn groups_where_they_cannot_be_set() {
    let keeps = |facts: &Facts, changes: &[(&str, Value)]| plan(facts, changes).process.unwrap().keeps_groups;
    let groups = |list: Value| ("/process/user/additionalGids", list);
    let wide = ("/linux/gidMappings", range());
    assert!(keeps(&hosts::user(), &[]));
    assert!(!keeps(&hosts::user(), std::slice::from_ref(&wide)));
    assert!(!keeps(&hosts::v2(), &[]));
    assert!(keeps(&unshared(), &[]));
    // Its own group a process has anyway.
    assert!(keeps(&hosts::user(), &[groups(json!([0]))]));
    refused(
        &hosts::user(),
        &[groups(json!([5]))],
        "/process/user/additionalGids/0: group id 5 is not mapped",
    );
    let denied = Facts { ids: None, ..unshared() };
    refused(
        &denied,
        &[groups(json!([5])), wide.clone()],
        "cannot set any additional groups in a rootless container",
    );
    assert_eq!(plan(&hosts::user(), &[groups(json!([5])), wide]).process.unwrap().gids, [5]);
    let joined = [("/linux/namespaces/4/path", json!("/proc/7/ns/user"))];
    let plan = plan(&hosts::v2(), &joined);
    assert!(plan.drops_groups && plan.process.unwrap().keeps_groups, "what the namespace says is not known");
}

#[test]
fn without_privilege_the_user_namespace_comes_first() {
    let plan = plan(&hosts::user(), &[]);
    assert!(plan.user_first && plan.copies_inside);
    let none = namespaces::Namespaces::default();
    let text = ids::rootless(&none, &hosts::user()).unwrap_err().to_string();
    assert_eq!(text, "config.json /linux/namespaces: rootless container requires user namespaces");
    ids::rootless(&none, &hosts::v2()).unwrap();
    ids::rootless(&none, &unshared()).unwrap();
    ids::rootless(&plan.namespaces, &hosts::user()).unwrap();
    let mount = json!({"destination": "/m", "type": "bind", "source": "/s", "options": ["bind", "idmap"]});
    refused(&hosts::user(), &[("/mounts/-", mount)], "an id-mapped mount needs CAP_SYS_ADMIN");
}

#[test]
fn ids_of_ones_own_namespace() {
    let free = |facts: &Facts, changes: &[(&str, Value)]| {
        let mut all =
            vec![("/linux/namespaces", json!([{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}]))];
        all.extend([("/linux/uidMappings", json!([])), ("/linux/gidMappings", json!([]))]);
        all.extend_from_slice(changes);
        hosts::plan(&config(&all), facts)
    };
    let error = free(&unshared(), &[("/process/user/uid", json!(5))]).unwrap_err().to_string();
    assert!(error.contains("user id 5 is not mapped"), "{error}");
    let plan = free(&unshared(), &[]).unwrap();
    assert!(plan.copies_inside && !plan.user_first && plan.ids.is_none());
}

#[test]
fn control_groups_by_default_and_by_name() {
    let named = [("/linux/cgroupsPath", json!("/a/b"))];
    let none = [("/linux/cgroupsPath", json!(""))];
    let user = hosts::user();
    assert_eq!(plan(&user, &named).cgroup.record.version, Version::V2);
    let without = plan(&user, &none);
    assert_eq!(without.cgroup.record.version, Version::None);
    assert_eq!(without.warnings.len(), 1, "{:?}", without.warnings);
    let limit = ("/linux/resources/pids/limit", json!(5));
    refused(
        &user,
        &[none[0].clone(), limit.clone()],
        "/linux/resources/pids/limit: rootless needs no limits",
    );
    let delegated = Facts { delegated: Some(vec!["/sys/fs/cgroup/user.slice".into()]), ..user };
    let path = plan(&delegated, &[none[0].clone(), limit]).cgroup.record.v2_path();
    assert_eq!(path.as_deref(), Some("/sys/fs/cgroup/user.slice/box"));
}

#[test]
fn the_whole_of_sys_is_read_only_mount_by_mount_on_an_old_kernel() {
    let below = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/kernel/debug"].map(str::to_owned);
    let old = Facts { mount_setattr: false, below_sys: below.to_vec(), ..hosts::user() };
    let closed = |facts: &Facts| -> (Vec<String>, Vec<u64>) {
        let mut points = Vec::new();
        let mut trees = Vec::new();
        for step in plan(facts, &[]).mounts {
            match step {
                MountStep::Remount { target, attrs, .. } if target.starts_with("/sys") => {
                    assert_eq!(attrs.set, libc::MOUNT_ATTR_RDONLY);
                    points.push(target);
                }
                MountStep::Mount(mount) if mount.target == "/sys" => trees.push(mount.recursive.set),
                _ => {}
            }
        }
        (points, trees)
    };
    assert_eq!(closed(&old), (below.to_vec(), vec![0]));
    let new = Facts { mount_setattr: true, ..old };
    assert_eq!(closed(&new), (Vec::new(), vec![libc::MOUNT_ATTR_RDONLY]));
}
