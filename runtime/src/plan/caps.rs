// SPDX-License-Identifier: Apache-2.0
//! Capability sets as bit masks (capabilities(7)). Names come from the `caps` crate.

#![forbid(unsafe_code)]

/// The five sets, bit n = capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Ambient set.
    pub ambient: u64,
}
