// SPDX-License-Identifier: Apache-2.0
//! The server's socket: its name, and who gets to listen on it.
//!
//! The name follows from containerd's address, the namespace and the group, so two `start`s of one group meet at it:
//! whoever finds a server there returns its address, and that is all that grouping is. That something takes connections
//! does not make a server: the kernel does so for a process that has died, until it has closed what that had open. So the
//! listener's process is asked, which the socket names to whoever connects.

#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use corten::error::Context;
use corten::procfs::Stat;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::sha256;
use crate::refusal::{Refusal, Result};

const DIRECTORY: &str = "/run/containerd/s";
/// sun_path holds 108 bytes, the last of which is zero; one more is left as containerd leaves it.
const LONGEST: usize = 106;
/// As many as the kernel allows (net.core.somaxconn), as std asks for.
const BACKLOG: i32 = -1;

/// Who listens at the address.
pub enum Found {
    /// A server of the group that runs already.
    Server,
    /// We do now; nobody is served yet.
    Ours(BoundSocket),
}

/// A socket that listens for a server to be, with the directory's lock: until the server has taken it over, nobody else
/// looks, and the process that the socket names may end.
pub struct BoundSocket {
    listener: UnixListener,
    lock: OwnedFd,
}

impl BoundSocket {
    /// In the server's process: from here on the socket names this one. Who has connected stays in the backlog. The lock is let
    /// go by whoever holds it last.
    ///
    /// # Errors
    /// The failed call.
    pub fn take_over(self) -> Result<UnixListener> {
        rustix::net::listen(&self.listener, BACKLOG).call(|| "listen")?;
        drop(self.lock);
        Ok(self.listener)
    }
}

/// Where the group's server listens.
///
/// # Errors
/// InvalidArgument for a directory that is too long.
pub fn path(dir: Option<&Path>, address: &str, namespace: &str, group: &str) -> Result<PathBuf> {
    let dir = dir.unwrap_or(Path::new(DIRECTORY));
    let named: PathBuf = Path::new(address).join(namespace).join(group);
    let path = dir.join(sha256::hex(named.as_os_str().as_encoded_bytes()));
    if path.as_os_str().len() > LONGEST {
        return Err(Refusal::invalid(format!("socket directory {} is too long", dir.display())));
    }
    Ok(path)
}

/// Finds the server at `path` or takes its place. The directory's lock makes look, bind and the server's taking over one step.
///
/// # Errors
/// The failed call.
pub fn find_or_bind(path: &Path) -> Result<Found> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .call(|| format!("mkdir({})", dir.display()))?;
    let lock = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open({})", dir.display()))?;
    check_ours(&lock).call(|| format!("{}: not ours alone", dir.display()))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).call(|| format!("flock({})", dir.display()))?;
    if is_served(path) {
        return Ok(Found::Server);
    }
    remove(path);
    // Nobody but us can connect before the mode is set: the directory is ours alone.
    let listener = UnixListener::bind(path).call(|| format!("bind({})", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .call(|| format!("chmod({})", path.display()))?;
    Ok(Found::Ours(BoundSocket { listener, lock }))
}

/// A directory that another user has made, or may write to, may hold a listener of his.
fn check_ours(dir: &OwnedFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(dir)?;
    let others = Mode::WGRP | Mode::WOTH;
    let alone = stat.st_uid == geteuid().as_raw() && !Mode::from_raw_mode(stat.st_mode).intersects(others);
    if alone { Ok(()) } else { Err(Errno::PERM) }
}

/// Whether a server listens there that lives. A listener's backlog accepts for it, so this does not wait for the server.
pub fn is_served(path: &Path) -> bool {
    match UnixStream::connect(path) {
        // Who listens is not told across pid namespaces. Not known is not dead.
        Ok(stream) => !socket_peercred(&stream).is_ok_and(|peer| has_died(peer.pid.as_raw_nonzero().get())),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Whether a process is no more, or about to be. An error is not.
fn has_died(pid: i32) -> bool {
    match Stat::of(pid) {
        Ok(stat) => is_exiting(&stat),
        Err(error) => matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH)),
    }
}

/// Whether the kernel has begun to take the process apart (PF_EXITING of its flags, proc_pid_stat(5) field 9), or has done so.
fn is_exiting(stat: &Stat) -> bool {
    const PF_EXITING: u64 = 4;
    stat.field::<u64>(9).is_some_and(|flags| flags & PF_EXITING != 0)
}

/// The same of a process of which it is known that it was there. Of one that has taken its number since it says nothing wrong
/// either: the first one is gone then.
pub fn is_dying(pid: i32) -> bool {
    Stat::of(pid).is_ok_and(|stat| is_exiting(&stat))
}

/// Removes a socket that nobody listens on.
pub fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_containerds() {
        let path = path(None, "/run/containerd/containerd.sock", "default", "c1").unwrap();
        let name = sha256::hex(b"/run/containerd/containerd.sock/default/c1");
        assert_eq!(path, Path::new("/run/containerd/s").join(name));
        let long = super::path(Some(Path::new(&"/x".repeat(30))), "a", "b", "c");
        assert!(long.is_err());
        // TestShimSockLength: the longest namespace and id.
        assert!(super::path(None, "/a", &"n".repeat(76), &"i".repeat(76)).is_ok());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_found() {
        let dir = std::env::temp_dir().join(format!("corten-socket-{}", std::process::id()));
        let path = dir.join("s");
        let Ok(Found::Ours(listener)) = find_or_bind(&path) else { panic!("not ours") };
        let first = listener.take_over().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(find_or_bind(&path), Ok(Found::Server)));
        drop(first);
        assert!(path.exists() && !is_served(&path));
        assert!(!has_died(std::process::id() as i32) && has_died(i32::MAX));
        assert!(matches!(find_or_bind(&path), Ok(Found::Ours(_))));
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(find_or_bind(&path).err().unwrap().text.contains("not ours alone"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
