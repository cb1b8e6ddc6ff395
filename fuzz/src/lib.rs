// SPDX-License-Identifier: Apache-2.0
//! The fuzz targets of runtime/tests/fuzz/, as entries of cargo-fuzz: the same files, so that nothing drifts. What is ours there
//! and libFuzzer's here is the engine.
//!
//! `cargo +nightly fuzz run config`; docs/how-to/fuzz.md has the rest. A tidy test holds the entries against the targets.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
#![allow(
    missing_docs,
    dead_code,
    unused_imports,
    reason = "the files say it where they belong; not all of each is used"
)]

#[path = "../../runtime/tests/seccomp/bpf.rs"]
mod bpf;
#[path = "../../runtime/tests/seccomp/calls.rs"]
mod calls;
#[path = "../../runtime/tests/program/cases.rs"]
mod cases;
#[path = "../../runtime/src/cli/mod.rs"]
mod cli;
#[path = "../../runtime/tests/fuzz/corpus.rs"]
mod corpus;
#[path = "../../runtime/tests/program/decoded.rs"]
mod decoded;
#[path = "../../runtime/tests/fuzz/holds.rs"]
mod holds;
#[path = "../../runtime/tests/plan/hosts.rs"]
mod hosts;
#[path = "../../runtime/tests/fuzz/json.rs"]
mod json;
#[path = "../../runtime/stage/line.rs"]
mod line;
#[path = "../../runtime/tests/seccomp/model.rs"]
mod model;
#[path = "../../runtime/tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../../runtime/tests/fuzz/random.rs"]
mod random;
#[path = "../../runtime/tests/fuzz/targets/mod.rs"]
pub mod targets;

use json::Json;
use mutate::{Shape, Words};
use random::Random;
use targets::Target;

/// Where the command line's own allocator would stand: it tells it what stays.
struct Allocator;

impl Allocator {
    fn stay(&self) {}
}

static ALLOCATOR: Allocator = Allocator;

/// Whether nothing else runs in this process: libFuzzer has one target in each.
fn alone() -> bool {
    true
}

/// Every target that has an entry.
pub const ALL: [Target; 11] = [
    targets::arguments::TARGET,
    targets::arguments::VALUES,
    targets::config::TARGET,
    targets::devices::TARGET,
    targets::groups::TARGET,
    targets::message::TARGET,
    targets::options::TARGET,
    targets::passwd::TARGET,
    targets::process::TARGET,
    targets::seccomp::TARGET,
    targets::state::TARGET,
];

/// A target's inputs to begin with: its own, and the committed ones.
pub fn seeds(target: &Target) -> Vec<Vec<u8>> {
    (target.seeds)().into_iter().chain(corpus::load(target.name)).collect()
}

/// What our own fuzzer would make of an input, where libFuzzer's changes of bytes would rarely leave valid JSON.
pub struct Mutator {
    target: Target,
    words: Words,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    pub fn new(target: Target) -> Self {
        let seeds = seeds(&target);
        let mut words = Words::default();
        let read = |seed: &Vec<u8>| Json::read(seed.get(1..)?);
        if target.shape == Shape::Json {
            seeds.iter().filter_map(read).for_each(|json| words.learn(&json));
        }
        Mutator { target, words, seeds }
    }

    /// Changes the first `size` bytes, and returns how many there are then. Every other time none: that is libFuzzer's turn.
    pub fn change(&self, data: &mut [u8], size: usize, most: usize, seed: u32) -> Option<usize> {
        let mut random = Random(u64::from(seed));
        if random.one_in(2) {
            return None;
        }
        let mut input = data[..size].to_vec();
        let json = match self.target.shape {
            Shape::Json => input.get(1..).and_then(Json::read),
            Shape::Bytes(_) => None,
        };
        let other = random.pick(&self.seeds).clone();
        mutate::input(self.target.shape, &mut input, json.as_ref(), &self.words, &other, &mut random);
        input.truncate(most.min(data.len()));
        data[..input.len()].copy_from_slice(&input);
        Some(input.len())
    }
}

/// An entry of cargo-fuzz for a target.
#[macro_export]
macro_rules! entry {
    ($($target:ident)::+) => {
        const TARGET: $crate::targets::Target = $crate::targets::$($target)::+;

        libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            (TARGET.run)(input);
        });

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            thread_local! {
                static MUTATOR: $crate::Mutator = $crate::Mutator::new(TARGET);
            }
            let changed = MUTATOR.with(|mutator| mutator.change(data, size, max_size, seed));
            changed.unwrap_or_else(|| libfuzzer_sys::fuzzer_mutate(data, size, max_size))
        });
    };
}
