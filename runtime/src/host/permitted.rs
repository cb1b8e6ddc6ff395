// SPDX-License-Identifier: Apache-2.0
//! What the host's administrator lets annotations do: one name on each line of /etc/corten/annotations.
//!
//! Counterpart: `plan/annotations.rs` says which need it. The file is looked at only where one of those stands in the
//! configuration.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Kind, Result};
use crate::facts::Facts;
use crate::facts::Permitted;
use crate::plan::annotations;
use crate::state::read_all;
use crate::sys::ns;

const FILE: &str = "/etc/corten/annotations";
/// What an owner that a user namespace does not know is shown as (/proc/sys/kernel/overflowuid): the host's root among them.
const OVERFLOW: u32 = 65534;

/// What of these annotations may be obeyed by a process of these facts.
///
/// # Errors
/// As [`listed`].
pub(crate) fn by(facts: &Facts, asked: &BTreeMap<String, Option<String>>) -> Result<Permitted> {
    // Nobody gets more from his own runtime than he has: his groups are his.
    listed(asked, !facts.is_admin() || facts.in_userns)
}

/// What of these annotations the host's administrator has listed; `groups`: keeping the caller's is nobody's to permit.
///
/// # Errors
/// `Kind::Invalid` for a file that others than root may write to, `Kind::Os` for one that cannot be read.
pub(crate) fn listed(asked: &BTreeMap<String, Option<String>>, groups: bool) -> Result<Permitted> {
    if !annotations::need_permission(asked) {
        return Ok(Permitted::default());
    }
    let call = |what: &str| format!("{what}({FILE})");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(FILE, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Permitted::of("", groups)),
        other => other.call(|| call("open"))?,
    };
    let found = rustix::fs::fstat(&file).call(|| call("fstat"))?;
    let roots = found.st_uid == 0 || found.st_uid == OVERFLOW && ns::in_user_namespace();
    if !roots || found.st_mode & 0o022 != 0 || FileType::from_raw_mode(found.st_mode) != FileType::RegularFile
    {
        let text = "it must be a file that only root may write to";
        return Err(Error::new(Kind::Invalid, text).at(FILE));
    }
    let bytes = read_all(file.as_fd()).call(|| call("read"))?;
    Ok(Permitted::of(&String::from_utf8_lossy(&bytes), groups))
}
