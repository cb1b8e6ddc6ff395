// SPDX-License-Identifier: Apache-2.0
//! The compiler against the seccompiler crate, for what that can express: one architecture, one action for all rules.

use std::collections::BTreeMap;

use corten::seccomp::{SockFilter, compile, known_operators};
use corten::spec::{Seccomp, Syscall};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::bpf::verdict;
use crate::calls::{INTERESTING, Taste, call, profile};
use crate::model::{AUDIT_X86_64, Abi, abis};
use crate::random::Random;

const ACTIONS: [(&str, SeccompAction); 6] = [
    ("SCMP_ACT_ERRNO", SeccompAction::Errno(1)),
    ("SCMP_ACT_KILL_PROCESS", SeccompAction::KillProcess),
    ("SCMP_ACT_KILL_THREAD", SeccompAction::KillThread),
    ("SCMP_ACT_LOG", SeccompAction::Log),
    ("SCMP_ACT_TRACE", SeccompAction::Trace(1)),
    ("SCMP_ACT_TRAP", SeccompAction::Trap),
];

fn theirs(profile: &Seccomp, action: &SeccompAction, native: &Abi) -> Vec<SockFilter> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut always = Vec::new();
    for block in &profile.syscalls {
        for nr in block.names.iter().filter_map(|name| native.numbers.get(name.as_str())) {
            let of_call = rules.entry(i64::from(*nr)).or_default();
            match SeccompRule::new(conditions(block)) {
                Ok(rule) => of_call.push(rule),
                Err(_) => always.push(i64::from(*nr)),
            }
        }
    }
    // No rule at all stands for "always".
    always.iter().for_each(|nr| drop(rules.insert(*nr, Vec::new())));
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action.clone(), TargetArch::x86_64).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    program.iter().map(|insn| SockFilter { code: insn.code, jt: insn.jt, jf: insn.jf, k: insn.k }).collect()
}

fn conditions(block: &Syscall) -> Vec<SeccompCondition> {
    let condition = |arg: &corten::spec::SyscallArg| {
        let (op, value) = match arg.op.as_str() {
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, arg.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, arg.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, arg.value),
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, arg.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, arg.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, arg.value),
            _ => (SeccompCmpOp::MaskedEq(arg.value), arg.value_two),
        };
        SeccompCondition::new(arg.index as u8, SeccompCmpArgLen::Qword, op, value).unwrap()
    };
    block.args.iter().map(condition).collect()
}

#[test]
fn random_profiles_mean_what_seccompiler_makes_of_them() {
    if !cfg!(target_arch = "x86_64") {
        println!("not run: written for x86_64");
        return;
    }
    let (mut random, abis) = (Random(0x5ecc), abis(corten::seccomp::Host::X86_64));
    let (mut profiles, mut tuples) = (0, 0);
    while tuples < 200_000 {
        let taste = Taste {
            names: INTERESTING,
            archs: &[],
            blocks: 20,
            one_action: true,
            operators: known_operators(),
            repeat: false,
        };
        let mut profile = profile(&mut random, &taste);
        let (name, action) = random.pick(&ACTIONS);
        profile.default_action = "SCMP_ACT_ALLOW".into();
        profile.default_errno_ret = None;
        for block in &mut profile.syscalls {
            block.action = (*name).into();
            block.errno_ret = None;
        }
        let (ours, theirs) = (compile(&profile).unwrap().unwrap().insns, theirs(&profile, action, &abis[0]));
        let numbers: Vec<u32> =
            INTERESTING.iter().filter_map(|name| abis[0].numbers.get(name).copied()).collect();
        for _ in 0..200 {
            let mut call = call(&mut random, &profile, &[AUDIT_X86_64], &numbers);
            // It knows nothing of x32, and answers foreign architectures with another kind of killing.
            call.nr &= 0x3fff_ffff;
            call.arch = AUDIT_X86_64;
            assert_eq!(verdict(&ours, &call), verdict(&theirs, &call), "{call:#x?} {profile:#?}");
            tuples += 1;
        }
        profiles += 1;
    }
    println!("{profiles} profiles, {tuples} tuples, 0 mismatches");
}
