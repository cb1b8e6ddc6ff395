// SPDX-License-Identifier: Apache-2.0
//! What is fuzzed: a file for each way in.

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
