// SPDX-License-Identifier: Apache-2.0
//! The verbs: what `corten` does, one file each, as library calls.
//!
//! A verb takes a [`Home`](crate::ask::Home) and its arguments, and returns data or one error. It never prints.

#![forbid(unsafe_code)]

mod create;
mod delete;
mod events;
mod exec;
mod kill;
mod pause;
mod plan;
mod query;
mod start;
mod update;

use std::os::fd::BorrowedFd;

pub use create::create;
pub use delete::delete;
pub use events::{Watch, oom_watch, stats, watch};
pub use exec::exec;
pub use kill::kill;
pub use pause::{pause, resume};
pub use plan::{PlanLine, plan};
pub use query::{list, pids, state};
pub use start::start;
pub use update::update;

pub use crate::sys::wait::Exit;

use crate::error::Result;

/// Waits for a child of ours.
///
/// # Errors
/// ECHILD when it is no child of ours.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    crate::sys::wait::reap(pidfd)
}
