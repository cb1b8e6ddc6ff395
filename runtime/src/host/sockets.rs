// SPDX-License-Identifier: Apache-2.0
//! Sockets and files by which others receive things: console, pidfd, seccomp agent, pid file.

#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use crate::error::{Context, Error, Kind, Result};
use crate::state::write_all;
use crate::sys::random;

/// Connects to an AF_UNIX stream socket; a path longer than sun_path goes through its directory's descriptor.
///
/// # Errors
/// `Kind::Peer`: ENOENT, ECONNREFUSED and their like, with the path.
pub(crate) fn connect(path: &Path, what: &'static str) -> Result<OwnedFd> {
    let refused = |errno: rustix::io::Errno| {
        let error = Error::os(format!("connect({})", path.display()), errno).at(what).with_kind(Kind::Peer);
        error.advise("it is to be an AF_UNIX stream socket that somebody listens on")
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
pub(crate) fn send_descriptor(socket: BorrowedFd<'_>, payload: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
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

/// Opens a file to append to, made if it is missing. The directory may be one that others write to: a link is followed
/// only if it is root's or our own.
///
/// # Errors
/// As open(2); ELOOP for somebody else's link.
pub fn append(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let open = |flags| rustix::fs::open(path, flags, mode);
    let opened = match open(flags | OFlags::NOFOLLOW) {
        Err(Errno::LOOP) => {
            let owner = rustix::fs::lstat(path).map(|link| link.st_uid);
            let trusted = owner.is_ok_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw());
            if trusted { open(flags) } else { Err(Errno::LOOP) }
        }
        other => other,
    };
    opened.call(|| format!("open({})", path.display()))
}

/// Writes a file under a temporary name and renames it: whoever sees the file sees all of it. After a failure nothing
/// new is there. The directory may be one that others write to: it is held, and the temporary name is a new file's, which
/// nobody could put there before, as a link or otherwise.
///
/// # Errors
/// As open(2), write(2) and rename(2).
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let call = |what: &str| format!("{what}({})", path.display());
    let name = path.file_name().ok_or_else(|| Error::os(call("open"), libc::EISDIR))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, Mode::empty()).call(|| call("open"))?;
    let temporary = format!(".{}", random::text().call(|| "getrandom()")?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let file = rustix::fs::openat(&dir, &temporary, flags, mode).call(|| call("open"))?;
    let written = write_all(file.as_fd(), bytes).call(|| call("write"));
    let renamed =
        written.and_then(|()| rustix::fs::renameat(&dir, &temporary, &dir, name).call(|| call("rename")));
    if renamed.is_err() {
        let _ = rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty());
    }
    renamed
}
