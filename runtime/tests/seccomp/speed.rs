// SPDX-License-Identifier: Apache-2.0
//! How long compiling takes and how long the program is. A figure, and a bound that only a blunder would miss.

use std::time::{Duration, Instant};

use corten::seccomp::{Host, compile_for};

use crate::bpf::{Call, run};
use crate::docker_like;

#[test]
fn a_docker_like_profile_compiles_quickly_into_few_instructions() {
    let profile = docker_like();
    let names: usize = profile.syscalls.iter().map(|block| block.names.len()).sum();
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        std::hint::black_box(compile_for(Host::X86_64, std::hint::black_box(&profile)).unwrap());
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let filter = compile_for(Host::X86_64, &profile).unwrap().unwrap();
    let steps = |nr| {
        let call = Call { arch: 0xc000_003e, nr, args: [0; 6] };
        run(&filter.insns, &call).1
    };
    let all: Vec<usize> = (0..470).map(steps).collect();
    println!(
        "{names} names, {} instructions; median {:?}, fastest {:?} (debug assertions {}); steps: read {}, mean {:.1}, most {}",
        filter.insns.len(),
        times[times.len() / 2],
        times[0],
        cfg!(debug_assertions),
        steps(0),
        all.iter().sum::<usize>() as f64 / all.len() as f64,
        all.iter().max().unwrap(),
    );
    assert!(times[0] < Duration::from_millis(if cfg!(debug_assertions) { 50 } else { 1 }), "{:?}", times[0]);
    assert!(filter.insns.len() < 700, "{}", filter.insns.len());
}
