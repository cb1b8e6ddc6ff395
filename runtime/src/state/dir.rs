// SPDX-License-Identifier: Apache-2.0
//! The state root and a container's directory in it, both held open: who may be in there, who holds the lock, and files that
//! are there whole or not at all. What they mean is said in `state.rs`.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};

use super::check_id;
use super::whole::{read_all, write_all};
use super::{Identity, State};
use crate::error::{Context, Error, Kind, Result, WithStep};

/// Which process is a hook that a verb waits for, while it holds the container: `delete --force` does not wait for it.
const HOOK: &str = "hook";

/// What errors of the state root begin with.
const STATE_ROOT: &str = "state root";

/// How long a verb waits for another one on the same container.
const PATIENCE: Duration = Duration::from_secs(10);

/// The state root, open. What is in it is believed: its hooks are run, its groups emptied. So it must be ours alone to
/// write to.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens it.
    ///
    /// # Errors
    /// `Kind::Os` (ENOENT) when there is none, `Kind::Invalid` when somebody else may write to it.
    pub(crate) fn open(path: &Path) -> Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let call = |what: &str| format!("{what}({})", path.display());
        let fd = rustix::fs::open(path, flags, Mode::empty()).call(|| call("open")).step(|| STATE_ROOT)?;
        let found = rustix::fs::fstat(&fd).call(|| call("fstat"))?;
        let ours = found.st_uid == 0 || found.st_uid == rustix::process::geteuid().as_raw();
        let text = match (ours, found.st_mode & 0o022) {
            (true, 0) => return Ok(Root { fd, path: path.to_owned() }),
            (true, _) => format!("others may write to it (mode {:o})", found.st_mode & 0o7777),
            (false, _) => format!("it belongs to user {}", found.st_uid),
        };
        let text = format!("{text}: the hooks of containers in it would run with our rights");
        Err(Error::new(Kind::Invalid, text).at(path.display().to_string()).at(STATE_ROOT))
    }

    /// The same; made with all its parents, for its owner alone, if it is not there.
    ///
    /// # Errors
    /// As `open` and mkdir(2).
    pub(crate) fn make(path: &Path) -> Result<Root> {
        match Root::open(path) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            other => return other,
        }
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .call(|| format!("mkdir({})", path.display()))
            .step(|| STATE_ROOT)?;
        Root::open(path)
    }

    /// The ids of the containers in it, sorted.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let call = || format!("read({})", self.path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.fd, ".", flags, Mode::empty()).call(call)?;
        let mut ids = Vec::new();
        for entry in rustix::fs::Dir::new(opened).call(call)? {
            let entry = entry.call(call)?;
            let is_dir = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
            let name = entry.file_name().to_str().ok().filter(|name| is_dir && check_id(name).is_ok());
            ids.extend(name.map(str::to_owned));
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

/// A container's directory, held open: a name that is taken anew meanwhile is another directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    root: Arc<Root>,
    path: PathBuf,
}

impl Dir {
    /// Takes the id: makes the directory and locks it.
    ///
    /// # Errors
    /// `Kind::Exists` when it is taken. After any error it is not, or not by us.
    pub(crate) fn create(root: &Path, id: &str) -> Result<Dir> {
        check_id(id)?;
        let root = Root::make(root)?;
        let path = root.path.join(id);
        let taken = || {
            Error::new(Kind::Exists, format!("container with given ID already exists: {id}"))
                .advise("delete that, or take another id")
        };
        rustix::fs::mkdirat(&root.fd, id, Mode::RWXU).map_err(|errno| match errno {
            rustix::io::Errno::EXIST => taken(),
            errno => Error::os(format!("mkdir({})", path.display()), errno),
        })?;
        let deleted = || Error::new(Kind::Status, format!("container {id} is being deleted"));
        let fd = match open_in(&root, id) {
            Ok(fd) => fd,
            // Cleared away already; what has the name by now is somebody else's.
            Err(error) if error.errno() == Some(libc::ENOENT) => return Err(deleted()),
            Err(error) => {
                // Not left behind: the id would stay taken. Why is in the first error.
                let _ = rustix::fs::unlinkat(&root.fd, id, AtFlags::REMOVEDIR);
                return Err(error.at("state directory"));
            }
        };
        let dir = Dir { fd, root: Arc::new(root), path };
        // Whoever has seen the directory before it was locked lets go of it again, or has cleared it away.
        match dir.lock().and_then(|()| dir.has("state.json")) {
            // Ours was cleared away, and who made this one was late as well: then there is a container already, of whoever was first.
            Ok(true) => Err(taken()),
            Ok(false) => Ok(dir),
            Err(error) if error.kind() == Kind::NotFound => Err(deleted()),
            // Somebody is at work on it.
            Err(error) if error.kind() == Kind::Status => Err(error),
            Err(error) => {
                let _ = rustix::fs::unlinkat(&dir.root.fd, id, AtFlags::REMOVEDIR);
                Err(error.at("state directory"))
            }
        }
    }

    /// Opens a container's directory.
    ///
    /// # Errors
    /// `Kind::NotFound` when there is none.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Dir> {
        check_id(id)?;
        let root = Root::open(root).map_err(|error| absent(error, id))?;
        Dir::open_in(&Arc::new(root), id)
    }

    /// The same, in a root that is open.
    ///
    /// # Errors
    /// As [`Dir::open`].
    pub(crate) fn open_in(root: &Arc<Root>, id: &str) -> Result<Dir> {
        check_id(id)?;
        let fd = open_in(root, id).map_err(|error| absent(error, id))?;
        Ok(Dir { fd, root: Arc::clone(root), path: root.path.join(id) })
    }

    /// Waits for the other verbs on this container to end, and holds them off until the directory is dropped.
    ///
    /// # Errors
    /// `Kind::Status` when one takes longer than [`PATIENCE`]: a hook of its may hang for ever. `Kind::NotFound` when one of them has
    /// removed the container.
    pub(crate) fn lock(&self) -> Result<()> {
        match self.lock_within(PATIENCE)? {
            true => Ok(()),
            false => {
                let text =
                    format!("another operation on the container is still under way after {PATIENCE:?}");
                Err(Error::new(Kind::Status, text))
            }
        }
    }

    /// The same for a while; whether it is held.
    ///
    /// # Errors
    /// `Kind::NotFound` when the container has been removed; those of flock(2).
    pub(crate) fn lock_within(&self, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        // flock(2) knows no time limit; this is the rare case of two verbs at once.
        while !try_lock(&self.fd, &self.path)? {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // While it is held, nobody else removes the directory.
        if self.is_named()? {
            return Ok(true);
        }
        Err(no_container(self.id()))
    }

    /// Whether the container's name is this directory's still, and not free again, or another one's: of what a removed directory says,
    /// nothing may be done to what has the name now.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub(crate) fn is_named(&self) -> Result<bool> {
        let call = || format!("stat({})", self.path.display());
        let own = rustix::fs::fstat(&self.fd).call(call)?;
        match rustix::fs::statat(&self.root.fd, self.id(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (own.st_dev, own.st_ino)),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(errno) => Err(Error::os(call(), errno)),
        }
    }

    /// Whether some verb is at work on this container.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub(crate) fn is_locked(&self) -> Result<bool> {
        // Through a description of its own: on ours, which may hold the lock, this would give it up.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let call = |what: &str| format!("{what}({})", self.path.display());
        let other = rustix::fs::openat(&self.fd, ".", flags, Mode::empty()).call(|| call("open"))?;
        match rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::AGAIN) => Ok(true),
            Err(errno) => Err(Error::os(call("flock"), errno)),
        }
    }

    /// The container's id.
    pub(crate) fn id(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The directory's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path for bind(2) and connect(2), which take at most 107 bytes, whatever the state root's length.
    pub(crate) fn short_path(&self, name: &str) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()).into()
    }

    /// Reads state.json.
    ///
    /// # Errors
    /// `Kind::Invalid` when it does not read.
    pub(crate) fn read(&self) -> Result<State> {
        let bytes = self.read_file("state.json")?;
        let state = State::read(&bytes).map_err(|error| error.at(self.name_of("state.json")))?;
        // What it names is another container's.
        match self.path.file_name() {
            Some(name) if name != state.id.as_str() => {
                let text = format!("it is the state of {:?}", state.id);
                Err(Error::new(Kind::Invalid, text).at(self.name_of("state.json")))
            }
            _ => Ok(state),
        }
    }

    /// Keeps which process is the hook under way; `None`: none is.
    pub(crate) fn set_hook(&self, hook: Option<&Identity>) -> Result<()> {
        match hook {
            None => self.remove_file(HOOK),
            Some(hook) => {
                let bytes = serde_json::to_vec(hook)
                    .map_err(|error| Error::new(Kind::Invalid, error.to_string()).at(HOOK))?;
                self.write_file(HOOK, &bytes)
            }
        }
    }

    /// The hook under way, if there is one and who runs it has said so already.
    pub(crate) fn hook(&self) -> Result<Option<Identity>> {
        match self.read_file(HOOK) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            // Half written: it is asked for again.
            other => Ok(serde_json::from_slice(&other?).ok()),
        }
    }

    /// Reads a file of the directory.
    pub(crate) fn read_file(&self, name: &str) -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::empty())
            .call(|| format!("open({})", self.name_of(name)))?;
        read_all(file.as_fd()).call(|| format!("read({})", self.name_of(name)))
    }

    /// Writes state.json whole or not at all.
    pub(crate) fn write(&self, state: &State) -> Result<()> {
        let bytes = serde_json::to_vec(state)
            .map_err(|error| Error::new(Kind::Invalid, error.to_string()).at("state.json"))?;
        self.write_file(".state.json", &bytes)?;
        rustix::fs::renameat(&self.fd, ".state.json", &self.fd, "state.json")
            .call(|| format!("rename({})", self.name_of("state.json")))
    }

    /// Writes a file of the directory, to disk unless that is memory.
    pub(crate) fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        const TMPFS_MAGIC: i64 = 0x0102_1994;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .call(|| format!("open({})", self.name_of(name)))?;
        write_all(file.as_fd(), bytes).call(|| format!("write({})", self.name_of(name)))?;
        let fs = rustix::fs::fstatfs(&file).call(|| format!("fstatfs({})", self.name_of(name)))?;
        if fs.f_type != TMPFS_MAGIC {
            rustix::fs::fsync(&file).call(|| format!("fsync({})", self.name_of(name)))?;
        }
        Ok(())
    }

    /// Writes a file of the directory, and opens it for memory that is shared with another process. It does not outlive the container,
    /// and nothing depends on it: it need not be on disk.
    pub(crate) fn write_shared(&self, name: &str, bytes: &[u8]) -> Result<OwnedFd> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?;
        write_all(file.as_fd(), bytes).call(|| format!("write({})", self.name_of(name)))?;
        Ok(file)
    }

    /// Opens a file of the directory.
    pub(crate) fn open_file(&self, name: &str, how: OFlags) -> Result<OwnedFd> {
        let flags = how | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .call(|| format!("open({})", self.name_of(name)))
    }

    /// Whether the directory holds `name`.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub(crate) fn has(&self, name: &str) -> Result<bool> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(errno) => Err(Error::os(format!("stat({})", self.name_of(name)), errno)),
        }
    }

    /// Removes a file of the directory; its absence is fine.
    pub(crate) fn remove_file(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::os(format!("unlink({})", self.name_of(name)), errno)),
        }
    }

    /// Removes the directory and what Corten put there: the id is free again.
    pub(crate) fn remove(&self) -> Result<()> {
        self.remove_notify()?;
        // The record last.
        for name in ["gate", "config.json", ".state.json", "state.json"] {
            self.remove_file(name)?;
        }
        let remove = || rustix::fs::unlinkat(&self.root.fd, self.id(), AtFlags::REMOVEDIR);
        let mut removed = remove();
        if removed == Err(rustix::io::Errno::NOTEMPTY) {
            // Few containers have one.
            self.remove_file("outcome")?;
            self.remove_file("trace")?;
            self.remove_file(HOOK)?;
            removed = remove();
        }
        match removed {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::os(format!("rmdir({})", self.path.display()), errno)),
        }
    }

    /// The notification socket and its directory, if there are any.
    fn remove_notify(&self) -> Result<()> {
        use super::{NOTIFY_DIRECTORY, NOTIFY_SOCKET};
        if !self.has(NOTIFY_DIRECTORY)? {
            return Ok(());
        }
        self.remove_file(&format!("{NOTIFY_DIRECTORY}/{NOTIFY_SOCKET}"))?;
        rustix::fs::unlinkat(&self.fd, NOTIFY_DIRECTORY, AtFlags::REMOVEDIR)
            .call(|| format!("rmdir({})", self.name_of(NOTIFY_DIRECTORY)))
    }

    /// The directory's descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn name_of(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

fn no_container(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("container does not exist: {id}"))
}

fn absent(error: Error, id: &str) -> Error {
    if error.errno() == Some(libc::ENOENT) { no_container(id) } else { error }
}

fn open_in(root: &Root, id: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&root.fd, id, flags, Mode::empty());
    opened.call(|| format!("open({})", root.path.join(id).display()))
}

/// Whether the lock is ours now.
fn try_lock(fd: &OwnedFd, path: &Path) -> Result<bool> {
    // Who was interrupted knows nothing of another's lock.
    let lock = || rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive);
    match rustix::io::retry_on_intr(lock) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(errno) => Err(Error::os(format!("flock({})", path.display()), errno)),
    }
}

#[cfg(test)]
mod tests;
