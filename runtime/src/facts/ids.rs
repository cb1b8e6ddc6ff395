// SPDX-License-Identifier: Apache-2.0
//! Id mappings, as they stand in uid_map and gid_map (user_namespaces(7)).

#![forbid(unsafe_code)]

use crate::error::Result;
use crate::procfs;
use crate::spec::IdMapping;

/// Mappings as they are written to uid_map and gid_map (user_namespaces(7)); each has 1 to 340 lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    pub uid: Vec<IdMapping>,
    pub gid: Vec<IdMapping>,
}

impl IdMaps {
    /// The host's id for a user id inside, if it is mapped.
    #[must_use]
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        mapped(&self.uid, uid)
    }

    /// The host's id for a group id inside, if it is mapped.
    #[must_use]
    pub fn host_gid(&self, gid: u32) -> Option<u32> {
        mapped(&self.gid, gid)
    }
}

/// The host's id for an id inside.
pub(crate) fn mapped(lines: &[IdMapping], id: u32) -> Option<u32> {
    lines.iter().find_map(|line| {
        let offset = id.checked_sub(line.container_id).filter(|offset| *offset < line.size)?;
        line.host_id.checked_add(offset)
    })
}

/// The lines of a uid_map or gid_map file.
#[must_use]
pub fn parse(map: &str) -> Vec<IdMapping> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let mut number = || numbers.next()?.ok();
        Some(IdMapping { container_id: number()?, host_id: number()?, size: number()? })
    };
    map.lines().filter_map(line).collect()
}

/// The mappings of this process's user namespace.
pub(super) fn own() -> Result<IdMaps> {
    let map = |file| Ok(parse(&procfs::read(&format!("/proc/self/{file}"))?));
    map("uid_map").and_then(|uid| Ok(IdMaps { uid, gid: map("gid_map")? }))
}

/// Whether setgroups(2) is denied in the user namespace of a process (`self`, or a pid). Once it is, it stays so there
/// and in every user namespace below: no process can take it back.
///
/// # Errors
/// When that cannot be read. Of a process that is gone it is not denied: whoever goes there finds nobody.
pub(crate) fn setgroups_denied(process: &str) -> Result<bool> {
    match procfs::read(&format!("/proc/{process}/setgroups")) {
        Ok(text) => Ok(text.starts_with("deny")),
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH)) => Ok(false),
        Err(error) => Err(error),
    }
}
