// SPDX-License-Identifier: Apache-2.0
//! The verbs: what `corten` does, one file each, as library calls.
//!
//! A verb takes a [`Home`](crate::ask::Home) and its arguments, and returns data or one error. It never prints.

#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use crate::ask::{Create, Exec, Home, Launched};
use crate::error::{Error, Kind, Result};
use crate::state::Status;

/// `create`, and `run` up to and including the start: the process is launched and, for `run`, started.
///
/// # Errors
/// After an error nothing is left behind.
pub fn create(home: &Home, ask: Create) -> Result<Launched> {
    let _ = (home, ask);
    Err(Error::new(Kind::Unsupported, "not built yet"))
}

/// `start`: opens the gate and waits for the outcome of the exec; runs the poststart hooks.
pub fn start(home: &Home, id: &str) -> Result<()> {
    let _ = (home, id);
    Err(Error::new(Kind::Unsupported, "not built yet"))
}

/// `exec`: launches another process in a container; the exec of the user's program has succeeded on return.
pub fn exec(home: &Home, ask: Exec) -> Result<Launched> {
    let _ = (home, ask);
    Err(Error::new(Kind::Unsupported, "not built yet"))
}

/// `kill`: sends `signal` to init, or with `all` to every process.
pub fn kill(home: &Home, id: &str, signal: i32, all: bool) -> Result<()> {
    let _ = (home, id, signal, all);
    Err(Error::new(Kind::Unsupported, "not built yet"))
}

/// `delete`: removes a stopped (or created) container; with `force` kills it first, and an absent one is fine.
pub fn delete(home: &Home, id: &str, force: bool) -> Result<()> {
    let _ = (home, id, force);
    Err(Error::new(Kind::Unsupported, "not built yet"))
}

/// `state`: one container (reference J1).
pub fn state(home: &Home, id: &str) -> Result<Status> {
    let _ = (home, id);
    Err(Error::new(Kind::Unsupported, "not built yet"))
}

/// `list`: every container of the root, by id; unreadable entries are warned about.
pub fn list(home: &Home) -> Result<Vec<Status>> {
    let _ = home;
    Err(Error::new(Kind::Unsupported, "not built yet"))
}

/// `ps`: the pids of every process in the container's cgroup tree, ascending.
pub fn pids(home: &Home, id: &str) -> Result<Vec<i32>> {
    let _ = (home, id);
    Err(Error::new(Kind::Unsupported, "not built yet"))
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// exit(2) with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// Waits for a child of ours.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    let _ = pidfd;
    Err(Error::new(Kind::Unsupported, "not built yet"))
}

/// One line of `corten plan`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PlanLine {
    /// `host` or `stage`.
    pub side: &'static str,
    /// JSON pointer into config.json of the value that asked for this; empty when no field did.
    pub field: String,
    /// What is done, in words.
    pub step: String,
}

/// `plan`: every step of a `create`, in order. Touches nothing and needs no privileges.
pub fn plan(home: &Home, ask: &Create) -> Result<Vec<PlanLine>> {
    let _ = (home, ask);
    Err(Error::new(Kind::Unsupported, "not built yet"))
}
