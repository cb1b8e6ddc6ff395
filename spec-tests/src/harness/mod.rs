// SPDX-License-Identifier: Apache-2.0
//! The harness: runs cases against a runtime binary and compares the host before and after each.
//!
//! [`cli`] reads the command line, [`suite`] what is common to all that run cases, and prints; [`runner`] gives each case a process of its own; [`warden`] is the main
//! thread of that process: it times the case, cleans up after it and compares the host ([`hostdiff`]); [`test`] is
//! what a case holds in its hands.

#![forbid(unsafe_code)]

pub mod agent;
pub mod bundle;
pub mod case;
pub mod cli;
pub mod console;
pub mod criu;
pub mod dice;
pub mod done;
pub mod hands;
pub mod host;
pub mod hostdiff;
pub mod linear;
pub mod pace;
pub mod peer;
pub mod procs;
pub mod report;
pub mod runner;
pub mod sniper;
pub mod soak;
pub mod suite;
pub mod terminal;
pub mod test;
pub mod tracer;
pub mod user;
pub mod warden;
