// SPDX-License-Identifier: Apache-2.0
//! The compiler against the model, on random profiles and on one like Docker's.

use std::time::Instant;

use corten::seccomp::{Host, compile_for, known_archs, known_operators};
use corten::spec::{Seccomp, Syscall, SyscallArg};

use crate::bpf::{check, verdict};
use crate::calls::{INTERESTING, Taste, call, profile};
use crate::docker_like;
use crate::model::{Abi, Model, abis};
use crate::random::Random;

/// What was done.
#[derive(Debug, Default)]
struct Tally {
    profiles: usize,
    contradictory: usize,
    tuples: usize,
    longest: usize,
}

/// How many calls to ask about, all in all.
fn wanted() -> usize {
    std::env::var("CORTEN_SECCOMP_TUPLES").map_or(1_500_000, |n| n.parse().unwrap())
}

fn compare(
    random: &mut Random,
    tally: &mut Tally,
    host: Host,
    abis: &[Abi],
    profile: &Seccomp,
    tuples: usize,
) {
    let model = Model::new(profile, abis);
    tally.profiles += 1;
    let filter = match compile_for(host, profile) {
        Ok(Some(filter)) => filter,
        Ok(None) => panic!("no filter for {profile:?}"),
        Err(error) => {
            assert!(error.to_string().contains("contradicts an earlier rule"), "{error}: {profile:?}");
            assert!(model.contradicts(), "{error}: {profile:?}");
            tally.contradictory += 1;
            return;
        }
    };
    assert!(!model.contradicts(), "{profile:?}");
    assert_eq!(check(&filter.insns), Ok(()), "{profile:?}");
    tally.longest = tally.longest.max(filter.insns.len());
    let audits: Vec<u32> = abis.iter().map(|abi| abi.audit).collect();
    let named = profile.syscalls.iter().flat_map(|block| &block.names);
    let mut numbers: Vec<u32> = named
        .flat_map(|name| abis.iter().filter_map(|abi| abi.numbers.get(name.as_str()).copied()))
        .collect();
    numbers.extend([0, 102, 117, 335, 512, 520]);
    for _ in 0..tuples {
        let call = call(random, profile, &audits, &numbers);
        let (ours, theirs) = (verdict(&filter.insns, &call), model.verdict(&call));
        assert_eq!(ours, theirs, "{ours:#x} is not {theirs:#x} on {call:#x?} with {profile:#?}");
    }
    tally.tuples += tuples;
}

#[test]
fn random_profiles_mean_what_the_model_says() {
    let (start, wanted) = (Instant::now(), wanted());
    let mut random = Random(0x00c0_ffee);
    for (host, share) in [(Host::X86_64, 70), (Host::Aarch64, 20), (Host::Riscv64, 10)] {
        let abis = abis(host);
        let mut all: Vec<&str> = abis.iter().flat_map(|abi| abi.numbers.keys().copied()).collect();
        all.sort_unstable();
        let mut tally = Tally::default();
        while tally.tuples < wanted * share / 100 {
            let taste = Taste {
                names: if random.one_in(2) { INTERESTING } else { &all },
                archs: known_archs(),
                blocks: *random.pick(&[2, 8, 40]),
                one_action: random.one_in(2),
                operators: known_operators(),
                repeat: true,
            };
            let profile = profile(&mut random, &taste);
            if profile.syscalls.is_empty() && profile.default_action.is_empty() {
                continue;
            }
            compare(&mut random, &mut tally, host, &abis, &profile, 250);
        }
        println!("{host:?}: {tally:?}, 0 mismatches");
    }
    println!("{:?}", start.elapsed());
}

#[test]
fn a_docker_like_profile_means_what_the_model_says() {
    let mut random = Random(0xd0c);
    for host in [Host::X86_64, Host::Aarch64, Host::Riscv64] {
        let abis = abis(host);
        let mut profile = docker_like();
        profile.architectures.push("SCMP_ARCH_ARM".into());
        let mut tally = Tally::default();
        compare(&mut random, &mut tally, host, &abis, &profile, wanted() / 10);
        println!("{host:?}: {tally:?}, 0 mismatches");
    }
}

#[test]
fn every_number_of_a_docker_like_profile() {
    let (profile, abis) = (docker_like(), abis(Host::X86_64));
    let model = Model::new(&profile, &abis);
    let filter = compile_for(Host::X86_64, &profile).unwrap().unwrap();
    for abi in &abis {
        for base in [0, 0x4000_0000, 0x8000_0000, 0xffff_f000_u32] {
            for nr in (0..4096).map(|nr| base.wrapping_add(nr)) {
                let call = crate::bpf::Call { arch: abi.audit, nr, args: [0; 6] };
                assert_eq!(verdict(&filter.insns, &call), model.verdict(&call), "{call:#x?}");
            }
        }
    }
}

#[test]
fn long_chains_cross_the_reach_of_a_jump() {
    let abis = abis(Host::X86_64);
    let mut random = Random(0x10e6);
    let mut tally = Tally::default();
    for (names, operator) in [
        (&["read", "socket", "uselib"][..], "SCMP_CMP_MASKED_EQ"),
        (&["close", "semop"][..], "SCMP_CMP_EQ"),
        (&["clone", "bind"][..], "SCMP_CMP_LT"),
        (&["clone", "ioctl"][..], "SCMP_CMP_NE"),
    ] {
        let mut profile = docker_like();
        profile.listener_path = Some("/run/agent".into());
        profile.syscalls.retain(|block| block.names.iter().all(|name| !names.contains(&name.as_str())));
        for value in 0..120 {
            let action =
                ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRAP"][value as usize % 4];
            let arg = |index: u32, value: u64| SyscallArg {
                index,
                value: (value << 33) + value,
                value_two: value << 33,
                op: operator.into(),
            };
            profile.syscalls.push(Syscall {
                names: names.iter().map(|name| (*name).into()).collect(),
                action: action.into(),
                errno_ret: None,
                args: vec![arg(0, value + 1), arg(3, 7 * value + 1)],
            });
        }
        let filter = compile_for(Host::X86_64, &profile).unwrap().unwrap();
        assert!(filter.insns.len() > 1000, "{}", filter.insns.len());
        assert!(filter.insns.iter().any(|insn| insn.code == 0x05), "no jump over a distance");
        compare(&mut random, &mut tally, Host::X86_64, &abis, &profile, 20_000);
    }
    assert_eq!(tally.contradictory, 0);
    println!("{tally:?}, 0 mismatches");
}
