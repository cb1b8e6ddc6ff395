// SPDX-License-Identifier: Apache-2.0
//! The vocabulary of restores: what CRIU is given, where it is met, and what it makes.

#![forbid(unsafe_code)]

/// What CRIU makes of a checkpoint. Its order is CRIU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CriuOp {
    /// The namespaces that the checkpoint holds.
    Namespaces,
    /// The mounts, on the rootfs and on what comes from outside.
    Mounts,
    /// The processes, with everything that they had.
    Processes,
}

/// A point at which CRIU tells of a restore, and waits (criu.org/Action_scripts).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestorePoint {
    /// `setup-namespaces`: they are there, and in them a first process that does nothing yet.
    Namespaces,
    /// `pre-resume`: the processes are there, with the ids and capabilities that they had, and stopped.
    Processes,
}

/// Where something is mounted that a checkpoint has a mount on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// The tree that it lies in: a source.
    pub tree: usize,
    /// Its path there, absolute.
    pub path: String,
    /// It is what this source is, a directory or a file; without one a directory.
    pub like: Option<usize>,
}

/// What CRIU is given of the host's, by sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreSources {
    /// The rootfs.
    pub rootfs: usize,
    /// Mounts that the images do not hold: source, and what they are called there.
    pub mounts: Vec<(usize, String)>,
    /// Namespaces that they do not hold.
    pub namespaces: Vec<(usize, &'static str)>,
    /// Namespaces that CRIU joins: kind and path.
    pub join: Vec<(&'static str, String)>,
    /// Something of the configuration is hidden by /dev/null.
    pub masks: bool,
}
