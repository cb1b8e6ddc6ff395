// SPDX-License-Identifier: Apache-2.0
//! Namespaces: what kind a file is, which we are in, a new one of the network, and a look at another's mounts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
    move_into_thread_name_spaces,
};

use super::thread::on_another_thread;
use crate::error::{Context, Error, RawErrno, Result};

/// The CLONE_NEW* flag of a namespace file (ioctl_nsfs(2), NS_GET_NSTYPE).
///
/// # Errors
/// ENOTTY when the file is no namespace.
pub(crate) fn kind(file: BorrowedFd<'_>) -> Result<u64, RawErrno> {
    const NS_GET_NSTYPE: u32 = 0xb703;
    // SAFETY: NS_GET_NSTYPE takes no argument and returns a number.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
    if kind < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(kind as u64) }
}

/// The user namespace that owns a namespace (ioctl_nsfs(2), NS_GET_USERNS).
///
/// # Errors
/// The failed call: EPERM for one that is not below ours, ENOTTY when the file is no namespace.
pub fn owner(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    const NS_GET_USERNS: u32 = 0xb701;
    // SAFETY: NS_GET_USERNS takes no argument and returns a new descriptor.
    let fd = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_USERNS as _) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).call(|| "ioctl(NS_GET_USERNS)");
    }
    // SAFETY: the call made it, close-on-exec, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Does `work` on a thread that sees the mounts of process `pid` (`pidfd`), from the same root directory as ours.
///
/// # Errors
/// The errno of clone(2), unshare(2), setns(2) or chroot(2).
pub(crate) fn among_mounts_of<T: Send>(
    pid: i32,
    pidfd: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let away = || {
        let path = format!("/proc/{pid}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty()).call(|| format!("open({path})"))?;
        // SAFETY: the flag gives this thread a root and working directory of its own; no memory or descriptor is
        // concerned.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.call(|| "unshare(CLONE_FS)")?;
        move_into_thread_name_spaces(pidfd, ThreadNameSpaceType::MOUNT).call(|| "setns(mount)")?;
        rustix::process::fchdir(&root).call(|| "fchdir")?;
        rustix::process::chroot(".").call(|| "chroot")?;
        work()
    };
    on_another_thread(away)?
}

/// Whether this process is no root of the initial user namespace.
pub(crate) fn unprivileged() -> bool {
    !rustix::process::geteuid().is_root() || in_user_namespace()
}

/// A new network namespace with `lo` up. This thread makes it by being in it for a moment; nobody else's is touched.
///
/// # Errors
/// The errno of unshare(2) (ENOSPC: too many of them, EPERM) or ioctl(2). Should setns(2) not lead back, the thread is
/// lost for anything that has to do with the network: that is an error, too.
pub(crate) fn new_network() -> Result<OwnedFd> {
    const PATH: &str = "/proc/thread-self/ns/net";
    let open = || rustix::fs::open(PATH, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let ours = open().call(|| format!("open({PATH})"))?;
    // SAFETY: the flag gives this thread a network namespace of its own; no memory or descriptor is concerned.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.call(|| "unshare(CLONE_NEWNET)")?;
    let made = loopback_up().and_then(|()| open().call(|| format!("open({PATH})")));
    move_into_link_name_space(ours.as_fd(), Some(LinkNameSpaceType::Network)).call(|| "setns(network)")?;
    made
}

/// Does something in this network namespace. A thread of its own is in there for that; what it starts is in there, too.
///
/// # Errors
/// The errno of setns(2), and those of what is done.
pub(crate) fn in_network_namespace<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    on_another_thread(|| {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).call(|| "setns(network)")?;
        work()
    })?
}

/// Brings `lo` up in this network namespace.
///
/// # Errors
/// The errno of setns(2) or ioctl(2).
pub fn loopback_up_in(namespace: BorrowedFd<'_>) -> Result<()> {
    in_network_namespace(namespace, loopback_up)
}

fn loopback_up() -> Result<()> {
    crate::stage::loopback_up().map_err(|fault| match i64::from(fault.aux) {
        libc::SYS_socket => Error::os("socket(AF_INET)", fault.errno),
        _ => Error::os("ioctl(lo, SIOCSIFFLAGS, IFF_UP)", fault.errno),
    })
}

/// Whether this process is in a user namespace other than the initial one, which has a number of its own
/// (`PROC_USER_INIT_INO`, linux/proc_ns.h). The shape of the mappings tells nothing: an identity map is no proof.
pub(crate) fn in_user_namespace() -> bool {
    const INITIAL: u64 = 0xEFFF_FFFD;
    rustix::fs::stat("/proc/self/ns/user").is_ok_and(|stat| stat.st_ino != INITIAL)
}
