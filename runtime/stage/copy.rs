// SPDX-License-Identifier: Apache-2.0
//! `tmpcopyup`: the content of the covered directory goes into the new tmpfs, with modes, owners, times and
//! extended attributes. Everything is done by name in opened directories and follows no symbolic link.

use core::ffi::CStr;

use super::sys::{self, Fault, Result};
use super::wire::aux;
use super::{fault, files};

/// Deeper trees are refused rather than overrun the stack (one level keeps a buffer of entries on it).
const DEPTH: usize = 64;

/// Copies what is in `from` (may be opened with O_PATH) into `to`.
#[inline(never)]
pub(super) fn tree(from: i32, to: i32) -> Result<()> {
    directory(from, c".", to, c".", DEPTH)
}

fn directory(from: i32, from_name: &CStr, to: i32, to_name: &CStr, depth: usize) -> Result<()> {
    if depth == 0 {
        return Err(fault(sys::ELOOP, aux::MISMATCH));
    }
    let flags = sys::O_DIRECTORY | sys::O_NOFOLLOW;
    let from = sys::openat2(from, from_name, flags, 0, sys::RESOLVE_BENEATH)?;
    if files::is_pseudo(from)? {
        return Err(fault(sys::EINVAL, aux::MISMATCH));
    }
    let to = sys::openat2(to, to_name, flags, 0, sys::RESOLVE_BENEATH)?;
    let mut entries = [0; 4096];
    loop {
        let length = sys::getdents(from, &mut entries)?;
        if length == 0 {
            break;
        }
        let mut at = 0;
        while at < length {
            // struct linux_dirent64: ino, off, then the record's length, type and name.
            let record = u16::from_ne_bytes([entries[at + 16], entries[at + 17]]) as usize;
            let name = CStr::from_bytes_until_nul(&entries[at + 19..at + record]).unwrap_or_default();
            if name != c"." && name != c".." {
                entry(from, to, name, depth)?;
            }
            at += record;
        }
    }
    sys::close(from);
    sys::close(to);
    Ok(())
}

fn entry(from: i32, to: i32, name: &CStr, depth: usize) -> Result<()> {
    let stat = sys::statx(from, name)?;
    let mode = u32::from(stat.mode);
    match stat.kind() {
        sys::S_IFDIR => {
            sys::mkdirat(to, name, 0o700)?;
            directory(from, name, to, name, depth - 1)?;
        }
        sys::S_IFLNK => {
            let mut target = [0; 4096];
            let length = sys::readlinkat(from, name, &mut target)?;
            target[length.min(4095)] = 0;
            sys::symlinkat(CStr::from_bytes_until_nul(&target).unwrap_or_default(), to, name)?;
        }
        sys::S_IFREG => file(from, to, name)?,
        _ => sys::mknodat(to, name, mode, device(&stat))?,
    }
    sys::fchownat(to, name, stat.uid, stat.gid, sys::AT_SYMLINK_NOFOLLOW)?;
    if stat.kind() != sys::S_IFLNK {
        sys::fchmodat(to, name, mode & 0o7777)?;
    }
    sys::utimens(to, name, stat.mtime)
}

fn device(stat: &sys::Statx) -> u64 {
    let minor = u64::from(stat.rdev_minor);
    minor & 0xff | u64::from(stat.rdev_major) << 8 | (minor & !0xff) << 12
}

fn file(from: i32, to: i32, name: &CStr) -> Result<()> {
    let flags = sys::O_RDONLY | sys::O_NOFOLLOW | sys::O_NONBLOCK;
    let from = sys::openat2(from, name, flags, 0, sys::RESOLVE_BENEATH)?;
    // An empty one there is nothing to read of, and its name comes along.
    let filled = sys::fstat(from)?.size != 0;
    if filled && !files::is_stored(from)? {
        return Err(fault(sys::EINVAL, aux::MISMATCH));
    }
    let flags = sys::O_WRONLY | sys::O_CREAT | sys::O_EXCL | sys::O_NOFOLLOW;
    let to = sys::openat2(to, name, flags, 0o600, sys::RESOLVE_BENEATH)?;
    while filled && sys::sendfile(to, from, 1 << 20)? > 0 {}
    attributes(from, to)?;
    sys::close(from);
    sys::close(to);
    Ok(())
}

/// Extended attributes; those that the tmpfs does not take (EOPNOTSUPP, EPERM) stay behind.
fn attributes(from: i32, to: i32) -> Result<()> {
    let mut names = [0; 4096];
    let length = match sys::flistxattr(from, &mut names) {
        Err(Fault { errno: sys::EOPNOTSUPP, .. }) => return Ok(()),
        other => other?,
    };
    let mut at = 0;
    while at < length {
        let name = CStr::from_bytes_until_nul(&names[at..]).unwrap_or_default();
        let mut value = [0; 4096];
        match sys::fgetxattr(from, name, &mut value).and_then(|n| sys::fsetxattr(to, name, &value[..n])) {
            Err(Fault { errno: sys::EOPNOTSUPP | sys::EPERM | sys::ENODATA, .. }) => {}
            other => other?,
        }
        at += name.count_bytes() + 1;
    }
    Ok(())
}
