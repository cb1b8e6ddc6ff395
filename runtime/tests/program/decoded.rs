// SPDX-License-Identifier: Apache-2.0
//! An encoded program, read back with nothing but `stage/wire.rs`: every offset in bounds, every array aligned, every
//! string the one that was meant.

use corten::plan::hooks::Hook;
use corten::program::encode::{Encoded, encode};
use corten::program::place::Place;
use corten::program::{Op, Program, StageOp};
use corten::stage::wire::{self, Rec};

/// An encoded program.
pub struct Decoded {
    bytes: Vec<u8>,
    /// Its records.
    pub records: Vec<Rec>,
    keep: Vec<i64>,
}

impl Decoded {
    /// Reads it, or panics.
    pub fn new(encoded: &Encoded) -> Decoded {
        let bytes = encoded.bytes.clone();
        let this = Decoded { bytes, records: Vec::new(), keep: Vec::new() };
        let header: Vec<u32> = (0..6).map(|n| this.u32(4 * n)).collect();
        assert_eq!((header[0], header[1]), (wire::MAGIC, wire::VERSION));
        let at = |n: usize| size_of::<wire::Header>() + n * size_of::<Rec>();
        let records = (0..header[2] as usize).map(|n| this.record(at(n))).collect();
        assert_eq!(header[3] % 8, 0, "the descriptors to keep are not aligned");
        let keep = (0..header[4]).map(|n| this.u64(header[3] + 8 * n) as i64).collect();
        Decoded { records, keep, ..this }
    }

    /// The word there.
    pub fn u32(&self, at: u32) -> u32 {
        u32::from_ne_bytes(self.bytes[at as usize..][..4].try_into().unwrap())
    }

    /// The word of eight bytes there.
    pub fn u64(&self, at: u32) -> u64 {
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

    /// The string there.
    pub fn text(&self, at: u32) -> &str {
        let rest = &self.bytes[at as usize..];
        let end = rest.iter().position(|byte| *byte == 0).expect("an unterminated string");
        assert!(at as usize >= size_of::<wire::Header>() + self.records.len() * size_of::<Rec>());
        std::str::from_utf8(&rest[..end]).unwrap()
    }

    /// A zero-terminated array of strings.
    pub fn texts(&self, at: u32) -> Vec<&str> {
        assert_eq!(at % 8, 0, "an array of strings is not aligned");
        (0..).map(|n| self.u64(at + 8 * n)).take_while(|at| *at != 0).map(|at| self.text(at as u32)).collect()
    }

    fn array(&self, at: u32, count: u32, size: u32) {
        assert_eq!(at % 8, 0, "an array is not aligned");
        assert!(self.bytes.len() >= (at + count * size) as usize, "an array out of bounds");
    }

    /// A path from its directory and its name, neither of which may be empty.
    fn joined(&self, place: &Place, directory: u32, name: u32) -> String {
        let (directory, name) = (self.text(directory), self.text(name));
        assert!(!directory.is_empty() && !name.is_empty() && !name.contains('/'), "{directory} {name}");
        assert!(directory.starts_with('/') || place.is_anchored(), "{directory} {name}");
        let below = format!("{}/{name}", directory.trim_end_matches('/'));
        format!("{}/{}", place.mount_point(), below.trim_start_matches('/'))
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
            StageOp::Mask { place, .. } | StageOp::Readonly(place) => {
                assert_eq!((self.text(rec.s), self.text(rec.x)), (place.path.as_str(), place.rest()));
                assert_eq!(rec.r == wire::NONE, !place.is_anchored());
            }
            StageOp::Mkdir(path) | StageOp::ChdirHost(path) => assert_eq!(self.text(rec.s), path),
            StageOp::Write { path, data, .. } => {
                assert_eq!((self.text(rec.s), self.text(rec.t)), (path.as_str(), data.as_str()));
            }
            StageOp::Symlink { place, target } => {
                let found = (self.joined(place, rec.s, rec.x), self.text(rec.t));
                assert_eq!(found, (place.path.clone(), target.as_str()));
            }
            StageOp::Mknod { place, mode, rdev, .. } => {
                assert_eq!((&self.joined(place, rec.s, rec.t), rec.x, rec.a), (&place.path, *mode, *rdev));
            }
            StageOp::FsSet { key, value, .. } => {
                assert_eq!(self.text(rec.s), key);
                value.iter().for_each(|value| assert_eq!(self.text(rec.t), value));
            }
            StageOp::MountClassic { fstype, source, data, .. } => {
                let found = (self.text(rec.s), self.text(rec.t), self.text(rec.b as u32));
                assert_eq!(found, (fstype.as_str(), source.as_str(), data.as_str()));
            }
            StageOp::Groups { gids, .. } => {
                self.array(rec.s, rec.x, 4);
                let found: Vec<u32> = (0..rec.x).map(|n| self.u32(rec.s + 4 * n)).collect();
                assert_eq!(found, *gids);
            }
            StageOp::Seccomp { filter, .. } => {
                self.array(rec.s, rec.x, 8);
                let found: Vec<u64> = (0..rec.x).map(|n| self.u64(rec.s + 8 * n)).collect();
                assert_eq!(found, *filter);
            }
            StageOp::Rlimits { limits, set } => {
                assert_eq!((rec.x as usize, rec.y), (limits.len(), if *set { 2 } else { 1 }));
                self.array(rec.s, rec.x, size_of::<wire::RlimitRec>() as u32);
                for (limit, at) in limits.iter().zip((rec.s..).step_by(size_of::<wire::RlimitRec>())) {
                    let found = [0, 8, 16].map(|field| self.u64(at + field));
                    assert_eq!(found, [limit.resource.into(), limit.soft, limit.hard]);
                }
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
        assert_eq!(self.texts(word(1)), texts(&hook.args));
        // Without one it is the program's, which is looked at where that is executed.
        if let Some(env) = &hook.env {
            assert_eq!(self.texts(word(2)), texts(env));
        }
        assert_eq!((self.text(word(3)), self.text(word(4))), (state.0.as_str(), state.1.as_str()));
    }
}

fn texts(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// Encodes and reads back.
pub fn roundtrip(program: &Program) {
    let fds: Vec<i32> = (0..program.sources.len() as i32).map(|n| 30_000 - n).collect();
    let encoded = encode(program, &fds, &[3, 4, 0], 60);
    let decoded = Decoded::new(&encoded);
    assert!(decoded.keep.is_sorted() && decoded.keep.contains(&60) && !decoded.keep.contains(&0));
    assert!([3].iter().chain(&fds).all(|fd| decoded.keep.binary_search(&i64::from(*fd)).is_ok()));
    let steps = program.records();
    assert_eq!(decoded.records.len(), steps.len());
    let mut relocated = std::collections::HashSet::new();
    for (rec, index) in decoded.records.iter().zip(&steps) {
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
