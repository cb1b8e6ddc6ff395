// SPDX-License-Identifier: Apache-2.0
//! The bytes that the stage reads: every offset in bounds, every array aligned, every operation known.

use corten::plan::hooks::Hook;
use corten::plan::mounts::{Attrs, Propagation};
use corten::program::encode::{Encoded, encode};
use corten::program::op::{Must, Tree};
use corten::program::{Op, Program, Ref, StageOp, Step, compile};
use corten::stage::wire::{self, Rec, code};

use crate::cases::{self, Random};

/// An encoded program, read back with nothing but `stage/wire.rs`.
struct Decoded {
    bytes: Vec<u8>,
    records: Vec<Rec>,
    keep: Vec<i64>,
}

impl Decoded {
    fn new(encoded: &Encoded) -> Decoded {
        let bytes: Vec<u8> = encoded.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let this = Decoded { bytes, records: Vec::new(), keep: Vec::new() };
        let header: Vec<u32> = (0..6).map(|n| this.u32(4 * n)).collect();
        assert_eq!((header[0], header[1]), (wire::MAGIC, wire::VERSION));
        let at = |n: usize| size_of::<wire::Header>() + n * size_of::<Rec>();
        let records = (0..header[2] as usize).map(|n| this.record(at(n))).collect();
        assert_eq!(header[3] % 8, 0, "the descriptors to keep are not aligned");
        let keep = (0..header[4]).map(|n| this.u64(header[3] + 8 * n) as i64).collect();
        Decoded { records, keep, ..this }
    }

    fn u32(&self, at: u32) -> u32 {
        u32::from_ne_bytes(self.bytes[at as usize..][..4].try_into().unwrap())
    }

    fn u64(&self, at: u32) -> u64 {
        u64::from_ne_bytes(self.bytes[at as usize..][..8].try_into().unwrap())
    }

    fn record(&self, at: usize) -> Rec {
        assert_eq!(at % align_of::<Rec>(), 0);
        let (at, two) =
            (at as u32, |at: usize| u16::from_ne_bytes(self.bytes[at..][..2].try_into().unwrap()));
        let word = |offset| self.u32(at + offset);
        Rec {
            code: two(at as usize),
            y: two(at as usize + 2),
            r: word(4) as i32,
            q: word(8) as i32,
            x: word(12),
            a: self.u64(at + 16),
            b: self.u64(at + 24),
            s: word(32),
            t: word(36),
        }
    }

    fn text(&self, at: u32) -> &str {
        let rest = &self.bytes[at as usize..];
        let end = rest.iter().position(|byte| *byte == 0).expect("an unterminated string");
        assert!(at as usize >= size_of::<wire::Header>() + self.records.len() * size_of::<Rec>());
        std::str::from_utf8(&rest[..end]).unwrap()
    }

    /// A zero-terminated array of strings.
    fn texts(&self, at: u32) -> Vec<&str> {
        assert_eq!(at % 8, 0, "an array of strings is not aligned");
        (0..).map(|n| self.u64(at + 8 * n)).take_while(|at| *at != 0).map(|at| self.text(at as u32)).collect()
    }

    fn array(&self, at: u32, count: u32, size: u32) {
        assert_eq!(at % 8, 0, "an array is not aligned");
        assert!(self.bytes.len() >= (at + count * size) as usize, "an array out of bounds");
    }

    /// A path from its directory and its name, neither of which may be empty.
    fn joined(&self, directory: u32, name: u32) -> String {
        let (directory, name) = (self.text(directory), self.text(name));
        assert!(directory.starts_with('/') && !name.is_empty() && !name.contains('/'), "{directory} {name}");
        format!("{}/{name}", directory.trim_end_matches('/'))
    }

    /// Everything that the record points to can be read, and is what the operation says.
    fn verify(&self, rec: &Rec, op: &StageOp) {
        match op {
            StageOp::Hostname(text) | StageOp::Domainname(text) | StageOp::Keyring { name: text, .. } => {
                assert_eq!(self.text(rec.s), text);
            }
            StageOp::Target { path, .. } | StageOp::Chdir { path, .. } | StageOp::AttachHost { path, .. } => {
                assert_eq!(self.text(rec.s), path);
            }
            StageOp::Mask(path)
            | StageOp::Readonly(path)
            | StageOp::Mkdir(path)
            | StageOp::ChdirHost(path) => {
                assert_eq!(self.text(rec.s), path);
            }
            StageOp::Write { path, data, .. } => {
                assert_eq!((self.text(rec.s), self.text(rec.t)), (path.as_str(), data.as_str()));
            }
            StageOp::Symlink { path, target } => {
                assert_eq!((self.joined(rec.s, rec.x), self.text(rec.t)), (path.clone(), target.as_str()));
            }
            StageOp::Mknod { path, mode, rdev, .. } => {
                assert_eq!((&self.joined(rec.s, rec.t), rec.x, rec.a), (path, *mode, *rdev));
            }
            StageOp::FsSet { key, value, .. } => {
                assert_eq!(self.text(rec.s), key);
                value.iter().for_each(|value| assert_eq!(self.text(rec.t), value));
            }
            StageOp::MountClassic { fstype, source, data, .. } => {
                let found = (self.text(rec.s), self.text(rec.t), self.text(rec.b as u32));
                assert_eq!(found, (fstype.as_str(), source.as_str(), data.as_str()));
            }
            StageOp::OpenTree { tree, .. } => {
                assert_eq!(self.text(rec.s), tree.path.to_str().unwrap());
            }
            StageOp::Groups { gids: groups, may_keep } => {
                assert_eq!(rec.y == 1, *may_keep);
                self.array(rec.s, rec.x, 4);
                let found: Vec<u32> = (0..rec.x).map(|n| self.u32(rec.s + 4 * n)).collect();
                assert_eq!(found, *groups);
            }
            StageOp::Seccomp { filter, .. } => {
                self.array(rec.s, rec.x, 8);
                let found: Vec<u64> = (0..rec.x).map(|n| self.u64(rec.s + 8 * n)).collect();
                assert_eq!(found, *filter);
            }
            StageOp::Rlimits { limits, .. } => {
                assert_eq!(rec.x as usize, limits.len());
                self.array(rec.s, rec.x, size_of::<wire::RlimitRec>() as u32);
            }
            StageOp::Lookup(candidates) => {
                assert_eq!((self.texts(rec.s), rec.x as usize), (texts(candidates), candidates.len()));
            }
            StageOp::Exec { args, env, .. } => {
                assert_eq!((self.texts(rec.s), self.texts(rec.t)), (texts(args), texts(env)));
            }
            StageOp::Home(_) => {
                // The entry is the environment's terminator; another follows it.
                let entry = rec.s + 8 * rec.a as u32;
                assert_eq!((self.u64(entry), self.u64(entry + 8)), (0, 0));
                let room = &self.bytes[rec.t as usize..][..rec.b as usize];
                assert!(room.len() > 4096 && room.iter().all(|byte| *byte == 0));
            }
            StageOp::Hook { hook, state, .. } => self.hook(rec.s, hook, state),
            _ => {}
        }
    }

    fn hook(&self, at: u32, hook: &Hook, state: &(String, String)) {
        assert_eq!(at % 4, 0);
        let word = |n: u32| self.u32(at + 4 * n);
        assert_eq!(self.text(word(0)), hook.path);
        assert_eq!((self.texts(word(1)), self.texts(word(2))), (texts(&hook.args), texts(&hook.env)));
        assert_eq!((self.text(word(3)), self.text(word(4))), (state.0.as_str(), state.1.as_str()));
    }
}

fn texts(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn roundtrip(program: &Program) {
    let fds: Vec<i32> = (0..program.sources.len() as i32).map(|n| 50 - n).collect();
    let encoded = encode(program, &fds, &[3, 4, 0], 60);
    let decoded = Decoded::new(&encoded);
    assert!(decoded.keep.is_sorted() && decoded.keep.contains(&60) && !decoded.keep.contains(&0));
    assert!([3].iter().chain(&fds).all(|fd| decoded.keep.contains(&i64::from(*fd))));
    assert_eq!(decoded.records.len(), encoded.steps.len());
    let mut relocated = std::collections::HashSet::new();
    for (rec, index) in decoded.records.iter().zip(&encoded.steps) {
        let Op::Stage(op) = &program.steps[*index].op else { panic!("a record of the host's") };
        assert_ne!(rec.code, 0, "{op:?}");
        decoded.verify(rec, op);
        // Arrays of strings become pointers in place: none may serve twice.
        if let StageOp::Exec { .. } = op {
            assert!(relocated.insert(rec.s) && relocated.insert(rec.t));
        }
        if let StageOp::Hook { .. } = op {
            assert!(relocated.insert(decoded.u32(rec.s + 4)) && relocated.insert(decoded.u32(rec.s + 8)));
        }
        if let StageOp::Lookup(_) = op {
            assert!(relocated.insert(rec.s));
        }
    }
}

#[test]
fn any_program_reads_back() {
    cases::golden().iter().for_each(|(_, program)| roundtrip(program));
    let mut random = Random(0xD1B5_4A32_D192_ED03);
    for plan in (0..600).filter_map(|_| cases::random(&mut random)) {
        roundtrip(&compile::create(&plan, 40));
        if let Some(process) = &plan.process {
            roundtrip(&compile::exec(&cases::entry(&plan, false), process));
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

/// The compiler refuses a match that misses a variant: a new operation must be added to `all` as well.
fn number(op: &StageOp) -> usize {
    use StageOp::*;
    match op {
        Signals => 0,
        Setns { .. } => 1,
        Unshare(_) => 2,
        Hop(_) => 3,
        BecomeRoot => 4,
        Keyring { .. } => 5,
        Setsid => 6,
        Loopback => 7,
        Barrier { .. } => 8,
        Hostname(_) => 9,
        Domainname(_) => 10,
        Propagate(_) => 11,
        Attach { .. } => 12,
        AttachHost { .. } => 13,
        ChdirHost(_) => 14,
        Root(_) => 15,
        Target { .. } => 16,
        FsOpen { .. } => 17,
        FsSet { .. } => 18,
        FsMode { .. } => 19,
        FsMount { .. } => 20,
        MountClassic { .. } => 21,
        SetAttr { .. } => 22,
        CopyUp { .. } => 23,
        Mknod { .. } => 24,
        Symlink { .. } => 25,
        Mkdir(_) => 26,
        Mask(_) => 27,
        Readonly(_) => 28,
        Pivot => 29,
        MoveRoot => 30,
        Write { .. } => 31,
        Console { .. } => 32,
        ConsoleBind(_) => 33,
        ConsoleStdio(_) => 34,
        ConsoleControl => 35,
        ChownStdio(_) => 36,
        Umask(_) => 37,
        Personality(_) => 38,
        NoNewPrivs => 39,
        Chdir { .. } => 40,
        Groups { .. } => 41,
        SetIds { .. } => 42,
        Bound { .. } => 43,
        Capset { .. } => 44,
        Ambient(_) => 45,
        Seccomp { .. } => 46,
        Lookup(_) => 47,
        Home(_) => 48,
        Gate => 49,
        Hook { .. } => 50,
        Close { .. } => 51,
        Rlimits { .. } => 52,
        Chroot(_) => 53,
        CloseFd(_) => 54,
        DropGroups => 55,
        OpenTree { .. } => 56,
        Exec { .. } => 57,
    }
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
    let hook = Hook { at: text(), path: text(), args: vec![], env: vec![], timeout: None };
    vec![
        StageOp::Signals,
        StageOp::Setns { from: none, kinds: 0 },
        StageOp::Unshare(0),
        StageOp::Hop(0),
        StageOp::BecomeRoot,
        StageOp::Keyring { name: text(), permissions: 0, join: false },
        StageOp::Setsid,
        StageOp::Loopback,
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
        StageOp::FsSet { slot: 0, key: text(), value: Some(text()) },
        StageOp::FsSet { slot: 0, key: text(), value: None },
        StageOp::FsMode { slot: 0, target: 0 },
        StageOp::FsMount { slot: 0, attrs: 0 },
        StageOp::MountClassic { slot: 0, fstype: text(), source: text(), flags: 0, data: text() },
        StageOp::SetAttr { mount: none, attrs, propagation: 0, recursive: false },
        StageOp::CopyUp { slot: 0, target: 0 },
        StageOp::Mknod { path: text(), mode: 0, rdev: 0, uid: 0, gid: 0 },
        StageOp::Symlink { path: text(), target: text() },
        StageOp::Mkdir(text()),
        StageOp::Mask(text()),
        StageOp::Readonly(text()),
        StageOp::Pivot,
        StageOp::MoveRoot,
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
        StageOp::Ambient(0),
        StageOp::Seccomp { filter: vec![], flags: 0, listener: None },
        StageOp::Lookup(vec![]),
        StageOp::Home(0),
        StageOp::Gate,
        StageOp::Hook { number: 0, kind: "", hook, state: (text(), text()) },
        StageOp::Close { from: 3, gate: none, slot: None },
        StageOp::Rlimits { limits: vec![], set: false },
        StageOp::Chroot(none),
        StageOp::CloseFd(none),
        StageOp::DropGroups,
        StageOp::OpenTree { into: none, tree },
        StageOp::Exec { args: vec![], env: vec![], home: false },
    ]
}

#[test]
fn every_operation_has_a_code_of_its_own() {
    let steps = all().into_iter().map(|op| Step { at: String::new(), op: Op::Stage(op) }).collect();
    let program = Program { sources: vec![], steps };
    let decoded = Decoded::new(&encode(&program, &[], &[], 3));
    let mut numbers: Vec<usize> = all().iter().map(number).collect();
    numbers.dedup();
    assert_eq!(
        numbers,
        (0..=number(&StageOp::Exec { args: vec![], env: vec![], home: false })).collect::<Vec<_>>()
    );
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
    assert_eq!((size_of::<wire::Header>(), size_of::<Rec>(), align_of::<Rec>()), (24, 40, 8));
    assert_eq!((size_of::<wire::HookRec>(), size_of::<wire::RlimitRec>()), (24, 24));
    let message = wire::Message { kind: 1, barrier: 2, zero: 0, op: 3, errno: -4, aux: 5 };
    assert_eq!(wire::Message::from_bytes(message.bytes()), message);
}
