// SPDX-License-Identifier: Apache-2.0
//! Ends: waitid(2) for a child by its pidfd, whatever its exit signal, and our own.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Context, RawErrno, Result};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// exit(2) with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// Waits for the child behind `pidfd` and reaps it. __WALL: a child born by CLONE_PARENT has exit signal 0.
///
/// # Errors
/// ECHILD when it is no child of ours.
pub fn reap(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: the structure is valid for writing and outlives the call.
        let result = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                pidfd.as_raw_fd() as libc::id_t,
                info.as_mut_ptr(),
                libc::WEXITED | libc::__WALL,
            )
        };
        if result == 0 {
            break;
        }
        let errno = RawErrno::from(std::io::Error::last_os_error());
        if errno.0 != libc::EINTR {
            return Err(errno).call(|| "waitid(pidfd)");
        }
    }
    // SAFETY: waitid filled it in (and zero is a valid siginfo_t); for SIGCHLD the status field is the active one.
    let (code, status) = unsafe {
        let info = info.assume_init();
        (info.si_code, info.si_status())
    };
    Ok(if code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) })
}

/// The pid of some child of this thread that has ended and was not waited for; it stays so. `None` when there is none.
///
/// The kernel gives orphans (to a subreaper) and the children of threads that have ended to the first thread, so there
/// this tells of those, and of no child that another thread has made and waits for.
pub fn ended_child() -> Option<i32> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: the structure is valid for writing and outlives the call.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) };
    // SAFETY: zero is a valid siginfo_t, and waitid left it so or filled it in for SIGCHLD.
    let pid = unsafe { info.assume_init().si_pid() };
    (result == 0 && pid > 0).then_some(pid)
}

/// Ends this process at once: no destructor and no handler runs, nothing is unmapped by hand that the kernel takes
/// anyway (the C library's and std's way costs 15 µs). What is buffered must have been written.
pub fn exit_at_once(code: u8) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code.into()) }
}
