// SPDX-License-Identifier: Apache-2.0
//! THE ORDER as rules of its own, held against any program: what must come before what, and how the two sides meet.

use corten::plan::namespaces::NsKind;
use corten::program::place::{Place, inside};
use corten::program::{HostOp, Op, Program, Ref, StageOp, check, compile};
use corten::stage::wire::barrier;

use crate::cases::{self, Random, stage};

/// Every step of the first name comes before every step of the second.
const BEFORE: [(&str, &str); 50] = [
    ("Signals", "Setns"),
    ("Setns", "Keyring"),
    ("Setns", "Propagate"),
    ("Unshare", "Propagate"),
    ("Keyring", "SetIds"),
    ("Propagate", "AttachHost"),
    ("AttachHost", "Target"),
    ("AttachHost", "Attach"),
    ("Attach", "Pivot"),
    ("Attach", "MoveRoot"),
    ("Mknod", "Pivot"),
    ("Symlink", "Pivot"),
    ("Mkdir", "Pivot"),
    ("ConsoleBind", "Pivot"),
    ("ChdirHost", "Pivot"),
    ("Console", "ConsoleStdio"),
    ("ConsoleStdio", "ChownStdio"),
    ("ConsoleStdio", "ConsoleControl"),
    ("Setsid", "ConsoleControl"),
    ("Pivot", "Readonly"),
    ("Pivot", "Mask"),
    ("Mask", "ChownStdio"),
    ("Pivot", "Chdir"),
    ("ChownStdio", "SetIds"),
    ("Home", "SetIds"),
    ("Write", "Bound"),
    ("NoNewPrivs", "Seccomp"),
    ("NoNewPrivs", "Bound"),
    ("Personality", "Seccomp"),
    ("Bound", "SetIds"),
    ("Groups", "SetIds"),
    ("KeepGroups", "SetIds"),
    ("MemPolicy", "Seccomp"),
    ("MemPolicy", "SetIds"),
    ("AttachOrLink", "Pivot"),
    ("SetIds", "Capset"),
    ("SetIds", "LendAdmin"),
    ("LendAdmin", "Ambient"),
    ("LendAdmin", "Seccomp"),
    ("LendAdmin", "Capset"),
    ("LendAdmin", "Lookup"),
    ("Ambient", "Lookup"),
    ("Close", "Seccomp"),
    ("Capset", "Gate"),
    ("Lookup", "Close"),
    ("Umask", "Close"),
    ("Chdir", "Close"),
    ("Close", "Gate"),
    ("Gate", "Exec"),
    ("Close", "Exec"),
];

fn name(op: &StageOp) -> String {
    let text = format!("{op:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// Everything that is true of any program.
fn holds(program: &Program) {
    assert_eq!(check::check(program), Ok(()), "{program:#?}");
    network(program);
    let ops = stage(program);
    hardening(&ops);
    let names: Vec<String> = ops.iter().map(|op| name(op)).collect();
    for (first, second) in BEFORE {
        let last = names.iter().rposition(|name| name == first);
        let next = names.iter().position(|name| name == second);
        if let (Some(last), Some(next)) = (last, next) {
            assert!(last < next, "{first} ({last}) is not before {second} ({next}): {names:#?}");
        }
    }
    let count = |wanted: &str| names.iter().filter(|name| *name == wanted).count();
    let executes = count("Exec");
    for once in ["Bound", "SetIds", "Capset", "Lookup", "Umask"] {
        // Without a process, what waits in a pid namespace of others has nothing, either.
        assert!(count(once) <= 1 && (executes == 0 || count(once) == 1), "{once}: {names:#?}");
    }
    assert!(count("LendAdmin") <= executes, "{names:#?}");
    let groups = count("Groups") + count("KeepGroups");
    assert!(groups <= 1 && (executes == 0 || groups == 1), "{names:#?}");
    assert_eq!(count("Close"), 1);
    assert!(
        count("Gate") <= 1 && count("Hop") <= 1 && count("Pivot") + count("MoveRoot") + count("Chroot") <= 1
    );
    filter(&ops, &names);
    meetings(program);
    host(program);
}

/// What lies in a procfs or sysfs of our own is never looked up by name alone; what is, comes last; and of each kind what is
/// hidden comes after what is made read-only.
fn hardening(ops: &[&StageOp]) {
    let mut steps: Vec<(bool, bool, &Place)> = Vec::new();
    let (mut target, mut fresh): (&str, Vec<(&str, &str)>) = ("", Vec::new());
    let mut fstype = "";
    for op in ops {
        match op {
            StageOp::Target { path, .. } => target = path,
            StageOp::FsOpen { fstype: of, .. } => fstype = of,
            StageOp::Attach { mount: Ref::Slot(_), .. } => {
                fresh.retain(|(at, _)| *at != target && inside(target, at).is_none());
                fresh.push((target, fstype));
            }
            StageOp::Attach { .. } | StageOp::MountClassic { .. } => {
                fresh.retain(|(at, _)| *at != target && inside(target, at).is_none());
            }
            StageOp::Readonly(place) => steps.push((!place.is_anchored(), false, place)),
            StageOp::Mask { place, .. } => steps.push((!place.is_anchored(), true, place)),
            _ => {}
        }
    }
    assert!(steps.is_sorted_by_key(|(named, hidden, _)| (*named, *hidden)), "{steps:#?}");
    for (_, hidden, place) in steps.iter().filter(|(named, ..)| *named) {
        let kernels = |(at, fstype): &&(&str, &str)| {
            inside(at, &place.path).is_some() && matches!(*fstype, "proc" | "sysfs") && *at != "/"
        };
        let anchored = |(named, other, first): &(bool, bool, &Place)| {
            !named && other == hidden && first.path == place.path
        };
        let ours = fresh.iter().find(kernels);
        assert!(ours.is_none() || steps.iter().any(anchored), "{place:?} lies in {ours:?}: {ops:#?}");
    }
}

/// With no_new_privs the filter is the last thing but the startContainer hooks, which run under it. Without, or with an agent,
/// it comes before Ready (in an `exec` at times after it, but never after the exec), and what was lent for it goes at once. No filter
/// comes before anything that could have been done without it.
fn filter(ops: &[&StageOp], names: &[String]) {
    let Some(at) = names.iter().position(|name| name == "Seccomp") else { return };
    let StageOp::Seccomp { listener, .. } = ops[at] else { unreachable!() };
    let start_hook = |op: &&StageOp| matches!(op, StageOp::Hook { kind: "startContainer", .. });
    let after = &ops[at + 1..];
    assert!(!ops[..at].iter().any(start_hook), "{names:#?}");
    if listener.is_none() && names.iter().any(|name| name == "NoNewPrivs") {
        let rest = after.iter().find(|op| !start_hook(op));
        assert!(matches!(rest, Some(StageOp::Exec { .. })), "{names:#?}");
        assert!(!names.iter().any(|name| name == "LendAdmin"), "{names:#?}");
    } else {
        const LEFT: [&str; 10] = [
            "Barrier",
            "Capset",
            "Gate",
            "Hook",
            "Hop",
            "Setsid",
            "ConsoleControl",
            "CloseFd",
            "Rlimits",
            "Exec",
        ];
        assert!(names[at + 1..].iter().all(|name| LEFT.contains(&name.as_str())), "{names:#?}");
    }
    if names.iter().any(|name| name == "LendAdmin") {
        let next = after.iter().find(|op| !matches!(op, StageOp::Barrier { .. }));
        assert!(matches!(next, Some(StageOp::Capset { .. })), "{names:#?}");
    }
}

/// The stage waits as often as it is told to go on, and says what the host waits for, in the same order.
fn meetings(program: &Program) {
    let mut waits = 0_i32;
    let mut said: Vec<u8> = Vec::new();
    for step in &program.steps {
        match &step.op {
            Op::Host(HostOp::Clone { wait, .. }) => waits += i32::from(*wait),
            Op::Stage(StageOp::Barrier { barrier, .. }) => {
                said.push(*barrier);
                waits += 1;
            }
            Op::Stage(StageOp::Hop(_)) => {
                said.push(barrier::HOP);
                waits += 1;
            }
            Op::Host(HostOp::Await(barrier)) => assert_eq!(said.pop(), Some(*barrier)),
            Op::Host(HostOp::Adopt) => assert_eq!(said.pop(), Some(barrier::HOP)),
            Op::Host(HostOp::Release) => waits -= 1,
            _ => {}
        }
        assert!((0..=1).contains(&waits), "{waits} at {step:?}: {program:#?}");
    }
    assert_eq!((waits, said.len()), (0, 0), "{program:#?}");
}

/// The host: nothing is made before the id is taken, all is open before the clone, recorded once and at the end.
fn host(program: &Program) {
    let at = |wanted: fn(&HostOp) -> bool| {
        program.steps.iter().position(|step| matches!(&step.op, Op::Host(op) if wanted(op)))
    };
    let clone = at(|op| matches!(op, HostOp::Clone { .. })).unwrap();
    let opens = program.steps.iter().rposition(|step| matches!(step.op, Op::Host(HostOp::Open(_))));
    assert!(opens < Some(clone));
    if let (Some(reserve), Some(group)) =
        (at(|op| matches!(op, HostOp::Reserve)), at(|op| matches!(op, HostOp::Cgroup)))
    {
        assert!(reserve < group && group < clone);
    }
    if let Some(placed) = at(|op| matches!(op, HostOp::Place)) {
        assert!(placed == clone + 1 || placed == clone + 2, "{program:#?}");
    }
    let record = at(|op| matches!(op, HostOp::Record)).unwrap();
    let release = program.steps.iter().rposition(|step| step.op == Op::Host(HostOp::Release)).unwrap();
    assert_eq!(release, record + 1);
}

/// A network namespace that the host makes is joined once, before anything that depends on it, and its message cannot
/// be taken for another one.
fn network(program: &Program) {
    let at = |wanted: &dyn Fn(&Op) -> bool| program.steps.iter().position(|step| wanted(&step.op));
    let joins: Vec<usize> = (0..program.steps.len())
        .filter(|index| matches!(program.steps[*index].op, Op::Stage(StageOp::JoinSent(_))))
        .collect();
    let Some(made) = at(&|op| *op == Op::Host(HostOp::Network)) else {
        assert!(joins.is_empty(), "{program:#?}");
        return;
    };
    let &[join] = joins.as_slice() else { panic!("{program:#?}") };
    assert!(at(&|op| matches!(op, Op::Host(HostOp::Clone { .. }))) < Some(made) && made < join);
    let between = &program.steps[made..join];
    assert!(!between.iter().any(|step| step.op == Op::Host(HostOp::Release)), "{program:#?}");
    for step in &program.steps[..join] {
        let early = match &step.op {
            Op::Stage(StageOp::FsOpen { fstype, .. }) => fstype == "sysfs",
            Op::Stage(op) => matches!(op, StageOp::Hook { .. } | StageOp::Pivot | StageOp::Loopback),
            Op::Host(op) => matches!(op, HostOp::Hooks | HostOp::Record),
            Op::Criu(_) => false,
        };
        assert!(!early, "{step:?} before {join}: {program:#?}");
    }
}

#[test]
fn any_program_is_in_order() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut planned, mut refused) = (0, 0);
    for _ in 0..4000 {
        let Some(plan) = cases::random(&mut random) else {
            refused += 1;
            continue;
        };
        planned += 1;
        holds(&compile::create(&plan, 40));
        if !plan.copies_inside {
            let restore = compile::restore(&plan);
            assert_eq!(check::check(&restore), Ok(()), "{restore:#?}");
        }
        if !plan.namespaces.join.iter().any(|join| matches!(join.kind, NsKind::Pid | NsKind::Mount)) {
            let hold = compile::hold(&plan, 40);
            holds(&hold);
            assert!(matches!(stage(&hold).last(), Some(StageOp::Hold(_))), "{hold:#?}");
        }
        if let Some(process) = &plan.process {
            let way_in = cases::way_in(random.below(2) == 0);
            holds(&compile::exec(&cases::entry(&plan, way_in), process));
        }
    }
    assert!(planned > 1000 && refused > 10, "{planned} planned, {refused} refused");
}

#[test]
fn golden_programs_are_in_order() {
    cases::golden().iter().for_each(|(_, program)| holds(program));
}

/// What `exec` shows to the container's processes has nothing left to take.
#[test]
fn exec_hops_as_the_user_with_the_users_capabilities() {
    for (name, program) in cases::golden().into_iter().filter(|(name, _)| name.starts_with("exec")) {
        let names: Vec<String> = stage(&program).iter().map(|op| self::name(op)).collect();
        let at = |wanted: &str| names.iter().position(|name| name == wanted);
        assert!(at("Setns") < at("Hop"), "{name}");
        let given = at("LendAdmin").max(at("Capset").filter(|_| at("LendAdmin").is_none()));
        assert!(given < at("Hop") && at("Close") < at("Hop"), "{name}: {names:#?}");
        assert!(at("SetIds") < at("Hop"), "{name}: {names:#?}");
        assert!(at("Hop") < at("Setsid"), "{name}");
    }
}
