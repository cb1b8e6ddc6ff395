// SPDX-License-Identifier: Apache-2.0
//! Decisions that nothing noticed when they were others (`make mutants`), with the value that the specification or the kernel has.

#![forbid(unsafe_code)]

use corten::facts::Facts;
use corten::plan::Plan;
use corten::plan::mounts::{Mount, MountSource, MountStep};
use serde_json::{Value, json};

use crate::errors::{put, read, with};
use crate::hosts;

const RDONLY: u64 = 1;
const NOSUID_NODEV_NOEXEC: u64 = 2 | 4 | 8;

fn config(changes: &[(&str, Value)]) -> Value {
    let mut config = with("/ociVersion", json!("1.3.0"));
    changes.iter().for_each(|(pointer, value)| put(&mut config, pointer, value.clone()));
    config
}

fn planned(host: &Facts, changes: &[(&str, Value)]) -> Plan {
    hosts::plan(&read(&config(changes)), host).unwrap_or_else(|error| panic!("{changes:?}: {error}"))
}

fn refusal(changes: &[(&str, Value)]) -> String {
    hosts::plan(&read(&config(changes)), &hosts::v2()).unwrap_err().to_string()
}

/// The last mount at that target.
fn mount_at(plan: &Plan, target: &str) -> Mount {
    let at = |step: &MountStep| match step {
        MountStep::Mount(mount) if mount.target == target => Some(mount.clone()),
        _ => None,
    };
    plan.mounts.iter().rev().find_map(at).unwrap_or_else(|| panic!("no mount at {target}: {:?}", plan.mounts))
}

/// A mount at /m, and what was decided of it.
fn mount(host: &Facts, entry: Value) -> Mount {
    let mut mount = json!({"destination": "/m"});
    mount.as_object_mut().unwrap().extend(entry.as_object().unwrap().clone());
    mount_at(&planned(host, &[("/mounts/-", mount)]), "/m")
}

fn user_namespace() -> Vec<(&'static str, Value)> {
    let lines = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    vec![
        ("/linux/namespaces/-", json!({"type": "user"})),
        ("/linux/uidMappings", lines.clone()),
        ("/linux/gidMappings", lines),
    ]
}

/// The greatest that the kernel takes, and one more.
#[test]
fn the_edge_is_taken_and_what_lies_beyond_is_not() {
    let deadline = |runtime: u64, deadline: u64, period: u64| json!({"policy": "SCHED_DEADLINE", "runtime": runtime, "deadline": deadline, "period": period});
    for (pointer, edge, beyond) in [
        // __NEW_UTS_LEN
        ("/hostname", json!("h".repeat(64)), json!("h".repeat(65))),
        ("/domainname", json!("d".repeat(64)), json!("d".repeat(65))),
        // NAME_MAX
        (
            "/linux/cgroupsPath",
            json!(format!("/a/{}", "n".repeat(255))),
            json!(format!("/a/{}", "n".repeat(256))),
        ),
        // sched(7): runtime <= deadline <= period, and 1024 ns at least
        ("/process/scheduler", deadline(1024, 1024, 1024), deadline(1023, 1024, 1024)),
        ("/process/scheduler", deadline(2048, 2048, 4096), deadline(2048, 2047, 4096)),
        ("/process/scheduler", deadline(1024, 2048, 2048), deadline(1024, 2048, 2047)),
        ("/process/scheduler", deadline(1024, 2048, 0), deadline(0, 2048, 0)),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": -20}),
            json!({"policy": "SCHED_OTHER", "nice": -21}),
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": 19}),
            json!({"policy": "SCHED_OTHER", "nice": 20}),
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_RR", "priority": 99}),
            json!({"policy": "SCHED_RR", "priority": 100}),
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_RR", "priority": 1}),
            json!({"policy": "SCHED_RR", "priority": 0}),
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 7}),
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
        ),
    ] {
        planned(&hosts::v2(), &[(pointer, edge)]);
        let words = refusal(&[(pointer, beyond)]);
        assert!(words.starts_with(&format!("config.json {pointer}")), "{words}");
    }
}

/// sched(7): a deadline task must be allowed on all CPUs of its root domain, so a list of CPUs is its affair alone.
#[test]
fn only_a_deadline_with_a_list_of_cpus_is_confined() {
    let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 2048, "deadline": 4096});
    let batch = json!({"policy": "SCHED_BATCH"});
    for (scheduler, cpus, want) in
        [(&deadline, "0", true), (&deadline, "", false), (&batch, "0", false), (&batch, "", false)]
    {
        let changes =
            [("/process/scheduler", scheduler.clone()), ("/linux/resources/cpu", json!({"cpus": cpus}))];
        let process = planned(&hosts::v2(), &changes).process.unwrap();
        assert_eq!(process.scheduler.unwrap().value.confined, want, "{scheduler} {cpus:?}");
    }
}

/// config-linux.md: the group is the container's if its hierarchy is mounted to be written to, in new user and cgroup namespaces.
#[test]
fn the_group_is_given_to_who_may_write_there() {
    let owner = |host: &Facts, more: &[(&str, Value)]| {
        let mut changes = user_namespace();
        changes.push(("/process/user", json!({"uid": 7, "gid": 0})));
        changes.push(("/mounts/6/options", json!(["nosuid", "noexec", "nodev"])));
        changes.extend(more.iter().cloned());
        planned(host, &changes).group_owner.map(|owner| (owner.at, owner.value))
    };
    assert_eq!(owner(&hosts::v2(), &[]), Some(("/mounts/6".to_owned(), 7)));
    assert_eq!(owner(&hosts::v2(), &[("/process", Value::Null)]), Some(("/mounts/6".to_owned(), 0)));
    assert_eq!(owner(&hosts::v2(), &[("/mounts/6/options", json!(["ro"]))]), None);
    assert_eq!(owner(&hosts::v2(), &[("/mounts/6/options", json!(["rro"]))]), None);
    assert_eq!(owner(&hosts::v2(), &[("/mounts/6/destination", json!("/cgroup"))]), None);
    assert_eq!(owner(&hosts::v2(), &[("/mounts/6/type", json!("tmpfs"))]), None);
    assert_eq!(owner(&hosts::v1(), &[]), None);
    let namespaces = json!([{"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}, {"type": "mount"}, {"type": "user"}]);
    assert_eq!(owner(&hosts::v2(), &[("/linux/namespaces", namespaces)]), None);
    assert_eq!(planned(&hosts::v2(), &[("/mounts/6/options", json!([]))]).group_owner, None);
}

/// Without a cgroup namespace the host's hierarchy is bound: as writable as the entry says, and not at all below root of a
/// user namespace (CVE-2023-25809).
#[test]
fn a_bound_hierarchy_is_as_writable_as_its_entry() {
    let namespaces =
        json!([{"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}, {"type": "mount"}]);
    let bound = |host: &Facts, options: Value| {
        let changes = [("/linux/namespaces", namespaces.clone()), ("/mounts/6/options", options)];
        let mount = mount_at(&planned(host, &changes), "/sys/fs/cgroup");
        assert!(matches!(mount.source, MountSource::Bind { .. }), "{mount:?}");
        mount
    };
    let writable = bound(&hosts::v2(), json!([]));
    assert_eq!((writable.attrs.set & RDONLY, writable.attrs.implied & RDONLY), (0, RDONLY));
    let readonly = bound(&hosts::v2(), json!(["ro"]));
    assert_eq!((readonly.attrs.set & RDONLY, readonly.attrs.implied & RDONLY), (RDONLY, 0));
    let nested = bound(&hosts::nested(), json!([]));
    assert_eq!((nested.attrs.set & RDONLY, nested.recursive.set & RDONLY), (RDONLY, RDONLY));
    let old = bound(&Facts { mount_setattr: false, ..hosts::nested() }, json!([]));
    assert_eq!((old.attrs.set & RDONLY, old.recursive.set & RDONLY), (RDONLY, 0));
}

/// What holds v1's hierarchies is no place to put programs or devices, whatever its entry says; and writable until they are in it.
#[test]
fn the_top_of_v1_is_hardened() {
    let plan = planned(&hosts::v1(), &[("/mounts/6/options", json!(["ro"]))]);
    let top = plan.mounts.iter().find_map(|step| match step {
        MountStep::Mount(mount) if mount.target == "/sys/fs/cgroup" => Some(mount.attrs.set),
        _ => None,
    });
    assert_eq!(top, Some(NOSUID_NODEV_NOEXEC));
    let again = |step: &MountStep| matches!(step, MountStep::Remount { target, attrs, .. } if target == "/sys/fs/cgroup" && attrs.set == RDONLY);
    assert!(plan.mounts.iter().any(again), "{:?}", plan.mounts);
    let writable = planned(&hosts::v1(), &[("/mounts/6/options", json!([]))]);
    assert!(!writable.mounts.iter().any(again), "{:?}", writable.mounts);
}

/// config.md: `idmap` maps the mount, `ridmap` what is mounted below as well; the option may hold the lines.
#[test]
fn an_id_mapping_is_of_the_mount_or_of_the_tree() {
    let host = hosts::v2();
    let lines = json!([{"containerID": 0, "hostID": 7, "size": 1}]);
    for (options, recursive) in [
        (json!(["rbind", "idmap=uids=0-7-1;gids=0-7-1"]), false),
        (json!(["rbind", "ridmap=uids=0-7-1;gids=0-7-1"]), true),
    ] {
        let idmap =
            mount(&host, json!({"type": "bind", "source": "/src", "options": options})).idmap.unwrap();
        assert_eq!(
            (idmap.recursive, idmap.uid[0].host_id, idmap.gid[0].host_id),
            (recursive, 7, 7),
            "{options}"
        );
    }
    for (options, recursive) in
        [(json!(["bind"]), false), (json!(["bind", "idmap"]), false), (json!(["rbind", "ridmap"]), true)]
    {
        let entry = json!({"type": "bind", "source": "/src", "options": options, "uidMappings": lines, "gidMappings": lines});
        assert_eq!(mount(&host, entry).idmap.unwrap().recursive, recursive, "{options}");
    }
    let nobody = json!([{"containerID": 0, "hostID": 7, "size": 0}]);
    for (uid, gid, at) in [(&lines, &nobody, "gidMappings"), (&nobody, &lines, "uidMappings")] {
        let entry = json!({"destination": "/m", "type": "bind", "source": "/src", "options": ["bind"], "uidMappings": uid, "gidMappings": gid});
        let words = refusal(&[("/mounts/-", entry)]);
        assert!(words.starts_with(&format!("config.json /mounts/7/{at}")), "{words}");
    }
}

/// docs/mount-flags.md: nothing said, nothing changed; anything said of the mount itself, the access time included, is all there is.
#[test]
fn what_is_said_of_a_bind_is_all_there_is() {
    for (option, implied) in [
        ("bind", 0),
        ("nosuid", RDONLY | 4 | 8 | 0x20_0000),
        ("noatime", RDONLY | NOSUID_NODEV_NOEXEC | 0x20_0000),
        ("rnoatime", 0),
        ("rnosuid", 0),
        ("sync", RDONLY | NOSUID_NODEV_NOEXEC | 0x20_0000),
    ] {
        let entry = json!({"type": "bind", "source": "/src", "options": ["bind", option]});
        assert_eq!(mount(&hosts::v2(), entry).attrs.implied, implied, "{option}");
    }
}

/// CVE-2023-25809: in a user namespace the whole of the host's /sys is read-only with all that is mounted below.
#[test]
fn the_whole_of_sys_is_closed_in_a_user_namespace() {
    let sys = |host: &Facts, options: Value| {
        let entry = json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": options});
        planned(host, &[("/mounts/5", entry), ("/mounts/6", json!({"destination": "/x", "type": "tmpfs"}))])
    };
    let tree = |plan: &Plan| mount_at(plan, "/sys").recursive;
    let closed = tree(&sys(&hosts::nested(), json!(["rbind", "ro"])));
    assert_eq!((closed.set & RDONLY, closed.clear & RDONLY), (RDONLY, 0));
    assert_eq!(tree(&sys(&hosts::v2(), json!(["rbind", "ro"]))).set & RDONLY, 0);
    assert_eq!(tree(&sys(&hosts::nested(), json!(["rbind", "rw"]))).set & RDONLY, 0);
    assert_eq!(tree(&sys(&hosts::nested(), json!(["bind", "ro"]))).set & RDONLY, 0);
    // Who says so has it writable below.
    let below = tree(&sys(&hosts::nested(), json!(["rbind", "ro", "rrw"])));
    assert_eq!((below.set & RDONLY, below.clear & RDONLY), (0, RDONLY));

    // Before Linux 5.12 each mount by itself.
    let below_sys = vec!["/sys/fs/cgroup".to_owned()];
    let old = Facts { mount_setattr: false, below_sys, ..hosts::nested() };
    let plan = sys(&old, json!(["rbind", "ro"]));
    let top = mount_at(&plan, "/sys");
    assert_eq!(
        (top.attrs.set & RDONLY, top.attrs.clear & RDONLY, top.attrs.implied & RDONLY),
        (RDONLY, 0, 0)
    );
    let again = |step: &MountStep| matches!(step, MountStep::Remount { target, attrs, .. } if target == "/sys/fs/cgroup" && attrs.set == RDONLY);
    assert!(plan.mounts.iter().any(again), "{:?}", plan.mounts);
}

/// The kernel lets no user namespace mount what shows another namespace that is not its own.
#[test]
fn the_hosts_queues_and_sysfs_are_bound_where_they_cannot_be_mounted() {
    let mut changes = user_namespace();
    let namespaces =
        json!([{"type": "pid"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"}, {"type": "cgroup"}]);
    changes.push(("/linux/namespaces", namespaces));
    let plan = planned(&hosts::v2(), &changes);
    for target in ["/dev/mqueue", "/sys"] {
        let MountSource::Bind { path, recursive, .. } = mount_at(&plan, target).source else {
            panic!("{target} is no bind")
        };
        assert_eq!((path.to_str(), recursive), (Some(target), true));
    }
}

/// CVE-2023-25809: the host's /sys in place of a sysfs is read-only with all below, whatever the entry's options say.
#[test]
fn the_hosts_sysfs_is_closed_whatever_is_said() {
    let mut changes = user_namespace();
    changes.push((
        "/linux/namespaces",
        json!([{"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "mount"}, {"type": "user"}]),
    ));
    let sys = |host: &Facts, options: Value| {
        let changes = [changes.clone(), vec![("/mounts/5/options", options)]].concat();
        mount_at(&planned(host, &changes), "/sys")
    };
    let new = sys(&hosts::v2(), json!(["rw", "rrw"]));
    assert_eq!((new.recursive.set & RDONLY, new.recursive.clear & RDONLY), (RDONLY, 0));
    let old = sys(&Facts { mount_setattr: false, ..hosts::v2() }, json!(["rw"]));
    assert_eq!((old.attrs.set & RDONLY, old.attrs.clear & RDONLY), (RDONLY, 0));
}

/// A tmpfs has the mode of what it covers, unless it is given one.
#[test]
fn a_tmpfs_without_a_mode_takes_that_of_its_target() {
    for (options, want) in [
        (json!([]), true),
        (json!(["size=1k"]), true),
        (json!(["mode=700"]), false),
        (json!(["size=1k", "mode=700"]), false),
    ] {
        let mount = mount(&hosts::v2(), json!({"type": "tmpfs", "source": "t", "options": options}));
        let MountSource::Fs { mode_of_target, .. } = mount.source else { panic!("no file system") };
        assert_eq!(mode_of_target, want, "{options}");
    }
}

/// Sixteen options that mean nothing to a bind are told, and how many more there are.
#[test]
fn warnings_have_an_end() {
    let told = |count: usize| {
        let options: Vec<String> =
            ["bind".to_owned()].into_iter().chain((0..count).map(|n| format!("x{n}"))).collect();
        let entry = json!({"destination": "/m", "type": "bind", "source": "/src", "options": options});
        planned(&hosts::v2(), &[("/mounts/-", entry)]).warnings
    };
    assert_eq!((told(16).len(), told(17).len(), told(30).len()), (16, 17, 17));
    assert_eq!(told(18)[16], "config.json /mounts/7/options: and 2 more");
}

/// An annotation that the administrator has not listed is passed over, and said to be.
#[test]
fn an_annotation_that_is_not_permitted_is_told() {
    let annotations = json!({"run.oci.pidfd_receiver": "/run/x"});
    let warnings = planned(&hosts::v2(), &[("/annotations", annotations)]).warnings;
    let words = "config.json /annotations/run.oci.pidfd_receiver: not obeyed";
    assert!(warnings.iter().any(|warning| warning.starts_with(words)), "{warnings:?}");
}
