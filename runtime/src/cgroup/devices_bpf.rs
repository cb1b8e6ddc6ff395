// SPDX-License-Identifier: Apache-2.0
//! Device rules as an eBPF program (cgroup v2). Pure; loaded by `v2` through `sys::bpf`.
//!
//! The kernel calls the program for every open and mknod with the type, the numbers and the letters that are asked for,
//! several at once for an open for reading and writing. The program keeps the letters not yet decided and goes
//! through the policy's rules, the deciding one first: a deny that meets an undecided letter ends in 0, an allow
//! decides its letters, and when none is left it ends in 1.

#![forbid(unsafe_code)]

use super::devices::{Policy, RWM, Rule};
use crate::sys::bpf::Insn;

// Registers: the context comes in r1, the answer goes out in r0.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const LETTERS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Operations (linux/bpf_common.h, linux/bpf.h). The jumps compare 32 bits (Linux 5.1).
const LOAD_U32: u8 = 0x61;
const MOVE: u8 = 0xbc;
const MOVE_IMM: u8 = 0xb4;
const AND_IMM: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_NE: u8 = 0x56;
const JUMP_EQ: u8 = 0x16;
const EXIT: u8 = 0x95;

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn { code, regs: src << 4 | dst, off, imm }
}

/// The program that enforces `policy`.
#[must_use]
pub fn compile(policy: &Policy) -> Vec<Insn> {
    let mut program = vec![
        // struct bpf_cgroup_dev_ctx { u32 access_type: letters << 16 | type; u32 major; u32 minor; }
        insn(LOAD_U32, TYPE, CONTEXT, 0, 0),
        insn(MOVE, LETTERS, TYPE, 0, 0),
        insn(SHIFT_RIGHT, LETTERS, 0, 0, 16),
        insn(AND_IMM, TYPE, 0, 0, 0xffff),
        insn(LOAD_U32, MAJOR, CONTEXT, 4, 0),
        insn(LOAD_U32, MINOR, CONTEXT, 8, 0),
    ];
    for rule in &policy.rules {
        emit(&mut program, rule);
    }
    program.extend(answer(policy.otherwise));
    program
}

fn answer(allow: bool) -> [Insn; 2] {
    [insn(MOVE_IMM, ANSWER, 0, 0, i32::from(allow)), insn(EXIT, 0, 0, 0, 0)]
}

fn emit(program: &mut Vec<Insn>, rule: &Rule) {
    let then: &[Insn] = &match (rule.allow, rule.access) {
        (allow, RWM) => answer(allow).to_vec(),
        (false, letters) => {
            let mut then = vec![
                insn(MOVE, ANSWER, LETTERS, 0, 0),
                insn(AND_IMM, ANSWER, 0, 0, letters.into()),
                insn(JUMP_EQ, ANSWER, 0, 2, 0),
            ];
            then.extend(answer(false));
            then
        }
        (true, letters) => {
            let mut then =
                vec![insn(AND_IMM, LETTERS, 0, 0, (!letters & RWM).into()), insn(JUMP_NE, LETTERS, 0, 2, 0)];
            then.extend(answer(true));
            then
        }
    };
    let conditions = [
        Some((TYPE, rule.devices.kind as u32)),
        rule.devices.major.map(|n| (MAJOR, n)),
        rule.devices.minor.map(|n| (MINOR, n)),
    ];
    // Few instructions follow, so the distances fit.
    let mut left = conditions.iter().flatten().count() + then.len();
    for (register, number) in conditions.into_iter().flatten() {
        left -= 1;
        program.push(insn(
            JUMP_NE,
            register,
            0,
            i16::try_from(left).unwrap_or(i16::MAX),
            number.cast_signed(),
        ));
    }
    program.extend_from_slice(then);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::devices::tests::{LETTERS, Random, model, random_list};
    use crate::spec::DeviceRule;

    /// As much of an eBPF machine as device programs use (Documentation/bpf/standardization/instruction-set.rst), written
    /// from that document and not from the emitter. Every jump must go forward and stay inside.
    fn run(program: &[Insn], kind: u32, letters: u32, major: u32, minor: u32) -> u64 {
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
                        0x5 => value & operand,
                        0x7 => value >> operand,
                        0xb => operand,
                        other => panic!("operation {other:x}"),
                    });
                }
                // JMP: only exit
                5 => {
                    assert_eq!(insn.code, 0x95);
                    return r[0];
                }
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

    fn check(list: &[DeviceRule], random: &mut Random) {
        let program = compile(&Policy::of(list).unwrap());
        for _ in 0..200 {
            let (kind, letters) = (1 + random.below(2), 1 + random.below(7));
            let (major, minor) = random.numbers();
            let expected = LETTERS
                .iter()
                .filter(|(bit, _)| letters & u32::from(*bit) != 0)
                .all(|(_, letter)| model(list, if kind == 1 { 'b' } else { 'c' }, major, minor, *letter));
            let answer = run(&program, kind, letters, major, minor);
            assert_eq!(answer, u64::from(expected), "{kind} {major}:{minor} {letters} of {list:?}");
        }
    }

    #[test]
    fn the_program_and_the_model_agree_on_random_lists() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..3000 {
            let list = random_list(&mut random);
            check(&list, &mut random);
        }
    }

    #[test]
    fn the_usual_list_is_short() {
        let list = [DeviceRule { allow: false, access: "rwm".into(), ..DeviceRule::default() }];
        let program = compile(&Policy::of(&list).unwrap());
        assert!(program.len() <= 70, "{}", program.len());
    }

    #[test]
    fn large_numbers_compare_as_unsigned() {
        let rule = DeviceRule {
            allow: true,
            kind: "c".into(),
            major: Some(u32::MAX.into()),
            minor: Some(1 << 31),
            access: "r".into(),
        };
        let program = compile(&Policy::of(&[rule]).unwrap());
        assert_eq!(run(&program, 2, 2, u32::MAX, 1 << 31), 1);
        assert_eq!(run(&program, 2, 2, u32::MAX, 1 << 30), 0);
        assert_eq!(run(&program, 2, 6, u32::MAX, 1 << 31), 0);
    }
}
