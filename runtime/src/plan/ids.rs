// SPDX-License-Identifier: Apache-2.0
//! The id mappings of a new user namespace (config-linux.md#user-namespace-mappings). Counterpart: `host/idmap.rs`.

#![forbid(unsafe_code)]

use crate::spec::IdMapping;

/// Mappings as they are written to uid_map and gid_map (user_namespaces(7)); each has 1 to 340 lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    /// uid_map.
    pub uid: Vec<IdMapping>,
    /// gid_map.
    pub gid: Vec<IdMapping>,
}
