// SPDX-License-Identifier: Apache-2.0
//! Sockets and files by which others receive things: console, pidfd, seccomp agent, pid file.

#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use crate::error::{Context, Error, Kind, Result};

/// Connects to an AF_UNIX stream socket; a path longer than sun_path goes through its directory's descriptor.
///
/// # Errors
/// `Kind::Peer`: ENOENT, ECONNREFUSED and their like, with the path.
pub fn connect(path: &Path, what: &'static str) -> Result<OwnedFd> {
    let refused = |errno: rustix::io::Errno| {
        Error::os(format!("connect({})", path.display()), errno).at(what).with_kind(Kind::Peer)
    };
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .call(|| "socket(AF_UNIX)")?;
    if path.as_os_str().len() < 108 {
        let address = SocketAddrUnix::new(path).map_err(refused)?;
        rustix::net::connect(&socket, &address).map_err(refused)?;
        return Ok(socket);
    }
    let (directory, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty()).map_err(refused)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    let address = SocketAddrUnix::new(short).map_err(refused)?;
    rustix::net::connect(&socket, &address).map_err(refused)?;
    Ok(socket)
}

/// Sends `payload` with one descriptor (SCM_RIGHTS).
///
/// # Errors
/// EPIPE and its like.
pub fn send_descriptor(socket: BorrowedFd<'_>, payload: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let mut sent =
        rustix::net::sendmsg(socket, &[IoSlice::new(payload)], &mut ancillary, SendFlags::NOSIGNAL)
            .call(|| "sendmsg(SCM_RIGHTS)")?;
    while sent < payload.len() {
        sent += rustix::net::send(socket, &payload[sent..], SendFlags::NOSIGNAL).call(|| "send")?;
    }
    Ok(())
}

/// Writes a file under a temporary name and renames it: whoever sees the file sees all of it. After a failure nothing
/// new is there.
///
/// # Errors
/// As open(2), write(2) and rename(2).
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = std::fs::write(&temporary, bytes).call(|| format!("write({})", temporary.display()));
    let renamed = written
        .and_then(|()| std::fs::rename(&temporary, path).call(|| format!("rename({})", path.display())));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    renamed
}
