// SPDX-License-Identifier: Apache-2.0
//! The one fallback for kernels before 5.12, which have no mount_setattr(2), and before 5.14, where it does not know
//! MOUNT_ATTR_NOSYMFOLLOW: mount(2) on the mount's descriptor.
//!
//! It needs the mount attached, so for such a host the order is attach, then change (`program/compile/mounting.rs`).
//! Whole trees and id mappings it cannot do: the plan refuses those. To be removed with support for those kernels.

use core::ffi::CStr;

use super::sys::{self, Fault, MountAttr, Result};
use super::{fault, nr};

const MS_REMOUNT: u64 = 0x20;
const MS_NOSYMFOLLOW: u64 = 0x100;
const MS_BIND: u64 = 0x1000;
const MS_REC: u64 = 0x4000;
const MS_RELATIME: u64 = 1 << 21;
const MS_STRICTATIME: u64 = 1 << 24;
const MS_NOATIME: u64 = 0x400;
const MS_NODIRATIME: u64 = 0x800;
const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;
/// Read-only, nosuid, nodev and noexec have the same bits everywhere.
const SAME: u64 = 0xf;

/// mount_setattr(2) of the mount `mount`, or what comes closest to it.
pub(super) fn set_attr(mount: i32, flags: u32, attr: &MountAttr) -> Result<()> {
    match sys::mount_setattr(mount, flags, attr) {
        Err(Fault { errno: sys::ENOSYS, .. }) => change(mount, flags & sys::AT_RECURSIVE != 0, attr),
        Err(Fault { errno: sys::EINVAL, .. })
            if flags & sys::AT_RECURSIVE == 0 && (attr.set | attr.clear) & MOUNT_ATTR_NOSYMFOLLOW != 0 =>
        {
            change(mount, false, attr)
        }
        other => other,
    }
}

#[inline(never)]
fn change(mount: i32, recursive: bool, attr: &MountAttr) -> Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
    let attributes = attr.set | attr.clear;
    if recursive && attributes != 0 || attr.set & MOUNT_ATTR_IDMAP != 0 {
        return Err(fault(sys::ENOSYS, nr::MOUNT_SETATTR as u32));
    }
    // No mount at all, but the link that AttachOrLink made again; of a mounted one there is nothing to protect.
    if sys::fstat(mount)?.kind() == sys::S_IFLNK {
        return Ok(());
    }
    // By a procfs of our own: whatever is mounted at /proc, this is our descriptor.
    let fs = sys::fsopen(c"proc")?;
    sys::fsconfig_create(fs)?;
    let proc = sys::fsmount(fs, 0)?;
    sys::close(fs);
    sys::fchdir(proc)?;
    sys::close(proc);
    let mut path = *b"self/fd/\0\0\0\0\0\0\0\0\0\0\0";
    write_decimal(mount as u32, &mut path[8..]);
    let path = CStr::from_bytes_until_nul(&path).unwrap_or_default();
    if attributes != 0 {
        let flags = MS_REMOUNT | MS_BIND | merged(sys::fs_flags(mount)?, attr);
        sys::mount(c"", path, c"", flags, c"")?;
    }
    if attr.propagation != 0 {
        let whole = if recursive { MS_REC } else { 0 };
        sys::mount(c"", path, c"", attr.propagation | whole, c"")?;
    }
    Ok(())
}

/// What holds (ST_* of statfs(2)) after `attr`, as MS_* flags: a remount sets all of them anew.
fn merged(holds: u64, attr: &MountAttr) -> u64 {
    /// ST_*, MOUNT_ATTR_*, MS_* of the flags whose bits differ.
    const OTHER: [(u64, u64, u64); 5] = [
        (0x400, 0x10, MS_NOATIME),
        (0, 0x20, MS_STRICTATIME),
        (0x800, 0x80, MS_NODIRATIME),
        (0x1000, 0, MS_RELATIME),
        (0x2000, MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW),
    ];
    const ATIME: u64 = 0x70;
    let mut flags = (holds & SAME & !attr.clear) | attr.set & SAME;
    for (st, bit, ms) in OTHER {
        let atime = ms & (MS_NOATIME | MS_STRICTATIME | MS_RELATIME) != 0;
        let cleared = if atime { attr.clear & ATIME != 0 } else { attr.clear & bit != 0 };
        if holds & st != 0 && !cleared || attr.set & bit != 0 {
            flags |= ms;
        }
    }
    // MOUNT_ATTR_RELATIME is 0, the absence of the others; a remount that names no access times keeps those that hold.
    if attr.clear & ATIME != 0 && attr.set & ATIME == 0 {
        flags |= MS_RELATIME;
    }
    flags
}

fn write_decimal(mut value: u32, text: &mut [u8]) {
    let mut digits = [0_u8; 10];
    let mut count = 0;
    loop {
        digits[count] = b'0' + (value % 10) as u8;
        value /= 10;
        count += 1;
        if value == 0 {
            break;
        }
    }
    for (to, from) in text.iter_mut().zip(digits[..count].iter().rev()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(set: u64, clear: u64) -> MountAttr {
        MountAttr { set, clear, propagation: 0, userns: 0 }
    }

    #[test]
    fn what_held_stays_unless_it_is_cleared() {
        assert_eq!(merged(0x1 | 0x2, &attr(0x8, 0x1)), 0x2 | 0x8);
        assert_eq!(merged(0x1000, &attr(0, 0)), MS_RELATIME);
        assert_eq!(merged(0x1000, &attr(0x10, 0x70)), MS_NOATIME);
        assert_eq!(merged(0x400 | 0x800, &attr(0, 0x70 | 0x80)), MS_RELATIME);
        assert_eq!(merged(0x1000, &attr(0x20, 0x70)), MS_STRICTATIME);
        assert_eq!(merged(0x400 | 0x800, &attr(0, 0x70)), MS_NODIRATIME | MS_RELATIME);
        assert_eq!(merged(0x2000 | 0x800, &attr(0, 0x20_0000)), MS_NODIRATIME);
        assert_eq!(merged(0, &attr(0x20 | 0x20_0000, 0x70)), MS_STRICTATIME | MS_NOSYMFOLLOW);
    }

    #[test]
    fn descriptors_in_decimal() {
        for (value, text) in [(0, "0"), (7, "7"), (10, "10"), (4_294_967_295, "4294967295")] {
            let mut bytes = [0; 11];
            write_decimal(value, &mut bytes);
            assert_eq!(CStr::from_bytes_until_nul(&bytes).unwrap().to_str().unwrap(), text);
        }
    }
}
