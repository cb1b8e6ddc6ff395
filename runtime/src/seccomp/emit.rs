// SPDX-License-Identifier: Apache-2.0
//! Writes classic BPF, last instruction first.
//!
//! All jumps of BPF go forward. Written backwards, a program knows the place of every target when it writes the
//! jump, so distances never change afterwards. A conditional jump reaches 255 instructions; when its target is
//! farther, a copy of the target (a return) or a jump to it is put right behind the instruction, and serves all
//! others that come near.
//!
//! Nothing falls through by chance: every conditional jump names both targets, and an instruction that is not a jump
//! is written directly in front of the one that it leads to.

#![forbid(unsafe_code)]

use super::SockFilter;
use super::profile::{Operator, Test};
use super::rules::SyscallRule;

/// A program being written.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// The last instruction first.
    code: Vec<SockFilter>,
    /// Latest copy of each return.
    returns: Vec<(u32, Position)>,
    /// Latest jump to each distant target.
    bridges: Vec<(Position, Position)>,
}

/// An instruction, counted from the end.
type Position = usize;

/// Where to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// End with this `SECCOMP_RET_*`.
    Return(u32),
    /// An instruction already written.
    At(Position),
}

/// Jumps, by the comparison that makes them (BPF_JMP | … | BPF_K).
#[derive(Debug, Clone, Copy)]
#[repr(u16)]
pub(super) enum Jump {
    Eq = 0x15,
    /// Greater, unsigned.
    Gt = 0x25,
    /// Greater or equal, unsigned.
    Ge = 0x35,
}

/// BPF_LD | BPF_W | BPF_ABS.
const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K.
const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA.
const JUMP: u16 = 0x05;
/// BPF_RET | BPF_K.
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data` (linux/seccomp.h). Arguments are little-endian words on all our hosts.
pub(super) const NUMBER: u32 = 0;
/// Offset of the AUDIT_ARCH.
pub(super) const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// A written rule and where the ones before it may enter.
struct EntryPoint {
    /// Nothing is known.
    start: Target,
    /// What may be skipped by one that has just compared the same high word.
    shared: Option<Shared>,
}

/// Lists like `socket` with domain 1, 2, 3 … would compare the same high word again for every value.
#[derive(Clone, Copy)]
struct Shared {
    arg: u8,
    high: u32,
    /// The high word is `high`, and the low word is loaded.
    same: Target,
    /// The high word is another.
    other: Target,
}

impl Assembler {
    /// Instructions so far.
    pub(super) fn len(&self) -> usize {
        self.code.len()
    }

    /// In the order of execution.
    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        self.code.reverse();
        self.code
    }

    fn push(&mut self, code: u16, jt: usize, jf: usize, k: u32) -> Position {
        self.code.push(SockFilter { code, jt: jt as u8, jf: jf as u8, k });
        self.code.len() - 1
    }

    /// A place for `target` that the next conditional jump but one can reach.
    fn near(&mut self, target: Target) -> Position {
        let reach = self.code.len().saturating_sub(usize::from(u8::MAX));
        match target {
            Target::Return(value) => {
                let latest = self.returns.iter_mut().find(|(known, _)| *known == value);
                match latest {
                    Some((_, place)) if *place >= reach => *place,
                    Some((_, place)) => {
                        *place = self.code.len();
                        self.push(RETURN, 0, 0, value)
                    }
                    None => {
                        self.returns.push((value, self.code.len()));
                        self.push(RETURN, 0, 0, value)
                    }
                }
            }
            Target::At(place) if place >= reach => place,
            Target::At(place) => {
                let bridge = self.bridges.iter().rev().find(|(to, at)| *to == place && *at >= reach);
                if let Some((_, at)) = bridge {
                    return *at;
                }
                let at = self.push(JUMP, 0, 0, (self.code.len() - place - 1) as u32);
                self.bridges.push((place, at));
                at
            }
        }
    }

    /// A conditional jump.
    pub(super) fn jump(&mut self, jump: Jump, k: u32, yes: Target, no: Target) -> Target {
        let (yes, no) = (self.near(yes), self.near(no));
        let here = self.code.len();
        Target::At(self.push(jump as u16, here - yes - 1, here - no - 1, k))
    }

    /// Loads a word of `struct seccomp_data` for the instruction written last.
    pub(super) fn load(&mut self, offset: u32) -> Target {
        Target::At(self.push(LOAD, 0, 0, offset))
    }

    /// Binary search: `ranges` are the beginnings of ranges of the loaded word, ascending from 0, and where to go.
    pub(super) fn search(&mut self, ranges: &[(u32, Target)]) -> Target {
        match *ranges {
            [] => Target::Return(super::profile::KILL_THREAD),
            [(_, target)] => target,
            // One number in the midst of a range.
            [(_, around), (at, target), (end, rest)] if around == rest && end - at == 1 => {
                self.jump(Jump::Eq, at, target, around)
            }
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let above = self.search(high);
                let below = self.search(low);
                self.jump(Jump::Ge, high[0].0, above, below)
            }
        }
    }

    /// A chain of rules: the first that holds decides, else `default`.
    pub(super) fn chain(&mut self, rules: &[SyscallRule], wide: bool, default: Target) -> Target {
        let mut entry = EntryPoint { start: default, shared: None };
        for rule in rules.iter().rev() {
            entry = self.rule(rule, wide, &entry);
        }
        entry.start
    }

    /// One rule, in front of the next.
    fn rule(&mut self, rule: &SyscallRule, wide: bool, next: &EntryPoint) -> EntryPoint {
        let mut entry = EntryPoint { start: Target::Return(rule.action), shared: None };
        for test in rule.tests.iter().rev() {
            entry = self.test(test, wide, entry.start, next);
        }
        entry
    }

    /// One condition: goes to `holds` or to the next rule.
    fn test(&mut self, test: &Test, wide: bool, holds: Target, next: &EntryPoint) -> EntryPoint {
        let (high, high_mask) = ((test.value >> 32) as u32, (test.mask >> 32) as u32);
        let shared = next.shared.filter(|shared| shared.arg == test.arg && shared.high == high);
        let masked = test.op == Operator::Masked;
        let fails = match shared {
            Some(shared) if !masked => shared.same,
            _ => next.start,
        };
        let (compare, low) = self.low(test, holds, fails);
        if !wide {
            let shared = Shared { arg: test.arg, high, same: compare, other: low };
            return EntryPoint { start: low, shared: (!masked).then_some(shared) };
        }
        if masked {
            let start = if high_mask == 0 { low } else { self.high_masked(test, low, next.start) };
            return EntryPoint { start, shared: None };
        }
        let other = shared.map_or(next.start, |shared| shared.other);
        self.high(test, compare, low, holds, other)
    }

    /// Compares the low word. Returns the comparison and the load before it.
    fn low(&mut self, test: &Test, holds: Target, fails: Target) -> (Target, Target) {
        let (value, mask) = (test.value as u32, test.mask as u32);
        if mask == 0 {
            return (holds, holds);
        }
        let compare = match test.op {
            Operator::Eq | Operator::Masked => self.jump(Jump::Eq, value, holds, fails),
            Operator::Ne => self.jump(Jump::Eq, value, fails, holds),
            Operator::Gt => self.jump(Jump::Gt, value, holds, fails),
            Operator::Ge => self.jump(Jump::Ge, value, holds, fails),
            Operator::Lt => self.jump(Jump::Ge, value, fails, holds),
            Operator::Le => self.jump(Jump::Gt, value, fails, holds),
        };
        if mask != u32::MAX {
            self.push(AND, 0, 0, mask);
        }
        (compare, self.load(ARGS + 8 * u32::from(test.arg)))
    }

    /// Compares the high word of a masked argument: the low word decides, or it does not hold.
    fn high_masked(&mut self, test: &Test, low: Target, fails: Target) -> Target {
        self.jump(Jump::Eq, (test.value >> 32) as u32, low, fails);
        if test.mask >> 32 != u64::from(u32::MAX) {
            self.push(AND, 0, 0, (test.mask >> 32) as u32);
        }
        self.load(ARGS + 8 * u32::from(test.arg) + 4)
    }

    /// Compares the high word: when it is equal the low word decides; `fails` is for when it is not.
    fn high(
        &mut self,
        test: &Test,
        compare: Target,
        low: Target,
        holds: Target,
        fails: Target,
    ) -> EntryPoint {
        let high = (test.value >> 32) as u32;
        // What to do with a greater and with a smaller one.
        let (greater, smaller) = match test.op {
            Operator::Ne => (holds, holds),
            Operator::Gt | Operator::Ge => (holds, fails),
            Operator::Lt | Operator::Le => (fails, holds),
            Operator::Eq | Operator::Masked => (fails, fails),
        };
        let load = ARGS + 8 * u32::from(test.arg) + 4;
        if greater == smaller || high == 0 {
            self.jump(Jump::Eq, high, low, greater);
            let shared = Shared { arg: test.arg, high, same: compare, other: greater };
            return EntryPoint { start: self.load(load), shared: Some(shared) };
        }
        let equal = self.jump(Jump::Eq, high, low, smaller);
        self.jump(Jump::Gt, high, greater, equal);
        EntryPoint { start: self.load(load), shared: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most profiles name single calls: each costs one comparison, not two.
    #[test]
    fn one_number_in_the_midst_is_one_comparison() {
        let (around, there) = (Target::Return(1), Target::Return(2));
        let length = |ranges: &[(u32, Target)]| {
            let mut assembler = Assembler::default();
            assembler.search(ranges);
            assembler.len()
        };
        assert_eq!(length(&[(0, around), (5, there), (6, around)]), 3);
        assert_eq!(length(&[(0, around), (5, there), (7, around)]), 4);
    }
}
