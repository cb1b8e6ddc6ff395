// SPDX-License-Identifier: Apache-2.0
//! Namespaces: what kind a file is, and being born into a pid namespace.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::error::{Context, RawErrno, Result};

/// The CLONE_NEW* flag of a namespace file (ioctl_nsfs(2), NS_GET_NSTYPE).
///
/// # Errors
/// ENOTTY when the file is no namespace.
pub fn kind(file: BorrowedFd<'_>) -> Result<u64, RawErrno> {
    const NS_GET_NSTYPE: u32 = 0xb703;
    // SAFETY: NS_GET_NSTYPE takes no argument and returns a number.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
    if kind < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(kind as u64) }
}

/// Does `birth` while children of this thread are born into the pid namespace of `target` (a pidfd or a namespace
/// file), and then as before. setns(2) with CLONE_NEWPID concerns the calling thread's children only, so this is
/// sound in a threaded process.
///
/// # Errors
/// The errno of setns(2); an error on the way back is one too, since later children would go astray.
pub fn born_into<T>(target: BorrowedFd<'_>, birth: impl FnOnce() -> Result<T>) -> Result<T> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own =
        rustix::fs::open("/proc/self/ns/pid", flags, Mode::empty()).call(|| "open(/proc/self/ns/pid)")?;
    let enter = |fd| move_into_thread_name_spaces(fd, ThreadNameSpaceType::PROCESS_ID);
    // A pidfd wants the flag; for a namespace file it is a check.
    enter(target).call(|| "setns(pid)")?;
    let born = birth();
    use std::os::fd::AsFd;
    enter(own.as_fd()).call(|| "setns(own pid)")?;
    born
}
