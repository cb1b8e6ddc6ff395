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

pub(super) const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// As many as the kernel follows (fs/namei.c: MAXSYMLINKS).
const LINKS: usize = 40;

/// PATH_MAX (linux/limits.h): longer ones the kernel does not take either. Pages of stack are half of what a waiting
/// container weighs, so buffers are no larger than they must be, and each in the frame that needs it.
const ROOM: usize = 4096;
/// NAME_MAX (linux/limits.h) and the NUL.
const NAME_ROOM: usize = 256;

/// A path under work: NUL-terminated at `length`.
struct Path {
    bytes: [u8; ROOM],
    length: usize,
}

impl Path {
    fn new(path: &CStr) -> Result<Path> {
        let mut this = Path { bytes: [0; ROOM], length: 0 };
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
        let mut whole = Path { bytes: [0; ROOM], length: 0 };
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

    /// Finds what MASK and READONLY cover, if it is there. A mount of the kernel's files is looked into itself, whatever its
    /// mount point is called by now; only a link that leads out of it (/proc/device-tree) needs the root.
    #[inline(never)]
    pub(super) fn covered(&self, rec: &Rec) -> Result<Option<i32>> {
        let resolve = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_MAGICLINKS;
        let found = match rec.r {
            wire::NONE => self.find(self.text(rec.s)?, 0, 0),
            mount => match sys::openat2(self.fd(mount)?, self.text(rec.x)?, sys::O_PATH, 0, resolve) {
                Err(Fault { errno: sys::EXDEV, .. }) => self.find(self.text(rec.s)?, 0, 0),
                other => other,
            },
        };
        match found {
            Err(Fault { errno: sys::ENOENT | sys::ENOTDIR, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Finds a directory, or makes it and its missing parents.
    pub(super) fn directory(&self, path: &CStr, mode: u32) -> Result<i32> {
        match self.find(path, sys::O_DIRECTORY, 0) {
            Err(Fault { errno: sys::ENOENT, .. }) => self.make(path, sys::S_IFDIR | mode).map(|(fd, _)| fd),
            other => other,
        }
    }

    /// Finds the file `path`, or makes it; its last component must be no symbolic link and no directory.
    pub(super) fn file_nofollow(&self, path: &CStr) -> Result<i32> {
        let found = match self.find(path, sys::O_NOFOLLOW, 0) {
            Err(Fault { errno: sys::ENOENT, .. }) => self.make(path, sys::S_IFREG | 0o644).map(|(fd, _)| fd),
            other => other,
        }?;
        match sys::fstat(found)?.kind() {
            sys::S_IFLNK | sys::S_IFDIR => Err(fault(sys::ELOOP, aux::MISMATCH)),
            _ => Ok(found),
        }
    }

    /// Makes `path` of the type and mode given, with all that is missing before it, and opens it. Whether it was made:
    /// links may lead to what was there, and others may be faster.
    #[inline(never)]
    fn make(&self, path: &CStr, mode: u32) -> Result<(i32, bool)> {
        let mut path = Path::new(path)?;
        for _ in 0..LINKS {
            if let Some(found) = self.make_some(&mut path, mode)? {
                return Ok(found);
            }
        }
        Err(fault(sys::ELOOP, aux::MISMATCH))
    }

    /// Walks `path` from the start, making what is missing. `None`: a link was spliced in (or somebody else was
    /// faster), walk again.
    fn make_some(&self, path: &mut Path, mode: u32) -> Result<Option<(i32, bool)>> {
        let (mut parent, mut made) = (self.root, false);
        let mut from = 0;
        while let Some((start, end)) = path.component(from) {
            let next = self.walk(parent, path, start, end, mode);
            self.close_below(parent);
            match next? {
                None => return Ok(None),
                Some(found) => (parent, made) = found,
            }
            from = end;
        }
        if parent == self.root {
            parent = self.find(c"/", sys::O_DIRECTORY, 0)?;
        }
        Ok(Some((parent, made)))
    }

    /// Opens the component at start..end, which is in `parent`; makes it if it is missing, and says whether it did.
    fn walk(
        &self,
        parent: i32,
        path: &mut Path,
        start: usize,
        end: usize,
        mode: u32,
    ) -> Result<Option<(i32, bool)>> {
        let mut name = [0; NAME_ROOM];
        let length = end - start;
        if length >= name.len() {
            return Err(fault(sys::ENAMETOOLONG, super::nr::OPENAT2 as u32));
        }
        name[..length].copy_from_slice(&path.bytes[start..end]);
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        let last = path.is_last(end);
        // The last one is missing, or nothing would have to be made; a link that points to nothing is in the way.
        if last {
            match make_one(parent, name, mode) {
                Err(Fault { errno: sys::EEXIST, .. }) => {}
                other => return other.map(|fd| Some((fd, true))),
            }
        }
        match path.prefix(end, |prefix| self.find(prefix, 0, 0)) {
            Err(Fault { errno: sys::ENOENT, .. }) => {}
            other => return other.map(|fd| Some((fd, false))),
        }
        if sys::statx(parent, name).is_ok_and(|stat| stat.kind() == sys::S_IFLNK) {
            return follow(parent, name, path, start, end).map(|()| None);
        }
        match make_one(parent, name, if last { mode } else { sys::S_IFDIR | 0o755 }) {
            Err(Fault { errno: sys::EEXIST, .. }) => Ok(None),
            other => other.map(|fd| Some((fd, true))),
        }
    }

    fn close_below(&self, fd: i32) {
        if fd != self.root {
            sys::close(fd);
        }
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
                self.make(path, mode)?
            }
            other => (other?, false),
        };
        self.put(rec.r, fd);
        if let Some(flag) = self.made.get_mut(slot_index(rec.r)) {
            *flag = made;
        }
        // What was just made lies in the file system of a directory that takes new names: neither procfs nor the root. Its
        // type was ours, and the kernel compares it once more when it mounts.
        if made || rec.y & wire::TARGET_EXISTING != 0 {
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

/// Puts the target of the symbolic link `name`, which is the component at start..end, in its place.
#[inline(never)]
fn follow(parent: i32, name: &CStr, path: &mut Path, start: usize, end: usize) -> Result<()> {
    let mut link = [0; ROOM];
    let length = sys::readlinkat(parent, name, &mut link)?;
    path.splice(start, end, &link[..length])
}

/// Makes one name and opens it without following anything, not into a mount either: should somebody exchange the name for
/// a mount point in between, the open fails.
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
        sys::RESOLVE_BENEATH | sys::RESOLVE_NO_SYMLINKS | sys::RESOLVE_NO_XDEV,
    )
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn path(text: &str) -> Path {
        Path::new(&CString::new(text).unwrap()).unwrap()
    }

    fn text(path: &Path) -> &str {
        std::str::from_utf8(&path.bytes[..path.length]).unwrap()
    }

    #[test]
    fn components_are_what_is_between_slashes() {
        for (whole, want) in [
            ("/a/bc//d", vec!["a", "bc", "d"]),
            ("a/", vec!["a"]),
            ("//", vec![]),
            ("", vec![]),
            ("/../x", vec!["..", "x"]),
        ] {
            let path = path(whole);
            let (mut found, mut from) = (Vec::new(), 0);
            while let Some((start, end)) = path.component(from) {
                found.push(&text(&path)[start..end]);
                assert_eq!(path.is_last(end), found.len() == want.len(), "{whole}");
                from = end;
            }
            assert_eq!(found, want, "{whole}");
        }
    }

    #[test]
    fn a_link_takes_the_place_of_its_name() {
        for (whole, name, target, want) in [
            ("/a/link/c", "link", "b", "/a/b/c"),
            ("/a/link/c", "link", "/b", "/b/c"),
            ("/a/link", "link", "../..", "/a/../.."),
            ("/link", "link", "/x/", "/x/"),
        ] {
            let mut path = path(whole);
            let start = whole.find(name).unwrap();
            path.splice(start, start + name.len(), target.as_bytes()).unwrap();
            assert_eq!((text(&path), path.bytes[path.length]), (want, 0));
        }
    }

    #[test]
    fn what_is_too_long_is_refused_and_never_overrun() {
        // One byte of ROOM is the NUL's: "/", 2000 bytes, "/" and what fills up the rest.
        let long = "x".repeat(2000);
        let rest = "z".repeat(ROOM - 1 - 2002);
        let mut path = path(&format!("/{long}/l"));
        path.splice(2002, 2003, format!("{rest}z").as_bytes()).unwrap_err();
        path.splice(2002, 2003, rest.as_bytes()).unwrap();
        assert_eq!((path.length, path.bytes[ROOM - 1]), (ROOM - 1, 0));
        assert!(path.append(b"x").is_err());
        assert!(Path::new(&CString::new("y".repeat(ROOM)).unwrap()).is_err());
    }

    #[test]
    fn a_prefix_leaves_the_path_as_it_was() {
        let mut path = path("/a/b");
        path.prefix(2, |prefix| assert_eq!(prefix, c"/a"));
        path.prefix(4, |prefix| assert_eq!(prefix, c"/a/b"));
        assert_eq!(text(&path), "/a/b");
    }

    /// A root with a directory beside it that nothing may reach.
    struct Root {
        top: PathBuf,
        fd: OwnedFd,
    }

    impl Root {
        fn new(name: &str) -> Root {
            let top = std::env::temp_dir().join(format!("corten-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&top);
            std::fs::create_dir_all(top.join("root")).unwrap();
            std::fs::create_dir_all(top.join("outside")).unwrap();
            let fd = std::fs::File::open(top.join("root")).unwrap().into();
            Root { top, fd }
        }

        fn stage(&self) -> Stage {
            Stage::over(
                super::super::MappedProgram { base: core::ptr::null_mut(), length: 0 },
                -1,
                self.fd.as_raw_fd(),
            )
        }

        fn link(&self, name: &str, target: &str) {
            symlink(target, self.top.join("root").join(name)).unwrap();
        }

        /// Makes `path`, a directory, and says where below the root it came to be.
        fn make(&self, path: &str) -> core::result::Result<String, i32> {
            let path = CString::new(path).unwrap();
            let fd = self.stage().directory(&path, 0o755).map_err(|fault| fault.errno)?;
            let found = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
            sys::close(fd);
            let below = found.strip_prefix(self.top.join("root")).expect("outside of the root");
            Ok(format!("/{}", below.display()))
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            assert_eq!(
                std::fs::read_dir(self.top.join("outside")).unwrap().count(),
                0,
                "something got outside"
            );
            let _ = std::fs::remove_dir_all(&self.top);
        }
    }

    #[test]
    fn links_lead_nowhere_but_inside() {
        let root = Root::new("links");
        let outside = root.top.join("outside");
        root.link("absolute", outside.to_str().unwrap());
        root.link("up", "../outside");
        root.link("far-up", &"../".repeat(40));
        root.link("dangling", "/not/there");
        root.link("chain", "dangling");
        root.link("loop", "loop");
        root.link("self", "/proc/self/cwd");
        assert_eq!(root.make("/absolute/x"), Ok(format!("{}/x", outside.display())));
        assert_eq!(root.make("/up/x").as_deref(), Ok("/outside/x"));
        assert_eq!(root.make("/far-up/x").as_deref(), Ok("/x"));
        assert_eq!(root.make("/chain/x").as_deref(), Ok("/not/there/x"));
        assert_eq!(root.make("/dangling").as_deref(), Ok("/not/there"));
        assert_eq!(root.make("/loop/x"), Err(sys::ELOOP));
        assert_eq!(root.make("/self/x").as_deref(), Ok("/proc/self/cwd/x"));
        assert_eq!(root.make("/a/../../b").as_deref(), Ok("/b"));
    }

    /// On what was there already, the checks of a mount target must be made.
    #[test]
    fn what_a_link_leads_to_was_not_made() {
        let root = Root::new("made");
        root.link("link", "missing/../there");
        std::fs::create_dir_all(root.top.join("root/there/old")).unwrap();
        for (path, want) in
            [(c"/link/old", false), (c"/link/new", true), (c"/link/new", false), (c"/a/b", true)]
        {
            let (fd, made) = root.stage().make(path, sys::S_IFDIR | 0o755).unwrap_or((-1, !want));
            sys::close(fd);
            assert_eq!(made, want, "{path:?}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_not_made_shorter() {
        let root = Root::new("long");
        for parent in ["/", "/missing/"] {
            let long = format!("{parent}{}", "n".repeat(NAME_ROOM));
            assert_eq!(root.make(&long), Err(sys::ENAMETOOLONG), "{parent}");
            assert_eq!(
                root.make(&long[..long.len() - 1]).as_deref(),
                Ok(&long[..long.len() - 1]),
                "{parent}"
            );
        }
    }

    #[test]
    fn a_file_is_made_with_its_parents_but_not_over_a_link() {
        let root = Root::new("file");
        root.link("link", "target");
        assert!(root.stage().file_nofollow(c"/a/b/console").is_ok());
        let made = std::fs::metadata(root.top.join("root/a/b/console")).unwrap();
        assert_eq!((made.mode() & sys::S_IFMT, made.len()), (sys::S_IFREG, 0));
        assert!(root.stage().file_nofollow(c"/link").is_err_and(|fault| fault.errno == sys::ELOOP));
        assert!(root.stage().file_nofollow(c"/a").is_err_and(|fault| fault.errno == sys::ELOOP));
        assert!(!root.top.join("root/target").exists());
    }

    /// Somebody exchanges a directory and a link to the outside all the time: nothing is ever made outside.
    #[test]
    fn a_name_that_changes_under_our_hands() {
        let root = Root::new("race");
        let (inside, other) = (root.top.join("root/d"), root.top.join("root/e"));
        std::fs::create_dir(&inside).unwrap();
        symlink(root.top.join("outside"), &other).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    rustix::fs::renameat_with(rustix::fs::CWD, &inside, rustix::fs::CWD, &other, flags)
                        .unwrap();
                }
            });
            for number in 0..500 {
                let _ = root
                    .stage()
                    .directory(&CString::new(format!("/d/{number}/x")).unwrap(), 0o755)
                    .map(sys::close);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
