// SPDX-License-Identifier: Apache-2.0
//! The verbs: what `corten` does, one file each, as library calls.
//!
//! A verb takes a [`Home`](crate::ask::Home) and its arguments, and returns data or one error. It never prints. It blocks until it is done;
//! verbs may be called from any thread, and those on one container wait for each other where they must, as processes do (flock(2)).

#![forbid(unsafe_code)]

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod hold;
mod kill;
mod mounts;
mod pause;
mod plan;
mod query;
mod restore;
mod start;
mod update;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

pub use checkpoint::checkpoint;
pub use create::create;
pub use delete::delete;
pub(crate) use delete::delete_dead;
pub use events::{Usage, Watch, stats, watch};
pub use exec::exec;
pub use hold::hold;
pub use kill::kill;
pub use mounts::{add_mounts, remove_mounts};
pub use pause::{pause, resume};
pub use plan::{PlanLine, plan};
pub use query::{ids, list, pids, state};
pub use restore::restore;
pub use start::{start, start_notifying};
pub use update::update;

pub use crate::host::Launched;
pub use crate::host::notify::Notify;
pub use crate::state::Status;
pub use crate::sys::wait::Exit;

/// What a container uses, in figures: the types of a [`Usage`] and of a [`Watch`].
pub mod usage {
    pub use crate::cgroup::Version;
    pub use crate::cgroup::oom::{News, OomWatch};
    pub use crate::cgroup::stats::*;
    pub use crate::host::rdt::{Bandwidth, Figures, L3, Occupancy, Traffic};
}

use crate::ask::Stdio;
use crate::criu;
use crate::error::{Error, Kind, Result};

/// E15, in runc's words, which its test suite reads, as is said of both: a terminal, and nobody to give its other end to.
#[doc(hidden)]
pub fn socket_wanted() -> Error {
    Error::new(Kind::Invalid, "cannot allocate tty if runc will detach without setting console socket")
        .advise("process.terminal is true (or --tty given): give --console-socket, stay in the foreground, or do without")
}

/// The opposite mistake.
#[doc(hidden)]
pub fn no_socket_wanted() -> Error {
    Error::new(Kind::Invalid, "cannot use console socket if runc will not detach or allocate tty")
        .advise("--console-socket is for a detached process whose process.terminal is true (or with --tty)")
}

/// Which descriptors a terminal may have: with a caller who `leaves`, its other end must go to a socket; with one
/// who stays, or without a terminal, there is nothing to send. A shim stays also when it leaves the process waiting.
fn terminal_rules(terminal: bool, stdio: &Stdio, leaves: bool) -> Result<()> {
    match (terminal, matches!(stdio, Stdio::ConsoleSocket(_))) {
        (true, _) if matches!(stdio, Stdio::HandBack) => Ok(()),
        (false, _) if matches!(stdio, Stdio::HandBack) => {
            Err(Error::invalid("/process/terminal", "is false, and a terminal was asked for"))
        }
        (true, _) if matches!(stdio, Stdio::Fds(_)) => {
            Err(Error::invalid("/process/terminal", "is true, and no terminal was asked for"))
        }
        (true, false) if leaves => Err(socket_wanted()),
        (_, true) if !leaves || !terminal => Err(no_socket_wanted()),
        _ => Ok(()),
    }
}

/// The host's CRIU. It tells its version when it is at work.
fn criu_of_host() -> Result<PathBuf> {
    if crate::sys::ns::unprivileged() {
        let text = "CRIU takes root of the initial user namespace";
        return Err(Error::new(Kind::Unsupported, text));
    }
    criu::find()
}

/// Waits for a child of ours: what [`create`](fn@create), [`exec`](fn@exec), [`restore`](fn@restore) and [`hold`](fn@hold) return, in any thread, once.
#[doc = include_str!("examples/wait.md")]
/// Source: waitid(2) with P_PIDFD, Linux 5.4.
///
/// # Errors
/// ECHILD when it is no child of ours.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    crate::sys::wait::reap(pidfd)
}

/// A process that loads its filter without no_new_privs is lent CAP_SYS_ADMIN until then, and if the profile refuses what its way
/// into a pid namespace takes, that is inside. Whoever may trace it there must not get it so.
fn refuse_lending(
    filter: Option<&crate::seccomp::Filter>,
    process: &crate::plan::process::Process,
    bounding: u64,
    others: bool,
) -> Result<()> {
    use crate::program::compile;
    if !compile::enters_with_admin(filter, process) {
        return Ok(());
    }
    let who = match (bounding & compile::PTRACE != 0, others) {
        (true, _) => "CAP_SYS_PTRACE",
        (false, true) => "a pid namespace of others",
        (false, false) => return Ok(()),
    };
    let text = format!(
        "the profile refuses a call that entering the pid namespace takes, which {who} makes unsafe without noNewPrivileges"
    );
    Err(Error::invalid("/linux/seccomp", text))
}
