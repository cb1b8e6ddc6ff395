// SPDX-License-Identifier: Apache-2.0
//! The terminal (config.md#process `terminal`): opened in the container's own devpts, so that its name is right in there,
//! and its master sent out. Counterpart: `hand_over_console` in `host/ready.rs`.

use super::sys::{self, Fault, Result};
use super::wire::{Rec, aux};
use super::{Stage, fault};

impl Stage {
    /// Opens a terminal in the container's own devpts. What lies at /dev/pts/ptmx is checked to be the kernel's
    /// (CVE-2025-52565), and the other side is taken by TIOCGPTPEER, so that no name is looked up.
    #[inline(never)]
    pub(super) fn console(&mut self, rec: &Rec) -> Result<()> {
        const DEVPTS: u64 = 0x1cd1;
        const TIOCSPTLCK: u32 = 0x4004_5431;
        const TIOCGPTPEER: u32 = 0x5441;
        const TIOCSWINSZ: u32 = 0x5414;
        // The directory first: opening a device node that an image put there would already be an act.
        let directory = self.find(c"/dev/pts", sys::O_DIRECTORY, sys::RESOLVE_NO_SYMLINKS)?;
        if sys::fs_magic(directory)? != DEVPTS {
            return Err(fault(sys::EINVAL, aux::MISMATCH));
        }
        let resolve = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_XDEV | sys::RESOLVE_NO_SYMLINKS;
        let master = sys::openat2(directory, c"ptmx", sys::O_RDWR | sys::O_NOCTTY, 0, resolve)?;
        sys::close(directory);
        if !sys::fstat(master)?.is_char(5, 2) {
            return Err(fault(sys::EINVAL, aux::MISMATCH));
        }
        let mut unlocked = 0_i32;
        sys::ioctl_on(master, TIOCSPTLCK, &mut unlocked)?;
        let flags = sys::O_RDWR | sys::O_NOCTTY | sys::O_CLOEXEC;
        let other = sys::ioctl(master, TIOCGPTPEER, flags as usize)? as i32;
        if rec.a != 0 {
            let mut size = [(rec.a >> 16) as u16, rec.a as u16, 0, 0];
            sys::ioctl_on(master, TIOCSWINSZ, &mut size)?;
        }
        self.put(rec.r, master);
        self.put(rec.q, other);
        Ok(())
    }

    /// Binds the terminal onto /dev/console, which must be no symbolic link.
    #[inline(never)]
    pub(super) fn console_bind(&self, rec: &Rec) -> Result<()> {
        let terminal = self.fd(rec.r)?;
        let target = self.file_nofollow(c"/dev/console")?;
        let mount = sys::open_tree(terminal, c"", sys::OPEN_TREE_CLONE | sys::AT_EMPTY_PATH)?;
        let done = sys::move_mount(mount, target, c"");
        sys::close(mount);
        sys::close(target);
        done
    }
}

/// Makes the terminal descriptors 0, 1 and 2.
pub(super) fn stdio(terminal: i32) -> Result<()> {
    (0..3).try_for_each(|fd| sys::dup3(terminal, fd, false))
}

/// Makes descriptor 0 the controlling terminal of our session.
pub(super) fn control() -> Result<()> {
    const TIOCSCTTY: u32 = 0x540e;
    sys::ioctl(0, TIOCSCTTY, 0).map(drop)
}

/// Gives the standard descriptors to the user, so that `/dev/stderr` can be reopened. /dev/null stays everybody's;
/// what cannot be given (a read-only file system, an unmapped owner, no privilege) stays as it is, as in runc.
#[inline(never)]
pub(super) fn chown_stdio(uid: u32) -> Result<()> {
    const KEEP_GROUP: u32 = u32::MAX;
    for fd in 0..3 {
        let Ok(stat) = sys::fstat(fd) else { continue };
        if stat.uid == uid || stat.is_char(1, 3) {
            continue;
        }
        match sys::fchown(fd, uid, KEEP_GROUP) {
            Err(Fault { errno: sys::EINVAL | sys::EPERM | sys::EROFS, .. }) => {}
            other => other?,
        }
    }
    Ok(())
}
