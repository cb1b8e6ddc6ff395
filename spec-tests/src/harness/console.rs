// SPDX-License-Identifier: Apache-2.0
//! The receiving side of `--console-socket`: a unix socket on which the runtime sends a terminal's master.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::case::Trouble;
use crate::check;
use crate::sys;

/// A listening socket.
pub struct Receiver {
    listener: UnixListener,
    pub path: PathBuf,
}

/// What came in one message.
pub struct Delivery {
    pub text: String,
    pub fds: Vec<OwnedFd>,
}

impl Receiver {
    pub fn listen(path: &Path) -> Result<Self, Trouble> {
        Ok(Self { listener: UnixListener::bind(path)?, path: path.to_owned() })
    }

    /// Listens in a directory whose path may be too long for a socket address.
    pub fn listen_in(dir: &Path, name: &str) -> Result<Self, Trouble> {
        use std::os::fd::AsRawFd;
        let open = std::fs::File::open(dir)?;
        let short = format!("/proc/self/fd/{}/{name}", open.as_raw_fd());
        Ok(Self { listener: UnixListener::bind(short)?, path: dir.join(name) })
    }

    /// Whether nobody has connected so far.
    pub fn is_silent(&self) -> Result<bool, Trouble> {
        let mut ready = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut ready, PollTimeout::ZERO)? == 0)
    }

    /// Waits (10 s at most) for a connection and its first message.
    pub fn receive(&self) -> Result<Delivery, Trouble> {
        let mut ready = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        check!(poll(&mut ready, PollTimeout::from(10_000u16))? == 1, "nobody connected to the socket");
        let (stream, _) = self.listener.accept()?;
        let mut text = [0u8; 8192];
        let (length, fds) = sys::receive(stream.as_fd(), &mut text)?;
        Ok(Delivery { text: String::from_utf8_lossy(&text[..length]).into_owned(), fds })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}
