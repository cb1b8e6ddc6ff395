// SPDX-License-Identifier: Apache-2.0
//! Resource limits (config.md#posix-process). Set by the host at Ready through prlimit(2): raising a hard limit
//! needs CAP_SYS_RESOURCE in the initial user namespace.

#![forbid(unsafe_code)]

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// JSON pointer.
    pub at: String,
    /// RLIMIT_* number.
    pub resource: u32,
    /// Name for messages, `RLIMIT_NOFILE`.
    pub name: &'static str,
    /// Soft limit; u64::MAX is infinity.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}
