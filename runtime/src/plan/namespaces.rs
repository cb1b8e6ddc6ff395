// SPDX-License-Identifier: Apache-2.0
//! Which namespaces a container gets (config-linux.md#namespaces). Counterparts: `host/launch.rs`, the stage's
//! `setns`, `unshare` and `hop` operations.

#![forbid(unsafe_code)]

/// A kind of namespace, by its clone(2) flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NsKind {
    /// CLONE_NEWUSER
    User,
    /// CLONE_NEWPID
    Pid,
    /// CLONE_NEWNET
    Network,
    /// CLONE_NEWIPC
    Ipc,
    /// CLONE_NEWUTS
    Uts,
    /// CLONE_NEWCGROUP
    Cgroup,
    /// CLONE_NEWTIME
    Time,
    /// CLONE_NEWNS
    Mount,
}

/// A namespace to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// JSON pointer, `/linux/namespaces/2`.
    pub at: String,
    /// Its kind; the file's real kind is checked when it is opened.
    pub kind: NsKind,
    /// Absolute path of the namespace file.
    pub path: String,
}

/// What is made and what is joined. A kind in neither list stays the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Made anew, with the JSON pointer of each.
    pub new: Vec<(NsKind, String)>,
    /// Joined, in the order in which they are joined: user first, mount last.
    pub join: Vec<Join>,
    /// Clock offsets of the new time namespace: the lines of /proc/self/timens_offsets (`monotonic 10 0`).
    pub time_offsets: Vec<String>,
}
