// SPDX-License-Identifier: Apache-2.0
//! Id mappings, as they stand in uid_map and gid_map (user_namespaces(7)).

#![forbid(unsafe_code)]

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
