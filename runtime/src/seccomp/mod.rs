// SPDX-License-Identifier: Apache-2.0
//! The system call filter: an OCI profile becomes one BPF program (pure; loaded by the stage).
//!
//! The way of a profile: `profile` checks it, `rules` decides what it says of every call of every ABI (the place
//! to read for the meaning of a profile), `compile` arranges that as ranges of numbers, `emit` writes instructions.
//! `names` and `arch` hold the tables. Nothing here touches the kernel.

#![forbid(unsafe_code)]

mod answer;
mod arch;
mod compile;
mod emit;
mod names;
mod profile;
mod rules;

pub(crate) use answer::{FilterAnswer, SeccompData};
pub use arch::Host;

use crate::error::{Error, Kind, Result};
use crate::spec;

/// One classic BPF instruction, laid out as the kernel's `struct sock_filter` (linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Jump distance if true.
    pub jt: u8,
    /// Jump distance if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program, at most 4096 instructions.
    pub insns: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2) as the profile asks (NEW_LISTENER included when `listener` is set).
    pub flags: u32,
    /// Where the listener's descriptor goes, when an action is SCMP_ACT_NOTIFY.
    pub listener: Option<Listener>,
    /// Names of system calls that no table knows: for a warning.
    pub unknown: Vec<String>,
}

/// The agent of SCMP_ACT_NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Path of its socket, as the profile has it.
    pub path: String,
    /// Opaque text for it.
    pub metadata: String,
}

/// Compiles `profile` for this machine; `None` when it asks for no filter at all (no default action, no rules).
///
/// # Errors
/// `Kind::Invalid` naming the JSON pointer below `/linux/seccomp`; `Kind::Unsupported` on an architecture without
/// a table of system calls.
pub fn compile(profile: &spec::Seccomp) -> Result<Option<Filter>> {
    let host = Host::NATIVE
        .ok_or_else(|| Error::new(Kind::Unsupported, "no table of system calls for this architecture"))?;
    compile_for(host, profile)
}

/// Compiles `profile` for a `host`. Architectures of the profile that its kernel cannot run add nothing: a call
/// from there cannot happen, and what is not listed is killed anyway.
///
/// # Errors
/// `Kind::Invalid` naming the JSON pointer below `/linux/seccomp`.
pub fn compile_for(host: Host, profile: &spec::Seccomp) -> Result<Option<Filter>> {
    match profile::Profile::read(profile)? {
        Some(profile) => compile::filter(profile, host).map(Some),
        None => Ok(None),
    }
}

/// Every action, `SCMP_ACT_…`, sorted.
pub fn known_actions() -> &'static [&'static str] {
    profile::KNOWN_ACTIONS
}

/// Every operator, `SCMP_CMP_…`, sorted.
pub fn known_operators() -> &'static [&'static str] {
    profile::KNOWN_OPERATORS
}

/// Every architecture, `SCMP_ARCH_…`, sorted.
pub fn known_archs() -> &'static [&'static str] {
    arch::KNOWN
}

/// Every flag, `SECCOMP_FILTER_FLAG_…`, sorted.
pub fn known_flags() -> &'static [&'static str] {
    profile::KNOWN_FLAGS
}
