// SPDX-License-Identifier: Apache-2.0
//! Resource limits (config.md#posix-process): known names, each once, no soft limit above its hard one.
//!
//! They are set in two steps, since a hard limit can be raised with privileges only (CAP_SYS_RESOURCE in the initial user
//! namespace), while a tiny RLIMIT_NOFILE or RLIMIT_NPROC must not hamper the set-up. The stage raises hard limits while
//! it is privileged; what it is refused the host raises at Ready, from outside; the limits themselves the stage sets
//! last, before the filter and the exec. Counterparts: `rlimits` in `stage/identity.rs` and in `host/ready.rs`.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::spec;

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
    pub hard: u64,
}

/// Names by number (asm-generic/resource.h): the index is RLIMIT_*.
const NAMES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// Checks the limits of a process object whose pointer is `at`.
///
/// # Errors
/// Unknown and repeated types (config.md: MUST), a soft limit above the hard one.
pub(crate) fn decide_rlimits(limits: &[spec::Rlimit], at: &str) -> Result<Vec<Rlimit>> {
    let mut decided: Vec<Rlimit> = Vec::with_capacity(limits.len());
    for (index, limit) in limits.iter().enumerate() {
        let at = format!("{at}/rlimits/{index}");
        let known = (0u32..).zip(NAMES).find(|(_, name)| *name == limit.kind);
        let Some((resource, name)) = known else {
            let text = format!("invalid rlimit type: {:?}", limit.kind);
            let error = Error::invalid(format_args!("{at}/type"), text);
            return Err(error.advise("the names are those of setrlimit(2): RLIMIT_NOFILE and so on"));
        };
        if decided.iter().any(|earlier| earlier.resource == resource) {
            return Err(Error::invalid(at, format!("{name} is given twice")));
        }
        let (soft, hard) = (limit.soft, limit.hard);
        if soft > hard {
            let text = format!("the soft limit of {name}, {soft}, exceeds the hard limit, {hard}");
            let error = Error::invalid(format_args!("{at}/soft"), text);
            return Err(error.advise("lower the one or raise the other"));
        }
        decided.push(Rlimit { at, resource, name, soft, hard });
    }
    Ok(decided)
}
