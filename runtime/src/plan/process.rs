// SPDX-License-Identifier: Apache-2.0
//! The user's process (config.md#process), of `create` and of `exec` alike.

#![forbid(unsafe_code)]

use super::Field;
use super::caps::Caps;
use super::rlimits::Rlimit;
use super::sched::SchedAttr;

/// Everything about the process that the stage (or, where privilege is needed, the host) sets up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// JSON pointer prefix of the process object: `/process`, or empty in a `--process` file.
    pub at: String,
    /// argv, never empty.
    pub args: Vec<String>,
    /// Where to look for `args[0]`, in order: itself if it has a slash, else one entry per PATH element.
    pub candidates: Vec<String>,
    /// The environment, last duplicate won.
    pub env: Vec<String>,
    /// HOME is absent or empty: to be taken from the container's /etc/passwd, else `/`.
    pub needs_home: bool,
    /// Absolute, clean.
    pub cwd: String,
    /// The process gets a terminal of its own, of this size (rows, columns) if one is given.
    pub terminal: Option<Option<(u16, u16)>>,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups, exactly.
    pub gids: Vec<u32>,
    /// umask(2).
    pub umask: u32,
    /// The five sets; `None` (no `capabilities` object) leaves an empty everything, as runc does.
    pub caps: Caps,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// /proc/PID/oom_score_adj.
    pub oom_score_adj: Option<i32>,
    /// prlimit(2).
    pub rlimits: Vec<Rlimit>,
    /// sched_setattr(2).
    pub scheduler: Option<Field<SchedAttr>>,
    /// ioprio_set(2) value (class << 13 | level).
    pub io_priority: Option<Field<i32>>,
    /// personality(2) value.
    pub personality: Option<Field<u32>>,
    /// AppArmor profile for the exec.
    pub apparmor: Option<Field<String>>,
    /// SELinux label for the exec.
    pub selinux: Option<Field<String>>,
}
