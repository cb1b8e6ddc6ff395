// SPDX-License-Identifier: Apache-2.0
//! What the sentences of the golden programs do not show: flags of targets, descriptors that are held, steps of rare configurations.

use std::collections::BTreeSet;

use corten::ask::Create;
use corten::cgroup::WayIn;
use corten::facts::Facts;
use corten::plan::mounts::Attrs;
use corten::program::{HostOp, Op, Program, Ref, StageOp, check, compile};
use corten::stage::wire::barrier::{MAPPED, READY};
use corten::stage::wire::{TARGET_DIR, TARGET_EXISTING, TARGET_IN_PROC, TARGET_LINK, TARGET_NOFOLLOW};
use serde_json::{Value, json};

use crate::cases::{self, plan, planned_for, stage};
use crate::hosts;

const MS_PRIVATE: u64 = 1 << 18;
const MS_SHARED: u64 = 1 << 20;
const NOATIME: u64 = 0x10;
const ATIME: u64 = 0x70;
const RDONLY: u64 = 1;

fn program(change: impl FnOnce(&mut Value)) -> Program {
    compile::create(&plan(&Create::default(), change), 40)
}

fn host(program: &Program) -> Vec<&HostOp> {
    program
        .steps
        .iter()
        .filter_map(|step| if let Op::Host(op) = &step.op { Some(op) } else { None })
        .collect()
}

fn add_mounts(config: &mut Value, mounts: &[Value]) {
    config["mounts"].as_array_mut().unwrap().extend_from_slice(mounts);
}

/// The steps on behalf of the last mount of the configuration.
fn of_the_last_mount(program: &Program) -> Vec<StageOp> {
    let last = program
        .steps
        .iter()
        .filter(|step| step.at.starts_with("/mounts/"))
        .map(|step| step.at.as_str())
        .max();
    let of = |step: &&corten::program::Step| Some(step.at.as_str()) == last;
    program
        .steps
        .iter()
        .filter(of)
        .filter_map(|step| if let Op::Stage(op) = &step.op { Some(op.clone()) } else { None })
        .collect()
}

#[test]
fn targets_are_found_as_their_mounts_demand() {
    let program = program(|c| {
        add_mounts(
            c,
            &[
                json!({"destination": "/file", "type": "bind", "source": "/src", "options": ["bind"]}),
                json!({"destination": "/link", "type": "bind", "source": "/src", "options": ["bind", "dest-nofollow"]}),
                json!({"destination": "/copy", "type": "bind", "source": "/src", "options": ["bind", "copy-symlink"]}),
            ],
        );
    });
    let flags = |wanted: &str| {
        stage(&program).into_iter().find_map(|op| match op {
            StageOp::Target { path, flags, like, .. } if path == wanted => {
                Some((*flags, *like != Ref::Nothing))
            }
            StageOp::AttachOrLink { path, flags, .. } if path == wanted => Some((*flags, true)),
            _ => None,
        })
    };
    // A file system's is a directory; a bind's has the type of its source. Nobody may lead proc and sysfs elsewhere by a link.
    assert_eq!(flags("/proc"), Some((TARGET_DIR | TARGET_NOFOLLOW | TARGET_IN_PROC, false)));
    assert_eq!(flags("/sys"), Some((TARGET_DIR | TARGET_NOFOLLOW, false)));
    assert_eq!(flags("/dev"), Some((TARGET_DIR, false)));
    assert_eq!(flags("/file"), Some((0, true)));
    assert_eq!(flags("/link"), Some((TARGET_LINK, true)));
    assert_eq!(flags("/copy"), Some((0, true)));
}

/// decisions/0029: what is hidden in procfs or made in /dev is looked up from that very mount.
#[test]
fn what_is_hidden_or_made_is_looked_up_in_the_mount_that_was_made() {
    let program = program(|c| {
        c["linux"]["maskedPaths"] =
            json!(["/proc/kcore", "/sys/firmware", "/elsewhere", "/procession", "/dev/shm/x"]);
        c["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
        c["mounts"][1]["options"] = json!(["nosuid", "mode=755", "ro"]);
    });
    let ops = stage(&program);
    let mounted = |wanted: &str| {
        let at =
            ops.iter().position(|op| matches!(op, StageOp::Target { path, .. } if path == wanted)).unwrap();
        ops[at..].iter().find_map(|op| match op {
            StageOp::FsMount { slot, .. } => Some(Ref::Slot(*slot)),
            _ => None,
        })
    };
    let (proc, sys, dev) = (mounted("/proc").unwrap(), mounted("/sys").unwrap(), mounted("/dev").unwrap());
    assert!(proc != sys && sys != dev && dev != proc, "{proc:?} {sys:?} {dev:?}");
    let places: Vec<_> = ops
        .iter()
        .filter_map(|op| match op {
            StageOp::Mask { place, .. }
            | StageOp::Readonly(place)
            | StageOp::Symlink { place, .. }
            | StageOp::Mknod { place, .. } => Some((place.path.as_str(), place.anchor, place.rest())),
            _ => None,
        })
        .collect();
    for (path, anchor, rest) in [
        ("/proc/kcore", proc, "kcore"),
        ("/proc/sys", proc, "sys"),
        ("/sys/firmware", sys, "firmware"),
        ("/dev/fd", dev, "fd"),
        ("/dev/null", dev, "null"),
        ("/elsewhere", Ref::Nothing, "/elsewhere"),
        ("/procession", Ref::Nothing, "/procession"),
        // Somebody's own files, which may be links.
        ("/dev/shm/x", Ref::Nothing, "/dev/shm/x"),
    ] {
        assert!(
            places.contains(&(path, anchor, rest)),
            "{path} is not looked up as {rest} from {anchor:?}: {places:?}"
        );
    }
    // /dev becomes read-only once all is made, and that one, whatever lies at its name by then.
    let made = ops.iter().rposition(|op| matches!(op, StageOp::Symlink { .. })).unwrap();
    let closed = ops.iter().position(
        |op| matches!(op, StageOp::SetAttr { mount, attrs, .. } if *mount == dev && attrs.set == RDONLY),
    );
    assert!(closed.is_some_and(|closed| closed > made), "{closed:?} {made}");
}

/// The anchors of what is masked, in order.
fn anchors(program: &Program) -> Vec<Ref> {
    let anchor = |op: &StageOp| if let StageOp::Mask { place, .. } = op { Some(place.anchor) } else { None };
    stage(program).into_iter().filter_map(anchor).collect()
}

/// There are descriptors for some mounts: what lies in the others is looked up by its name.
#[test]
fn mounts_beyond_the_descriptors_go_by_name() {
    let program = program(|c| {
        let many = |n: usize| json!({"destination": format!("/p{n}"), "type": "proc", "source": "proc"});
        add_mounts(c, &(0..20).map(many).collect::<Vec<_>>());
        c["linux"]["maskedPaths"] = (0..20).map(|n| format!("/p{n}/kcore")).collect();
        c["linux"]["readonlyPaths"] = json!([]);
    });
    assert_eq!(check::check(&program), Ok(()));
    let held: Vec<Ref> = anchors(&program).into_iter().filter(|anchor| *anchor != Ref::Nothing).collect();
    let different: BTreeSet<String> = held.iter().map(|anchor| format!("{anchor:?}")).collect();
    assert!(!held.is_empty() && held.len() < 20 && different.len() == held.len(), "{held:?}");
}

/// What covers a mount as a whole has its place in what is around it.
#[test]
fn a_mount_that_is_covered_itself_is_not_held() {
    let slots = |masked: &str| {
        let program = program(|c| {
            c["linux"]["maskedPaths"] = json!([masked]);
            c["linux"]["readonlyPaths"] = json!([]);
        });
        let slot = |at: &str| {
            program.steps.iter().filter(|step| step.at == at).find_map(|step| match &step.op {
                Op::Stage(StageOp::FsMount { slot, .. }) => Some(*slot),
                _ => None,
            })
        };
        // /proc, and one in which nothing is looked up.
        (slot("/mounts/0").unwrap(), slot("/mounts/4").unwrap())
    };
    let (proc, other) = slots("/proc");
    assert_eq!(proc, other);
    let (proc, other) = slots("/proc/kcore");
    assert_ne!(proc, other);
}

/// mount(2) gives no descriptor: what is changed late in such a mount is found by its name.
#[test]
fn a_late_remount_of_what_mount_made_is_by_name() {
    let program = program(|c| {
        let long = format!("context={}", "x".repeat(300));
        add_mounts(
            c,
            &[json!({"destination": "/m", "type": "tmpfs", "source": "t", "options": ["ro", long]})],
        );
    });
    let ops = of_the_last_mount(&program);
    let made = ops.iter().position(|op| matches!(op, StageOp::MountClassic { .. })).unwrap();
    let [StageOp::Target { slot, flags, .. }, StageOp::SetAttr { mount, attrs, .. }] = &ops[made + 1..]
    else {
        panic!("{ops:?}")
    };
    assert_eq!((*flags, *mount, attrs.set), (TARGET_EXISTING | TARGET_IN_PROC, Ref::Slot(*slot), RDONLY));
}

/// Where the first process hops into a pid namespace at the very end, it makes the others for itself: the user namespace first, which
/// owns them, and is mapped before it does anything.
#[test]
fn namespaces_beside_a_joined_pid_namespace() {
    let program = program(|c| {
        cases::user_namespace(c);
        cases::joined(c, &["pid"]);
    });
    let of_interest = program.steps.iter().filter_map(|step| match &step.op {
        Op::Stage(StageOp::Unshare(kinds)) => Some(format!("unshare {kinds:#x}")),
        Op::Stage(StageOp::BecomeRoot) => Some("become root".to_owned()),
        Op::Host(HostOp::Await(MAPPED)) => Some("await".to_owned()),
        Op::Host(HostOp::IdMaps(_)) => Some("map".to_owned()),
        _ => None,
    });
    // CLONE_NEWUSER; then NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWNET.
    let wanted = ["unshare 0x10000000", "await", "map", "become root", "unshare 0x4e020000"];
    assert_eq!(of_interest.collect::<Vec<_>>(), wanted);
}

/// The agent gets its listener once, whether the filter comes before the hop or after it.
#[test]
fn the_agent_gets_its_listener_once() {
    for refused in ["mkdir", "clone"] {
        let program = program(|c| {
            cases::joined(c, &["pid"]);
            c["process"]["noNewPrivileges"] = json!(false);
            c["linux"]["seccomp"] = cases::listener();
            let one = json!({"names": [refused], "action": "SCMP_ACT_ERRNO"});
            c["linux"]["seccomp"]["syscalls"].as_array_mut().unwrap().push(one);
        });
        let host = host(&program);
        assert_eq!(
            host.iter().filter(|op| matches!(op, HostOp::Listener)).count(),
            1,
            "{refused}: {host:#?}"
        );
    }
}

/// Without a terminal the hop is Ready (decisions/0042), unless an agent has to have its listener first.
#[test]
fn an_exec_meets_the_host_only_where_it_must() {
    let meets = |listener: bool, refused: &str| {
        let plan = plan(&Create::default(), |c| {
            c["process"]["terminal"] = json!(false);
            c["process"]["noNewPrivileges"] = json!(false);
            c["linux"]["seccomp"] = cases::listener();
            if !listener {
                c["linux"]["seccomp"]["syscalls"] = json!([]);
            }
            let one = json!({"names": [refused], "action": "SCMP_ACT_ERRNO"});
            c["linux"]["seccomp"]["syscalls"].as_array_mut().unwrap().push(one);
        });
        let program = compile::exec(&cases::entry(&plan, WayIn::Born), plan.process.as_ref().unwrap());
        stage(&program).iter().any(|op| matches!(op, StageOp::Barrier { barrier: READY, .. }))
    };
    assert!(!meets(false, "mkdir") && !meets(false, "clone") && !meets(true, "mkdir"));
}

/// A hook may have mounted over what is held: then its paths are covered by name as well.
#[test]
fn after_hooks_paths_are_covered_by_name_too() {
    let covered = |hooks: Value| {
        let program = program(|c| {
            c["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
            c["linux"]["readonlyPaths"] = json!([]);
            c["hooks"] = hooks;
        });
        stage(&program).iter().filter(|op| matches!(op, StageOp::Mask { .. })).count()
    };
    let hook = || json!([{"path": "/bin/hook"}]);
    assert_eq!(covered(json!({})), 1);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        assert_eq!(covered(json!({kind: hook()})), 2, "{kind}");
    }
    // They come when all is covered.
    assert_eq!(covered(json!({"startContainer": hook(), "poststart": hook(), "poststop": hook()})), 1);
}

/// fsconfig(2) takes 255 bytes: what is longer goes through mount(2), and what that has no flag for is set on what is there then.
#[test]
fn long_options_go_through_mount() {
    let ops = |options: &[&str]| {
        let long = format!("lowerdir={}", "x".repeat(300));
        let mut all = vec![long.as_str()];
        all.extend(options);
        of_the_last_mount(&program(|c| {
            add_mounts(
                c,
                &[json!({"destination": "/m", "type": "overlay", "source": "overlay", "options": all})],
            );
        }))
    };
    let plain = ops(&["ro", "nosuid"]);
    let [StageOp::Target { .. }, StageOp::MountClassic { fstype, source, flags, data, .. }] = &plain[..]
    else {
        panic!("{plain:?}")
    };
    assert_eq!((fstype.as_str(), source.as_str(), *flags), ("overlay", "overlay", 1 | 2));
    assert!(data.split(',').any(|one| one == format!("lowerdir={}", "x".repeat(300))), "{data}");
    let after = |options: &[&str]| {
        let ops = ops(options);
        let existing = |op: &StageOp| matches!(op, StageOp::Target { flags, .. } if *flags == TARGET_EXISTING | TARGET_IN_PROC);
        assert_eq!(ops.iter().filter(|op| existing(op)).count(), 1, "{ops:?}");
        let changes = ops.iter().filter_map(|op| match op {
            StageOp::SetAttr { attrs, propagation, recursive, .. } => {
                Some((*attrs, *propagation, *recursive))
            }
            _ => None,
        });
        changes.collect::<Vec<_>>()
    };
    let sets = |set, clear| Attrs { set, clear, implied: 0 };
    assert_eq!(after(&["noatime"]), [(sets(NOATIME, ATIME), 0, false)]);
    assert_eq!(after(&["nosymfollow"]), [(sets(0x20_0000, 0), 0, false)]);
    assert_eq!(after(&["rro"]), [(sets(RDONLY, 0), 0, true)]);
    assert_eq!(after(&["shared"]), [(Attrs::default(), MS_SHARED, false)]);
}

/// Without mount_setattr(2) propagation is changed by mount(2), which needs the mount attached.
#[test]
fn propagation_comes_before_attaching_or_after() {
    for (set_attr, before) in [(true, true), (false, false)] {
        let facts = Facts { mount_setattr: set_attr, ..hosts::v2() };
        let plan = planned_for(&facts, |c| {
            add_mounts(
                c,
                &[json!({"destination": "/m", "type": "tmpfs", "source": "t", "options": ["private"]})],
            );
        });
        let ops = of_the_last_mount(&compile::create(&plan, 40));
        let attached = ops.iter().position(|op| matches!(op, StageOp::Attach { .. })).unwrap();
        let changes: Vec<usize> = ops
            .iter()
            .enumerate()
            .filter(|(_, op)| matches!(op, StageOp::SetAttr { propagation: MS_PRIVATE, .. }))
            .map(|(at, _)| at)
            .collect();
        assert_eq!(changes.len(), 1, "{ops:?}");
        assert_eq!(changes[0] < attached, before, "{ops:?}");
    }
}

/// A restore: what runs when, with hooks and without, with a network of its own and without.
#[test]
fn a_restore_has_hooks_and_holds_packets_for_them() {
    let steps = |change: &dyn Fn(&mut Value)| {
        let program = compile::restore(&plan(&Create::default(), change));
        let has = |wanted: fn(&HostOp) -> bool| host(&program).iter().any(|op| wanted(op));
        [
            has(|op| matches!(op, HostOp::Hooks)),
            has(|op| matches!(op, HostOp::HoldPackets)),
            has(|op| matches!(op, HostOp::LetPacketsIn)),
            has(|op| matches!(op, HostOp::Loopback)),
            has(|op| matches!(op, HostOp::Keep)),
            has(|op| matches!(op, HostOp::Identify)),
            has(|op| matches!(op, HostOp::Record)),
            has(|op| matches!(op, HostOp::Poststart)),
        ]
    };
    let without_network = |c: &mut Value| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "network");
    };
    assert_eq!(steps(&|_| {}), [false, false, false, true, true, true, true, true]);
    assert_eq!(steps(&without_network), [false, false, false, false, true, true, true, true]);
    assert_eq!(steps(&|c| c["hooks"] = json!({"prestart": [{"path": "/bin/hook"}]})), [true; 8]);
    assert_eq!(steps(&|c| c["hooks"] = json!({"createRuntime": [{"path": "/bin/hook"}]})), [true; 8]);
    assert_eq!(
        steps(&|c| {
            c["hooks"] = json!({"createRuntime": [{"path": "/bin/hook"}]});
            without_network(c);
        }),
        [true, false, false, false, true, true, true, true]
    );
}

/// CRIU mounts on what is there: in the rootfs, or in the tree that was bound over it before.
#[test]
fn a_restores_mount_points_lie_in_the_tree_that_is_there() {
    let bind =
        |target: &str| json!({"destination": target, "type": "bind", "source": "/src", "options": ["rbind"]});
    let program = compile::restore(&plan(&Create::default(), |c| {
        c["mounts"] = json!([bind("/a"), bind("/a/b"), bind("/ab"), {"destination": "/t", "type": "tmpfs"}, bind("/t/x")]);
        c["root"]["readonly"] = json!(true);
    }));
    let points = host(&program).into_iter().find_map(|op| match op {
        HostOp::MountPoints(points) => Some(points),
        _ => None,
    });
    let points: Vec<_> =
        points.unwrap().iter().map(|point| (point.tree, point.path.as_str(), point.like)).collect();
    let [
        (rootfs, "/a", Some(a)),
        (in_a, "/b", Some(_)),
        (third, "/ab", Some(_)),
        (fourth, "/t", None),
        (last, "/tmp", None),
    ] = points[..]
    else {
        panic!("{points:?}")
    };
    assert_eq!((in_a, third, fourth, last), (a, rootfs, rootfs, rootfs));
    assert_ne!(a, rootfs);
}

/// The score is the host's to write (the process may not lower it), once, and before the process is let go.
#[test]
fn an_execs_oom_score_is_written_before_it_runs() {
    for (own_pids, unprivileged) in [(true, false), (true, true), (false, false), (false, true)] {
        let plan = plan(&Create::default(), |config| {
            config["process"]["oomScoreAdj"] = json!(-7);
            if !own_pids {
                config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
            }
        });
        let entry = compile::Entry { unprivileged, ..cases::entry(&plan, WayIn::Born) };
        let program = compile::exec(&entry, plan.process.as_ref().unwrap());
        let host = host(&program);
        let scores = host.iter().filter(|op| ***op == HostOp::OomScoreAdj(-7)).count();
        let score = host.iter().position(|op| **op == HostOp::OomScoreAdj(-7));
        let last_release = host.iter().rposition(|op| **op == HostOp::Release);
        assert!(scores == 1 && score < last_release, "{host:#?}");
    }
}

/// What loading a filter takes (CAP_SYS_ADMIN, where there is no no_new_privs) is gone before the container's pid namespace is
/// entered, unless the profile refuses what comes after the filter then (decisions/0065).
#[test]
fn a_hop_comes_under_the_filter_that_lets_it() {
    let order = |refused: &str, no_new_privileges: bool| {
        let plan = plan(&Create::default(), |config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": [refused], "action": "SCMP_ACT_ERRNO"}]});
        });
        let program = compile::exec(&cases::entry(&plan, WayIn::Born), plan.process.as_ref().unwrap());
        let at = |wanted: fn(&StageOp) -> bool| stage(&program).iter().position(|op| wanted(op)).unwrap();
        at(|op| matches!(op, StageOp::Seccomp { .. })) < at(|op| matches!(op, StageOp::Hop(_)))
    };
    assert!(order("mkdir", false) && !order("mkdir", true));
    for refused in ["clone", "capset", "sendmsg", "read", "write", "setsid"] {
        assert!(!order(refused, false), "{refused}");
    }
}
