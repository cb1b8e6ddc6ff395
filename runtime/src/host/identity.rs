// SPDX-License-Identifier: Apache-2.0
//! Telling a process from a later one with the same pid, and waiting for one.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Context, Error, Kind, Result};
use crate::procfs::{Stat, boot_id};
use crate::state::Identity;
use crate::sys::wait::reap;

/// Magic number of pidfs (linux/magic.h): its inodes are unique for a boot.
const PIDFS_MAGIC: i64 = 0x5049_4446;

impl Identity {
    /// The identity of the process behind `pidfd`, which is `pid`.
    ///
    /// # Errors
    /// When /proc does not tell.
    pub fn of(pid: i32, pidfd: BorrowedFd<'_>) -> Result<Identity> {
        let inode = inode(pidfd)?;
        let start_time = if inode == 0 { start_time(pid)? } else { 0 };
        Ok(Identity { pid, inode, start_time, boot_id: boot_id()?.to_owned() })
    }

    /// The pidfd of the process, if it still lives; never another one's.
    ///
    /// What is compared depends on the kernel. From Linux 6.9 on pidfds lie in pidfs, where an inode number stands for one
    /// process as long as the machine runs. Before that it is the start time in /proc/PID/stat, in hundredths of a second:
    /// a number that is given again within the same one would pass. The pidfd is opened first, so that the number cannot
    /// go to another process between the comparison and the use. To be removed with kernels before 6.9: `start_time`.
    ///
    /// # Errors
    /// Whatever keeps from telling. A process that is gone is `None`, and nothing else is.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            other => other.call(|| format!("pidfd_open({})", self.pid))?,
        };
        let same = match self.inode {
            // The process is held by the pidfd: its number cannot be taken while it is compared.
            0 => start_time_or_gone(self.pid)? == Some(self.start_time),
            recorded => inode(pidfd.as_fd())? == recorded,
        };
        if !same || has_exited(pidfd.as_fd())? || boot_id()? != self.boot_id {
            return Ok(None);
        }
        Ok(Some(pidfd))
    }
}

/// 0 for a kernel whose pidfds have none. The kernel is asked once: `list` has a thousand pidfds.
fn inode(pidfd: BorrowedFd<'_>) -> Result<u64> {
    static IN_PIDFS: OnceLock<bool> = OnceLock::new();
    let in_pidfs = match IN_PIDFS.get() {
        Some(known) => *known,
        None => {
            let found = rustix::fs::fstatfs(pidfd).call(|| "fstatfs(pidfd)")?.f_type == PIDFS_MAGIC;
            *IN_PIDFS.get_or_init(|| found)
        }
    };
    if !in_pidfs {
        return Ok(0);
    }
    Ok(rustix::fs::fstat(pidfd).call(|| "fstat(pidfd)")?.st_ino)
}

fn start_time(pid: i32) -> Result<u64> {
    let field = Stat::of(pid)?.field(22);
    field.ok_or_else(|| Error::new(Kind::Os, "no start time").at(format!("/proc/{pid}/stat")))
}

fn start_time_or_gone(pid: i32) -> Result<Option<u64>> {
    match start_time(pid) {
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        other => other.map(Some),
    }
}

/// Whether the process has ended (it may still be a zombie).
///
/// # Errors
/// As [`wait_for_exit`].
pub(crate) fn has_exited(pidfd: BorrowedFd<'_>) -> Result<bool> {
    wait_for_exit(pidfd, Some(Duration::ZERO))
}

/// Waits until the process has ended, at most `limit`; whether it has.
///
/// # Errors
/// Those of poll(2).
pub fn wait_for_exit(pidfd: BorrowedFd<'_>, limit: Option<Duration>) -> Result<bool> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left
            .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os("poll(pidfd)", errno)),
            Ok(_) => return Ok(true),
        }
    }
}

/// SIGKILL; a process that is gone already is fine.
///
/// # Errors
/// EPERM and its like.
pub fn kill(pidfd: BorrowedFd<'_>) -> Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::os("pidfd_send_signal(SIGKILL)", errno)),
    }
}

/// The same for a child, which is waited for.
///
/// # Errors
/// ECHILD when it is no child of ours, or was waited for already.
pub fn end(pidfd: BorrowedFd<'_>) -> Result<()> {
    kill(pidfd)?;
    reap(pidfd).map(drop)
}
