// SPDX-License-Identifier: Apache-2.0
//! Fuzzing: every way by which bytes that somebody else wrote come in. `cargo test --test fuzz` is the short run, the same
//! every time; `make fuzz` the long one, led by what it reaches. How it works stands in `engine.rs`, what must hold in
//! `holds.rs` and in the targets, how long it takes at most in `large.rs` and `scale.rs`; docs/decisions/0022-own-fuzzer.md says why
//! it is ours.

// Unsafe code is in counters.rs alone; `forbid` would reach into it.
#![deny(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod corpus;
#[allow(unsafe_code, reason = "the instrumentation calls C functions, an allocator is unsafe")]
mod counters;
mod engine;
mod holds;
mod json;
mod large;
mod mutate;
mod random;
mod scale;
mod targets;

#[path = "../seccomp/bpf.rs"]
#[allow(dead_code, reason = "the filter's tests use more")]
mod bpf;
#[path = "../seccomp/calls.rs"]
#[allow(dead_code, reason = "the filter's tests use more")]
mod calls;
#[path = "../program/cases.rs"]
#[allow(dead_code, reason = "the program's tests use more")]
mod cases;
#[path = "../../src/cli/mod.rs"]
#[allow(dead_code, unused_imports, reason = "only what reads arguments is used")]
mod cli;
#[path = "../program/decoded.rs"]
mod decoded;
#[path = "../plan/hosts.rs"]
mod hosts;
#[path = "../../stage/line.rs"]
#[allow(dead_code, reason = "the stage uses the rest")]
mod line;
#[path = "../seccomp/model.rs"]
#[allow(dead_code, reason = "the filter's tests use more")]
mod model;

#[global_allocator]
static ALLOCATOR: counters::Counting = counters::Counting;

/// Whether nothing else runs in this process: true of `make fuzz`, which gives every target its own.
fn alone() -> bool {
    std::env::var_os("CORTEN_FUZZ").is_some()
}

macro_rules! fuzz {
    ($($name:ident: $target:path,)*) => {$(
        #[test]
        fn $name() {
            engine::fuzz(&$target);
        }
    )*};
}

fuzz! {
    fuzz_config: targets::config::TARGET,
    fuzz_process: targets::process::TARGET,
    fuzz_state: targets::state::TARGET,
    fuzz_seccomp: targets::seccomp::TARGET,
    fuzz_options: targets::options::TARGET,
    fuzz_devices: targets::devices::TARGET,
    fuzz_message: targets::message::TARGET,
    fuzz_arguments: targets::arguments::TARGET,
    fuzz_values: targets::arguments::VALUES,
    fuzz_passwd: targets::passwd::TARGET,
    fuzz_groups: targets::groups::TARGET,
}
