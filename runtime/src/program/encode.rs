// SPDX-License-Identifier: Apache-2.0
//! From operations to the bytes that the stage reads (layout: `stage/wire.rs`).

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::Program;
use super::op::{HookState, Must, Op, Ref, StageOp, Tree};
use super::place::Place;
use crate::stage::wire::{self, Header, HookRec, Rec, barrier, code, slot};

/// Room for `HOME=` and a path (PATH_MAX).
const HOME_ROOM: usize = 4096 + 8;

#[derive(Debug)]
pub struct Encoded {
    /// The bytes, a multiple of 8.
    pub bytes: Vec<u8>,
}

struct Encoder<'a> {
    blob: Vec<u8>,
    base: u32,
    fds: &'a [i32],
    /// Where the environment of the user's program lies, if somebody comes before the exec who needs to know.
    environment: Option<u32>,
    /// The same and which of its entries is HOME's.
    home: Option<(u32, u64)>,
    /// Where the last hook's state lies, which the next one's may be, too.
    state: Option<(HookState, u32, u32)>,
}

/// Encodes the stage's half of `program`. `fds` are the descriptors of its sources; `keep` those that the stage
/// must not close at its start (any order), `sync` its socket to the host.
pub fn encode(program: &Program, fds: &[i32], keep: &[i32], sync: i32) -> Encoded {
    let stage_ops = || {
        program.steps.iter().filter_map(|step| match &step.op {
            Op::Stage(op) => Some(op),
            Op::Host(_) | Op::Criu(_) => None,
        })
    };
    let count = stage_ops().count();
    let base = (size_of::<Header>() + count * size_of::<Rec>()) as u32;
    let mut encoder =
        Encoder { blob: Vec::with_capacity(8192), base, fds, environment: None, home: None, state: None };
    encoder.reserve_environment(program);
    let records: Vec<Rec> = stage_ops().map(|op| encoder.record(op)).collect();
    let mut keep: Vec<i64> =
        keep.iter().chain(fds).chain([&sync]).filter(|&&fd| fd > 2).map(|&fd| fd.into()).collect();
    keep.sort_unstable();
    keep.dedup();
    let keep_at = encoder.array(&keep.iter().map(|&fd| fd as u64).collect::<Vec<_>>());
    let header = Header {
        magic: wire::MAGIC,
        version: wire::VERSION,
        ops: count as u32,
        keep: keep_at,
        keep_len: keep.len() as u32,
        sync,
        log: wire::NONE,
        log_words: 0,
    };
    let mut bytes = Vec::with_capacity(base as usize + encoder.blob.len() + 8);
    let Header { magic, version, ops, keep, keep_len, .. } = header;
    for word in [magic, version, ops, keep, keep_len, header.sync as u32, header.log as u32, header.log_words]
    {
        bytes.extend(word.to_ne_bytes());
    }
    for rec in &records {
        put(&mut bytes, rec);
    }
    bytes.append(&mut encoder.blob);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    Encoded { bytes }
}

impl Encoded {
    /// The same for a traced stage, which writes to the `words` words of memory behind the descriptor `log`.
    pub(crate) fn log_to(&mut self, log: i32, words: u32) {
        let at = std::mem::offset_of!(Header, log);
        if let Some(header) = self.bytes.get_mut(at..at + 8) {
            header[..4].copy_from_slice(&log.to_ne_bytes());
            header[4..].copy_from_slice(&words.to_ne_bytes());
        }
    }

    /// The bytes as 8-byte words: the linked-in stage reads them where they lie.
    pub(crate) fn words(&self) -> Vec<u64> {
        let word = |chunk: &[u8]| u64::from_ne_bytes(chunk.try_into().unwrap_or_default());
        self.bytes.chunks_exact(8).map(word).collect()
    }
}

/// The directory of an absolute path, and the name in it.
fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(split) => split,
        None => ("/", path),
    }
}

/// One record in the kernel's native layout of `struct Rec`.
fn put(bytes: &mut Vec<u8>, rec: &Rec) {
    bytes.extend(rec.code.to_ne_bytes());
    bytes.extend(rec.y.to_ne_bytes());
    bytes.extend(rec.r.to_ne_bytes());
    bytes.extend(rec.q.to_ne_bytes());
    bytes.extend(rec.x.to_ne_bytes());
    bytes.extend(rec.a.to_ne_bytes());
    bytes.extend(rec.b.to_ne_bytes());
    bytes.extend(rec.s.to_ne_bytes());
    bytes.extend(rec.t.to_ne_bytes());
}

impl Encoder<'_> {
    fn align(&mut self) {
        while !(self.base as usize + self.blob.len()).is_multiple_of(8) {
            self.blob.push(0);
        }
    }

    fn here(&self) -> u32 {
        self.base + self.blob.len() as u32
    }

    /// A string without NUL: the plan refuses those. Equal ones are stored again: looking for them costs more.
    fn text(&mut self, text: &str) -> u32 {
        let at = self.here();
        self.blob.extend_from_slice(text.as_bytes());
        self.blob.push(0);
        at
    }

    fn array(&mut self, values: &[u64]) -> u32 {
        self.align();
        let at = self.here();
        values.iter().for_each(|value| self.blob.extend(value.to_ne_bytes()));
        at
    }

    /// Offsets of strings, closed by 0.
    fn texts(&mut self, texts: &[String], spare: usize) -> u32 {
        let mut offsets: Vec<u64> = texts.iter().map(|text| self.text(text).into()).collect();
        offsets.resize(offsets.len() + 1 + spare, 0);
        self.array(&offsets)
    }

    /// HOME is found before the exec that takes it, and hooks without an environment have the program's: its place must be
    /// known first.
    fn reserve_environment(&mut self, program: &Program) {
        let shares = |op: &Op| matches!(op, Op::Stage(StageOp::Hook { hook, .. }) if hook.env.is_none());
        let shared = program.steps.iter().any(|step| shares(&step.op));
        for step in &program.steps {
            if let Op::Stage(StageOp::Exec { env, home, .. }) = &step.op
                && (*home || shared)
            {
                let at = self.texts(env, usize::from(*home));
                self.environment = Some(at);
                self.home = home.then_some((at, env.len() as u64));
            }
        }
    }

    fn fd(&self, reference: Ref) -> i32 {
        match reference {
            Ref::Nothing => wire::NONE,
            Ref::Slot(n) => slot(n),
            Ref::Source(n) => self.fds.get(n).copied().unwrap_or(wire::NONE),
        }
    }

    fn record(&mut self, op: &StageOp) -> Rec {
        let none = Rec { r: wire::NONE, q: wire::NONE, ..Rec::default() };
        match op {
            StageOp::Signals(ignored) => Rec { code: code::SIGNALS, a: *ignored, ..none },
            StageOp::Setns { from, kinds } => {
                Rec { code: code::SETNS, r: self.fd(*from), x: *kinds as u32, ..none }
            }
            StageOp::Unshare(kinds) => Rec { code: code::UNSHARE, a: *kinds, ..none },
            StageOp::Hop(kinds) => Rec { code: code::HOP, a: *kinds, x: barrier::HOP.into(), ..none },
            StageOp::BecomeRoot => Rec { code: code::BECOME_ROOT, ..none },
            StageOp::Keyring { name, new } => {
                Rec { code: code::KEYRING, s: self.text(name), y: (*new).into(), ..none }
            }
            StageOp::Setsid => Rec { code: code::SETSID, ..none },
            StageOp::Loopback => Rec { code: code::LOOPBACK, ..none },
            StageOp::JoinSent(kind) => Rec { code: code::JOIN_SENT, x: *kind as u32, ..none },
            StageOp::Barrier { barrier, fd } => {
                Rec { code: code::BARRIER, x: (*barrier).into(), r: self.fd(*fd), ..none }
            }
            StageOp::Hostname(name) => Rec { code: code::HOSTNAME, s: self.text(name), ..none },
            StageOp::Domainname(name) => Rec { code: code::DOMAINNAME, s: self.text(name), ..none },
            StageOp::Hook { number, hook, state, avoid, .. } => self.hook(*number, hook, state, *avoid),
            StageOp::Close { from, gate, outcome, slot: kept } => {
                let q = kept.map_or(wire::NONE, slot);
                // Descriptors are small: the field has room for one, and for NONE.
                let s = self.fd(*outcome) as u32;
                Rec { code: code::CLOSE, x: *from, r: self.fd(*gate), q, s, ..none }
            }
            StageOp::CloseFd(fd) => Rec { code: code::CLOSE_FD, r: self.fd(*fd), ..none },
            StageOp::Gate => Rec { code: code::GATE, ..none },
            StageOp::Disown => Rec { code: code::DISOWN, ..none },
            StageOp::Hold(name) => Rec { code: code::HOLD, s: self.text(name), ..none },
            StageOp::Write { dir, path, data } => {
                Rec { code: code::WRITE, r: self.fd(*dir), s: self.text(path), t: self.text(data), ..none }
            }
            StageOp::Console { master, terminal, size } => {
                let size =
                    size.map_or(0, |(rows, columns)| 1 << 32 | u64::from(rows) << 16 | u64::from(columns));
                Rec { code: code::CONSOLE, r: slot(*master), q: slot(*terminal), a: size, ..none }
            }
            StageOp::ConsoleBind(terminal) => Rec { code: code::CONSOLE_BIND, r: slot(*terminal), ..none },
            StageOp::ConsoleStdio(terminal) => Rec { code: code::CONSOLE_STDIO, r: slot(*terminal), ..none },
            StageOp::ConsoleControl => Rec { code: code::CONSOLE_CONTROL, ..none },
            StageOp::ChownStdio(uid) => Rec { code: code::CHOWN_STDIO, x: *uid, ..none },
            other => self.mount_record(other, none),
        }
    }

    fn mount_record(&mut self, op: &StageOp, none: Rec) -> Rec {
        match op {
            StageOp::Propagate(change) => {
                let flags = change.flag | if change.recursive { 0x4000 } else { 0 };
                Rec { code: code::PROPAGATE, a: flags, s: self.text("/"), ..none }
            }
            StageOp::Attach { mount, target } => {
                Rec { code: code::ATTACH, r: self.fd(*mount), q: self.fd(*target), ..none }
            }
            StageOp::AttachOrLink { mount, slot: n, path, flags } => {
                let (parent, name) = split(path);
                let (s, t, x) = (self.text(path), self.text(parent), self.text(name));
                Rec {
                    code: code::ATTACH_OR_LINK,
                    r: slot(*n),
                    q: self.fd(*mount),
                    y: *flags,
                    s,
                    t,
                    x,
                    ..none
                }
            }
            StageOp::AttachHost { mount, path } => {
                Rec { code: code::ATTACH_HOST, r: self.fd(*mount), s: self.text(path), ..none }
            }
            StageOp::OpenTree { into, tree } => self.open_tree(*into, tree, none),
            StageOp::ChdirHost(path) => Rec { code: code::CHDIR_HOST, s: self.text(path), ..none },
            StageOp::Root(fd) => Rec { code: code::ROOT, r: self.fd(*fd), ..none },
            StageOp::Target { slot: n, path, flags, like } => Rec {
                code: code::TARGET,
                r: slot(*n),
                q: self.fd(*like),
                y: *flags,
                s: self.text(path),
                ..none
            },
            StageOp::FsOpen { slot: n, fstype } => {
                Rec { code: code::FS_OPEN, r: slot(*n), s: self.text(fstype), ..none }
            }
            StageOp::ProcOf { slot: n, namespace } => {
                Rec { code: code::PROC_OF, r: slot(*n), q: self.fd(*namespace), ..none }
            }
            StageOp::FsSet { slot: n, key, value: Some(value) } => {
                Rec { code: code::FS_SET, r: slot(*n), s: self.text(key), t: self.text(value), ..none }
            }
            StageOp::FsSet { slot: n, key, value: None } => {
                Rec { code: code::FS_FLAG, r: slot(*n), s: self.text(key), ..none }
            }
            StageOp::FsMode { slot: n, target } => {
                Rec { code: code::FS_MODE, r: slot(*n), q: slot(*target), ..none }
            }
            StageOp::FsMount { slot: n, attrs } => {
                Rec { code: code::FS_MOUNT, r: slot(*n), a: *attrs, ..none }
            }
            StageOp::MountClassic { slot: n, fstype, source, flags, data } => {
                let (s, t, b) = (self.text(fstype), self.text(source), self.text(data));
                Rec { code: code::MOUNT_CLASSIC, r: slot(*n), s, t, a: *flags, b: b.into(), ..none }
            }
            StageOp::SetAttr { mount, attrs, propagation, recursive } => {
                let (a, b, x, s) = (attrs.set, attrs.clear, *propagation as u32, attrs.implied as u32);
                Rec { code: code::SET_ATTR, r: self.fd(*mount), a, b, x, s, y: (*recursive).into(), ..none }
            }
            StageOp::Label { slot: n, label } => {
                Rec { code: code::LABEL, r: slot(*n), s: self.text(label), ..none }
            }
            StageOp::CopyUp { slot: n, target } => {
                Rec { code: code::COPY_UP, r: slot(*n), q: slot(*target), ..none }
            }
            other => self.tree_record(other, none),
        }
    }

    fn tree_record(&mut self, op: &StageOp, none: Rec) -> Rec {
        match op {
            StageOp::Mknod { place, mode, rdev, uid, gid } => {
                let owner = u64::from(*uid) << 32 | u64::from(*gid);
                let (parent, name) = split(place.rest());
                let (r, s, t) = (self.fd(place.anchor), self.text(parent), self.text(name));
                Rec { code: code::MKNOD, r, s, t, x: *mode, a: *rdev, b: owner, ..none }
            }
            StageOp::Symlink { place, target } => {
                let (parent, name) = split(place.rest());
                let (r, s) = (self.fd(place.anchor), self.text(parent));
                let (x, t) = (self.text(name), self.text(target));
                Rec { code: code::SYMLINK, r, s, x, t, ..none }
            }
            StageOp::Mkdir(path) => Rec { code: code::MKDIR, s: self.text(path), ..none },
            StageOp::Mask { place, label } => {
                // Offset 0 is the header's: no label.
                let t = label.as_ref().map_or(0, |label| self.text(label));
                Rec { code: code::MASK, t, ..self.covered(place, none) }
            }
            StageOp::CopyInside { slot: n, path, recursive, nofollow, must } => {
                let x = if *recursive { libc::AT_RECURSIVE as u32 } else { 0 };
                let top = match must {
                    Must::Proc => wire::TREE_PROC,
                    Must::LinkOrTree => wire::TREE_LINK,
                    Must::Anything | Must::Directory => 0,
                };
                let y = top | if *nofollow { wire::TARGET_LINK } else { 0 };
                Rec { code: code::COPY_INSIDE, r: slot(*n), s: self.text(path), x, y, ..none }
            }
            StageOp::Readonly(place) => Rec { code: code::READONLY, ..self.covered(place, none) },
            StageOp::Unmount { slot: n, place, proc } => {
                let (q, x) = (self.fd(*place), self.fd(*proc) as u32);
                let s = self.text(&format!("self/fd/{q}"));
                Rec { code: code::UNMOUNT, r: slot(*n), q, x, s, ..none }
            }
            StageOp::Pivot => Rec { code: code::PIVOT, ..none },
            StageOp::MoveRoot(mounts) => {
                Rec { code: code::MOVE_ROOT, s: self.texts(mounts, 0), x: mounts.len() as u32, ..none }
            }
            StageOp::Chroot(fd) => Rec { code: code::CHROOT, r: self.fd(*fd), ..none },
            other => self.identity_record(other, none),
        }
    }

    /// The path as a whole, and where in it that begins what is looked up from the anchor.
    fn covered(&mut self, place: &Place, none: Rec) -> Rec {
        let s = self.text(&place.path);
        Rec { r: self.fd(place.anchor), s, x: s + place.inside as u32, ..none }
    }

    fn open_tree(&mut self, into: Ref, tree: &Tree, none: Rec) -> Rec {
        let y = match tree.must {
            Must::Anything | Must::LinkOrTree => 0,
            Must::Directory => wire::TREE_DIR,
            Must::Proc => wire::TREE_PROC,
        };
        let recursive = if tree.recursive { libc::AT_RECURSIVE } else { 0 };
        let nofollow = tree.nofollow || tree.must == Must::LinkOrTree;
        let x = (recursive | if nofollow { libc::AT_SYMLINK_NOFOLLOW } else { 0 }) as u32;
        let s = self.text(&tree.path.to_string_lossy());
        Rec { code: code::OPEN_TREE, r: self.fd(into), s, x, y, ..none }
    }

    fn identity_record(&mut self, op: &StageOp, none: Rec) -> Rec {
        match op {
            StageOp::Umask(mask) => Rec { code: code::UMASK, x: *mask, ..none },
            StageOp::Personality(persona) => Rec { code: code::PERSONALITY, x: *persona, ..none },
            StageOp::MemPolicy(policy) => {
                let (s, a) = (self.array(&policy.nodes), policy.nodes.len() as u64);
                Rec { code: code::MEM_POLICY, x: policy.mode, s, a, ..none }
            }
            StageOp::NoNewPrivs => Rec { code: code::NO_NEW_PRIVS, ..none },
            StageOp::Chdir { path, again } => {
                Rec { code: code::CHDIR, s: self.text(path), y: if *again { 2 } else { 1 }, ..none }
            }
            StageOp::Groups { gids, may_keep } => {
                self.align();
                let at = self.here();
                gids.iter().for_each(|group| self.blob.extend(group.to_ne_bytes()));
                Rec { code: code::GROUPS, s: at, x: gids.len() as u32, y: (*may_keep).into(), ..none }
            }
            StageOp::DropGroups => Rec { code: code::DROP_GROUPS, ..none },
            StageOp::KeepGroups => Rec { code: code::KEEP_GROUPS, ..none },
            StageOp::SetIds { uid, gid } => {
                Rec { code: code::SET_IDS, a: (*uid).into(), b: (*gid).into(), ..none }
            }
            StageOp::Bound { keep, last } => Rec { code: code::BOUND, a: *keep, x: *last, ..none },
            StageOp::Capset { effective: a, permitted: b, inheritable } => {
                let (s, t) = (*inheritable as u32, (*inheritable >> 32) as u32);
                Rec { code: code::CAPSET, a: *a, b: *b, s, t, ..none }
            }
            StageOp::LendAdmin { effective: a, permitted: b, inheritable } => {
                let (s, t) = (*inheritable as u32, (*inheritable >> 32) as u32);
                Rec { code: code::LEND_ADMIN, a: *a, b: *b, s, t, ..none }
            }
            StageOp::Rlimits { limits, set } => {
                let words: Vec<u64> =
                    limits.iter().flat_map(|limit| [limit.resource.into(), limit.soft, limit.hard]).collect();
                let y = if *set { 2 } else { 1 };
                Rec { code: code::RLIMITS, s: self.array(&words), x: limits.len() as u32, y, ..none }
            }
            StageOp::Ambient(set) => Rec { code: code::AMBIENT, a: *set, ..none },
            StageOp::Seccomp { filter, flags, listener } => {
                let r = listener.map_or(wire::NONE, slot);
                Rec {
                    code: code::SECCOMP,
                    s: self.array(filter),
                    x: filter.len() as u32,
                    a: *flags,
                    r,
                    ..none
                }
            }
            StageOp::Lookup(candidates) => {
                Rec { code: code::LOOKUP, s: self.texts(candidates, 0), x: candidates.len() as u32, ..none }
            }
            StageOp::Home(uid) => {
                let (array, index) = self.home.unwrap_or_default();
                let buffer = self.here();
                self.blob.resize(self.blob.len() + HOME_ROOM, 0);
                Rec { code: code::HOME, x: *uid, s: array, a: index, t: buffer, b: HOME_ROOM as u64, ..none }
            }
            StageOp::Exec { args, env, .. } => {
                let t = self.environment.unwrap_or_else(|| self.texts(env, 0));
                Rec { code: code::EXEC, s: self.texts(args, 0), t, ..none }
            }
            // Every other variant is encoded above; an unknown code would be refused by the stage.
            _ => none,
        }
    }

    fn state(&mut self, state: &HookState) -> (u32, u32) {
        match &self.state {
            Some((last, before, after)) if Arc::ptr_eq(last, state) => (*before, *after),
            _ => {
                let (before, after) = (self.text(&state.0), self.text(&state.1));
                self.state = Some((state.clone(), before, after));
                (before, after)
            }
        }
    }

    fn hook(
        &mut self,
        number: u16,
        hook: &crate::plan::hooks::Hook,
        state: &Arc<(String, String)>,
        avoid: u32,
    ) -> Rec {
        let (before, after) = self.state(state);
        let env = match (&hook.env, self.environment) {
            (Some(env), _) => self.texts(env, 0),
            (None, Some(environment)) => environment,
            (None, None) => self.texts(&[], 0),
        };
        let rec = HookRec {
            path: self.text(&hook.path),
            argv: self.texts(&hook.args, 0),
            env,
            before,
            after,
            timeout: hook.timeout.map_or(0, |timeout| timeout.as_millis().min(u32::MAX.into()) as u32),
            avoid,
        };
        self.align();
        let at = self.here();
        for word in [rec.path, rec.argv, rec.env, rec.before, rec.after, rec.timeout, rec.avoid] {
            self.blob.extend(word.to_ne_bytes());
        }
        Rec { code: code::HOOK, r: wire::NONE, q: wire::NONE, s: at, y: number, ..Rec::default() }
    }
}
