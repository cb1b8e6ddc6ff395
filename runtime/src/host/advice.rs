// SPDX-License-Identifier: Apache-2.0
//! What to do about the usual failures of steps: a clause at the end of the line (`Error::advise`). Chosen by the step and the
//! errno, never by words.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::program::{Op, Source, StageOp};

/// About a source that cannot be opened.
pub(super) fn of_source(error: Error, source: &Source) -> Error {
    match source {
        Source::Tree(_) => error.advise_on(
            &[libc::ENOENT, libc::ENOTDIR],
            "root.path and the source of a bind mount are what exists on the host, relative to the bundle",
        ),
        Source::Namespace { .. } => error.advise(
            "a path is /proc/PID/ns/TYPE of a process that lives, or a bind mount of one; without a path it is a new one",
        ),
        _ => error,
    }
}

/// About a limit that may not be raised so far.
pub(super) fn of_rlimit(error: Error) -> Error {
    let advice = "the hard limit is at most our own without CAP_SYS_RESOURCE, and RLIMIT_NOFILE's at most the sysctl fs.nr_open";
    error.advise_on(&[libc::EPERM], advice)
}

pub(super) fn of_pid_file(error: Error) -> Error {
    error.at("pid file").advise("--pid-file is to name a file in a directory that exists")
}

/// About a step of the stage's that is the configuration's fault as a rule.
pub(super) fn of_step(op: &Op, errno: i32) -> Option<&'static str> {
    let Op::Stage(op) = op else { return None };
    match (op, errno) {
        (StageOp::FsOpen { .. }, libc::ENODEV) => Some(
            "the mount's type is to be one of /proc/filesystems (a module that is not loaded is not there)",
        ),
        (StageOp::FsSet { .. }, libc::EINVAL) => {
            Some("the mount's type knows no option of this name, or not this value")
        }
        (StageOp::Unmount { .. }, libc::EINVAL) => {
            Some("nothing is mounted at this destination, or it is locked")
        }
        (StageOp::Console { .. }, libc::ENOENT) => {
            Some("a terminal is made in the container's devpts: mount one on /dev/pts in mounts")
        }
        (StageOp::Write { .. }, libc::ENOENT) => {
            Some("this kernel has no such file in the container's namespaces")
        }
        (StageOp::Write { .. }, libc::EINVAL | libc::ERANGE) => Some("the kernel does not take this value"),
        _ => None,
    }
}

/// About a program, `name`, that was found and then not executed.
pub(super) fn of_exec(name: &str, errno: i32) -> &'static str {
    match errno {
        libc::ENOENT => "put that into the container's root file system, or build process.args[0] without it",
        errno => of_program(name, errno),
    }
}

/// About a program, `name`, that is not found or cannot be executed.
pub(super) fn of_program(name: &str, errno: i32) -> &'static str {
    match errno {
        libc::ENOENT if name.contains('/') => "process.args[0] is a path in the container's root file system",
        libc::ENOENT => {
            "process.args[0] is looked for in the container's root file system, in the directories of PATH in process.env"
        }
        libc::EACCES => "process.args[0] needs the x bit for process.user, and no noexec on its mount",
        libc::EISDIR => "process.args[0] is to be a program",
        libc::ENOEXEC => "process.args[0] is of another architecture, or a script without #!",
        _ => "it is process.args[0]",
    }
}
