// SPDX-License-Identifier: Apache-2.0
//! A service manager's notification socket for the container (sd_notify(3), compatibility P24): the container gets a socket
//! of ours, and what it says about its start is passed on to the one in our own `NOTIFY_SOCKET`.
//!
//! Passed on are READY=1 and, until then, STATUS=, ERRNO= and EXTEND_TIMEOUT_USEC=. Not what names processes or hands
//! over descriptors: the container's numbers are not the manager's.

#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::error::{Context, Error, Kind, Result, WithStep};
use crate::state::Dir;
use crate::state::{NOTIFY_DIRECTORY, NOTIFY_SOCKET};

/// What is passed on before the container is ready.
const PASSED: [&[u8]; 3] = [b"STATUS=", b"ERRNO=", b"EXTEND_TIMEOUT_USEC="];
/// How long the manager may take to acknowledge (sd_notify_barrier(3)); one that knows no barriers never does.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The container's socket, bound.
#[derive(Debug)]
pub struct Notify {
    socket: OwnedFd,
    manager: PathBuf,
}

impl Notify {
    /// Makes the directory that is bound into the container.
    ///
    /// # Errors
    /// As mkdir(2).
    pub(crate) fn prepare(dir: &Dir) -> Result<()> {
        let mode = Mode::from_raw_mode(0o755);
        let made = rustix::fs::mkdirat(dir.fd(), NOTIFY_DIRECTORY, mode)
            .and_then(|()| rustix::fs::chmodat(dir.fd(), NOTIFY_DIRECTORY, mode, AtFlags::empty()));
        made.call(|| "mkdir(notify)").step(|| "notification socket")
    }

    /// Binds the socket, for everybody inside to write to; `manager` is the value of NOTIFY_SOCKET.
    ///
    /// # Errors
    /// As bind(2).
    pub(crate) fn bind(dir: &Dir, manager: &Path) -> Result<Notify> {
        let name = format!("{NOTIFY_DIRECTORY}/{NOTIFY_SOCKET}");
        let bound = || {
            let socket = datagrams()?;
            // Of a start that failed.
            dir.remove_file(&name)?;
            let address = SocketAddrUnix::new(dir.short_path(&name)).call(|| "socket address")?;
            rustix::net::bind(&socket, &address).call(|| format!("bind({name})"))?;
            rustix::fs::chmodat(dir.fd(), &name, Mode::from_raw_mode(0o777), AtFlags::empty())
                .call(|| format!("chmod({name})"))?;
            Ok(socket)
        };
        Ok(Notify { socket: bound().step(|| "notification socket")?, manager: manager.to_owned() })
    }

    /// Passes on what the container says until it is ready, which the manager is told with `main` as the process to
    /// watch, or until the process behind `pidfd` has ended.
    ///
    /// # Errors
    /// `Kind::Peer` when the manager's socket is not there any more.
    pub fn relay(self, pidfd: BorrowedFd<'_>, main: i32) -> Result<()> {
        let refused = |error: Error| {
            error.with_kind(Kind::Peer).at(format!("NOTIFY_SOCKET={}", self.manager.display()))
        };
        let manager = connect(&self.manager).map_err(refused)?;
        let tell = |text: &[u8]| {
            rustix::net::send(&manager, text, SendFlags::NOSIGNAL).call(|| "send").map(drop).map_err(refused)
        };
        let mut message = [0; 4096];
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.call(|| "poll")?,
            };
            if fds[0].revents().is_empty() {
                return Ok(());
            }
            let (_, length) = rustix::net::recv(&self.socket, &mut message[..], RecvFlags::empty())
                .call(|| "recv(notification)")?;
            let lines = || message[..length].split(|byte| *byte == b'\n');
            for line in lines().filter(|line| PASSED.iter().any(|start| line.starts_with(start))) {
                tell(line)?;
            }
            if lines().any(|line| line == b"READY=1") {
                tell(b"READY=1\n")?;
                tell(format!("MAINPID={main}\n").as_bytes())?;
                return barrier(manager.as_fd()).map_err(refused);
            }
        }
    }
}

fn datagrams() -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .call(|| "socket(AF_UNIX)")
}

/// sd_notify(3): a path, or the name of an abstract socket after `@`.
fn connect(manager: &Path) -> Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let address = match manager.as_os_str().as_bytes().split_first() {
        Some((b'@', name)) => SocketAddrUnix::new_abstract_name(name),
        _ => SocketAddrUnix::new(manager),
    };
    let socket = datagrams()?;
    rustix::net::connect(&socket, &address.call(|| "socket address")?).call(|| "connect")?;
    Ok(socket)
}

/// Waits until the manager has handled what it was told: it closes the descriptor that it is sent. Who goes away
/// earlier cannot be told apart from a stranger.
fn barrier(manager: BorrowedFd<'_>) -> Result<()> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call(|| "pipe")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [write.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(manager, &[IoSlice::new(b"BARRIER=1")], &mut ancillary, SendFlags::NOSIGNAL)
        .call(|| "sendmsg(BARRIER=1)")?;
    drop(write);
    // Its end, or the end of patience: both are fine.
    let _ = poll(&mut [PollFd::new(&read, PollFlags::IN)], Some(&PATIENCE));
    Ok(())
}
