// SPDX-License-Identifier: Apache-2.0
//! A machine for device programs, for the unit tests and the fuzzer. `super` has `Insn`.

use super::Insn;

/// As much of an eBPF machine as device programs use (Documentation/bpf/standardization/instruction-set.rst), written
/// from that document and not from the emitter. Every jump must go forward and stay inside.
pub fn run(program: &[Insn], kind: u32, letters: u32, major: u32, minor: u32) -> u64 {
    let context = [letters << 16 | kind, major, minor];
    let mut r = [0u64; 11];
    let mut at = 0;
    loop {
        let insn = program[at];
        let (dst, src) = (usize::from(insn.regs & 15), usize::from(insn.regs >> 4));
        let (class, from_register) = (insn.code & 7, insn.code & 8 != 0);
        at += 1;
        match class {
            // LDX, size W, mode MEM
            1 => {
                assert_eq!((insn.code, src), (0x61, 1));
                r[dst] = context[usize::try_from(insn.off).unwrap() / 4].into();
            }
            // ALU: 32 bits, the upper half becomes zero
            4 => {
                let operand = if from_register { r[src] as u32 } else { insn.imm as u32 };
                let value = r[dst] as u32;
                r[dst] = u64::from(match insn.code >> 4 {
                    0x4 => value | operand,
                    0x5 => value & operand,
                    0x6 => value << operand,
                    0x7 => value >> operand,
                    0xa => value ^ operand,
                    0xb => operand,
                    other => panic!("operation {other:x}"),
                });
            }
            // ALU64
            7 => {
                let operand = if from_register { r[src] } else { i64::from(insn.imm) as u64 };
                r[dst] = match insn.code >> 4 {
                    0x0 => r[dst].wrapping_add(operand),
                    0x4 => r[dst] | operand,
                    other => panic!("operation {other:x}"),
                };
            }
            // JMP
            5 => match insn.code {
                0x95 => return r[0],
                0x75 => {
                    assert!(insn.off >= 0);
                    at +=
                        if r[dst] as i64 >= insn.imm.into() { usize::try_from(insn.off).unwrap() } else { 0 };
                }
                other => panic!("jump {other:x}"),
            },
            // JMP32
            6 => {
                assert!(!from_register && insn.off >= 0);
                let equal = r[dst] as u32 == insn.imm as u32;
                let jump = match insn.code >> 4 {
                    0x1 => equal,
                    0x5 => !equal,
                    other => panic!("jump {other:x}"),
                };
                at += if jump { usize::try_from(insn.off).unwrap() } else { 0 };
            }
            other => panic!("class {other:x}"),
        }
    }
}
