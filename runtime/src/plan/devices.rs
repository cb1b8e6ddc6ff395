// SPDX-License-Identifier: Apache-2.0
//! Device nodes and the links in /dev (config-linux.md#devices, #default-devices). Counterpart: the stage's
//! `mknod` and `symlink` operations; in a user namespace, where mknod(2) is refused, binds of the host's nodes.

#![forbid(unsafe_code)]

/// How a device comes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// mknod(2).
    Mknod,
    /// Bind mount of the host's node at this absolute path.
    Bind(String),
}

/// One device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// JSON pointer; empty for the default devices.
    pub at: String,
    /// Absolute path inside.
    pub path: String,
    /// S_IFCHR, S_IFBLK or S_IFIFO with the permission bits.
    pub mode: u32,
    /// makedev(major, minor) as the kernel encodes it for mknod(2); 0 for a FIFO.
    pub rdev: u64,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
    /// How it is made.
    pub via: Via,
}
