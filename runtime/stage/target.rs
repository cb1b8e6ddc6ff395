// SPDX-License-Identifier: Apache-2.0
//! Finding and making paths inside the root, so that nothing in it can lead outside.
//!
//! Every look-up is one openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS from the root's descriptor. What
//! is missing is made by name in a directory that such a look-up returned; symbolic links that point to nothing
//! are followed as if their target could be made (images link /etc/resolv.conf into an empty /run).

use core::ffi::CStr;

use super::sys::{self, Fault, Result};
use super::wire::{self, Rec, aux};
use super::{Stage, fault, slot_index};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// As many as the kernel follows (fs/namei.c: MAXSYMLINKS).
const LINKS: usize = 40;

/// A path under work: NUL-terminated at `length`.
struct Path {
    bytes: [u8; 8192],
    length: usize,
}

impl Path {
    fn new(path: &CStr) -> Result<Path> {
        let mut this = Path { bytes: [0; 8192], length: 0 };
        this.append(path.to_bytes())?;
        Ok(this)
    }

    fn append(&mut self, part: &[u8]) -> Result<()> {
        let end = self.length + part.len();
        // One byte is kept for the NUL.
        if end >= self.bytes.len() {
            return Err(fault(sys::ENAMETOOLONG, aux::MISMATCH));
        }
        self.bytes[self.length..end].copy_from_slice(part);
        self.bytes[end] = 0;
        self.length = end;
        Ok(())
    }

    /// The first `end` bytes as a string of their own.
    fn prefix<T>(&mut self, end: usize, with: impl FnOnce(&CStr) -> T) -> T {
        let kept = core::mem::replace(&mut self.bytes[end], 0);
        // The prefix holds no NUL before `end`.
        let result = with(CStr::from_bytes_until_nul(&self.bytes[..=end]).unwrap_or_default());
        self.bytes[end] = kept;
        result
    }

    /// The component from `from` on: start and end.
    fn component(&self, from: usize) -> Option<(usize, usize)> {
        let start = (from..self.length).find(|&i| self.bytes[i] != b'/')?;
        let end = (start..self.length).find(|&i| self.bytes[i] == b'/').unwrap_or(self.length);
        Some((start, end))
    }

    fn is_last(&self, end: usize) -> bool {
        self.component(end).is_none()
    }

    /// The component at start..end is a symbolic link to `target`: put that in its place.
    #[inline(never)]
    fn splice(&mut self, start: usize, end: usize, target: &[u8]) -> Result<()> {
        let mut whole = Path { bytes: [0; 8192], length: 0 };
        if target.first() != Some(&b'/') {
            whole.append(&self.bytes[..start])?;
        }
        whole.append(target)?;
        whole.append(&self.bytes[end..self.length])?;
        *self = whole;
        Ok(())
    }
}

impl Stage {
    /// Finds `path` inside the root without making anything.
    #[inline(never)]
    pub(super) fn find(&self, path: &CStr, flags: u64, resolve: u64) -> Result<i32> {
        let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS | resolve;
        sys::openat2(self.root, path, sys::O_PATH | flags, 0, resolve)
    }

    /// Finds a directory, or makes it and its missing parents.
    pub(super) fn directory(&self, path: &CStr, mode: u32) -> Result<i32> {
        match self.find(path, sys::O_DIRECTORY, 0) {
            Err(Fault { errno: sys::ENOENT, .. }) => self.make(path, sys::S_IFDIR | mode),
            other => other,
        }
    }

    /// Finds the file `path`, or makes it; its last component must be no symbolic link and no directory.
    pub(super) fn file_nofollow(&self, path: &CStr) -> Result<i32> {
        let found = match self.find(path, sys::O_NOFOLLOW, 0) {
            Err(Fault { errno: sys::ENOENT, .. }) => self.make(path, sys::S_IFREG | 0o644),
            other => other,
        }?;
        match sys::fstat(found)?.kind() {
            sys::S_IFLNK | sys::S_IFDIR => Err(fault(sys::ELOOP, aux::MISMATCH)),
            _ => Ok(found),
        }
    }

    /// Makes `path` of the type and mode given, with all that is missing before it, and opens it.
    #[inline(never)]
    fn make(&self, path: &CStr, mode: u32) -> Result<i32> {
        let mut path = Path::new(path)?;
        for _ in 0..LINKS {
            if let Some(fd) = self.make_some(&mut path, mode)? {
                return Ok(fd);
            }
        }
        Err(fault(sys::ELOOP, aux::MISMATCH))
    }

    /// Walks `path` from the start, making what is missing. `None`: a link was spliced in (or somebody else was
    /// faster), walk again.
    fn make_some(&self, path: &mut Path, mode: u32) -> Result<Option<i32>> {
        let mut parent = self.find(c"/", sys::O_DIRECTORY, 0)?;
        let mut from = 0;
        while let Some((start, end)) = path.component(from) {
            let last = path.is_last(end);
            let next = match path.prefix(end, |prefix| self.find(prefix, 0, 0)) {
                Err(Fault { errno: sys::ENOENT, .. }) => {
                    let mut name = [0; 256];
                    let length = (end - start).min(255);
                    name[..length].copy_from_slice(&path.bytes[start..start + length]);
                    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
                    let mut link = [0; 4096];
                    if let Ok(length) = sys::readlinkat(parent, name, &mut link) {
                        sys::close(parent);
                        path.splice(start, end, &link[..length])?;
                        return Ok(None);
                    }
                    let made = make_one(parent, name, if last { mode } else { sys::S_IFDIR | 0o755 });
                    match made {
                        Err(Fault { errno: sys::EEXIST, .. }) => Ok(None),
                        other => other.map(Some),
                    }
                }
                other => other.map(Some),
            };
            sys::close(parent);
            match next? {
                None => return Ok(None),
                Some(fd) => parent = fd,
            }
            from = end;
        }
        Ok(Some(parent))
    }

    /// The TARGET operation: find or make a mount target and check that it is one.
    #[inline(never)]
    pub(super) fn target(&mut self, rec: &Rec) -> Result<()> {
        let path = self.text(rec.s)?;
        let wants_directory = match rec.q {
            wire::NONE => rec.y & wire::TARGET_DIR != 0,
            source => sys::fstat(self.fd(source)?)?.kind() == sys::S_IFDIR,
        };
        let resolve = if rec.y & wire::TARGET_NOFOLLOW != 0 { sys::RESOLVE_NO_SYMLINKS } else { 0 };
        let flags = if rec.y & wire::TARGET_LINK != 0 { sys::O_NOFOLLOW } else { 0 };
        let (fd, made) = match self.find(path, flags, resolve) {
            Err(Fault { errno: sys::ENOENT, .. }) if rec.y & wire::TARGET_EXISTING == 0 => {
                let mode = if wants_directory { sys::S_IFDIR | 0o755 } else { sys::S_IFREG | 0o644 };
                (self.make(path, mode)?, true)
            }
            other => (other?, false),
        };
        self.put(rec.r, fd);
        if let Some(flag) = self.made.get_mut(slot_index(rec.r)) {
            *flag = made;
        }
        if rec.y & wire::TARGET_EXISTING != 0 {
            Ok(())
        } else {
            self.check_target(fd, rec.y, wants_directory, path)
        }
    }

    /// A target is of the source's type, is not the root itself unless that was asked for, and lies in no procfs
    /// unless it may (CVE-2019-16884, CVE-2019-19921).
    fn check_target(&self, fd: i32, flags: u16, wants_directory: bool, path: &CStr) -> Result<()> {
        let found = sys::fstat(fd)?;
        if (found.kind() == sys::S_IFDIR) != wants_directory {
            return Err(fault(sys::ENOTDIR, super::nr::MOVE_MOUNT as u32));
        }
        if flags & wire::TARGET_IN_PROC == 0 && sys::fs_magic(fd)? == PROC_SUPER_MAGIC {
            return Err(fault(sys::EPERM, aux::MISMATCH));
        }
        if path.to_bytes() != b"/" && wants_directory {
            let root = sys::fstat(self.root)?;
            if root.ino == found.ino && root.device() == found.device() {
                return Err(fault(sys::EINVAL, aux::MISMATCH));
            }
        }
        Ok(())
    }
}

/// Makes one name and opens it without following anything.
fn make_one(parent: i32, name: &CStr, mode: u32) -> Result<i32> {
    match mode & sys::S_IFMT {
        sys::S_IFDIR => sys::mkdirat(parent, name, mode & 0o7777)?,
        _ => sys::mknodat(parent, name, mode, 0)?,
    }
    sys::openat2(
        parent,
        name,
        sys::O_PATH | sys::O_NOFOLLOW,
        0,
        sys::RESOLVE_BENEATH | sys::RESOLVE_NO_SYMLINKS,
    )
}
