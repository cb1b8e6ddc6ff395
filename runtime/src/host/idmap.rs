// SPDX-License-Identifier: Apache-2.0
//! Id mappings: of the container's user namespace, and of id-mapped mounts.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::identity;
use crate::error::{Context, Result, Step};
use crate::spec::IdMapping;

/// Writes both maps of `pid`, an unreaped child of ours (user_namespaces(7): at most 340 lines, one write).
///
/// # Errors
/// EPERM without the capabilities over the mapped ids, EINVAL for overlapping lines.
pub(super) fn write_maps(pid: i32, uid: &[IdMapping], gid: &[IdMapping]) -> Result<()> {
    for (file, map, field) in [("uid_map", uid, "/linux/uidMappings"), ("gid_map", gid, "/linux/gidMappings")]
    {
        let mut lines = String::new();
        for line in map {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{} {} {}", line.container_id, line.host_id, line.size);
        }
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, lines)
            .call(|| format!("write({path})"))
            .step(|| format!("config.json {field}"))?;
    }
    Ok(())
}

/// A user namespace with these mappings and nobody in it, for mount_setattr(2).
///
/// # Errors
/// As clone3(2) and the writes of the maps.
pub(super) fn userns(uid: &[IdMapping], gid: &[IdMapping]) -> Result<OwnedFd> {
    let (pid, pidfd) = crate::sys::clone::sleeper_in_userns(0)?;
    let opened = write_maps(pid, uid, gid).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .call(|| format!("open({path})"))
    });
    identity::kill(pidfd.as_fd());
    crate::sys::wait::reap(pidfd.as_fd())?;
    opened
}
