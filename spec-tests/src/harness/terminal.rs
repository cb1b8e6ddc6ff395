// SPDX-License-Identifier: Apache-2.0
//! A terminal driven by the case: the runtime's foreground commands run on its slave.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::termios::{Termios, tcgetattr};

use super::case::{Trouble, Verdict};
use super::test::{Running, Test};
use crate::{check, sys};

/// A terminal and what has come out of it.
pub struct Terminal {
    master: std::fs::File,
    slave: OwnedFd,
    pub seen: String,
}

impl Terminal {
    /// A new one of this size.
    pub fn open(rows: u16, columns: u16) -> Result<Self, Trouble> {
        let pair = openpty(None, None)?;
        for fd in [&pair.master, &pair.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        sys::set_window_size(pair.master.as_fd(), rows, columns)?;
        Ok(Self { master: pair.master.into(), slave: pair.slave, seen: String::new() })
    }

    /// A terminal whose master came from elsewhere; the slave is then unknown, and so is `settings`.
    pub fn from_master(master: OwnedFd) -> Result<Self, Trouble> {
        let slave = master.try_clone()?;
        Ok(Self { master: master.into(), slave, seen: String::new() })
    }

    /// Starts a command as the leader of a session on this terminal.
    pub fn spawn(&self, test: &Test, command: Command) -> Result<Running, Trouble> {
        self.spawn_into(self, test, command)
    }

    /// The same, with another terminal for its output.
    pub fn spawn_into(&self, output: &Self, test: &Test, mut command: Command) -> Result<Running, Trouble> {
        command
            .stdin(self.slave.try_clone()?)
            .stdout(output.slave.try_clone()?)
            .stderr(self.slave.try_clone()?);
        sys::with_controlling_terminal(&mut command);
        test.spawn_as_it_is(command, test.path("out/terminal"))
    }

    /// The terminal's settings.
    pub fn settings(&self) -> Result<Termios, Trouble> {
        Ok(tcgetattr(&self.slave)?)
    }

    /// Types.
    pub fn write(&mut self, bytes: &[u8]) -> Verdict {
        Ok(self.master.write_all(bytes)?)
    }

    /// Makes the terminal another size; the kernel tells the foreground process.
    pub fn resize(&self, rows: u16, columns: u16) -> Verdict {
        Ok(sys::set_window_size(self.master.as_fd(), rows, columns)?)
    }

    /// Reads until `text` has come.
    pub fn expect(&mut self, text: &str) -> Verdict {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.seen.contains(text) {
            check!(Instant::now() < end, "the terminal shows {:?}, not {text:?}", self.seen);
            self.pump()?;
        }
        Ok(())
    }

    /// Reads what is there.
    pub fn pump(&mut self) -> Verdict {
        let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(50u16))? == 0 {
            return Ok(());
        }
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(count) => self.seen.push_str(&String::from_utf8_lossy(&bytes[..count])),
            Err(_) => std::thread::sleep(Duration::from_millis(10)), // EIO: no slave is open now
        }
        Ok(())
    }
}
