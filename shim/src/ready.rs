// SPDX-License-Identifier: Apache-2.0
//! Waiting: until a descriptor is ready, until something has happened.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

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
pub fn output<T: AsFd + AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    watch(fd, Interest::WRITABLE)
}

#[allow(
    deprecated,
    reason = "its successor is unsafe and asks for what AsFd promises: the descriptor stays open"
)]
fn watch<T: AsFd + AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}

/// Something that happens once, for as many as want to know.
#[derive(Default)]
pub struct Once {
    happened: Cell<bool>,
    told: Notify,
}

impl Once {
    /// It happens, if it has not.
    pub fn happen(&self) {
        self.happened.set(true);
        self.told.notify_waiters();
    }

    /// Whether it has.
    pub fn has_happened(&self) -> bool {
        self.happened.get()
    }

    /// Waits for it.
    pub async fn wait(&self) {
        loop {
            // Registered before the look, so that what happens in between is not missed.
            let told = self.told.notified();
            if self.happened.get() {
                return;
            }
            told.await;
        }
    }
}
