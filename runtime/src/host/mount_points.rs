// SPDX-License-Identifier: Apache-2.0
//! Mount points that a restore makes in the rootfs, as the stage would have: CRIU mounts only on what is there.
//!
//! The tree may be anybody's, and be changed meanwhile: every look-up is one openat2 below its root, and nothing that is there is
//! changed.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat2};
use rustix::io::Errno;

use crate::error::{Context, Error, Kind, Result};

/// How many names a path may have, links that are followed not counted.
const DEEPEST: usize = 4096;

/// Finds or makes `path` below `tree`: a directory or an empty file, as `like` is; without one a directory.
///
/// # Errors
/// Those of openat2(2), mkdir(2) and mknod(2), with the path.
pub(super) fn make(tree: BorrowedFd<'_>, path: &str, like: Option<BorrowedFd<'_>>) -> Result<()> {
    let is_file = match like {
        Some(like) => {
            let stat = fstat(like).call(|| "fstat")?;
            FileType::from_raw_mode(stat.st_mode) != FileType::Directory
        }
        None => false,
    };
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    if names.len() > DEEPEST {
        return Err(Error::new(Kind::Invalid, "a path with too many names"));
    }
    let mut dir = inside(tree, ".", OFlags::empty()).call(|| "open(rootfs)")?;
    for (index, name) in names.iter().enumerate() {
        let last = index + 1 == names.len();
        // From the root each time: a link on the way may lead anywhere in it.
        let so_far = names[..=index].join("/");
        dir = match inside(tree, &so_far, OFlags::empty()) {
            Err(Errno::NOENT) => {
                make_one(dir.as_fd(), name, last && is_file).call(|| format!("mkdir({path})"))?;
                inside(tree, &so_far, OFlags::empty()).call(|| format!("openat2({path})"))?
            }
            other => other.call(|| format!("openat2({path})"))?,
        };
    }
    Ok(())
}

fn make_one(dir: BorrowedFd<'_>, name: &str, is_file: bool) -> Result<(), Errno> {
    let made = match is_file {
        true => mknodat(dir, name, FileType::RegularFile, Mode::from(0o644), 0),
        false => mkdirat(dir, name, Mode::from(0o755)),
    };
    match made {
        // A link that leads nowhere, or somebody was quicker.
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// What is at `path`, which is relative and leads nowhere out of `tree`; `flags` besides O_PATH and O_CLOEXEC.
pub(super) fn inside(tree: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(tree, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}
