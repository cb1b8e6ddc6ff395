// SPDX-License-Identifier: Apache-2.0
//! Mount operations (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)) and the change of root.
//! Counterpart: `host/sources.rs` opens what is bound.

use core::ffi::CStr;

use super::sys::{self, Fault, Result};
use super::wire::{self, Rec, aux};
use super::{Stage, fault, locks, remount, slot_index};

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_NOEXEC: u64 = 8;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
const MS_REC: u64 = 0x4000;
const MS_SLAVE: u64 = 1 << 19;
const MS_MOVE: u64 = 0x2000;

impl Stage {
    /// From here on, look-ups start at r; without r, at our own root directory.
    pub(super) fn set_root(&mut self, rec: &Rec) -> Result<()> {
        self.root = match rec.r {
            wire::NONE => sys::openat2(sys::AT_FDCWD, c"/", sys::O_PATH | sys::O_DIRECTORY, 0, 0)?,
            reference => self.fd(reference)?,
        };
        // A slot would be closed when it is filled again.
        if rec.r < 0
            && let Some(slot) = self.slots.get_mut(slot_index(rec.r))
        {
            *slot = -1;
        }
        Ok(())
    }

    /// A detached copy of a tree of the host, for callers who may not copy mounts outside. The host has checked nothing:
    /// whoever may not see a file in its own name finds nothing here either.
    #[inline(never)]
    pub(super) fn host_tree(&self, rec: &Rec) -> Result<()> {
        let tree = sys::open_tree(sys::AT_FDCWD, self.text(rec.s)?, sys::OPEN_TREE_CLONE | rec.x)?;
        let kind = sys::fstat(tree)?.kind();
        let fits = match rec.y {
            wire::TREE_DIR => kind == sys::S_IFDIR,
            wire::TREE_PROC => sys::fs_magic(tree)? == super::target::PROC_SUPER_MAGIC,
            _ => true,
        };
        if !fits {
            return Err(fault(sys::EINVAL, aux::MISMATCH));
        }
        sys::dup3(tree, self.fd(rec.r)?, true)?;
        sys::close(tree);
        Ok(())
    }

    /// A detached copy of what is below the root by now: of a mount that we have made, or of the image.
    #[inline(never)]
    pub(super) fn copy_inside(&mut self, rec: &Rec) -> Result<()> {
        let end = if rec.y & wire::TARGET_LINK != 0 { sys::O_NOFOLLOW } else { 0 };
        let found = self.find(self.text(rec.s)?, end, 0)?;
        if rec.y & wire::TREE_LINK != 0 && sys::fstat(found)?.kind() == sys::S_IFLNK {
            self.put(rec.r, found);
            return Ok(());
        }
        let copy = sys::open_tree(found, c"", sys::OPEN_TREE_CLONE | sys::AT_EMPTY_PATH | rec.x);
        sys::close(found);
        self.put(rec.r, copy?);
        if rec.y & wire::TREE_PROC != 0 && sys::fs_magic(self.fd(rec.r)?)? != super::target::PROC_SUPER_MAGIC
        {
            return Err(fault(sys::EINVAL, aux::MISMATCH));
        }
        Ok(())
    }

    pub(super) fn fs_mount(&mut self, rec: &Rec) -> Result<()> {
        let fs = self.fd(rec.r)?;
        sys::fsconfig_create(fs)?;
        let mount = sys::fsmount(fs, rec.a)?;
        self.put(rec.r, mount);
        Ok(())
    }

    /// For a file system that the kernel has labelled already, and that refuses `context=`.
    pub(super) fn label(&self, rec: &Rec) -> Result<()> {
        // What fsmount(2) gives is good for a path only.
        let root = sys::openat2(self.fd(rec.r)?, c".", sys::O_DIRECTORY, 0, sys::RESOLVE_NO_XDEV)?;
        let done = sys::fsetxattr(root, c"security.selinux", self.text(rec.s)?.to_bytes_with_nul());
        sys::close(root);
        done
    }

    /// A tmpfs takes the mode of the directory that it covers; one that we made for it has nothing to say.
    pub(super) fn fs_mode(&self, rec: &Rec) -> Result<()> {
        if self.made.get(slot_index(rec.q)) == Some(&true) {
            return Ok(());
        }
        let mode = sys::fstat(self.fd(rec.q)?)?.mode;
        let digit = |shift: u16| b'0' + (mode >> shift & 7) as u8;
        let octal = [digit(9), digit(6), digit(3), digit(0), 0];
        let octal = CStr::from_bytes_until_nul(&octal).unwrap_or_default();
        sys::fsconfig_string(self.fd(rec.r)?, c"mode", octal)
    }

    #[inline(never)]
    pub(super) fn set_attr(&self, rec: &Rec) -> Result<()> {
        let mut attr = sys::MountAttr { set: rec.a, clear: rec.b, propagation: u64::from(rec.x), userns: 0 };
        if rec.q != wire::NONE {
            attr.set |= MOUNT_ATTR_IDMAP;
            attr.userns = self.fd(rec.q)? as u64;
        }
        let flags = if rec.y != 0 { sys::AT_RECURSIVE } else { 0 };
        let mount = if rec.r == wire::NONE { self.root } else { self.fd(rec.r)? };
        let mut implied = u64::from(rec.s);
        loop {
            attr.clear = rec.b | implied;
            let Err(failed) = remount::set_attr(mount, flags, &attr) else { return Ok(()) };
            implied = match locks::implied_after(failed.errno, implied) {
                Some(left) => left,
                None => return Err(named(failed, mount, rec)),
            };
        }
    }

    /// mount(2) onto the target's own directory: for options longer than the 255 bytes that fsconfig(2) takes.
    pub(super) fn mount_classic(&self, rec: &Rec) -> Result<()> {
        sys::fchdir(self.fd(rec.r)?)?;
        sys::mount(self.text(rec.t)?, c".", self.text(rec.s)?, rec.a, self.text(rec.b as u32)?)
    }

    /// Makes something in the directory `path` of a mount, or of the root. The root of a mount is at hand, all else is looked up, or made.
    fn in_parent<T>(&mut self, mount: i32, path: &CStr, make: impl FnOnce(i32) -> T) -> Result<T> {
        if mount != wire::NONE && path == c"/" {
            return Ok(make(self.fd(mount)?));
        }
        let start = if mount == wire::NONE { self.root } else { self.fd(mount)? };
        let root = core::mem::replace(&mut self.root, start);
        let found = self.directory(path, 0o755);
        self.root = root;
        let parent = found?;
        let made = make(parent);
        sys::close(parent);
        Ok(made)
    }

    /// A device node, at a name that is free or already holds just that (config-linux.md: otherwise an error).
    #[inline(never)]
    pub(super) fn mknod(&mut self, rec: &Rec) -> Result<()> {
        let name = self.text(rec.t)?;
        self.in_parent(rec.r, self.text(rec.s)?, |parent| match sys::mknodat(parent, name, rec.x, rec.a) {
            Err(Fault { errno: sys::EEXIST, .. }) => same_device(parent, name, rec),
            Err(fault) => Err(fault),
            Ok(()) if rec.b == 0 => Ok(()),
            Ok(()) => {
                // No chmod: it would follow a symbolic link that somebody put there meanwhile, and chown(2) takes only
                // set-id bits away, which mean nothing on a device.
                sys::fchownat(parent, name, (rec.b >> 32) as u32, rec.b as u32, sys::AT_SYMLINK_NOFOLLOW)
            }
        })?
    }

    /// A symbolic link, unless something is there already (an image may bring its own).
    pub(super) fn symlink(&mut self, rec: &Rec) -> Result<()> {
        let (target, name) = (self.text(rec.t)?, self.text(rec.x)?);
        match self.in_parent(rec.r, self.text(rec.s)?, |parent| sys::symlinkat(target, parent, name))? {
            Err(Fault { errno: sys::EEXIST, .. }) => Ok(()),
            other => other,
        }
    }

    /// The working directory, while the root can still be written to. What is refused here (to root, by a network
    /// file system) is found out by CHDIR.
    pub(super) fn mkdir(&self, rec: &Rec) -> Result<()> {
        if let Ok(made) = self.directory(self.text(rec.s)?, 0o755) {
            sys::close(made);
        }
        Ok(())
    }

    /// Hides a file behind the container's /dev/null and a directory behind an empty read-only tmpfs, one for all.
    /// Only a path that does not exist may stay unmasked (CVE-2025-31133).
    #[inline(never)]
    pub(super) fn mask(&mut self, rec: &Rec) -> Result<()> {
        let Some(target) = self.covered(rec)? else { return Ok(()) };
        let is_directory = sys::fstat(target)?.kind() == sys::S_IFDIR;
        let cover = if is_directory { self.empty_directory(rec.t) } else { self.null_device() }?;
        let done = sys::move_mount(cover, target, c"");
        sys::close(target);
        if !is_directory {
            sys::close(cover);
        } else if self.mask.is_none() {
            // Attached now, so that it can be cloned for the next one.
            self.mask = Some(cover);
        }
        done
    }

    /// A clone of the container's /dev/null: checked after the clone, so that what is checked is what is mounted.
    fn null_device(&self) -> Result<i32> {
        let null = self.find(c"/dev/null", 0, sys::RESOLVE_NO_SYMLINKS)?;
        let clone = sys::open_tree(null, c"", sys::OPEN_TREE_CLONE | sys::AT_EMPTY_PATH);
        sys::close(null);
        let clone = clone?;
        if sys::fstat(clone)?.is_char(1, 3) { Ok(clone) } else { Err(fault(sys::EINVAL, aux::MISMATCH)) }
    }

    fn empty_directory(&self, label: u32) -> Result<i32> {
        if let Some(first) = self.mask {
            return sys::open_tree(first, c"", sys::OPEN_TREE_CLONE | sys::AT_EMPTY_PATH);
        }
        let fs = sys::fsopen(c"tmpfs")?;
        sys::fsconfig_string(fs, c"mode", c"0555")?;
        sys::fsconfig_string(fs, c"nr_inodes", c"1")?;
        sys::fsconfig_flag(fs, c"ro")?;
        if label != 0 {
            sys::fsconfig_string(fs, c"context", self.text(label)?)?;
        }
        sys::fsconfig_create(fs)?;
        let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        let mount = sys::fsmount(fs, attributes);
        sys::close(fs);
        mount
    }

    /// Binds a path onto itself, read-only.
    #[inline(never)]
    pub(super) fn readonly(&self, rec: &Rec) -> Result<()> {
        let Some(target) = self.covered(rec)? else { return Ok(()) };
        let clone =
            sys::open_tree(target, c"", sys::OPEN_TREE_CLONE | sys::AT_EMPTY_PATH | sys::AT_RECURSIVE)?;
        let attr = sys::MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
        let attach = || sys::move_mount(clone, target, c"");
        let done = match sys::mount_setattr(clone, 0, &attr) {
            // The fallback needs it attached.
            Err(Fault { errno: sys::ENOSYS, .. }) => {
                attach().and_then(|()| remount::set_attr(clone, 0, &attr))
            }
            other => other.and_then(|()| attach()),
        };
        sys::close(clone);
        sys::close(target);
        done
    }

    /// pivot_root(".", ".") and the old root away: no directory is needed in the new one (pivot_root(2), NOTES).
    #[inline(never)]
    pub(super) fn pivot(&mut self) -> Result<()> {
        let old = sys::openat2(sys::AT_FDCWD, c"/", sys::O_PATH | sys::O_DIRECTORY, 0, 0)?;
        sys::fchdir(self.root)?;
        sys::pivot_root(c".", c".")?;
        sys::fchdir(old)?;
        // The detach must not travel to the host.
        sys::mount(c"", c".", c"", MS_SLAVE | MS_REC, c"")?;
        sys::umount_detach(c".")?;
        sys::close(old);
        sys::fchdir(self.root)
    }

    /// For roots that cannot be pivoted from (a ramdisk): the new root covers the old one, which stays below. So what is
    /// mounted in the old one is taken away, the host's /proc and /sys above all; what is locked (by a user namespace)
    /// and cannot be taken away is covered.
    #[inline(never)]
    pub(super) fn move_root(&mut self, rec: &Rec) -> Result<()> {
        let old = sys::openat2(sys::AT_FDCWD, c"/", sys::O_PATH | sys::O_DIRECTORY, 0, 0)?;
        sys::fchdir(self.root)?;
        sys::mount(c".", c"/", c"", MS_MOVE, c"")?;
        sys::fchdir(old)?;
        sys::close(old);
        for &offset in self.program.slice::<u64>(rec.s, rec.x as usize)? {
            let path = self.text(offset as u32)?;
            if let Err(Fault { errno: sys::EINVAL | sys::EPERM, .. }) = sys::umount_detach_nofollow(path) {
                let _ = sys::mount(c"tmpfs", path, c"tmpfs", MOUNT_ATTR_RDONLY, c"nr_inodes=1,mode=0");
            }
        }
        sys::fchdir(self.root)?;
        sys::chroot(c".")
    }

    /// Takes the mount at a target away, with all below it. umount2(2) takes a path, and the one that leads to the target may lead elsewhere
    /// by now; the descriptor's own in procfs does not.
    #[inline(never)]
    pub(super) fn unmount(&self, rec: &Rec) -> Result<()> {
        let target = self.fd(rec.r)?;
        let (found, root) = (sys::fstat(target)?, sys::fstat(self.root)?);
        if root.ino == found.ino && root.device() == found.device() {
            return Err(fault(sys::EINVAL, aux::MISMATCH));
        }
        sys::dup3(target, rec.q, true)?;
        sys::fchdir(rec.x as i32)?;
        sys::umount_detach(self.text(rec.s)?)
    }

    /// Attaches the source at its target, or makes the same link there if it is one.
    #[inline(never)]
    pub(super) fn attach_or_link(&mut self, rec: &Rec) -> Result<()> {
        let source = self.fd(rec.q)?;
        if sys::fstat(source)?.kind() != sys::S_IFLNK {
            self.target(rec)?;
            return sys::move_mount(source, self.fd(rec.r)?, c"");
        }
        let mut text = [0; 4096];
        sys::readlinkat(source, c"", &mut text[..4095])?;
        let link = CStr::from_bytes_until_nul(&text).unwrap_or_default();
        let (parent, name) = (self.directory(self.text(rec.t)?, 0o755)?, self.text(rec.x)?);
        let made = match sys::symlinkat(link, parent, name) {
            Err(Fault { errno: sys::EEXIST, .. }) => same_link(parent, name, link),
            other => other,
        };
        sys::close(parent);
        made
    }

    /// chroot to a directory of the host's choosing.
    pub(super) fn chroot(&mut self, rec: &Rec) -> Result<()> {
        sys::fchdir(self.fd(rec.r)?)?;
        sys::chroot(c".")
    }
}

/// The fault of a change of attributes, with the flag that is locked.
#[inline(never)]
fn named(failed: Fault, mount: i32, rec: &Rec) -> Fault {
    let held = match failed.errno {
        sys::EPERM => sys::fs_flags(mount).unwrap_or(0),
        _ => return failed,
    };
    match locks::locked(held, rec.a, rec.b, rec.y != 0) {
        0 => failed,
        bits => fault(sys::EPERM, aux::LOCKED | bits as u32),
    }
}

/// Whether what is at `name` is this very link.
#[inline(never)]
fn same_link(parent: i32, name: &CStr, link: &CStr) -> Result<()> {
    let mut text = [0; 4096];
    match sys::readlinkat(parent, name, &mut text) {
        Ok(length) if &text[..length] == link.to_bytes() => Ok(()),
        _ => Err(fault(sys::EEXIST, aux::MISMATCH)),
    }
}

/// Whether what is at `name` is the device asked for.
fn same_device(parent: i32, name: &CStr, rec: &Rec) -> Result<()> {
    let found = sys::statx(parent, name)?;
    // The kernel's encoding of a device number (linux/kdev_t.h: new_encode_dev).
    let minor = u64::from(found.rdev_minor);
    let rdev = minor & 0xff | u64::from(found.rdev_major) << 8 | (minor & !0xff) << 12;
    let wants = rec.x & sys::S_IFMT;
    if found.kind() == wants && (wants == sys::S_IFIFO || rdev == rec.a) {
        Ok(())
    } else {
        Err(fault(sys::EEXIST, aux::MISMATCH))
    }
}
