// SPDX-License-Identifier: Apache-2.0
//! What is fuzzed: a file for each way in. The engines are engine.rs, and libFuzzer in fuzz/.

use crate::mutate::Shape;

pub mod arguments;
pub mod config;
pub mod devices;
pub mod groups;
pub mod message;
pub mod options;
pub mod passwd;
pub mod process;
pub mod seccomp;
pub mod state;

/// What is fuzzed.
pub struct Target {
    /// Name, of its corpus too.
    pub name: &'static str,
    /// What inputs look like.
    pub shape: Shape,
    /// Inputs to begin with, besides the committed ones.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Does it; true if the input was accepted, a panic if a promise is broken.
    pub run: fn(&[u8]) -> bool,
    /// Executions in `make test`.
    pub short: usize,
}
