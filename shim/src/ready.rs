// SPDX-License-Identifier: Apache-2.0
//! Waiting: until a descriptor is ready, until something has happened.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::log;

/// How often is asked for what cannot be watched.
const ASKING: Duration = Duration::from_millis(50);

/// Watches `fd` for input. It may be watched once at a time.
///
/// # Errors
/// Those of epoll_ctl(2): EPERM for a file, which is always ready; EEXIST when it is watched already.
pub fn input<T: AsFd + AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    watch(fd, Interest::READABLE)
}

/// As [`input`]; without a watch, the log says what nobody hears of.
pub fn watched<T: AsFd + AsRawFd>(fd: T, what: &str) -> Option<AsyncFd<T>> {
    input(fd).inspect_err(|error| log::warn(&format!("nobody hears of {what}: epoll_ctl: {error}"))).ok()
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

/// Waits until there is input: for a pidfd, until its process has ended (pidfd_open(2)). Where epoll_ctl(2) fails, which it may for want of memory or of
/// watches, it looks from time to time: nobody may take the failure for the end, and wait for that with everything standing still.
pub async fn until_input(fd: impl AsFd + AsRawFd) {
    let asks = match input(fd.as_fd()) {
        Ok(watched) => watched.readable().await.is_err(),
        Err(error) => {
            log::warn(&format!("epoll_ctl: {error}; what was to be waited for is asked for"));
            true
        }
    };
    while asks && !has_input(fd.as_fd()) {
        sleep(ASKING).await;
    }
}

fn has_input(fd: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(&fd, PollFlags::IN)];
    matches!(poll(&mut asked, Some(&Timespec::default())), Ok(1))
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn wait_for(ready: impl Future<Output = ()>) {
        let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        reactor.block_on(async { tokio::time::timeout(Duration::from_secs(60), ready).await.unwrap() });
    }

    #[test]
    fn what_epoll_refuses_is_waited_for_all_the_same() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let written = Cell::new(false);
        wait_for(async {
            // EEXIST for whoever comes second.
            let watched = input(reader.as_fd()).unwrap();
            assert!(input(reader.as_fd()).is_err());
            let later = async {
                sleep(ASKING * 2).await;
                written.set(true);
                writer.write_all(b"x").unwrap();
            };
            tokio::join!(until_input(reader.as_fd()), later);
            drop(watched);
        });
        assert!(written.get());
    }

    #[test]
    fn it_is_not_over_before_there_is_input() {
        let (reader, _writer) = std::io::pipe().unwrap();
        wait_for(async {
            let soon = tokio::time::timeout(ASKING * 4, until_input(reader.as_fd()));
            assert!(soon.await.is_err(), "nothing was written");
            let _watched = input(reader.as_fd()).unwrap();
            let soon = tokio::time::timeout(ASKING * 4, until_input(reader.as_fd()));
            assert!(soon.await.is_err(), "nothing was written");
        });
    }
}
