// SPDX-License-Identifier: Apache-2.0
//! One cgroup directory, open: reading and writing its files, and walking the groups below it.
//!
//! Everything goes through the directory's descriptor, so a group that was removed and made again by somebody
//! else is never mistaken for the one that was opened. Walks keep two descriptors open however deep the tree is:
//! a container may nest its own groups as it likes.

#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Context, Error, Result, WithStep};
use crate::procfs::{ShortRead, read_whole};
use crate::sys::tty::send;

/// How long a freeze may take before it is taken back.
pub(super) const FREEZE_WAIT: Duration = Duration::from_secs(2);
/// How long killing and removing may take: fork bombs are over sooner, processes in uninterruptible sleep are not.
pub(super) const END_WAIT: Duration = Duration::from_secs(2);
/// How many processes are held by pidfd at a time while they are signalled.
const BATCH: usize = 128;
/// The extended attribute that says whose a group is: one that only the host's root can set or take away, and one for
/// rootless runtimes (cgroup2 only).
const MARKS: [&str; 2] = ["trusted.corten", "user.corten"];

/// An open cgroup directory and its name for messages. The group, its placements and its watches have one descriptor together.
#[derive(Debug)]
pub(super) struct CgroupDir {
    fd: Arc<OwnedFd>,
    path: Arc<str>,
}

impl CgroupDir {
    fn new(fd: OwnedFd, path: impl Into<Arc<str>>) -> CgroupDir {
        CgroupDir { fd: Arc::new(fd), path: path.into() }
    }

    /// Opens the group at the absolute `path`; `None` if there is none. cgroupfs has no symbolic links and mount
    /// points come from the mount table without any, so none is followed.
    pub(super) fn open(path: &str) -> Result<Option<CgroupDir>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Ok(fd) => Ok(Some(CgroupDir::new(fd, path))),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(Error::os(format!("openat2({path})"), errno)),
        }
    }

    /// Opens the group `below` this one, never one outside of it.
    pub(super) fn open_below(&self, below: &str) -> Result<CgroupDir> {
        let below = below.trim_start_matches('/');
        let path = format!("{}/{below}", self.path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let below = if below.is_empty() { "." } else { below };
        let fd = fs::openat2(&*self.fd, below, flags, Mode::empty(), resolve).call(|| path.clone())?;
        Ok(CgroupDir::new(fd, path))
    }

    /// The file that takes the thread that writes to it: `tasks` of v1, where moving oneself needs no lock; v2 has processes
    /// only.
    pub(super) fn open_tasks(&self) -> Result<OwnedFd> {
        let open = |file| fs::openat(&*self.fd, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        open("tasks").or_else(|_| open("cgroup.procs")).call(|| format!("open({}/cgroup.procs)", self.path))
    }

    /// Its path, for messages.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The same, for whoever keeps it.
    pub(super) fn share(&self) -> CgroupDir {
        CgroupDir { fd: Arc::clone(&self.fd), path: Arc::clone(&self.path) }
    }

    /// Its inode number: kernfs does not use one twice while the hierarchy lives.
    pub(super) fn inode(&self) -> Result<u64> {
        Ok(self.inode_and_mode()?.0)
    }

    /// The same with its permission bits.
    pub(super) fn inode_and_mode(&self) -> Result<(u64, Mode)> {
        let stat = fs::fstat(&*self.fd).call(|| format!("fstat({})", self.path))?;
        Ok((stat.st_ino, Mode::from_raw_mode(stat.st_mode & 0o7777)))
    }

    /// Changes its permission bits.
    pub(super) fn set_mode(&self, mode: Mode) -> Result<()> {
        fs::fchmod(&*self.fd, mode).call(|| format!("fchmod({}, {:o})", self.path, mode.as_raw_mode()))
    }

    /// Writes on the directory whose it is, unless somebody else has: `None` then. Whether it could be written: without
    /// privilege over the file system there are no marks.
    ///
    /// XATTR_CREATE makes it a test and a set in one: of two runtimes that claim a directory at once, one gets it.
    /// `trusted.` takes CAP_SYS_ADMIN in the initial user namespace; `user.` is for whoever owns the directory (cgroup2 from
    /// Linux 5.7 on), and so for the container's root where the group was given to it: such a mark can be taken away
    /// from inside, and then the inode in the record is what tells.
    pub(super) fn mark(&self, mark: &str) -> Result<Option<bool>> {
        for name in MARKS.iter().filter(|_| !mark.is_empty()) {
            match fs::fsetxattr(&*self.fd, *name, mark.as_bytes(), XattrFlags::CREATE) {
                Ok(()) => return Ok(Some(true)),
                Err(Errno::EXIST) => return Ok(self.bears(mark)?.then_some(true)),
                Err(errno) if no_marks(errno) => {}
                Err(errno) => return Err(Error::os(format!("fsetxattr({}, {name})", self.path), errno)),
            }
        }
        Ok(Some(false))
    }

    /// Whether [`CgroupDir::mark`] has been here for the same container.
    pub(super) fn bears(&self, mark: &str) -> Result<bool> {
        Ok(!mark.is_empty() && self.read_mark()?.is_some_and(|found| found == mark.as_bytes()))
    }

    /// Whether it bears nobody's mark.
    pub(super) fn is_unmarked(&self) -> Result<bool> {
        Ok(self.read_mark()?.is_none())
    }

    /// Takes the mark away again.
    pub(super) fn unmark(&self) -> Result<()> {
        for name in MARKS {
            match fs::fremovexattr(&*self.fd, name) {
                Err(errno) if errno != Errno::NODATA && !no_marks(errno) => {
                    return Err(Error::os(format!("fremovexattr({}, {name})", self.path), errno));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The mark that is there: who may set both kinds sets the first.
    fn read_mark(&self) -> Result<Option<Vec<u8>>> {
        let mut mark = [0u8; 256];
        for name in MARKS {
            match fs::fgetxattr(&*self.fd, name, &mut mark[..]) {
                Ok(length) => return Ok(Some(mark.get(..length).unwrap_or_default().to_vec())),
                // Longer than any of ours.
                Err(Errno::RANGE) => return Ok(Some(Vec::new())),
                Err(errno) if errno == Errno::NODATA || no_marks(errno) => {}
                Err(errno) => return Err(Error::os(format!("fgetxattr({}, {name})", self.path), errno)),
            }
        }
        Ok(None)
    }

    /// Makes a file of it, or itself (`.`), the host's user's; the group stays.
    pub(super) fn give_to(&self, file: &str, uid: u32) -> Result<(), Errno> {
        fs::chownat(&*self.fd, file, Some(fs::Uid::from_raw(uid)), None, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Reads a small file of it.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        read_at(self.fd.as_fd(), file).call(|| format!("read({}/{file})", self.path))
    }

    /// Writes `value` to a file of it, in one write(2) as cgroup files want.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        write_at(self.fd.as_fd(), file, value)
            .call(|| format!("write({}/{file}, {})", self.path, shown(value)))
    }

    /// Opens a file of it that takes several lines, each in a write(2) of its own.
    pub(super) fn open_lines(&self, file: &'static str) -> Result<CgroupLines<'_>> {
        let fd = fs::openat(&*self.fd, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .call(|| format!("openat({}/{file})", self.path))?;
        Ok(CgroupLines { fd, file, dir: self })
    }

    /// Opens a file of it for reading, to be waited on.
    pub(super) fn open_file(&self, file: &str) -> Result<OwnedFd> {
        fs::openat(&*self.fd, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .call(|| format!("openat({}/{file})", self.path))
    }

    /// The processes of it and of every group below, ascending: to be counted, or looked for. Whoever acts on them asks
    /// [`Own::pids`](super::own::Own::pids).
    pub(super) fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        self.walk(|dir| {
            pids.extend(procs(dir)?);
            Ok(())
        })?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// The group of `pid`, if it is this one or one below.
    pub(super) fn find(&self, pid: i32) -> Result<Option<CgroupDir>> {
        let mut found = None;
        self.walk(|dir| {
            if found.is_none() && procs(dir)?.contains(&pid) {
                found = Some(rustix::io::fcntl_dupfd_cloexec(dir, 0).call(|| "dup(group)")?);
            }
            Ok(())
        })?;
        Ok(found.map(|fd| {
            let path = name_of(&fd).unwrap_or_else(|| format!("{}/…", self.path));
            CgroupDir::new(fd, path)
        }))
    }

    /// Removes every group below this one, leaves first; see [`Own::remove_below`](super::own::Own::remove_below).
    pub(super) fn remove_children(&self) -> Result<()> {
        remove_below(self.fd.as_fd()).step(|| format!("walk({})", self.path))
    }

    /// Visits it and every group below, parents first. Groups that vanish meanwhile are skipped.
    pub(super) fn walk(&self, visit: impl FnMut(BorrowedFd<'_>) -> Result<()>) -> Result<()> {
        walk(self.fd.as_fd(), visit).step(|| format!("walk({})", self.path))
    }
}

/// A file of a group, open for one line after the other.
pub(super) struct CgroupLines<'a> {
    fd: OwnedFd,
    pub(super) file: &'static str,
    dir: &'a CgroupDir,
}

impl CgroupLines<'_> {
    pub(super) fn write(&self, line: &str) -> Result<()> {
        write_whole(&self.fd, line)
            .call(|| format!("write({}/{}, {})", self.dir.path, self.file, shown(line)))
    }
}

impl AsFd for CgroupDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The mark of the group at `path`, if it bears one.
///
/// # Errors
/// When that cannot be found out.
pub(crate) fn mark_of(path: &str) -> Result<Option<Vec<u8>>> {
    CgroupDir::open(path)?.map_or(Ok(None), |dir| dir.read_mark())
}

/// Whether the group a file belonged to was removed meanwhile.
pub(super) fn gone(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV))
}

/// The path of an open group, as the kernel says it.
fn name_of(group: &OwnedFd) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", group.as_raw_fd())).ok()?;
    path.into_os_string().into_string().ok()
}

/// A value as an error shows it: one line, not endless.
fn shown(value: &str) -> String {
    value.trim_end().chars().take(80).collect()
}

/// Reads a file of the group at `path`, whosesoever that is.
pub(super) fn read_in(path: &str, file: &str) -> Result<String> {
    let path = format!("{path}/{file}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    fs::openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .and_then(|file| read_whole(&file, ShortRead::IsTheEnd))
        .call(|| format!("read({path})"))
}

fn read_at(dir: BorrowedFd<'_>, file: &str) -> Result<String, Errno> {
    let fd = fs::openat(dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read_whole(&fd, ShortRead::IsTheEnd)
}

/// Without privilege over the file system, or support in it, there are no marks of that kind.
fn no_marks(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS | Errno::ROFS)
}

/// No O_CREAT: in a directory that is not a cgroup this must not make a file.
fn write_at(dir: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    write_whole(&fs::openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?, value)
}

/// The same for a group on the way through a tree.
pub(super) fn write_in(dir: BorrowedFd<'_>, file: &str, value: &str) -> Result<()> {
    write_at(dir, file, value).call(|| format!("write({file}, {})", shown(value)))
}

fn write_whole(file: &OwnedFd, value: &str) -> Result<(), Errno> {
    match rustix::io::retry_on_intr(|| rustix::io::write(file, value.as_bytes())) {
        Ok(n) if n == value.len() => Ok(()),
        Ok(_) => Err(Errno::IO),
        Err(errno) => Err(errno),
    }
}

/// The processes of one group. A process of a pid namespace that is not ours reads as 0 and is left out; the
/// members of a threaded group are listed by its domain's root (EOPNOTSUPP here).
fn procs(dir: BorrowedFd<'_>) -> Result<Vec<i32>> {
    match read_at(dir, "cgroup.procs") {
        Ok(text) => Ok(text.lines().filter_map(|l| l.parse().ok()).filter(|&pid| pid > 0).collect()),
        Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::NOENT) => Ok(Vec::new()),
        Err(errno) => Err(Error::os("read(cgroup.procs)", errno)),
    }
}

/// `signal` for every member of one group; answers which ones. A number may have been given to a stranger since it was
/// read; so each process is pinned by a pidfd first and the list is read again: if the number is still listed,
/// the pidfd is that member's, or that of a process that is gone.
pub(super) fn signal_members(dir: BorrowedFd<'_>, signal: i32) -> Result<Vec<i32>> {
    let listed = procs(dir)?;
    let (mut rest, mut signalled) = (&listed[..], Vec::with_capacity(listed.len()));
    while !rest.is_empty() {
        let (pinned, seen) = pin(rest)?;
        rest = rest.get(seen..).unwrap_or_default();
        let mut members = procs(dir)?;
        members.sort_unstable();
        for (pid, pidfd) in pinned.iter().filter(|(pid, _)| members.binary_search(pid).is_ok()) {
            match send(pidfd.as_fd(), signal) {
                Ok(()) => signalled.push(*pid),
                Err(Errno::SRCH) => {}
                Err(errno) => return Err(Error::os(format!("pidfd_send_signal({pid}, {signal})"), errno)),
            }
        }
    }
    Ok(signalled)
}

/// Pidfds of the first of `pids`, and of how many: as many as there may be at a time, and descriptors for.
fn pin(pids: &[i32]) -> Result<(Vec<(i32, OwnedFd)>, usize)> {
    let mut pinned: Vec<(i32, OwnedFd)> = Vec::new();
    for &pid in pids.iter().take(BATCH) {
        let Some(number) = Pid::from_raw(pid) else { continue };
        match pidfd_open(number, PidfdFlags::empty()) {
            Ok(pidfd) => pinned.push((pid, pidfd)),
            // Ended. Any other error is not an end: the process would be spared, and nobody told.
            Err(Errno::SRCH | Errno::INVAL) => {}
            // The last one makes room for the list.
            Err(Errno::MFILE | Errno::NFILE) if pinned.len() > 1 => {
                let last = pinned.pop().map(|(pid, _)| pid);
                let seen = pids.iter().position(|pid| Some(*pid) == last);
                return Ok((pinned, seen.unwrap_or(0)));
            }
            Err(errno) => return Err(Error::os(format!("pidfd_open({pid})"), errno)),
        }
    }
    Ok((pinned, pids.len().min(BATCH)))
}

/// The names of the groups directly below. A directory is read once: whoever wants it again opens it again.
fn children(dir: BorrowedFd<'_>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    // Enough for the files of most groups, and for the longest name.
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut listing = RawDir::new(dir, &mut space);
    while let Some(entry) = listing.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT | Errno::NODEV) => break,
            Err(errno) => return Err(Error::os("getdents64", errno)),
        };
        if entry.file_type() == FileType::Directory {
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
    }
    Ok(names)
}

fn child(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty()).call(|| format!("openat({name})"))
}

fn walk(top: BorrowedFd<'_>, mut visit: impl FnMut(BorrowedFd<'_>) -> Result<()>) -> Result<()> {
    match visit(top) {
        Err(error) if gone(&error) => return Ok(()),
        other => other?,
    }
    let mut here = child(top, ".")?;
    let mut pending = vec![children(here.as_fd())?];
    while let Some(names) = pending.last_mut() {
        let Some(name) = names.pop() else {
            pending.pop();
            if !pending.is_empty() {
                // A group's parent never changes (renames stay within the parent), so this is the way we came.
                here = child(here.as_fd(), "..")?;
            }
            continue;
        };
        let below = match child(here.as_fd(), &name) {
            Ok(below) => below,
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(error),
        };
        match visit(below.as_fd()) {
            Ok(()) => {}
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(error),
        }
        pending.push(children(below.as_fd())?);
        here = below;
    }
    Ok(())
}

/// Removes the groups below `top`, leaves first.
fn remove_below(top: BorrowedFd<'_>) -> Result<()> {
    let rmdir = |dir: &OwnedFd, name: &str| {
        let removed = fs::unlinkat(dir, name, AtFlags::REMOVEDIR).call(|| format!("rmdir({name})"));
        removed.or_else(|error| if error.errno() == Some(libc::ENOENT) { Ok(()) } else { Err(error) })
    };
    let mut here = child(top, ".")?;
    let mut trail: Vec<String> = Vec::new();
    loop {
        let mut busy = None;
        for name in children(here.as_fd())? {
            match rmdir(&here, &name) {
                // It has groups below, or processes. The second is found out below, where nothing is left to remove.
                Err(error) if error.errno() == Some(libc::EBUSY) => busy = Some(name),
                other => other?,
            }
        }
        if let Some(name) = busy {
            match child(here.as_fd(), &name) {
                Ok(below) => {
                    here = below;
                    trail.push(name);
                }
                Err(error) if error.errno() == Some(libc::ENOENT) => here = child(here.as_fd(), ".")?,
                Err(error) => return Err(error),
            }
            continue;
        }
        let Some(name) = trail.pop() else { return Ok(()) };
        here = child(here.as_fd(), "..")?;
        rmdir(&here, &name)?;
    }
}
