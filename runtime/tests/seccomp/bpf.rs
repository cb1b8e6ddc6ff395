// SPDX-License-Identifier: Apache-2.0
//! Classic BPF as seccomp runs it: the checks of the kernel's verifier (net/core/filter.c bpf_check_classic,
//! kernel/seccomp.c seccomp_check_filter) and an interpreter.

use corten::seccomp::SockFilter;

/// `struct seccomp_data` without the instruction pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// AUDIT_ARCH_*.
    pub arch: u32,
    /// Number.
    pub nr: u32,
    /// Arguments.
    pub args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 | 12 => 0,
            16..64 if offset.is_multiple_of(8) => self.args[(offset as usize - 16) / 8] as u32,
            16..64 => (self.args[(offset as usize - 16) / 8] >> 32) as u32,
            _ => panic!("load at {offset}"),
        }
    }
}

/// What the kernel would refuse to load.
pub fn check(program: &[SockFilter]) -> Result<(), String> {
    if program.is_empty() || program.len() > 4096 {
        return Err(format!("{} instructions", program.len()));
    }
    for (pc, insn) in program.iter().enumerate() {
        let left = program.len() - pc - 1;
        match insn.code {
            0x20 if insn.k % 4 == 0 && insn.k < 64 => {}
            0x54 | 0x06 => {}
            0x05 if (insn.k as usize) < left => {}
            0x15 | 0x25 | 0x35 | 0x45 if usize::from(insn.jt) < left && usize::from(insn.jf) < left => {}
            _ => return Err(format!("instruction {pc}: {insn:?}")),
        }
    }
    match program.last() {
        Some(SockFilter { code: 0x06, .. }) => Ok(()),
        _ => Err("does not end with a return".into()),
    }
}

/// The verdict (SECCOMP_RET_* with data) on a call, and how many instructions it took.
pub fn run(program: &[SockFilter], call: &Call) -> (u32, usize) {
    let (mut pc, mut acc, mut steps) = (0, 0, 0);
    loop {
        let insn = program[pc];
        steps += 1;
        pc += 1;
        let mut branch = |taken: bool| pc += usize::from(if taken { insn.jt } else { insn.jf });
        match insn.code {
            0x20 => acc = call.word(insn.k),
            0x54 => acc &= insn.k,
            0x05 => pc += insn.k as usize,
            0x15 => branch(acc == insn.k),
            0x25 => branch(acc > insn.k),
            0x35 => branch(acc >= insn.k),
            0x45 => branch(acc & insn.k != 0),
            0x06 => return (insn.k, steps),
            code => panic!("code {code:#x}"),
        }
    }
}

/// The verdict on a call.
pub fn verdict(program: &[SockFilter], call: &Call) -> u32 {
    run(program, call).0
}
