// SPDX-License-Identifier: Apache-2.0
//! The bytes that the stage reads: every offset in bounds, every array aligned, every operation known.

use std::collections::HashSet;
use std::sync::Arc;

use corten::cgroup::WayIn;
use corten::plan::hooks::Hook;
use corten::plan::mempolicy::MemPolicy;
use corten::plan::mounts::{Attrs, Propagation};
use corten::program::encode::encode;
use corten::program::op::{Must, Tree};
use corten::program::place::Place;
use corten::program::{Op, Program, Ref, StageOp, Step, compile};
use corten::stage::wire::{self, Rec, code};

use crate::cases::{self, Random};
use crate::decoded::{Decoded, roundtrip};

#[test]
fn any_program_reads_back() {
    cases::golden().iter().for_each(|(_, program)| roundtrip(program));
    let mut random = Random(0xD1B5_4A32_D192_ED03);
    for plan in (0..600).filter_map(|_| cases::random(&mut random)) {
        roundtrip(&compile::create(&plan, 40));
        if let Some(process) = &plan.process {
            roundtrip(&compile::exec(&cases::entry(&plan, WayIn::Born), process));
        }
    }
}

#[test]
fn a_megabyte_of_environment_reads_back() {
    let env: Vec<String> = (0..10_000).map(|n| format!("V{n}={}", "x".repeat(100))).collect();
    let program = compile::create(
        &cases::plan(&corten::ask::Create::default(), |c| c["process"]["env"] = serde_json::json!(env)),
        40,
    );
    roundtrip(&program);
}

macro_rules! operations {
    ($($operation:pat,)*) => {
        /// The compiler refuses a match that misses a variant: a new operation must be added to `all` as well.
        fn known(op: &StageOp) {
            use StageOp::*;
            match op {
                $($operation => {})*
            }
        }

        const OPERATIONS: usize = [$(stringify!($operation)),*].len();
    };
}

operations! {
    Signals(_),
    Setns { .. },
    Unshare(_),
    Hop(_),
    BecomeRoot,
    Keyring { .. },
    Setsid,
    Loopback,
    Barrier { .. },
    Hostname(_),
    Domainname(_),
    Propagate(_),
    Attach { .. },
    AttachHost { .. },
    ChdirHost(_),
    Root(_),
    Target { .. },
    FsOpen { .. },
    FsSet { .. },
    FsMode { .. },
    FsMount { .. },
    MountClassic { .. },
    SetAttr { .. },
    CopyUp { .. },
    Mknod { .. },
    Symlink { .. },
    Mkdir(_),
    Mask { .. },
    Readonly(_),
    Pivot,
    MoveRoot(_),
    Write { .. },
    Console { .. },
    ConsoleBind(_),
    ConsoleStdio(_),
    ConsoleControl,
    ChownStdio(_),
    Umask(_),
    Personality(_),
    NoNewPrivs,
    Chdir { .. },
    Groups { .. },
    SetIds { .. },
    Bound { .. },
    Capset { .. },
    LendAdmin { .. },
    Ambient(_),
    Seccomp { .. },
    Lookup(_),
    Home(_),
    Gate,
    Disown,
    Hold(_),
    Hook { .. },
    Close { .. },
    Rlimits { .. },
    Chroot(_),
    CloseFd(_),
    Label { .. },
    ProcOf { .. },
    JoinSent(_),
    AttachOrLink { .. },
    KeepGroups,
    DropGroups,
    OpenTree { .. },
    CopyInside { .. },
    Unmount { .. },
    MemPolicy(_),
    Exec { .. },
}

fn all() -> Vec<StageOp> {
    let (text, none, attrs) = (String::new, Ref::Nothing, Attrs::default());
    let tree = Tree {
        path: "/a".into(),
        recursive: true,
        nofollow: false,
        attrs,
        all_attrs: attrs,
        propagation: vec![],
        idmap: None,
        must: Must::Directory,
    };
    let hook =
        Hook { at: text(), path: text(), args: vec![], env: Some(vec![]), timeout: None, output: None };
    vec![
        StageOp::Signals(0),
        StageOp::Setns { from: none, kinds: 0 },
        StageOp::Unshare(0),
        StageOp::Hop(0),
        StageOp::BecomeRoot,
        StageOp::Keyring { name: text(), new: true },
        StageOp::Setsid,
        StageOp::Loopback,
        StageOp::JoinSent(0),
        StageOp::Barrier { barrier: 1, fd: none },
        StageOp::Hostname(text()),
        StageOp::Domainname(text()),
        StageOp::Propagate(Propagation { flag: 0, recursive: false }),
        StageOp::Attach { mount: none, target: none },
        StageOp::AttachHost { mount: none, path: text() },
        StageOp::ChdirHost(text()),
        StageOp::Root(none),
        StageOp::Target { slot: 0, path: text(), flags: 0, like: none },
        StageOp::FsOpen { slot: 0, fstype: text() },
        StageOp::ProcOf { slot: 0, namespace: none },
        StageOp::FsSet { slot: 0, key: text(), value: Some(text()) },
        StageOp::FsSet { slot: 0, key: text(), value: None },
        StageOp::FsMode { slot: 0, target: 0 },
        StageOp::FsMount { slot: 0, attrs: 0 },
        StageOp::MountClassic { slot: 0, fstype: text(), source: text(), flags: 0, data: text() },
        StageOp::SetAttr { mount: none, attrs, propagation: 0, recursive: false },
        StageOp::CopyUp { slot: 0, target: 0 },
        StageOp::Mknod { place: Place::named(""), mode: 0, rdev: 0, uid: 0, gid: 0 },
        StageOp::Symlink { place: Place::named(""), target: text() },
        StageOp::Mkdir(text()),
        StageOp::Mask { place: Place::named(""), label: None },
        StageOp::Readonly(Place::named("")),
        StageOp::Pivot,
        StageOp::MoveRoot(Vec::new()),
        StageOp::AttachOrLink { mount: none, slot: 0, path: text(), flags: 0 },
        StageOp::KeepGroups,
        StageOp::MemPolicy(MemPolicy { mode: 0, nodes: vec![] }),
        StageOp::Write { dir: none, path: text(), data: text() },
        StageOp::Console { master: 0, terminal: 0, size: None },
        StageOp::ConsoleBind(0),
        StageOp::ConsoleStdio(0),
        StageOp::ConsoleControl,
        StageOp::ChownStdio(0),
        StageOp::Umask(0),
        StageOp::Personality(0),
        StageOp::NoNewPrivs,
        StageOp::Chdir { path: text(), again: false },
        StageOp::Groups { gids: vec![], may_keep: false },
        StageOp::SetIds { uid: 0, gid: 0 },
        StageOp::Bound { keep: 0, last: 0 },
        StageOp::Capset { effective: 0, permitted: 0, inheritable: 0 },
        StageOp::LendAdmin { effective: 0, permitted: 0, inheritable: 0 },
        StageOp::Ambient(0),
        StageOp::Seccomp { filter: vec![], flags: 0, listener: None },
        StageOp::Lookup(vec![]),
        StageOp::Home(0),
        StageOp::Gate,
        StageOp::Disown,
        StageOp::Hold(text()),
        StageOp::Hook {
            number: 0,
            kind: "",
            hook: Box::new(hook),
            state: Arc::new((text(), text())),
            avoid: 0,
        },
        StageOp::Close { from: 3, gate: none, outcome: none, slot: None },
        StageOp::Rlimits { limits: vec![], set: false },
        StageOp::Chroot(none),
        StageOp::CloseFd(none),
        StageOp::DropGroups,
        StageOp::OpenTree { into: none, tree },
        StageOp::CopyInside { slot: 0, path: text(), recursive: true, nofollow: false, must: Must::Anything },
        StageOp::Label { slot: 0, label: text() },
        StageOp::Unmount { slot: 0, place: none, proc: none },
        StageOp::Exec { args: vec![], env: vec![], home: false },
    ]
}

#[test]
fn every_operation_has_a_code_of_its_own() {
    let steps = all().into_iter().map(|op| Step { at: String::new(), op: Op::Stage(op) }).collect();
    let program = Program { sources: vec![], steps };
    let decoded = Decoded::new(&encode(&program, &[], &[], 3));
    let kinds: HashSet<_> = all().iter().inspect(|op| known(op)).map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), OPERATIONS);
    let mut codes: Vec<u16> = decoded.records.iter().map(|rec| rec.code).collect();
    assert!(codes.iter().all(|code| *code != 0), "{codes:?}");
    let count = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), count, "two operations with one code");
    assert!(codes.contains(&code::FS_FLAG) && codes.contains(&code::FS_SET));
}

/// The layout that both compilations of `stage/wire.rs` rely on.
#[test]
fn layout() {
    assert_eq!((size_of::<wire::Header>(), size_of::<Rec>(), align_of::<Rec>()), (32, 40, 8));
    assert_eq!((size_of::<wire::HookRec>(), size_of::<wire::RlimitRec>()), (28, 24));
    let message = wire::Message { kind: 1, barrier: 2, zero: 0, op: 3, errno: -4, aux: 5 };
    assert_eq!(wire::Message::from_bytes(message.bytes()), message);
}
