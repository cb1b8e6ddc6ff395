// SPDX-License-Identifier: Apache-2.0
//! Mounts (config.md#mounts, config-linux.md#default-filesystems): from options to kernel words. Counterparts:
//! `host/sources.rs` opens what is bound, the stage's mount operations do the rest.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::ids::IdMaps;
use super::namespaces::Namespaces;
use crate::cgroup;
use crate::facts::Facts;
use crate::spec::IdMapping;

/// What the mount room may look at.
pub struct Context<'a> {
    /// Decided namespaces.
    pub namespaces: &'a Namespaces,
    /// Decided mappings of a new user namespace.
    pub ids: Option<&'a IdMaps>,
    /// The host.
    pub facts: &'a Facts,
    /// The decided control group.
    pub cgroup: &'a cgroup::Plan,
    /// The bundle, absolute: relative bind sources start here.
    pub bundle: &'a Path,
}

/// One step of the mount phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Mount something.
    Mount(Mount),
    /// Make a symbolic link (co-mounted v1 controllers).
    Symlink {
        /// JSON pointer.
        at: String,
        /// Absolute path inside.
        path: String,
        /// What it points to.
        target: String,
    },
    /// Change the attributes of the mount at `target` once its children are in place (the v1 cgroup tmpfs).
    Remount {
        /// JSON pointer.
        at: String,
        /// Absolute path inside.
        target: String,
        /// Attributes.
        attrs: Attrs,
    },
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// JSON pointer, `/mounts/3`.
    pub at: String,
    /// Absolute, lexically clean path inside (`/` is possible).
    pub target: String,
    /// What is mounted.
    pub source: Source,
    /// Attributes of the top mount (mount_setattr(2): MOUNT_ATTR_* to set and to clear).
    pub attrs: Attrs,
    /// Attributes applied to the whole tree (`rro`, `rnosuid` …).
    pub recursive: Attrs,
    /// Propagation changes, in order; empty means: as the root's.
    pub propagation: Vec<Propagation>,
    /// Refuse a symbolic link anywhere on the way to the target (proc and sysfs).
    pub nofollow: bool,
    /// The target may lie in /proc (the mount of /proc itself, and the few files lxcfs covers).
    pub in_proc: bool,
    /// Copy what the target directory held into the new tmpfs.
    pub copy_up: bool,
    /// Mapping of this mount.
    pub idmap: Option<Idmap>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An existing file or tree of the host.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// With everything mounted below.
        recursive: bool,
        /// Bind a symbolic link itself (`src-nofollow`).
        nofollow: bool,
    },
    /// A file system of its own.
    Fs {
        /// Type, `tmpfs`.
        fstype: String,
        /// Device or dummy name; `None` leaves it out.
        source: Option<String>,
        /// Parameters for fsconfig(2): key and, unless it is a flag, value.
        options: Vec<(String, Option<String>)>,
        /// A tmpfs without `mode=`: takes the mode of the directory it covers, if that exists.
        mode_of_target: bool,
    },
}

/// MOUNT_ATTR_* bits (linux/mount.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    /// To set.
    pub set: u64,
    /// To clear.
    pub clear: u64,
}

/// One propagation change (mount(2): MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// The MS_* flag.
    pub flag: u64,
    /// For the whole tree.
    pub recursive: bool,
}

/// The id mapping of one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idmap {
    /// Of user ids; empty means the container's user namespace.
    pub uid: Vec<IdMapping>,
    /// Of group ids.
    pub gid: Vec<IdMapping>,
    /// For the whole tree (`ridmap`).
    pub recursive: bool,
}
