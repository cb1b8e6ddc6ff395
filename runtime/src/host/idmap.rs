// SPDX-License-Identifier: Apache-2.0
//! Id mappings: of the container's user namespace, and of id-mapped mounts.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{identity, idtool};
use crate::error::{Context, Result, Step};
use crate::plan::ids::{IdMaps, Writer, Writers};
use crate::spec::IdMapping;

/// Writes both maps of `pid`, an unreaped child of ours that waits (user_namespaces(7): at most 340 lines, one write).
///
/// # Errors
/// EPERM without the capabilities over the mapped ids, EINVAL for overlapping lines; what newuidmap(1) and
/// newgidmap(1) say.
pub(super) fn write_maps(pid: i32, ids: &IdMaps, writers: Writers) -> Result<()> {
    let uid = match writers.uid {
        Writer::Tool => idtool::map("newuidmap", pid, &ids.uid),
        _ => write_map(pid, "uid_map", &ids.uid),
    };
    uid.step(|| "config.json /linux/uidMappings")?;
    let gid = match writers.gid {
        Writer::Tool => idtool::map("newgidmap", pid, &ids.gid),
        Writer::Us => write_map(pid, "gid_map", &ids.gid),
        Writer::UsWithoutGroups => write(format!("/proc/{pid}/setgroups"), "deny".into())
            .and_then(|()| write_map(pid, "gid_map", &ids.gid)),
    };
    gid.step(|| "config.json /linux/gidMappings")
}

fn write_map(pid: i32, file: &str, map: &[IdMapping]) -> Result<()> {
    let mut lines = String::new();
    for line in map {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{} {} {}", line.container_id, line.host_id, line.size);
    }
    write(format!("/proc/{pid}/{file}"), lines)
}

fn write(path: String, text: String) -> Result<()> {
    match std::fs::write(&path, text).call(|| format!("write({path})")) {
        Err(error) if error.errno() == Some(libc::EPERM) && crate::sys::ns::unprivileged() => {
            Err(error.at("an id that is not ours to map"))
        }
        other => other,
    }
}

/// A user namespace with these mappings and nobody in it, for mount_setattr(2).
///
/// # Errors
/// As clone3(2) and the writes of the maps.
pub(super) fn userns(uid: &[IdMapping], gid: &[IdMapping]) -> Result<OwnedFd> {
    let (pid, pidfd) = crate::sys::clone::sleeper_in_userns(0)?;
    let ids = IdMaps { uid: uid.to_vec(), gid: gid.to_vec() };
    let opened = write_maps(pid, &ids, Writers { uid: Writer::Us, gid: Writer::Us }).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .call(|| format!("open({path})"))
    });
    identity::kill(pidfd.as_fd());
    crate::sys::wait::reap(pidfd.as_fd())?;
    opened
}
