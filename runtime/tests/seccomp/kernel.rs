// SPDX-License-Identifier: Apache-2.0
//! Filters in the running kernel: it takes them, and they do there what they do in the interpreter. Each is loaded
//! in a thread of its own, which ends with it.

use std::time::{Duration, Instant};

use corten::seccomp::{Filter, Host, compile, known_archs, known_operators};
use corten::spec::{Seccomp, Syscall, SyscallArg};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::process::{Pid, getpgid, getppid, getsid, test_kill_process};

use crate::bpf::Call;
use crate::calls::{EDGES, INTERESTING, Taste, profile};
use crate::docker_like;
use crate::model::{Model, abis};
use crate::random::Random;

/// Runs `body` in a thread under `filter`; how long loading took comes along.
fn under<T: Send + 'static>(filter: &Filter, body: impl FnOnce() -> T + Send + 'static) -> (T, Duration) {
    let program: Vec<seccompiler::sock_filter> = filter
        .insns
        .iter()
        .map(|insn| seccompiler::sock_filter { code: insn.code, jt: insn.jt, jf: insn.jf, k: insn.k })
        .collect();
    let thread = std::thread::spawn(move || {
        let start = Instant::now();
        seccompiler::apply_filter(&program).unwrap();
        let took = start.elapsed();
        (body(), took)
    });
    thread.join().unwrap()
}

#[test]
fn the_kernel_obeys_errno_and_conditions() {
    let profile = crate::profile(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77},
            {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
    );
    let filter = compile(&profile).unwrap().unwrap();
    let (results, _) = under(&filter, || (getsid(None), getpgid(Pid::from_raw(1)), getpgid(None)));
    assert_eq!(results.0, Err(Errno::from_raw_os_error(77)));
    assert_eq!(results.1, Err(Errno::PERM));
    assert!(results.2.is_ok());
}

#[test]
fn the_kernel_takes_a_docker_like_profile() {
    let filter = compile(&docker_like()).unwrap().unwrap();
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        let (parent, took) = under(&filter, getppid);
        assert!(parent.is_some());
        times.push(took);
    }
    times.sort_unstable();
    println!("loading {} instructions: median {:?}", filter.insns.len(), times[times.len() / 2]);
}

#[test]
fn the_kernel_takes_random_profiles() {
    let mut random = Random(0x10ad);
    let mut longest = 0;
    for _ in 0..100 {
        let taste = Taste {
            names: INTERESTING,
            archs: known_archs(),
            blocks: 60,
            one_action: true,
            operators: known_operators(),
            repeat: true,
        };
        let mut profile: Seccomp = profile(&mut random, &taste);
        // Calls that the test itself makes must go on working.
        profile.default_action = "SCMP_ACT_ALLOW".into();
        profile.default_errno_ret = None;
        for block in &mut profile.syscalls {
            block.action = "SCMP_ACT_LOG".into();
            block.errno_ret = None;
        }
        let filter = compile(&profile).unwrap().unwrap();
        longest = longest.max(filter.insns.len());
        under(&filter, || ());
    }
    println!("100 filters loaded, the longest of {longest} instructions");
}

/// Errors of the profiles below, which none of the calls has by itself.
const ERRORS: std::ops::Range<u32> = 101..127;

/// A profile about lseek(2), whose second argument is any number, and kill(2) without a signal.
fn about_seeking(random: &mut Random, descriptor: u64) -> Seccomp {
    let arg = |random: &mut Random, index: u32| {
        let pool = match index {
            0 => &[descriptor, 0, 1, 0xffff_ffff][..],
            1 => EDGES,
            _ => &[0, 1, 2, 0x1_0000_0000],
        };
        let op = (*random.pick(known_operators())).to_owned();
        SyscallArg { index, value: *random.pick(pool), value_two: *random.pick(pool), op }
    };
    let block = |random: &mut Random| {
        let (name, last) = *random.pick(&[("lseek", 3), ("lseek", 3), ("kill", 2)]);
        let indices = (0..last).filter(|_| random.one_in(2)).collect::<Vec<u32>>();
        let refuse = !random.one_in(4);
        Syscall {
            names: vec![name.to_owned()],
            action: if refuse { "SCMP_ACT_ERRNO" } else { "SCMP_ACT_LOG" }.into(),
            errno_ret: refuse.then(|| ERRORS.start + random.below(ERRORS.len()) as u32),
            args: indices.into_iter().map(|index| arg(random, index)).collect(),
        }
    };
    let syscalls = (0..1 + random.below(6)).map(|_| block(random)).collect();
    Seccomp { default_action: "SCMP_ACT_ALLOW".into(), syscalls, ..Seccomp::default() }
}

#[test]
fn the_kernel_and_the_model_agree_on_verdicts() {
    let host = match std::env::consts::ARCH {
        "x86_64" => Host::X86_64,
        "aarch64" => Host::Aarch64,
        arch => return println!("not run: no table of {arch}'s calls"),
    };
    let abis = abis(host);
    let native = &abis[0];
    let number = |name: &str| native.numbers[name];
    let zero = std::sync::Arc::new(std::fs::File::open("/dev/zero").unwrap());
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&*zero) as u64;
    let mut random = Random(0x5eec_0de5);
    let (mut asked, mut refused) = (0, 0);
    for _ in 0..300 {
        let profile = about_seeking(&mut random, descriptor);
        let Ok(Some(filter)) = compile(&profile) else { continue };
        let seeks: Vec<(u64, u64)> =
            (0..40).map(|_| (*random.pick(EDGES), *random.pick(&[0, 1, 2]))).collect();
        let pids: Vec<u32> = (0..10).map(|_| *random.pick(EDGES) as u32 & 0x7fff_fffe | 1).collect();
        let (zero, asks) = (zero.clone(), (seeks.clone(), pids.clone()));
        let (answers, _) = under(&filter, move || {
            let errno = |result: Result<(), Errno>| result.err().map_or(0, Errno::raw_os_error) as u32;
            let seek = |&(offset, whence): &(u64, u64)| {
                let position = match whence {
                    0 => SeekFrom::Start(offset),
                    1 => SeekFrom::Current(offset as i64),
                    _ => SeekFrom::End(offset as i64),
                };
                errno(rustix::fs::seek(&*zero, position).map(drop))
            };
            let probe = |&pid: &u32| errno(test_kill_process(Pid::from_raw(pid as i32).unwrap()));
            asks.0.iter().map(seek).chain(asks.1.iter().map(probe)).collect::<Vec<u32>>()
        });
        let seeks = seeks.iter().map(|&(offset, whence)| ("lseek", [descriptor, offset, whence, 0, 0, 0]));
        let probes = pids.iter().map(|&pid| ("kill", [pid.into(), 0, 0, 0, 0, 0]));
        let model = Model::new(&profile, &abis);
        for ((name, args), answer) in seeks.chain(probes).zip(answers) {
            let verdict = model.verdict(&Call { arch: native.audit, nr: number(name), args });
            let expected = if verdict >> 16 == 5 { verdict & 0xffff } else { 0 };
            let said = if ERRORS.contains(&answer) { answer } else { 0 };
            assert_eq!(said, expected, "{name} {args:x?} under {profile:#?}");
            asked += 1;
            refused += u32::from(said != 0);
        }
    }
    println!("{asked} verdicts of the kernel, {refused} refusals");
    assert!(asked > 5000 && refused > 1000, "{asked} {refused}");
}
