// SPDX-License-Identifier: Apache-2.0
//! The filter compiler against everything that can contradict it: a model of the profile language written
//! separately (`model`), libseccomp, seccompiler, the running kernel.
//!
//! Filters are run by an interpreter of our own (`bpf`) which refuses whatever the kernel's checker would refuse.
//! All randomness is a fixed sequence; `CORTEN_SECCOMP_TUPLES` sets how many calls `differential` asks about.

#![forbid(unsafe_code)]
// A test may fail anywhere; clippy sees tests only in functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bpf;
mod calls;
mod differential;
mod kernel;
mod libseccomp;
mod model;
mod order;
mod pfc;
mod refused;
mod seccompiler;
mod speed;
mod tables;

#[path = "../fuzz/random.rs"]
#[allow(dead_code, reason = "the fuzzer uses more")]
mod random;

use corten::seccomp::{Filter, Host, compile_for};
use corten::spec::Seccomp;

/// A profile of the shape of Docker's default one.
pub fn docker_like() -> Seccomp {
    corten::spec::read("docker-like.json", include_bytes!("../data/docker-like.json")).unwrap()
}

/// Reads and compiles a profile, for x86_64 wherever the test runs.
pub fn compile_json(json: &str) -> Filter {
    compile_for(Host::X86_64, &profile(json)).unwrap().unwrap()
}

/// Reads a profile.
pub fn profile(json: &str) -> Seccomp {
    corten::spec::read("profile", json.as_bytes()).unwrap()
}
