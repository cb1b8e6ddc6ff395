// SPDX-License-Identifier: Apache-2.0
//! The gate: where a created container's process waits, and where `start` knocks and hears how the exec went.
//!
//! Usually a listening socket. Where the process's filter, which is loaded by then, refuses accept4(2), two FIFOs: the word goes
//! through one, and the other ends with the exec. Counterpart: `Stage::gate`.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::channel::{Channel, Incoming};
use crate::error::{Context, Result};
use crate::stage::wire::{Message, kind};
use crate::state::Dir;

/// Its name in the state directory: where it is, the container is "created".
pub(crate) const GATE: &str = "gate";
/// What `start` listens to, if the gate is a FIFO.
pub(crate) const OUTCOME: &str = "outcome";

/// The stage's side of it as a socket.
pub(super) fn socket(dir: &Dir) -> Result<OwnedFd> {
    let socket = seqpacket()?;
    rustix::net::bind(&socket, &address(dir)?).call(|| format!("bind({}/{GATE})", dir.path().display()))?;
    rustix::net::listen(&socket, 1).call(|| "listen(gate)")?;
    Ok(socket)
}

/// The stage's side of one of the FIFOs. It holds both ends: a read waits for a writer that comes, and not for one
/// that is there.
pub(super) fn fifo(dir: &Dir, name: &str) -> Result<OwnedFd> {
    rustix::fs::mknodat(dir.fd(), name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .call(|| format!("mknod({}/{name})", dir.path().display()))?;
    open(dir, name, OFlags::RDWR)
}

/// `start`'s side.
pub(crate) enum Knock {
    /// A connection.
    Socket(Channel),
    /// The word, and the outcome.
    Fifos(OwnedFd, OwnedFd),
}

/// Knocks at the gate of a container that waits.
///
/// # Errors
/// ENXIO or ECONNREFUSED when the process has gone.
pub(crate) fn knock(dir: &Dir) -> Result<Knock> {
    let stream = seqpacket()?;
    match rustix::net::connect(&stream, &address(dir)?) {
        Ok(()) => Ok(Knock::Socket(Channel::over(stream))),
        // No socket is there.
        Err(rustix::io::Errno::CONNREFUSED) if dir.has(OUTCOME)? => {
            let outcome = open(dir, OUTCOME, OFlags::RDONLY | OFlags::NONBLOCK)?;
            Ok(Knock::Fifos(open(dir, GATE, OFlags::WRONLY | OFlags::NONBLOCK)?, outcome))
        }
        refused => refused
            .call(|| format!("connect({}/{GATE})", dir.path().display()))
            .map(|()| Knock::Socket(Channel::over(stream))),
    }
}

impl Knock {
    /// Gives the word.
    ///
    /// # Errors
    /// EPIPE when the process has gone.
    pub(crate) fn go(&self) -> Result<()> {
        match self {
            Knock::Socket(channel) => channel.go(),
            Knock::Fifos(gate, _) => {
                let word = Message { kind: kind::GO, ..Default::default() }.bytes();
                rustix::io::write(gate, &word).call(|| "write(gate)").map(drop)
            }
        }
    }

    /// Waits for the exec, which is the end; what the stage says instead, if it fails.
    ///
    /// # Errors
    /// What is no message of the stage's.
    pub(crate) fn outcome(&self) -> Result<Option<Incoming>> {
        match self {
            Knock::Socket(channel) => channel.receive(),
            Knock::Fifos(_, outcome) => read_to_end(outcome),
        }
    }
}

/// The one message that comes through a FIFO, if one does. The stage's exec, and its end, close the other side.
fn read_to_end(outcome: &OwnedFd) -> Result<Option<Incoming>> {
    let mut bytes = [0; Incoming::MOST];
    let mut length = 0;
    loop {
        match rustix::io::read(outcome, bytes.get_mut(length..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(outcome, PollFlags::IN)], None);
            }
            failed => drop(failed.call(|| "read(outcome)")?),
        }
    }
    match length {
        0 => Ok(None),
        length => Incoming::of(bytes.get(..length).unwrap_or_default(), None).map(Some),
    }
}

fn open(dir: &Dir, name: &str, how: OFlags) -> Result<OwnedFd> {
    let flags = how | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir.fd(), name, flags, Mode::empty())
        .call(|| format!("open({}/{name})", dir.path().display()))
}

fn seqpacket() -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .call(|| "socket(AF_UNIX)")
}

fn address(dir: &Dir) -> Result<SocketAddrUnix> {
    SocketAddrUnix::new(dir.short_path(GATE)).call(|| "gate address")
}
