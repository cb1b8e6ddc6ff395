// SPDX-License-Identifier: Apache-2.0
//! The standard streams of the process that calls the runtime, and reading what comes out of them.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use super::plan::{Caller, Stream};
use crate::harness::case::Trouble;
use crate::sys;

/// Copies what comes out of pipes and terminals to files, until all other ends are closed.
#[derive(Default)]
pub struct Readers(Vec<JoinHandle<()>>);

impl Readers {
    /// Waits for all that was written, which is in the files then; not for ever, because somebody may hold the other ends.
    pub fn finish(self) {
        let end = Instant::now() + Duration::from_secs(5);
        for thread in self.0 {
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn copy(&mut self, from: OwnedFd, mut to: File) {
        let mut from = File::from(from);
        self.0.push(std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            // A terminal without other ends says EIO, which is its end.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                to.write_all(&bytes[..count]).ok();
            }
        }));
    }
}

/// What else the caller is.
pub fn attributes(caller: &Caller) -> sys::Attributes {
    let all = [caller.stdin, caller.stdout, caller.stderr];
    let closed = (0..).zip(all).filter(|(_, stream)| *stream == Stream::Closed).map(|(fd, _)| fd);
    sys::Attributes {
        one_processor: caller.one_processor,
        umask: caller.umask,
        nice: caller.nice,
        ignored: caller.ignored.clone(),
        blocked: caller.blocked.clone(),
        leaks: caller.leaks,
        groups: (0..caller.groups).map(|n| 5000 + n).collect(),
        closed: closed.collect(),
    }
}

/// Gives `command` its streams; output goes to `out` with the endings `out` and `err`.
pub fn attach(command: &mut Command, caller: &Caller, out: &Path) -> Result<Readers, Trouble> {
    let mut readers = Readers::default();
    let input = match caller.stdin {
        Stream::Plain | Stream::Closed => Stdio::null(),
        Stream::Pipe => {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            drop(write);
            read.into()
        }
        Stream::Terminal => {
            let (master, slave) = terminal()?;
            // Kept open: a terminal whose master is gone says EIO.
            std::mem::forget(master);
            slave.into()
        }
    };
    command.stdin(input);
    for (stream, kind) in [(caller.stdout, "out"), (caller.stderr, "err")] {
        let file = File::create(out.with_extension(kind))?;
        let end: Stdio = match stream {
            Stream::Plain | Stream::Closed => file.into(),
            Stream::Pipe => {
                let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
                readers.copy(read, file);
                write.into()
            }
            Stream::Terminal => {
                let (master, slave) = terminal()?;
                readers.copy(master, file);
                slave.into()
            }
        };
        if kind == "out" {
            command.stdout(end)
        } else {
            command.stderr(end)
        };
    }
    Ok(readers)
}

fn terminal() -> Result<(OwnedFd, OwnedFd), Trouble> {
    let pair = nix::pty::openpty(None, None)?;
    for fd in [&pair.master, &pair.slave] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    sys::set_window_size(pair.master.as_fd(), 24, 80)?;
    Ok((pair.master, pair.slave))
}
