// SPDX-License-Identifier: Apache-2.0
//! Device rules as an eBPF program (cgroup v2). Pure; loaded by `v2` through `sys::bpf`.
//!
//! The kernel calls the program for every open and mknod with the type, the numbers and the letters that are asked for,
//! several at once for an open for reading and writing. The program has one section for each type. A section keeps
//! the letters not yet decided and goes through the policy's rules, the deciding one first: a deny that meets an
//! undecided letter ends in 0, an allow decides its letters, and when none is left it ends in 1.
//!
//! Its shape is for the verifier, whose time grows with the conditional jumps: with three a rule, loading and attaching
//! the usual twelve rules took 85 µs; now it is 25, of which 10 are there without any rule. Rules in a row that differ
//! only in the device commute, so they become one test without jumps: `(number ^ rule's number) - 1` is negative if and
//! only if the two are equal, and the bitwise or of all of them is negative if any is.

#![forbid(unsafe_code)]

use super::devices::{Devices, Policy, RWM, Rule, Type};
use crate::sys::bpf::Insn;

// Registers: the context comes in r1, the answer goes out in r0.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const LETTERS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const BOTH: u8 = 6;
const FOUND: u8 = 7;

// Operations (linux/bpf_common.h, linux/bpf.h): on 32 bits, which clears the upper half, unless they say 64.
const LOAD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const MOVE_IMM: u8 = 0xb4;
const OR: u8 = 0x4c;
const AND_IMM: u8 = 0x54;
const XOR_IMM: u8 = 0xa4;
const SHIFT_LEFT: u8 = 0x64;
const SHIFT_RIGHT: u8 = 0x74;
const ADD_IMM_64: u8 = 0x07;
const OR_64: u8 = 0x4f;
const JUMP_EQ: u8 = 0x16;
const JUMP_NE: u8 = 0x56;
const JUMP_NOT_NEGATIVE_64: u8 = 0x75;
const EXIT: u8 = 0x95;

/// How many devices one test holds at most, so that jumps over it fit their 15 bits.
const RUN: usize = 1000;
/// The kernel's device numbers have 12 and 20 bits (linux/kdev_t.h).
const MINOR_BITS: u32 = 20;

const fn insn(code: u8, dst: u8, src: u8, imm: i32) -> Insn {
    Insn { code, regs: src << 4 | dst, off: 0, imm }
}

/// The program that enforces `policy`.
#[must_use]
pub fn compile(policy: &Policy) -> Vec<Insn> {
    let section = |kind| {
        let rules: Vec<&Rule> = policy.rules.iter().filter(|r| r.devices.kind == kind && exists(r)).collect();
        let mut section = Vec::with_capacity(16 + 4 * rules.len());
        let runs = rules.chunk_by(|a, b| (a.allow, a.access) == (b.allow, b.access));
        // After a rule for all letters of all devices nothing is reached, and the verifier refuses what is not.
        if !runs.flat_map(|run| run.chunks(RUN)).any(|run| emit(&mut section, run)) {
            section.extend(answer(policy.otherwise));
        }
        section
    };
    let (block, char) = (section(Type::Block), section(Type::Char));
    let mut program = vec![
        // struct bpf_cgroup_dev_ctx { u32 access_type: letters << 16 | type; u32 major; u32 minor; }
        insn(LOAD, TYPE, CONTEXT, 0),
        insn(MOVE, LETTERS, TYPE, 0),
        insn(SHIFT_RIGHT, LETTERS, 0, 16),
        insn(AND_IMM, TYPE, 0, 0xffff),
        Insn { off: 4, ..insn(LOAD, MAJOR, CONTEXT, 0) },
        Insn { off: 8, ..insn(LOAD, MINOR, CONTEXT, 0) },
        insn(MOVE, BOTH, MAJOR, 0),
        insn(SHIFT_LEFT, BOTH, 0, MINOR_BITS.cast_signed()),
        insn(OR, BOTH, MINOR, 0),
    ];
    if block == char {
        program.extend(char);
        return program;
    }
    // `MOST_RULES` keeps the distance within 15 bits.
    let off = i16::try_from(block.len()).unwrap_or(i16::MAX);
    program.push(Insn { off, ..insn(JUMP_NE, TYPE, 0, Type::Block as i32) });
    program.extend(block);
    program.extend(char);
    program
}

/// Whether there can be such a device.
fn exists(rule: &Rule) -> bool {
    let Devices { major, minor, .. } = rule.devices;
    major.is_none_or(|n| n >> (32 - MINOR_BITS) == 0) && minor.is_none_or(|n| n >> MINOR_BITS == 0)
}

fn answer(allow: bool) -> [Insn; 2] {
    [insn(MOVE_IMM, ANSWER, 0, allow.into()), insn(EXIT, 0, 0, 0)]
}

/// Rules that differ in their device only; whether they settle every question.
fn emit(section: &mut Vec<Insn>, run: &[&Rule]) -> bool {
    let Some(Rule { allow, access, .. }) = run.first() else { return false };
    let letters = i32::from(*access);
    let mut then = Vec::with_capacity(5);
    match (allow, *access) {
        (_, RWM) => {}
        (false, _) => then.extend([
            insn(MOVE, ANSWER, LETTERS, 0),
            insn(AND_IMM, ANSWER, 0, letters),
            Insn { off: 2, ..insn(JUMP_EQ, ANSWER, 0, 0) },
        ]),
        (true, _) => then.extend([
            insn(AND_IMM, LETTERS, 0, !letters & i32::from(RWM)),
            Insn { off: 2, ..insn(JUMP_NE, LETTERS, 0, 0) },
        ]),
    }
    then.extend(answer(*allow));
    let whole = run.iter().any(|rule| rule.devices.major.is_none() && rule.devices.minor.is_none());
    if !whole {
        section.push(insn(MOVE_IMM, FOUND, 0, 0));
        for rule in run {
            let (register, number) = match (rule.devices.major, rule.devices.minor) {
                (Some(major), Some(minor)) => (BOTH, major << MINOR_BITS | minor),
                (Some(major), None) => (MAJOR, major),
                (None, minor) => (MINOR, minor.unwrap_or_default()),
            };
            section.extend([
                insn(MOVE, ANSWER, register, 0),
                insn(XOR_IMM, ANSWER, 0, number.cast_signed()),
                insn(ADD_IMM_64, ANSWER, 0, -1),
                insn(OR_64, FOUND, ANSWER, 0),
            ]);
        }
        let off = i16::try_from(then.len()).unwrap_or_default();
        section.push(Insn { off, ..insn(JUMP_NOT_NEGATIVE_64, FOUND, 0, 0) });
    }
    section.extend(then);
    whole && *access == RWM
}

#[cfg(test)]
#[path = "../../tests/devices/machine.rs"]
mod machine;

#[cfg(test)]
mod tests {
    use super::machine::run;
    use super::*;
    use crate::cgroup::devices::MOST_RULES;
    use crate::cgroup::devices::lists::{LETTERS, Random, random_list};
    use crate::cgroup::devices::model::model;
    use crate::spec::DeviceRule;

    /// The kernel's verifier is the judge of what loads, not the machine of the tests.
    fn load(program: &[Insn], list: &[DeviceRule]) {
        match crate::sys::bpf::load_device_program(program) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                println!("not run: loading programs needs CAP_BPF");
            }
            Err(error) => panic!("PROG_LOAD: {error}: {program:x?} of {list:?}"),
        }
    }

    fn check(list: &[DeviceRule], random: &mut Random) {
        let program = compile(&Policy::of(list).unwrap());
        load(&program, list);
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
    fn the_usual_program_has_few_jumps() {
        let list = [DeviceRule { allow: false, access: "rwm".into(), ..DeviceRule::default() }];
        let program = compile(&Policy::of(&list).unwrap());
        let jumps = program.iter().filter(|i| matches!(i.code & 7, 5 | 6) && i.code != EXIT).count();
        assert_eq!(jumps, 4, "{program:x?}");
    }

    #[test]
    fn long_lists() {
        let most = u32::try_from(MOST_RULES).unwrap();
        // The worst for the distances: no two in a row are alike, and all have letters left over. Then the best.
        for every in [2, most + 1] {
            let rule = |n: u32| DeviceRule {
                allow: !n.is_multiple_of(every),
                kind: "b".into(),
                major: Some((n % 4000).into()),
                minor: Some(n.into()),
                access: "rw".into(),
            };
            let list: Vec<_> = (0..most).map(rule).collect();
            let program = compile(&Policy::of(&list).unwrap());
            assert!(program.len() < 1 << 15, "{}", program.len());
            load(&program, &[]);
            for n in 0..most {
                assert_eq!(run(&program, 1, 2, n % 4000, n), u64::from(n % every != 0), "{n}");
            }
            assert_eq!((run(&program, 2, 2, 1, 3), run(&program, 2, 2, 1, 4)), (1, 0));
        }
    }

    #[test]
    fn numbers_that_no_device_has_match_none() {
        for (major, minor) in [(4096, 3), (1, 1 << 20), (u32::MAX, 0), (0x1001, 3)] {
            let rule = DeviceRule {
                allow: true,
                kind: "c".into(),
                major: Some(major.into()),
                minor: Some(minor.into()),
                access: "r".into(),
            };
            assert_eq!(compile(&Policy::of(&[rule]).unwrap()), compile(&Policy::of(&[]).unwrap()));
        }
    }
}
