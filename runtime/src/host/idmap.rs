// SPDX-License-Identifier: Apache-2.0
//! Id mappings: of the container's user namespace, and of id-mapped mounts.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{identity, idtool};
use crate::error::{Context, Error, Kind, Result, WithStep};
use crate::facts::{IdMaps, ids};
use crate::plan::ids::{Writer, Writers};
use crate::procfs;
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
    // user_namespaces(7): less than a page.
    if lines.len() >= rustix::param::page_size() {
        let text = format!("{} bytes of lines are more than the kernel takes", lines.len());
        return Err(Error::new(Kind::Invalid, text));
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

/// The mappings of a user namespace that exists, as we see them. Only a process in it can show them: one of ours that
/// joins it and sleeps.
///
/// # Errors
/// EPERM without power over it, EINVAL for our own.
pub(super) fn read_id_maps(namespace: BorrowedFd<'_>) -> Result<IdMaps> {
    let (pid, pidfd) = crate::sys::clone::sleeper_in(namespace)?;
    let maps = of_process(pid);
    identity::end(pidfd.as_fd())?;
    maps
}

/// The mappings of a process's user namespace, as we see them.
///
/// # Errors
/// Those of reading them.
pub(super) fn of_process(pid: i32) -> Result<IdMaps> {
    let read = |file: &str| Ok(ids::parse(&procfs::read(&format!("/proc/{pid}/{file}"))?));
    read("uid_map").and_then(|uid| Ok(IdMaps { uid, gid: read("gid_map")? }))
}

/// The field of config.json in which these differ. Lines may be in another order.
pub(super) fn difference(expected: &IdMaps, found: &IdMaps) -> Option<&'static str> {
    let sorted = |lines: &[IdMapping]| {
        let mut lines: Vec<_> = lines.iter().map(|l| (l.container_id, l.host_id, l.size)).collect();
        lines.sort_unstable();
        lines
    };
    let kinds = [(&expected.uid, &found.uid, "uidMappings"), (&expected.gid, &found.gid, "gidMappings")];
    kinds.into_iter().find(|(ours, theirs, _)| sorted(ours) != sorted(theirs)).map(|(.., field)| field)
}

/// What config.json says of a namespace that is joined must be so (in runc's words).
///
/// # Errors
/// `Kind::Invalid` when they differ.
pub(super) fn compare(expected: &IdMaps, found: &IdMaps) -> Result<()> {
    match difference(expected, found) {
        Some(field) => {
            let text = "user namespaces enabled, but both namespace path and non-matching mapping specified -- you may only provide one";
            Err(Error::invalid(format_args!("/linux/{field}"), text))
        }
        None => Ok(()),
    }
}

/// A user namespace with these mappings and nobody in it, for mount_setattr(2).
///
/// # Errors
/// As clone3(2) and the writes of the maps.
pub fn userns(uid: &[IdMapping], gid: &[IdMapping]) -> Result<OwnedFd> {
    let (pid, pidfd) = crate::sys::clone::sleeper_in_userns(0)?;
    let ids = IdMaps { uid: uid.to_vec(), gid: gid.to_vec() };
    let opened = write_maps(pid, &ids, Writers { uid: Writer::Us, gid: Writer::Us }).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .call(|| format!("open({path})"))
    });
    identity::end(pidfd.as_fd())?;
    opened
}
