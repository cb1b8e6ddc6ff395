// SPDX-License-Identifier: Apache-2.0
//! Each operation's record, as `stage/wire.rs` says it.

use std::sync::Arc;

use corten::plan::hooks::Hook;
use corten::plan::mempolicy::MemPolicy;
use corten::plan::mounts::{Attrs, Propagation};
use corten::program::encode::encode;
use corten::program::op::{Must, Tree};
use corten::program::place::Place;
use corten::program::{Op, Program, Ref, StageOp, Step};
use corten::stage::wire::{self, Rec, code, slot};

use crate::decoded::Decoded;

/// Where the offset of a text is.
#[derive(Clone, Copy, Debug)]
enum In {
    S,
    T,
    X,
    B,
}
use In::{B, S, T, X};

/// The fds of the program's two sources.
const FDS: [i32; 2] = [70, 71];
const NONE: Rec = Rec { code: 0, y: 0, r: wire::NONE, q: wire::NONE, x: 0, a: 0, b: 0, s: 0, t: 0 };
const WIDE: u64 = 0x0102_0304_0506_0708;
const AT_RECURSIVE: u32 = 0x8000;
const AT_SYMLINK_NOFOLLOW: u32 = 0x100;

fn decoded(op: &StageOp) -> Decoded {
    let step = Step { at: String::new(), op: Op::Stage(op.clone()) };
    Decoded::new(&encode(&Program { sources: vec![], steps: vec![step] }, &FDS, &[], 3))
}

/// The record has these texts at its offsets, and beside them what `wanted` has.
#[track_caller]
fn check(op: StageOp, texts: &[(In, &str)], wanted: Rec) {
    let decoded = decoded(&op);
    let mut rec = decoded.records[0];
    for (place, text) in texts {
        let at = match place {
            S => std::mem::take(&mut rec.s),
            T => std::mem::take(&mut rec.t),
            X => std::mem::take(&mut rec.x),
            B => std::mem::take(&mut rec.b) as u32,
        };
        assert_eq!(decoded.text(at), *text, "{op:?}: {place:?}");
    }
    let all = |rec: Rec| (rec.code, rec.y, rec.r, rec.q, rec.x, rec.a, rec.b, rec.s, rec.t);
    assert_eq!(all(rec), all(wanted), "{op:?}");
}

#[test]
fn descriptors_and_namespaces() {
    let op = |code| Rec { code, ..NONE };
    check(
        StageOp::Setns { from: Ref::Source(1), kinds: 0x2000_0000 },
        &[],
        Rec { r: 71, x: 0x2000_0000, ..op(code::SETNS) },
    );
    check(StageOp::Setns { from: Ref::Slot(3), kinds: 0 }, &[], Rec { r: -4, ..op(code::SETNS) });
    check(StageOp::Unshare(WIDE), &[], Rec { a: WIDE, ..op(code::UNSHARE) });
    check(StageOp::Hop(WIDE), &[], Rec { a: WIDE, x: 2, ..op(code::HOP) });
    check(StageOp::JoinSent(0x80), &[], Rec { x: 0x80, ..op(code::JOIN_SENT) });
    check(StageOp::Keyring { name: "k".into(), new: true }, &[(S, "k")], Rec { y: 1, ..op(code::KEYRING) });
    check(StageOp::Keyring { name: "k".into(), new: false }, &[(S, "k")], op(code::KEYRING));
    check(StageOp::Barrier { barrier: 6, fd: Ref::Slot(0) }, &[], Rec { x: 6, r: -1, ..op(code::BARRIER) });
    let close = StageOp::Close { from: 5, gate: Ref::Source(0), outcome: Ref::Source(1), slot: Some(2) };
    check(close, &[], Rec { x: 5, r: 70, s: 71, q: slot(2), ..op(code::CLOSE) });
    let close = StageOp::Close { from: 3, gate: Ref::Nothing, outcome: Ref::Nothing, slot: None };
    check(close, &[], Rec { x: 3, s: wire::NONE as u32, ..op(code::CLOSE) });
    check(StageOp::CloseFd(Ref::Source(0)), &[], Rec { r: 70, ..op(code::CLOSE_FD) });
    let unmount = StageOp::Unmount { slot: 1, place: Ref::Source(0), proc: Ref::Source(1) };
    check(unmount, &[(S, "self/fd/70")], Rec { r: slot(1), q: 70, x: 71, ..op(code::UNMOUNT) });
    check(StageOp::Hold("pause".into()), &[(S, "pause")], op(code::HOLD));
    let write = StageOp::Write { dir: Ref::Source(0), path: "p".into(), data: "d".into() };
    check(write, &[(S, "p"), (T, "d")], Rec { r: 70, ..op(code::WRITE) });
    check(StageOp::Signals(1 << 12), &[], Rec { a: 1 << 12, ..op(code::SIGNALS) });
    for (operation, code) in [
        (StageOp::BecomeRoot, code::BECOME_ROOT),
        (StageOp::Setsid, code::SETSID),
        (StageOp::Loopback, code::LOOPBACK),
        (StageOp::Gate, code::GATE),
        (StageOp::Disown, code::DISOWN),
        (StageOp::ConsoleControl, code::CONSOLE_CONTROL),
        (StageOp::Pivot, code::PIVOT),
        (StageOp::NoNewPrivs, code::NO_NEW_PRIVS),
        (StageOp::KeepGroups, code::KEEP_GROUPS),
        (StageOp::DropGroups, code::DROP_GROUPS),
    ] {
        check(operation, &[], op(code));
    }
}

#[test]
fn terminals() {
    let console = |size| StageOp::Console { master: 1, terminal: 2, size };
    let rec = Rec { code: code::CONSOLE, r: slot(1), q: slot(2), ..NONE };
    check(console(None), &[], rec);
    check(console(Some((24, 80))), &[], Rec { a: 1 << 32 | 24 << 16 | 80, ..rec });
    // The size of nothing is a size.
    check(console(Some((0, 0))), &[], Rec { a: 1 << 32, ..rec });
    check(StageOp::ConsoleBind(2), &[], Rec { code: code::CONSOLE_BIND, r: slot(2), ..NONE });
    check(StageOp::ConsoleStdio(2), &[], Rec { code: code::CONSOLE_STDIO, r: slot(2), ..NONE });
    check(StageOp::ChownStdio(7), &[], Rec { code: code::CHOWN_STDIO, x: 7, ..NONE });
}

#[test]
fn mounts() {
    let op = |code| Rec { code, ..NONE };
    for (recursive, flags) in [(false, 0x4_0000), (true, 0x4_4000)] {
        let change = Propagation { flag: 0x4_0000, recursive };
        check(StageOp::Propagate(change), &[(S, "/")], Rec { a: flags, ..op(code::PROPAGATE) });
    }
    check(
        StageOp::Attach { mount: Ref::Slot(1), target: Ref::Slot(2) },
        &[],
        Rec { r: -2, q: -3, ..op(code::ATTACH) },
    );
    let link =
        |path: &str| StageOp::AttachOrLink { mount: Ref::Source(0), slot: 4, path: path.into(), flags: 9 };
    let rec = Rec { r: slot(4), q: 70, y: 9, ..op(code::ATTACH_OR_LINK) };
    check(link("/a/b"), &[(S, "/a/b"), (T, "/a"), (X, "b")], rec);
    check(link("/a"), &[(S, "/a"), (T, "/"), (X, "a")], rec);
    check(
        StageOp::AttachHost { mount: Ref::Source(1), path: "/h".into() },
        &[(S, "/h")],
        Rec { r: 71, ..op(code::ATTACH_HOST) },
    );
    check(StageOp::ChdirHost("/h".into()), &[(S, "/h")], op(code::CHDIR_HOST));
    check(StageOp::Root(Ref::Slot(0)), &[], Rec { r: -1, ..op(code::ROOT) });
    let target = StageOp::Target { slot: 3, path: "/t".into(), flags: 5, like: Ref::Source(0) };
    check(target, &[(S, "/t")], Rec { r: slot(3), q: 70, y: 5, ..op(code::TARGET) });
    check(
        StageOp::FsOpen { slot: 1, fstype: "proc".into() },
        &[(S, "proc")],
        Rec { r: slot(1), ..op(code::FS_OPEN) },
    );
    check(
        StageOp::ProcOf { slot: 1, namespace: Ref::Source(1) },
        &[],
        Rec { r: slot(1), q: 71, ..op(code::PROC_OF) },
    );
    let set = StageOp::FsSet { slot: 1, key: "size".into(), value: Some("1k".into()) };
    check(set, &[(S, "size"), (T, "1k")], Rec { r: slot(1), ..op(code::FS_SET) });
    check(
        StageOp::FsSet { slot: 1, key: "ro".into(), value: None },
        &[(S, "ro")],
        Rec { r: slot(1), ..op(code::FS_FLAG) },
    );
    check(StageOp::FsMode { slot: 1, target: 2 }, &[], Rec { r: slot(1), q: slot(2), ..op(code::FS_MODE) });
    check(StageOp::FsMount { slot: 1, attrs: WIDE }, &[], Rec { r: slot(1), a: WIDE, ..op(code::FS_MOUNT) });
    let classic = StageOp::MountClassic {
        slot: 1,
        fstype: "nfs".into(),
        source: "host:/".into(),
        flags: WIDE,
        data: "hard".into(),
    };
    check(
        classic,
        &[(S, "nfs"), (T, "host:/"), (B, "hard")],
        Rec { r: slot(1), a: WIDE, ..op(code::MOUNT_CLASSIC) },
    );
    let attrs = Attrs { set: 1, clear: 2, implied: 4 };
    for (recursive, y) in [(false, 0), (true, 1)] {
        let set = StageOp::SetAttr { mount: Ref::Slot(1), attrs, propagation: 0x8_0000, recursive };
        check(set, &[], Rec { r: -2, a: 1, b: 2, s: 4, x: 0x8_0000, y, ..op(code::SET_ATTR) });
    }
    check(StageOp::Label { slot: 1, label: "l".into() }, &[(S, "l")], Rec { r: slot(1), ..op(code::LABEL) });
    check(StageOp::CopyUp { slot: 1, target: 2 }, &[], Rec { r: slot(1), q: slot(2), ..op(code::COPY_UP) });
}

#[test]
fn copies_of_trees() {
    let tree = |recursive, nofollow, must| Tree {
        path: "/src".into(),
        recursive,
        nofollow,
        attrs: Attrs::default(),
        all_attrs: Attrs::default(),
        propagation: vec![],
        idmap: None,
        must,
    };
    for (recursive, nofollow, must, x, y) in [
        (false, false, Must::Anything, 0, 0),
        (true, false, Must::Directory, AT_RECURSIVE, wire::TREE_DIR),
        (false, true, Must::Proc, AT_SYMLINK_NOFOLLOW, wire::TREE_PROC),
        (true, false, Must::LinkOrTree, AT_RECURSIVE | AT_SYMLINK_NOFOLLOW, 0),
    ] {
        let open = StageOp::OpenTree { into: Ref::Source(1), tree: tree(recursive, nofollow, must) };
        check(open, &[(S, "/src")], Rec { code: code::OPEN_TREE, r: 71, x, y, ..NONE });
    }
    for (recursive, nofollow, must, x, y) in [
        (false, false, Must::Anything, 0, 0),
        (true, false, Must::Directory, AT_RECURSIVE, 0),
        (false, true, Must::Proc, 0, wire::TREE_PROC | wire::TARGET_LINK),
        (false, true, Must::LinkOrTree, 0, wire::TREE_LINK | wire::TARGET_LINK),
    ] {
        let copy = StageOp::CopyInside { slot: 2, path: "/in".into(), recursive, nofollow, must };
        check(copy, &[(S, "/in")], Rec { code: code::COPY_INSIDE, r: slot(2), x, y, ..NONE });
    }
}

#[test]
fn what_is_made_and_covered() {
    let op = |code| Rec { code, ..NONE };
    let below = |path: &str| Place { path: path.into(), anchor: Ref::Slot(1), inside: "/dev/".len() };
    let node = StageOp::Mknod { place: below("/dev/a/b"), mode: 0o20666, rdev: WIDE, uid: 3, gid: 4 };
    check(node, &[(S, "a"), (T, "b")], Rec { r: -2, x: 0o20666, a: WIDE, b: 3 << 32 | 4, ..op(code::MKNOD) });
    let link = StageOp::Symlink { place: Place::named("/dev/fd"), target: "/proc/self/fd".into() };
    check(link, &[(S, "/dev"), (X, "fd"), (T, "/proc/self/fd")], op(code::SYMLINK));
    check(StageOp::Mkdir("/d".into()), &[(S, "/d")], op(code::MKDIR));
    let mask =
        |label: Option<&str>| StageOp::Mask { place: below("/dev/x"), label: label.map(str::to_owned) };
    check(mask(Some("l")), &[(S, "/dev/x"), (X, "x"), (T, "l")], Rec { r: -2, ..op(code::MASK) });
    check(mask(None), &[(S, "/dev/x"), (X, "x")], Rec { r: -2, ..op(code::MASK) });
    check(StageOp::Readonly(Place::named("/p")), &[(S, "/p"), (X, "/p")], op(code::READONLY));
    check(StageOp::Chroot(Ref::Source(0)), &[], Rec { r: 70, ..op(code::CHROOT) });
    let moved = decoded(&StageOp::MoveRoot(vec!["a".into(), "b/c".into()]));
    let rec = moved.records[0];
    assert_eq!((rec.code, rec.x, moved.texts(rec.s)), (code::MOVE_ROOT, 2, vec!["a", "b/c"]));
}

#[test]
fn identity() {
    let op = |code| Rec { code, ..NONE };
    check(StageOp::Umask(0o22), &[], Rec { x: 0o22, ..op(code::UMASK) });
    check(StageOp::Personality(8), &[], Rec { x: 8, ..op(code::PERSONALITY) });
    for (again, y) in [(false, 1), (true, 2)] {
        check(StageOp::Chdir { path: "/w".into(), again }, &[(S, "/w")], Rec { y, ..op(code::CHDIR) });
    }
    check(StageOp::SetIds { uid: 5, gid: 6 }, &[], Rec { a: 5, b: 6, ..op(code::SET_IDS) });
    check(StageOp::Bound { keep: WIDE, last: 40 }, &[], Rec { a: WIDE, x: 40, ..op(code::BOUND) });
    let (s, t) = (0x0506_0708, 0x0102_0304);
    let capset = StageOp::Capset { effective: 1, permitted: 2, inheritable: WIDE };
    check(capset, &[], Rec { a: 1, b: 2, s, t, ..op(code::CAPSET) });
    let lend = StageOp::LendAdmin { effective: 1, permitted: 2, inheritable: WIDE };
    check(lend, &[], Rec { a: 1, b: 2, s, t, ..op(code::LEND_ADMIN) });
    check(StageOp::Ambient(WIDE), &[], Rec { a: WIDE, ..op(code::AMBIENT) });
}

#[test]
fn arrays() {
    // (operation, the record without its offset, the array's 8-byte words)
    let words = |op: StageOp, wanted: Rec, words: &[u64]| {
        let decoded = decoded(&op);
        let Rec { code, y, r, x, a, s, .. } = decoded.records[0];
        assert_eq!((code, y, r, x, a), (wanted.code, wanted.y, wanted.r, wanted.x, wanted.a), "{op:?}");
        let found: Vec<u64> = (0..words.len() as u32).map(|n| decoded.u64(s + 8 * n)).collect();
        assert_eq!(found, words, "{op:?}");
    };
    let policy = MemPolicy { mode: 2, nodes: vec![1, 1 << 63] };
    words(StageOp::MemPolicy(policy), Rec { code: code::MEM_POLICY, x: 2, a: 2, ..NONE }, &[1, 1 << 63]);
    for (may_keep, y) in [(false, 0), (true, 1)] {
        let groups = StageOp::Groups { gids: vec![1, 2, 3, 4], may_keep };
        words(groups, Rec { code: code::GROUPS, x: 4, y, ..NONE }, &[2 << 32 | 1, 4 << 32 | 3]);
    }
    for (listener, r) in [(None, wire::NONE), (Some(5), slot(5))] {
        let filter = StageOp::Seccomp { filter: vec![6, WIDE], flags: 8, listener };
        words(filter, Rec { code: code::SECCOMP, x: 2, a: 8, r, ..NONE }, &[6, WIDE]);
    }
}

#[test]
fn a_hook_has_its_environment_or_the_programs() {
    let hook = |env: Option<&str>| StageOp::Hook {
        number: 3,
        kind: "createContainer",
        hook: Box::new(Hook {
            at: String::new(),
            path: "/bin/hook".into(),
            args: vec!["hook".into(), "x".into()],
            env: env.map(|entry| vec![entry.to_owned()]),
            timeout: Some(std::time::Duration::from_secs(2)),
            output: None,
        }),
        state: Arc::new(("{".into(), "}".into())),
        avoid: wire::AVOID_PPOLL,
    };
    let exec = StageOp::Exec { args: vec!["sh".into()], env: vec!["OF=program".into()], home: false };
    for (env, wanted) in [(Some("OF=hook"), "OF=hook"), (None, "OF=program")] {
        let steps = [hook(env), exec.clone()].map(|op| Step { at: String::new(), op: Op::Stage(op) });
        let decoded = Decoded::new(&encode(&Program { sources: vec![], steps: steps.into() }, &FDS, &[], 3));
        let rec = decoded.records[0];
        assert_eq!((rec.code, rec.y, rec.r, rec.q), (code::HOOK, 3, wire::NONE, wire::NONE));
        let [path, argv, environment, before, after, timeout, avoid] =
            std::array::from_fn(|n| decoded.u32(rec.s + 4 * n as u32));
        assert_eq!((decoded.text(path), decoded.texts(argv)), ("/bin/hook", vec!["hook", "x"]));
        assert_eq!(decoded.texts(environment), [wanted]);
        assert_eq!((decoded.text(before), decoded.text(after)), ("{", "}"));
        assert_eq!((timeout, avoid), (2000, wire::AVOID_PPOLL));
    }
}
