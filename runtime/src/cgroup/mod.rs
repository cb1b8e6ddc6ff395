// SPDX-License-Identifier: Apache-2.0
//! Control groups: where a container's group is, its limits, its life.
//!
//! One table of limits (`limits`), one driver a file. Paths are decided purely ([`decide`]), from what
//! [`Hierarchies::probe`] found on the host, and are persisted before anything is made, so that `delete` finds
//! them after a crash at any point.

#![forbid(unsafe_code)]

/// Which driver manages the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manager {
    /// Plain files.
    #[default]
    Cgroupfs,
    /// systemd's D-Bus interface.
    Systemd,
    /// None: no group is made or looked at.
    Disabled,
}
