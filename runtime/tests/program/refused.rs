// SPDX-License-Identifier: Apache-2.0
//! What `check` refuses: good programs made bad.

use corten::ask::Create;
use corten::plan::hooks::Hook;
use corten::plan::mounts::Propagation;
use corten::program::op::{Must, Source};
use corten::program::place::Place;
use corten::program::{HostOp, Op, Program, Ref, StageOp, Step, check, compile};

use crate::cases;

fn good() -> Program {
    compile::create(&cases::plan(&Create::default(), |_| {}), 40)
}

fn position(program: &Program, wanted: impl Fn(&StageOp) -> bool) -> usize {
    program.steps.iter().position(|step| matches!(&step.op, Op::Stage(op) if wanted(op))).unwrap()
}

fn step(op: StageOp) -> Step {
    Step { at: String::new(), op: Op::Stage(op) }
}

/// The default program after `change` is refused, with these words.
fn refused(words: &str, change: impl FnOnce(&mut Program)) {
    let mut program = good();
    change(&mut program);
    let text = check::check(&program).map_err(|error| error.to_string());
    assert!(text.as_ref().is_err_and(|text| text.contains(words)), "{words:?}: {text:?}");
}

/// `op` right before the first step that is `wanted`.
fn before(program: &mut Program, wanted: impl Fn(&StageOp) -> bool, op: StageOp) {
    let at = position(program, wanted);
    program.steps.insert(at, step(op));
}

fn is_exec(op: &StageOp) -> bool {
    matches!(op, StageOp::Exec { .. })
}

#[test]
fn phases_out_of_order() {
    refused("Harden after", |p| {
        before(p, is_exec, StageOp::Mask { place: Place::named("/proc/kcore"), label: None })
    });
    refused("Ids after", |p| {
        before(p, |op| matches!(op, StageOp::Gate), StageOp::SetIds { uid: 0, gid: 0 });
    });
    refused("HostTree after", |p| {
        let op = StageOp::AttachHost { mount: Ref::Source(0), path: "/x".into() };
        before(p, |op| matches!(op, StageOp::Bound { .. }), op);
    });
    refused("HostTree after", |p| {
        let op = StageOp::Propagate(Propagation { flag: 1 << 20, recursive: true });
        before(p, is_exec, op);
    });
    refused("Join after", |p| before(p, is_exec, StageOp::Unshare(0x2000_0000)));
    refused("Close after", |p| {
        before(p, is_exec, StageOp::Close { from: 3, gate: Ref::Nothing, outcome: Ref::Nothing, slot: None })
    });
}

#[test]
fn descriptors_that_are_not_there() {
    refused("unknown descriptor", |p| before(p, |op| *op == StageOp::Pivot, StageOp::Root(Ref::Source(99))));
    refused("unknown descriptor", |p| before(p, |op| *op == StageOp::Pivot, StageOp::CloseFd(Ref::Slot(99))));
    let fs = StageOp::FsOpen { slot: 99, fstype: "tmpfs".into() };
    refused("unknown descriptor", |p| before(p, |op| *op == StageOp::Pivot, fs));
    refused("a source after they are closed", |p| before(p, is_exec, StageOp::CloseFd(Ref::Source(0))));
}

#[test]
fn paths_that_lead_elsewhere() {
    let target = |path: &str| StageOp::Target { slot: 1, path: path.into(), flags: 0, like: Ref::Nothing };
    for path in ["/a/../b", "..", "/a/.."] {
        refused("leads up", |p| before(p, |op| *op == StageOp::Pivot, target(path)));
        refused("leads up", |p| before(p, |op| *op == StageOp::Pivot, StageOp::Mkdir(path.into())));
    }
    refused("wrong place", |p| before(p, |op| *op == StageOp::Pivot, target("relative")));
    refused("NUL", |p| before(p, |op| *op == StageOp::Pivot, target("/a\0b")));
}

#[test]
fn mounts_that_are_not_there() {
    let kcore = Place { path: "/proc/kcore".into(), anchor: Ref::Slot(6), inside: 6 };
    let mask = |place: Place| StageOp::Mask { place, label: None };
    let bound = |op: &StageOp| matches!(op, StageOp::ChownStdio(_));
    let at = |p: &Program| position(p, |op| matches!(op, StageOp::Mask { .. } | StageOp::Readonly(_)));
    let first = |p: &mut Program, op| p.steps.insert(at(p), step(op));
    // As it is, it is good.
    let mut program = good();
    before(&mut program, bound, mask(kcore.clone()));
    assert_eq!(check::check(&program), Ok(()));
    for place in [
        Place { anchor: Ref::Slot(11), ..kcore.clone() },
        Place { anchor: Ref::Source(0), ..kcore.clone() },
        Place { anchor: Ref::Nothing, ..kcore.clone() },
        Place { path: "/proz/kcore".into(), ..kcore.clone() },
        Place { inside: 7, ..kcore.clone() },
        Place { inside: 0, ..kcore.clone() },
    ] {
        refused("not there", |p| before(p, bound, mask(place)));
    }
    refused("not there", |p| {
        first(p, mask(kcore.clone()));
        first(p, StageOp::CloseFd(Ref::Slot(6)));
    });
    // Somebody else's mount on it, or above it.
    for path in ["/proc", "/"] {
        refused("not there", |p| {
            let pivot = |op: &StageOp| *op == StageOp::Pivot;
            let target = StageOp::Target { slot: 1, path: path.into(), flags: 0, like: Ref::Nothing };
            before(p, pivot, target);
            before(p, pivot, StageOp::Attach { mount: Ref::Source(0), target: Ref::Slot(1) });
        });
    }
    refused("covered already", |p| {
        first(p, StageOp::Readonly(Place::named("/link")));
    });
    refused("something else than the kernel's", |p| {
        let opened = position(p, |op| matches!(op, StageOp::FsOpen { slot: 6, .. }));
        p.steps[opened] = step(StageOp::FsOpen { slot: 6, fstype: "tmpfs".into() });
    });
}

/// What is made read-only by its mount is the kernel's as much as what is masked.
#[test]
fn only_the_kernels_files_are_made_read_only_by_their_mount() {
    let bound = |op: &StageOp| matches!(op, StageOp::ChownStdio(_));
    let dev = good().steps.iter().find_map(|step| match &step.op {
        Op::Stage(StageOp::FsMount { slot, .. }) if step.at == "/mounts/1" => Some(Ref::Slot(*slot)),
        _ => None,
    });
    let place = Place { path: "/dev/x".into(), anchor: dev.unwrap(), inside: 5 };
    refused("something else than the kernel's", |p| before(p, bound, StageOp::Readonly(place)));
    // Another context in its place, and the mount is out of reach.
    refused("not there", |p| {
        let pivot = |op: &StageOp| *op == StageOp::Pivot;
        before(p, pivot, StageOp::FsOpen { slot: 6, fstype: "proc".into() });
    });
}

/// A bind of the host's procfs holds the kernel's files, if the host has seen that it is one.
#[test]
fn a_bound_procfs_is_the_kernels() {
    let bind =
        serde_json::json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
    let bound = compile::create(&cases::plan(&Create::default(), |c| c["mounts"][0] = bind), 40);
    assert_eq!(check::check(&bound), Ok(()));
    let by_source =
        |op: &StageOp| matches!(op, StageOp::Mask { place: Place { anchor: Ref::Source(_), .. }, .. });
    position(&bound, by_source);
    let mut other = bound.clone();
    for source in &mut other.sources {
        if let Source::Tree(tree) = source {
            tree.must = Must::Anything;
        }
    }
    let text = check::check(&other).map_err(|error| error.to_string());
    assert!(text.as_ref().is_err_and(|text| text.contains("something else than the kernel's")), "{text:?}");
}

#[test]
fn writes_outside_of_our_own_procfs() {
    let write = |dir, path: &str| StageOp::Write { dir, path: path.into(), data: "1".into() };
    let bound = |op: &StageOp| matches!(op, StageOp::Bound { .. });
    for dir in [Ref::Nothing, Ref::Source(0), Ref::Slot(2)] {
        refused("outside of our own procfs", |p| before(p, bound, write(dir, "sys/kernel/core_pattern")));
    }
    refused("outside of our own procfs", |p| {
        before(p, bound, write(Ref::Slot(2), "sys/x"));
        before(
            p,
            |op| matches!(op, StageOp::Write { .. }),
            StageOp::FsOpen { slot: 2, fstype: "tmpfs".into() },
        );
    });
    for path in ["sys/../../x", "/sys/x"] {
        refused("path", |p| {
            before(p, bound, write(Ref::Slot(2), path));
            before(
                p,
                |op| matches!(op, StageOp::Write { .. }),
                StageOp::FsOpen { slot: 2, fstype: "proc".into() },
            );
        });
    }
}

#[test]
fn an_exec_that_keeps_something() {
    type Wanted = fn(&StageOp) -> bool;
    let needed: [Wanted; 6] = [
        |op| matches!(op, StageOp::Bound { .. }),
        |op| matches!(op, StageOp::Groups { .. }),
        |op| matches!(op, StageOp::SetIds { .. }),
        |op| matches!(op, StageOp::Capset { .. }),
        |op| matches!(op, StageOp::Lookup(_)),
        |op| matches!(op, StageOp::Close { .. }),
    ];
    for wanted in needed {
        let mut program = good();
        program.steps.remove(position(&program, wanted));
        assert!(check::check(&program).is_err());
    }
    refused("no_new_privs", |p| {
        before(p, is_exec, filter());
        p.steps.remove(position(p, |op| *op == StageOp::NoNewPrivs));
    });
}

fn filter() -> StageOp {
    StageOp::Seccomp { filter: vec![0], flags: 0, listener: None }
}

#[test]
fn a_filter_in_the_wrong_place() {
    let hook = |p: &mut Program| {
        let hook = Hook {
            at: String::new(),
            path: "/h".into(),
            args: vec![],
            env: Some(vec![]),
            timeout: None,
            output: None,
        };
        let state = std::sync::Arc::new((String::new(), String::new()));
        let hook = StageOp::Hook { number: 0, kind: "startContainer", hook: Box::new(hook), state, avoid: 0 };
        before(p, is_exec, hook);
    };
    // As it should be.
    let mut program = good();
    before(&mut program, is_exec, filter());
    hook(&mut program);
    assert_eq!(check::check(&program), Ok(()));
    refused("Filter after StartHooks", |p| {
        hook(p);
        before(p, is_exec, filter());
    });
    refused("Gate after Filter", |p| before(p, |op| matches!(op, StageOp::Gate), filter()));
    refused("before the descriptors are closed", |p| {
        before(p, |op| matches!(op, StageOp::Lookup(_)), filter())
    });
}

#[test]
fn what_is_lent_and_not_given_back() {
    let capset = |op: &StageOp| matches!(op, StageOp::Capset { .. });
    let lend = StageOp::LendAdmin { effective: 0, permitted: 0, inheritable: 0 };
    let lending = |p: &mut Program| {
        let at = position(p, capset);
        let back = std::mem::replace(&mut p.steps[at], step(lend.clone()));
        p.steps.remove(position(p, |op| *op == StageOp::NoNewPrivs));
        let close = position(p, |op| matches!(op, StageOp::Close { .. }));
        p.steps.insert(close + 1, step(filter()));
        p.steps.insert(close + 2, back);
    };
    let mut program = good();
    lending(&mut program);
    assert_eq!(check::check(&program), Ok(()));
    refused("a lent capability stays", |p| {
        lending(p);
        p.steps.remove(position(p, capset));
    });
    refused("before the filter that it is for", |p| {
        lending(p);
        p.steps.remove(position(p, |op| *op == filter()));
    });
    refused("the descriptors are closed", |p| {
        lending(p);
        p.steps.remove(position(p, |op| *op == filter()));
        before(p, |op| matches!(op, StageOp::Close { .. }), filter());
    });
}

#[test]
fn a_hop_that_brings_something_along() {
    refused("into a pid namespace", |p| {
        p.steps.insert(0, step(StageOp::Setns { from: Ref::Nothing, kinds: 0x2000_0000 }));
        before(p, |op| matches!(op, StageOp::Bound { .. }), StageOp::Hop(0));
    });
}

/// `exec` hops into the container's pid namespace: by then the process has nothing that those inside could take.
#[test]
fn an_exec_that_hops_in_with_more_than_it_is_to_have() {
    let exec = || {
        let plan = cases::plan(&Create::default(), |_| {});
        compile::exec(&cases::entry(&plan, cases::way_in(false)), plan.process.as_ref().unwrap())
    };
    assert_eq!(check::check(&exec()), Ok(()));
    let late: [fn(&StageOp) -> bool; 3] = [
        |op| matches!(op, StageOp::Close { .. }),
        |op| matches!(op, StageOp::SetIds { .. }),
        |op| matches!(op, StageOp::Capset { .. }),
    ];
    for wanted in late {
        let mut program = exec();
        program.steps.remove(position(&program, wanted));
        let text = check::check(&program).unwrap_err().to_string();
        assert!(text.contains("a hop into a pid namespace that exists"), "{text}");
    }
}

/// What is restored is put where it goes, compared, and let go, in this order, each once.
#[test]
fn a_restore_out_of_order() {
    let restore = || compile::restore(&cases::plan(&Create::default(), |_| {}));
    assert_eq!(check::check(&restore()), Ok(()));
    let at = |program: &Program, wanted: fn(&HostOp) -> bool| {
        program.steps.iter().position(|step| matches!(&step.op, Op::Host(op) if wanted(op))).unwrap()
    };
    let compare = |op: &HostOp| matches!(op, HostOp::Compare);
    let resume = |op: &HostOp| matches!(op, HostOp::Resume);
    let record = |op: &HostOp| matches!(op, HostOp::Record);
    for (one, other) in [(compare as fn(&HostOp) -> bool, resume as fn(&HostOp) -> bool), (record, resume)] {
        let mut program = restore();
        let (one, other) = (at(&program, one), at(&program, other));
        program.steps.swap(one, other);
        assert!(check::check(&program).is_err(), "{one} {other}");
    }
    for wanted in [compare as fn(&HostOp) -> bool, resume, record] {
        let mut program = restore();
        program.steps.remove(at(&program, wanted));
        assert!(check::check(&program).is_err());
    }
    // Sources are there before CRIU is asked for anything.
    let mut program = restore();
    let open = program.steps.iter().rposition(|step| matches!(step.op, Op::Host(HostOp::Open(_)))).unwrap();
    let late = program.steps.remove(open);
    let points = at(&program, |op| matches!(op, HostOp::MountPoints(_)));
    program.steps.insert(points + 1, late);
    assert!(check::check(&program).is_err());
    let mut program = restore();
    program.steps.push(step(StageOp::Signals(0)));
    assert!(check::check(&program).is_err());
}

#[test]
fn an_end_that_is_none() {
    refused("no exec at the end", |p| drop(p.steps.pop()));
    refused("after the exec", |p| p.steps.push(p.steps[p.steps.len() - 1].clone()));
    refused("after the exec", |p| p.steps.push(step(StageOp::Signals(0))));
    assert!(check::check(&Program::default()).is_err());
}

/// What holds a pod's namespaces: nothing comes after it, it keeps nothing, and parameters are those of where it is in the end.
#[test]
fn holders_that_are_wrong() {
    let hold = || {
        let plan = cases::plan(&Create::default(), |config| {
            config["linux"]["sysctl"] = serde_json::json!({"kernel.shmmax": "1"});
        });
        compile::hold(&plan, 40)
    };
    assert_eq!(check::check(&hold()), Ok(()));
    let refused = |words: &str, change: &dyn Fn(&mut Program)| {
        let mut program = hold();
        change(&mut program);
        let text = check::check(&program).map_err(|error| error.to_string());
        assert!(text.as_ref().is_err_and(|text| text.contains(words)), "{words:?}: {text:?}");
    };
    refused("after the exec", &|p| p.steps.push(step(StageOp::Setsid)));
    refused("a holder that keeps", &|p| {
        p.steps.retain(|step| !matches!(step.op, Op::Stage(StageOp::Capset { .. })));
    });
    refused("a namespace after a kernel parameter", &|p| {
        let at = position(p, |op| matches!(op, StageOp::Write { .. }));
        p.steps.insert(at + 1, step(StageOp::Unshare(0x800_0000)));
    });
}
