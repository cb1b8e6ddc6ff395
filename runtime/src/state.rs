// SPDX-License-Identifier: Apache-2.0
//! What is kept about a container, and how it is told.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Serialize;

/// A container's status as `state` and `list` tell it, in the order of runc's fields (reference J1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the specification.
    pub oci_version: &'static str,
    /// The id.
    pub id: String,
    /// Init's pid; 0 when stopped.
    pub pid: i32,
    /// creating, created, running, paused or stopped.
    pub status: &'static str,
    /// The bundle, absolute.
    pub bundle: String,
    /// The root file system, absolute.
    pub rootfs: String,
    /// When, RFC 3339 with nanoseconds.
    pub created: String,
    /// The configuration's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Name of the user who created it, or the uid.
    pub owner: String,
}
