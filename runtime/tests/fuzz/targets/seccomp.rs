// SPDX-License-Identifier: Apache-2.0
//! A seccomp profile → BPF, against the model and the kernel's checks of `tests/seccomp/`. The first byte chooses the host.

use corten::seccomp::{Host, compile_for};
use corten::spec::{self, Seccomp};

use crate::bpf::{check, verdict};
use crate::model::{Abi, Model, abis};
use crate::mutate::Shape;
use crate::random::{Random, hash};
use crate::targets::Target;
use crate::{calls, holds};

pub const TARGET: Target = Target { name: "seccomp", shape: Shape::Json, seeds, run, short: 1200 };

/// Calls asked about for each profile.
const CALLS: usize = 40;
/// Longer profiles are compiled and checked, but not compared.
const NAMES: usize = 2000;
const HOSTS: [Host; 3] = [Host::X86_64, Host::Aarch64, Host::Riscv64];

thread_local! {
    static ABIS: Vec<Vec<Abi>> = HOSTS.iter().map(|host| abis(*host)).collect();
}

fn run(input: &[u8]) -> bool {
    ABIS.with(|abis| compare(input, abis))
}

fn compare(input: &[u8], abis: &[Vec<Abi>]) -> bool {
    let Some((choice, json)) = input.split_first() else { return false };
    let (host, abis) = (HOSTS[usize::from(*choice) % 3], &abis[usize::from(*choice) % 3]);
    let profile = match spec::read::<Seccomp>("config.json", json) {
        Ok(profile) => profile,
        Err(error) => {
            holds::configuration_error("config.json", &error);
            return false;
        }
    };
    // The model compares every rule with every other, and its time is not ours to fix.
    let long = profile.syscalls.iter().map(|block| block.names.len()).sum::<usize>() > NAMES;
    let filter = match compile_for(host, &profile) {
        Ok(Some(filter)) => filter,
        Ok(None) => {
            assert!(profile.default_action.is_empty(), "no filter for {profile:?}");
            return true;
        }
        Err(error) => {
            holds::configuration_error("config.json /linux/seccomp", &error);
            let contradicts = error.to_string().contains("contradicts an earlier rule");
            assert!(!contradicts || long || Model::new(&profile, abis).contradicts(), "{error}: {profile:?}");
            return false;
        }
    };
    assert_eq!(check(&filter.insns), Ok(()), "{profile:?}");
    if long {
        return true;
    }
    let model = Model::new(&profile, abis);
    assert!(!model.contradicts(), "accepted in spite of a contradiction: {profile:?}");
    let audits: Vec<u32> = abis.iter().map(|abi| abi.audit).collect();
    let named = profile.syscalls.iter().flat_map(|block| &block.names).take(200);
    let mut numbers: Vec<u32> = named
        .flat_map(|name| abis.iter().filter_map(|abi| abi.numbers.get(name.as_str()).copied()))
        .collect();
    numbers.extend([0, 102, 117, 335, 512, 520]);
    let mut random = Random(hash(input));
    for _ in 0..CALLS {
        let call = calls::call(&mut random, &profile, &audits, &numbers);
        let (ours, theirs) = (verdict(&filter.insns, &call), model.verdict(&call));
        assert_eq!(ours, theirs, "{ours:#x} is not {theirs:#x} on {call:#x?} with {profile:?}");
    }
    true
}

/// Docker's profile, and a few of every operator and action.
fn seeds() -> Vec<Vec<u8>> {
    let docker = include_str!("../../data/docker-like.json");
    let mut seeds = vec![[b"\0", docker.as_bytes()].concat()];
    for (n, op) in corten::seccomp::known_operators().iter().enumerate() {
        let action = corten::seccomp::known_actions()[n % corten::seccomp::known_actions().len()];
        let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": n,
            "architectures": corten::seccomp::known_archs(), "flags": corten::seccomp::known_flags(),
            "listenerPath": "/run/agent", "listenerMetadata": "m",
            "syscalls": [
                {"names": ["read", "socket", "clone", "ioctl", "semop", "nonsense"], "action": action,
                 "args": [{"index": 0, "value": 5, "valueTwo": 4, "op": op}, {"index": 1, "value": 1_u64 << 40, "op": op}]},
                {"names": ["write", "openat2"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["uselib"], "action": "SCMP_ACT_TRACE", "errnoRet": 7}]});
        seeds.push([&[n as u8][..], profile.to_string().as_bytes()].concat());
    }
    for action in corten::seccomp::known_actions() {
        let profile = serde_json::json!({"defaultAction": action, "listenerPath": "/x", "syscalls": [{"names": ["close"], "action": action}]});
        seeds.push([&[0][..], profile.to_string().as_bytes()].concat());
    }
    seeds
}
