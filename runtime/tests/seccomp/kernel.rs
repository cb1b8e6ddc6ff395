// SPDX-License-Identifier: Apache-2.0
//! Filters in the running kernel: it takes them, and they do there what they do in the interpreter. Each is loaded
//! in a thread of its own, which ends with it.

use std::time::{Duration, Instant};

use corten::seccomp::{Filter, compile, known_archs, known_operators};
use corten::spec::Seccomp;
use rustix::io::Errno;
use rustix::process::{Pid, getpgid, getppid, getsid};

use crate::calls::{INTERESTING, Taste, profile};
use crate::docker_like;
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
