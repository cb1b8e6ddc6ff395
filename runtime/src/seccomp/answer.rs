// SPDX-License-Identifier: Apache-2.0
//! What a compiled filter answers to a system call of the runtime's own: the order of a program depends on it
//! (`program/compile/filter.rs`), and when the stage is killed by it, the error names the call (pure).

#![forbid(unsafe_code)]

use super::{Filter, Host, SockFilter};

/// An answer, as far as the caller has to care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterAnswer {
    /// The kernel performs the call.
    Passes,
    /// It fails, or somebody else answers it.
    Refused,
    Kills,
}

/// A call as a filter sees it: arguments that nobody filters by are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeccompData {
    /// Number in this machine's own ABI.
    pub number: i64,
    pub arguments: [u64; 6],
}

impl SeccompData {
    /// A call whose arguments no profile looks at.
    pub(crate) const fn plain(number: i64) -> SeccompData {
        SeccompData { number, arguments: [0; 6] }
    }

    /// The word of `struct seccomp_data` at this offset (linux/seccomp.h); the instruction pointer reads as 0.
    fn word(&self, offset: u32, audit: u32) -> u32 {
        let argument = |at: u32| self.arguments.get(at as usize / 8).copied().unwrap_or_default();
        match offset {
            0 => self.number as u32,
            4 => audit,
            16.. if offset.is_multiple_of(8) => argument(offset - 16) as u32,
            16.. => (argument(offset - 16) >> 32) as u32,
            _ => 0,
        }
    }
}

// seccomp(2): the actions of a filter.
const RET_ACTION_FULL: u32 = 0xffff_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

impl Filter {
    /// What it answers to `call`. A filter that is not of our compiler's making (an annotation brings its own bytes) and
    /// does what ours does not is taken to refuse.
    pub(crate) fn answer(&self, call: SeccompData) -> FilterAnswer {
        let audit = Host::NATIVE.and_then(|host| host.abis().first()).map_or(0, |abi| abi.audit);
        match run(&self.insns, &call, audit).map(|value| value & RET_ACTION_FULL) {
            Some(RET_ALLOW | RET_LOG) => FilterAnswer::Passes,
            // The stage handles no signal, so that SIGSYS is its end.
            Some(RET_KILL_THREAD | RET_KILL_PROCESS | RET_TRAP) => FilterAnswer::Kills,
            _ => FilterAnswer::Refused,
        }
    }

    /// Whether all of these calls pass.
    pub(crate) fn lets(&self, calls: &[SeccompData]) -> bool {
        calls.iter().all(|call| self.answer(*call) == FilterAnswer::Passes)
    }
}

/// Classic BPF, as far as `emit` writes it (linux/bpf_common.h); `None` for anything else.
fn run(insns: &[SockFilter], call: &SeccompData, audit: u32) -> Option<u32> {
    let (mut pc, mut acc) = (0_usize, 0_u32);
    // Jumps only lead forward: there are at most as many steps as instructions.
    for _ in 0..=insns.len() {
        let insn = insns.get(pc)?;
        pc += 1;
        let branch = |taken: bool| usize::from(if taken { insn.jt } else { insn.jf });
        match insn.code {
            0x20 => acc = call.word(insn.k, audit),
            0x54 => acc &= insn.k,
            0x05 => pc += insn.k as usize,
            0x15 => pc += branch(acc == insn.k),
            0x25 => pc += branch(acc > insn.k),
            0x35 => pc += branch(acc >= insn.k),
            0x45 => pc += branch(acc & insn.k != 0),
            0x06 => return Some(insn.k),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::compile;
    use crate::spec::Seccomp;

    fn filter(rules: serde_json::Value) -> Filter {
        let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
        let profile: Seccomp = serde_json::from_value(profile).unwrap();
        compile(&profile).unwrap().unwrap()
    }

    #[test]
    fn answers_are_the_kernels() {
        let one = |action: &str| {
            let filter = filter(serde_json::json!([{"names": ["setsid"], "action": action}]));
            assert_eq!(filter.answer(SeccompData::plain(libc::SYS_getpid)), FilterAnswer::Passes, "{action}");
            filter.answer(SeccompData::plain(libc::SYS_setsid))
        };
        for (action, want) in [
            ("SCMP_ACT_ALLOW", FilterAnswer::Passes),
            ("SCMP_ACT_LOG", FilterAnswer::Passes),
            ("SCMP_ACT_ERRNO", FilterAnswer::Refused),
            ("SCMP_ACT_TRACE", FilterAnswer::Refused),
            ("SCMP_ACT_KILL", FilterAnswer::Kills),
            ("SCMP_ACT_KILL_THREAD", FilterAnswer::Kills),
            ("SCMP_ACT_KILL_PROCESS", FilterAnswer::Kills),
            ("SCMP_ACT_TRAP", FilterAnswer::Kills),
        ] {
            assert_eq!(one(action), want, "{action}");
        }
    }

    #[test]
    fn arguments_count() {
        let masked = serde_json::json!([{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": masked}]});
        let profile: Seccomp = serde_json::from_value(profile).unwrap();
        let filter = compile(&profile).unwrap().unwrap();
        let clone = |flags: u64| SeccompData { number: libc::SYS_clone, arguments: [flags, 0, 0, 0, 0, 0] };
        assert!(filter.lets(&[clone(0x9000)]));
        assert_eq!(filter.answer(clone(0x2000_0000)), FilterAnswer::Refused);
        assert!(!filter.lets(&[clone(0x9000), SeccompData::plain(libc::SYS_setsid)]));
    }

    /// Jumps by bits, which the compiler makes of masks.
    #[test]
    fn a_jump_by_bits_looks_at_those_bits() {
        let insn = |code, jf, k| SockFilter { code, jt: 0, jf, k };
        let insns =
            vec![insn(0x20, 0, 0), insn(0x45, 1, 1), insn(0x06, 0, 0x7fff_0000), insn(0x06, 0, 0x0005_0001)];
        let filter = Filter { insns, flags: 0, listener: None, unknown: vec![] };
        assert_eq!(filter.answer(SeccompData::plain(3)), FilterAnswer::Passes);
        assert_eq!(filter.answer(SeccompData::plain(2)), FilterAnswer::Refused);
    }

    #[test]
    fn foreign_programs_are_no_trouble() {
        let insn = |code, k| SockFilter { code, jt: 0, jf: 0, k };
        for insns in [vec![], vec![insn(0x05, u32::MAX)], vec![insn(0x80, 0)], vec![insn(0x20, u32::MAX)]] {
            let filter = Filter { insns, flags: 0, listener: None, unknown: vec![] };
            assert_eq!(filter.answer(SeccompData::plain(0)), FilterAnswer::Refused);
        }
    }
}
