// SPDX-License-Identifier: Apache-2.0
//! From a profile to a filter: which ABIs, which ranges of numbers, in which order they are written.
//!
//! The shape is the speed: the kernel runs a filter for every number when it is loaded (to know those it need not
//! ask about) and then for every call that remains. So numbers are found by binary search over ranges of equal
//! verdict, and x32, which is a range of the numbers of AUDIT_ARCH_X86_64, is searched along with them.

#![forbid(unsafe_code)]

use super::arch::{Abi, Host, X32_BIT};
use super::emit::{ARCH, Assembler, Jump, NUMBER, Target};
use super::profile::{ENOSYS, KILL_THREAD, Profile};
use super::rules::{Calls, SyscallRule, Verdict};
use super::{Filter, SockFilter};
use crate::error::{Error, Result};

/// BPF_MAXINSNS (linux/bpf_common.h).
const MAX_INSNS: usize = 4096;

/// What libseccomp does with a call in an ABI that the profile does not list.
const UNLISTED: Target = Target::Return(KILL_THREAD);

/// Compiles a profile for the ABIs of `host`.
pub(super) fn filter(profile: Profile, host: Host) -> Result<Filter> {
    let insns =
        FilterWriter { profile: &profile, program: Assembler::default(), chains: Vec::new() }.write(host)?;
    let Profile { flags, listener, unknown, .. } = profile;
    Ok(Filter { insns, flags, listener, unknown })
}

struct FilterWriter<'a> {
    profile: &'a Profile,
    program: Assembler,
    /// The chains already written, with the width of their arguments.
    chains: Vec<(Vec<SyscallRule>, bool, Target)>,
}

impl FilterWriter<'_> {
    fn write(mut self, host: Host) -> Result<Vec<SockFilter>> {
        let listed = |abi: &&Abi| self.profile.architectures.iter().any(|name| name == abi.name);
        let (native, others) = (&host.abis()[0], &host.abis()[1..]);
        let compat: Vec<&Abi> = others.iter().filter(listed).collect();

        let mut next = UNLISTED;
        for abi in compat.iter().filter(|abi| abi.audit != native.audit) {
            let section = self.section(abi, None)?;
            next = self.program.jump(Jump::Eq, abi.audit, section, next);
        }
        let x32 = compat.iter().find(|abi| abi.audit == native.audit);
        let section = self.section(native, x32.copied())?;
        self.program.jump(Jump::Eq, native.audit, section, next);
        self.program.load(ARCH);

        match self.program.len() {
            ..=MAX_INSNS => Ok(self.program.finish()),
            len => Err(Error::invalid(
                "/linux/seccomp",
                format!("the filter has {len} instructions, the kernel takes {MAX_INSNS}"),
            )),
        }
    }

    /// All calls of one AUDIT_ARCH.
    fn section(&mut self, abi: &Abi, x32: Option<&Abi>) -> Result<Target> {
        let mut ranges = Ranges(Vec::new());
        self.calls(abi, &mut ranges)?;
        if let Some(x32) = x32 {
            self.calls(x32, &mut ranges)?;
        } else if abi.audit == Host::X86_64.abis()[0].audit {
            ranges.from(X32_BIT, UNLISTED);
            // Not a call, but what a tracer leaves that wants none made (seccomp(2)); libseccomp, too, spares it.
            ranges.from(u32::MAX, Target::Return(self.profile.default));
        }
        Ok(match self.program.search(&ranges.0) {
            start @ Target::At(_) => {
                debug_assert_eq!(start, Target::At(self.program.len() - 1));
                self.program.load(NUMBER)
            }
            end @ Target::Return(_) => end,
        })
    }

    /// The numbers of one ABI, from its base on.
    fn calls(&mut self, abi: &Abi, ranges: &mut Ranges) -> Result<()> {
        let calls = Calls::new(self.profile, abi)?;
        let default = Target::Return(self.profile.default);
        // What the author cannot have known: the numbers above the last he named, and those without a name. A
        // program (glibc above all) falls back to an older call on ENOSYS, and on nothing else.
        let last = calls.last.filter(|_| self.profile.enosys);
        let (unknown, last) = last.map_or((default, u32::MAX), |last| (Target::Return(ENOSYS), last));
        let chains: Vec<Target> = calls.chains.into_iter().map(|chain| self.chain(chain, abi.wide)).collect();
        ranges.from(abi.base, unknown);
        for (nr, verdict) in calls.known.into_iter().filter(|(nr, _)| *nr <= last) {
            let target = match verdict {
                Verdict::Return(action) => Target::Return(action),
                Verdict::Ask(chain) => chains[chain],
            };
            ranges.from(nr, target);
            ranges.from(nr + 1, unknown);
        }
        Ok(())
    }

    /// A chain of rules, written once however many calls have it.
    fn chain(&mut self, rules: Vec<SyscallRule>, wide: bool) -> Target {
        let known = self.chains.iter().find(|(known, w, _)| *w == wide && *known == rules);
        if let Some((_, _, target)) = known {
            return *target;
        }
        let target = self.program.chain(&rules, wide, Target::Return(self.profile.default));
        self.chains.push((rules, wide, target));
        target
    }
}

/// Beginnings of ranges and what holds in them, ascending, neighbours different.
struct Ranges(Vec<(u32, Target)>);

impl Ranges {
    /// From `start` on `target` holds; `start` is not below the last one.
    fn from(&mut self, start: u32, target: Target) {
        self.0.pop_if(|(last, _)| *last == start);
        if self.0.last().is_none_or(|(_, last)| *last != target) {
            self.0.push((start, target));
        }
    }
}
