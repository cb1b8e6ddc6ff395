// SPDX-License-Identifier: Apache-2.0
//! What passes between the shim and another runtime beside its arguments: files without a name, and the socket that a
//! terminal comes through.
//!
//! Nothing of it is made where somebody else may write, and nothing that must work (a kill, above all) needs room on a
//! disk. What needs a name gets one in the bundle, which is ours alone, by the bundle's descriptor.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use corten::error::Context;
use corten::sys::random;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, memfd_create, open, unlinkat};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::refusal::{Refusal, Result};

/// How long the runtime may take to hand over a terminal.
const CONSOLE: Duration = Duration::from_secs(30);
/// How much is read of a runtime's log.
const MOST: u64 = 1 << 20;

/// The name by which another process opens a descriptor of ours.
fn outside(fd: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

/// Thirty-two digits that nobody can know beforehand.
///
/// # Errors
/// Those of getrandom(2).
pub fn unguessable() -> Result<String> {
    Ok(random::text().call(|| "getrandom()")?)
}

/// A file in memory, opened by its descriptor.
pub struct Nameless(OwnedFd);

impl Nameless {
    /// An empty one; `name` is seen in /proc only.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub fn new(name: &str) -> Result<Nameless> {
        Ok(Nameless(memfd_create(name, MemfdFlags::CLOEXEC).call(|| format!("memfd_create({name})"))?))
    }

    /// Its path, for a process that may look into this one, while this value lives.
    pub fn path(&self) -> String {
        outside(&self.0)
    }

    /// Fills it.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let file = self.0.try_clone().map(File::from);
        Ok(file.and_then(|mut file| file.write_all(bytes)).call(|| "write(memfd)")?)
    }

    /// What others wrote into it.
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        // Opened anew: the position of the one we hold is not at the beginning.
        let _ = File::open(self.path()).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A console socket. Its path is short whatever the bundle's: a socket's name has 107 bytes.
pub struct ConsoleSocket {
    bundle: OwnedFd,
    name: String,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Listens in `bundle`.
    ///
    /// # Errors
    /// The failed call.
    pub fn listen(bundle: &Path) -> Result<ConsoleSocket> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let bundle = open(bundle, flags, Mode::empty()).call(|| format!("open({})", bundle.display()))?;
        let name = format!(".console-{}", unguessable()?);
        let path = format!("{}/{name}", outside(&bundle));
        let listener = UnixListener::bind(&path).call(|| format!("bind({path})"))?;
        Ok(ConsoleSocket { bundle, name, listener })
    }

    /// Where the runtime connects.
    pub fn path(&self) -> String {
        format!("{}/{}", outside(&self.bundle), self.name)
    }

    /// The terminal that comes over it.
    ///
    /// # Errors
    /// When none comes.
    pub fn receive(&self) -> Result<OwnedFd> {
        let limit = Timespec { tv_sec: CONSOLE.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        if poll(&mut fds, Some(&limit)).call(|| "poll(console socket)")? == 0 {
            return Err(Refusal::unknown("no terminal came from the runtime"));
        }
        let (socket, _) = self.listener.accept().call(|| "accept(console socket)")?;
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        recvmsg(&socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .call(|| "recvmsg(console socket)")?;
        let mut messages = ancillary.drain();
        let fd = messages.find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        fd.ok_or_else(|| Refusal::unknown("no terminal came from the runtime"))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = unlinkat(&self.bundle, &self.name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_is_read() {
        let file = Nameless::new("test").unwrap();
        file.write(b"one ").unwrap();
        std::fs::OpenOptions::new().append(true).open(file.path()).unwrap().write_all(b"two").unwrap();
        assert_eq!(file.text(), "one two");
        assert_ne!(unguessable().unwrap(), unguessable().unwrap());
    }

    #[test]
    fn a_socket_in_a_deep_bundle_has_a_short_name_and_goes() {
        let top = std::env::temp_dir().join(format!("corten-console-{}", std::process::id()));
        let bundle = top.join("x".repeat(120));
        std::fs::create_dir_all(&bundle).unwrap();
        let console = ConsoleSocket::listen(&bundle).unwrap();
        std::os::unix::net::UnixStream::connect(console.path()).unwrap();
        drop(console);
        assert_eq!(std::fs::read_dir(&bundle).unwrap().count(), 0);
        std::fs::remove_dir_all(&top).unwrap();
    }
}
