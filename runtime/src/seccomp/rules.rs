// SPDX-License-Identifier: Apache-2.0
//! What a profile says of each call of one ABI. Everything that is not obvious in the meaning of a profile is decided
//! here, and decided as libseccomp (driven by runc) decides it:
//!
//! - Unconditional beats conditional, wherever it stands; of several unconditional rules the first.
//! - Conditional rules are asked in this order: those whose first argument has the higher index; tests for equality
//!   (EQ, NE, MASKED_EQ), then LT and LE, then GT and GE; the larger value (for LT and LE the smaller). Then the same
//!   for their second argument, and so on; at the end, as they stand in the profile.
//! - A rule that repeats an earlier one with further conditions is never asked. One that repeats an earlier one, or
//!   its beginning, with another action is a contradiction, and refused.
//! - Where arguments have 32 bits, so have values and masks; a mask of zero is no condition.
//! - On i386 a rule for a socket or System V IPC call also holds for socketcall(2) or ipc(2) with its number as
//!   first argument. A condition on the first argument cannot be asked there (it is in memory) and is left out. If
//!   that makes two rules contradict each other the stricter one stands.

#![forbid(unsafe_code)]

use std::cmp::Ordering;

use super::arch::Abi;
use super::names;
use super::profile::{Operator, Profile, Test, Use};
use crate::error::{Error, Result};

/// What one ABI's calls come to.
#[derive(Debug)]
pub(super) struct Calls {
    /// Every call the table knows, by number.
    pub known: Vec<(u32, Verdict)>,
    /// What `Verdict::Ask` refers to.
    pub chains: Vec<Vec<SyscallRule>>,
    /// The highest number that the profile names.
    pub last: Option<u32>,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This `SECCOMP_RET_*`.
    Return(u32),
    /// The first rule that holds in this chain (by index), else the default.
    Ask(usize),
}

/// An action under conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyscallRule {
    /// All must hold; sorted by argument, no argument twice, never empty.
    pub tests: Vec<Test>,
    /// `SECCOMP_RET_*` with its data.
    pub action: u32,
}

/// Each rule is two instructions at least, and the kernel takes 4096: longer chains need not be sorted to be refused.
const LONGEST: usize = 2048;
/// Chains that are the same are written once, so that more rules than that may fit; but no profile needs so many, and each
/// takes memory until it is written.
const MOST: usize = 16 * LONGEST;

/// The slots of the table while rules are added.
struct Slots {
    verdicts: Vec<Option<Verdict>>,
    chains: Vec<Vec<SyscallRule>>,
    /// How many were added to the chains.
    rules: usize,
}

impl Calls {
    /// Applies `profile` to `abi`.
    pub(super) fn new(profile: &Profile, abi: &Abi) -> Result<Calls> {
        let mut slots = Slots { verdicts: vec![None; names::ROWS], chains: Vec::new(), rules: 0 };
        let mut last = None;
        for call in &profile.uses {
            last = last.max(abi.call_number(call.row));
            if let Some((name, number)) = abi.multiplexer(call.row) {
                let row = names::row(name).unwrap_or_default();
                last = last.max(abi.call_number(row));
                slots.apply(profile, abi, Use { row, ..*call }, Some(number))?;
            }
            slots.apply(profile, abi, *call, None)?;
        }
        let default = Verdict::Return(profile.default);
        let mut known = Vec::with_capacity(names::ROWS);
        known.extend(slots.verdicts.iter().enumerate().filter_map(|(row, verdict)| {
            let nr = abi.call_number(row)?;
            Some((nr, verdict.unwrap_or(default)))
        }));
        known.sort_unstable_by_key(|(nr, _)| *nr);
        Ok(Calls { known, chains: slots.chains, last })
    }
}

impl Slots {
    /// Adds the rules of a block to one call, or to the one that multiplexes it.
    fn apply(&mut self, profile: &Profile, abi: &Abi, call: Use, multiplexed: Option<u64>) -> Result<()> {
        let block = &profile.blocks[call.block];
        let settled = matches!(self.verdicts[call.row], Some(Verdict::Return(_)));
        if settled || block.redundant || abi.call_number(call.row).is_none() {
            return Ok(());
        }
        for tests in &block.alternatives {
            let mut tests: Vec<Test> = tests.iter().filter_map(|test| narrow(*test, abi.wide)).collect();
            if let Some(value) = multiplexed {
                tests.retain(|test| test.arg != 0);
                tests.insert(0, Test { arg: 0, op: Operator::Eq, mask: width(abi.wide), value });
            }
            let rule = SyscallRule { tests, action: block.action };
            if self.is_full(call.row) {
                let name = String::from_utf8_lossy(names::name(call.row));
                let text = format!("with the rules for {name} there are more than a filter holds");
                return Err(Error::invalid(format!("/linux/seccomp/syscalls/{}", call.block), text));
            }
            if !self.add(call.row, rule, multiplexed.is_some()) {
                let at = format!("/linux/seccomp/syscalls/{}", call.block);
                let name = String::from_utf8_lossy(names::name(call.row));
                let text = format!("contradicts an earlier rule for {name} ({})", abi.name);
                return Err(Error::invalid(at, text));
            }
        }
        Ok(())
    }

    fn is_full(&self, row: usize) -> bool {
        self.rules > MOST
            || matches!(self.verdicts[row], Some(Verdict::Ask(chain)) if self.chains[chain].len() > LONGEST)
    }

    /// Adds one rule; false if it contradicts an earlier one.
    fn add(&mut self, row: usize, rule: SyscallRule, multiplexed: bool) -> bool {
        self.rules += 1;
        match self.verdicts[row] {
            // The first alternative of a block has settled it.
            Some(Verdict::Return(_)) => true,
            _ if rule.tests.is_empty() => {
                self.verdicts[row] = Some(Verdict::Return(rule.action));
                true
            }
            Some(Verdict::Ask(chain)) => insert(&mut self.chains[chain], rule, multiplexed),
            None => {
                self.verdicts[row] = Some(Verdict::Ask(self.chains.len()));
                self.chains.push(vec![rule]);
                true
            }
        }
    }
}

/// Puts a rule into its place in a chain; false if it contradicts an earlier one.
fn insert(chain: &mut Vec<SyscallRule>, rule: SyscallRule, multiplexed: bool) -> bool {
    for old in chain.iter_mut() {
        if old.tests == rule.tests && old.action != rule.action {
            // As signed numbers the actions stand in the kernel's order of strictness.
            old.action = (old.action as i32).min(rule.action as i32) as u32;
            return multiplexed;
        }
        if rule.tests.starts_with(&old.tests) {
            return true;
        }
        if old.tests.starts_with(&rule.tests) && old.action != rule.action && !multiplexed {
            return false;
        }
    }
    chain.retain(|old| !old.tests.starts_with(&rule.tests));
    let at = chain.partition_point(|old| order(&old.tests, &rule.tests) != Ordering::Greater);
    chain.insert(at, rule);
    true
}

/// The order in which rules are asked.
fn order(a: &[Test], b: &[Test]) -> Ordering {
    let key = |test: &Test| match test.op {
        Operator::Eq | Operator::Ne | Operator::Masked => (u8::MAX - test.arg, 0, !test.value),
        Operator::Lt | Operator::Le => (u8::MAX - test.arg, 1, test.value),
        Operator::Gt | Operator::Ge => (u8::MAX - test.arg, 2, !test.value),
    };
    a.iter().map(key).cmp(b.iter().map(key))
}

fn width(wide: bool) -> u64 {
    if wide { u64::MAX } else { u64::from(u32::MAX) }
}

/// The condition on arguments of this width; `None` if it always holds.
fn narrow(test: Test, wide: bool) -> Option<Test> {
    let (mask, value) = (test.mask & width(wide), test.value & width(wide));
    (mask != 0).then_some(Test { mask, value, ..test })
}
