// SPDX-License-Identifier: Apache-2.0
//! The mount that a container without a mount namespace of its own has in the runtime's (decisions/0072): its rootfs, bound
//! onto its own path. All that is mounted for the container lies in it, and goes with it.
//!
//! It is told apart from whatever else may be mounted there by the kernel's number for it, noted before it is attached.
//! Must never take away a mount that is not known to be this one.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, open, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::error::{Context, Error, Kind, Result};
use crate::procfs::{self, boot_id};
use crate::state::OwnMount;

/// STATX_MNT_ID_UNIQUE (linux/stat.h, Linux 6.8): a number that no other mount has for the whole of a boot.
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

impl OwnMount {
    /// Of a mount that is to be attached at `path`.
    ///
    /// # Errors
    /// Those of statx(2).
    pub(super) fn of(mount: BorrowedFd<'_>, path: &Path) -> Result<OwnMount> {
        let (number, unique, device) = numbers(mount)?;
        Ok(OwnMount { path: path.to_owned(), number, unique, device, boot_id: boot_id()?.to_owned() })
    }

    /// Takes it away, with all that is mounted in it. None is there: nothing to do.
    ///
    /// # Errors
    /// `Kind::Status` when something else is mounted over it; those of umount2(2).
    pub(crate) fn remove(&self) -> Result<()> {
        if self.boot_id != boot_id()? {
            return Ok(());
        }
        let shown = self.path.display();
        let top = match open(&self.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(top) => top,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Error::os(format!("open({shown})"), errno)),
        };
        let found = numbers(top.as_fd())?;
        if self.is(found) {
            // The very mount that was looked at: by its name it may be another one by now.
            let path = format!("/proc/self/fd/{}", top.as_raw_fd());
            return unmount(path, UnmountFlags::DETACH).call(|| format!("umount2({shown})"));
        }
        let table = procfs::read("/proc/self/mountinfo")?;
        // A number may have been given again, to what is on top now.
        let mut ours = procfs::mounts(&table).filter(|mount| mount.number == self.number);
        if found.0 != self.number && ours.any(|mount| Path::new(&mount.point()) == self.path) {
            let text = format!("something else is mounted over the container's own mount at {shown}");
            return Err(Error::new(Kind::Status, text));
        }
        Ok(())
    }

    fn is(&self, (number, unique, device): (u64, u64, (u32, u32))) -> bool {
        match unique {
            0 => number == self.number && device == self.device,
            unique => unique == self.unique,
        }
    }
}

fn numbers(mount: BorrowedFd<'_>) -> Result<(u64, u64, (u32, u32))> {
    let ask = |what| statx(mount, "", AtFlags::EMPTY_PATH, what).call(|| "statx");
    let plain = ask(StatxFlags::MNT_ID)?;
    let unique = ask(UNIQUE)?;
    let unique = if unique.stx_mask & UNIQUE.bits() == 0 { 0 } else { unique.stx_mnt_id };
    Ok((plain.stx_mnt_id, unique, (plain.stx_dev_major, plain.stx_dev_minor)))
}
