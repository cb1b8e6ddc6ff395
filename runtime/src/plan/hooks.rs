// SPDX-License-Identifier: Apache-2.0
//! Hooks (config.md#posix-platform-hooks). Counterparts: `host/hooks.rs` runs those of the runtime's namespaces,
//! the stage's `hook` operation those of the container's.

#![forbid(unsafe_code)]

use std::time::Duration;

/// One hook, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// JSON pointer, `/hooks/prestart/0`.
    pub at: String,
    /// Absolute path.
    pub path: String,
    /// argv, never empty (the path alone when the configuration gives none).
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<String>,
    /// Positive, or none.
    pub timeout: Option<Duration>,
}

/// Hooks by kind, each in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `prestart`
    pub prestart: Vec<Hook>,
    /// `createRuntime`
    pub create_runtime: Vec<Hook>,
    /// `createContainer`
    pub create_container: Vec<Hook>,
    /// `startContainer`
    pub start_container: Vec<Hook>,
    /// `poststart`
    pub poststart: Vec<Hook>,
    /// `poststop`
    pub poststop: Vec<Hook>,
}
