// SPDX-License-Identifier: Apache-2.0
//! The root file system (config.md#root, config-linux.md#rootfs-mount-propagation).

#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::mounts::Propagation;

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// Read-only inside.
    pub readonly: bool,
    /// Propagation of the host's tree in the new mount namespace before anything is mounted: recursive slave
    /// unless `rootfsPropagation` says otherwise.
    pub propagation: Propagation,
    /// JSON pointer of that propagation; empty for the default.
    pub propagation_at: String,
}
