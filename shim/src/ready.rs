// SPDX-License-Identifier: Apache-2.0
//! Waiting until a descriptor is ready.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches `fd` for input. It may be watched once at a time.
///
/// # Errors
/// Those of epoll_ctl(2): EPERM for a file, which is always ready; EEXIST when it is watched already.
pub fn input<T: AsFd + AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    watch(fd, Interest::READABLE)
}

/// Watches `fd` for room to write.
///
/// # Errors
/// As [`input`].
pub fn room<T: AsFd + AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    watch(fd, Interest::WRITABLE)
}

#[allow(
    deprecated,
    reason = "its successor is unsafe and asks for what AsFd promises: the descriptor stays open"
)]
fn watch<T: AsFd + AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}
