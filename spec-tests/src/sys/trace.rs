// SPDX-License-Identifier: Apache-2.0
//! What the watchers of `probe/hunt.rs` do, and the careless runtime that they must catch first.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// Seizes a process (ptrace(2)), stops it and lets it go: one that ended while it is ours would be kept from its parent.
pub fn seize(pid: i32) -> bool {
    // SAFETY: numbers only, and a status of this frame; nothing of ours changes.
    unsafe {
        if libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) != 0 {
            return false;
        }
        let mut status = 0;
        libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0);
        if libc::waitpid(pid, &raw mut status, libc::__WALL) == pid && libc::WIFSTOPPED(status) {
            libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0);
        }
        true
    }
}

/// What a careless runtime does: a process with our tree, our descriptors and all our capabilities, those over the user namespace if one is
/// given, is in the pid namespace for two milliseconds.
pub fn visit_pid_namespace(namespace: BorrowedFd, user: Option<BorrowedFd>) -> io::Result<()> {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    // SAFETY: between fork and _exit there are only async-signal-safe calls, with numbers and a structure on this stack.
    unsafe {
        let outside = libc::fork();
        if outside == 0 {
            let mut code = user.map_or(0, |user| libc::setns(user.as_raw_fd(), libc::CLONE_NEWUSER));
            code |= libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWPID);
            if code == 0 {
                // As whoever joins a user namespace becomes its root, or its files below /proc are nobody's in there.
                if user.is_some() {
                    code |= libc::syscall(libc::SYS_setresuid, 0, 0, 0) as i32;
                }
                // As it must be for whoever is to write the maps of ids.
                libc::prctl(libc::PR_SET_DUMPABLE, 1);
                let inside = libc::fork();
                if inside == 0 {
                    libc::nanosleep(&raw const time, std::ptr::null_mut());
                    libc::_exit(0);
                }
                code |= i32::from(inside < 0 || libc::waitpid(inside, std::ptr::null_mut(), 0) != inside);
            }
            libc::_exit(code & 1);
        }
        let mut status = 0;
        check(libc::waitpid(check(outside)?, &raw mut status, 0))?;
        if status == 0 {
            Ok(())
        } else {
            Err(io::Error::other("no process could be put into the pid namespace"))
        }
    }
}

/// What a careless runtime does: in the mount namespace of a container, it opens a file by its path and writes there. Whether it could.
pub fn write_in_mount_namespace(namespace: BorrowedFd, path: &CStr, text: &[u8]) -> io::Result<bool> {
    // SAFETY: between fork and _exit there are only async-signal-safe calls, with numbers and what outlives them.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let mut written = false;
            if libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) == 0 {
                let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                written =
                    file >= 0 && libc::write(file, text.as_ptr().cast(), text.len()) == text.len() as isize;
            }
            libc::_exit(i32::from(!written));
        }
        let mut status = 0;
        check(libc::waitpid(check(child)?, &raw mut status, 0))?;
        Ok(status == 0)
    }
}
