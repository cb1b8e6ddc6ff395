// SPDX-License-Identifier: Apache-2.0
//! What resctrl tells of a container, for `events`: what the hardware has, what the class gets, what was measured.
//! Pure reading; every file may be missing, with the feature that it belongs to.

#![forbid(unsafe_code)]

use std::path::Path;

use serde::Serialize;

use crate::state::ResctrlGroups;

/// The figures, by the names that runc prints (types/events.go).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// What the hardware can do with its L3 cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<L3>,
    /// The default class's line for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The line of the container's class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// What the hardware can do with memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<Bandwidth>,
    /// The default class's line for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The line of the container's class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// Memory traffic, by L3 cache; of the container's monitoring group if it has one, else of its class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mbm_stats: Vec<Traffic>,
    /// Use of the cache, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmt_stats: Vec<Occupancy>,
}

/// `info/L3`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct L3 {
    /// All bits of a mask, in hexadecimal.
    pub cbm_mask: String,
    /// How many a mask has at least.
    pub min_cbm_bits: u64,
    /// How many classes there may be.
    pub num_closids: u64,
}

/// `info/MB`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Bandwidth {
    /// Percent from one step to the next.
    pub bandwidth_gran: u64,
    /// Whether the delay grows in proportion (0 or 1).
    pub delay_linear: u64,
    /// Percent at least.
    pub min_bandwidth: u64,
    /// How many classes there may be.
    pub num_closids: u64,
}

/// Memory traffic through one L3 cache, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// In all.
    pub mbm_total_bytes: u64,
    /// To the memory of the cache's own node.
    pub mbm_local_bytes: u64,
}

/// Use of one L3 cache, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// In use.
    pub llc_occupancy: u64,
}

/// The figures now; those of a group that has gone are empty.
#[must_use]
pub(crate) fn figures(groups: &ResctrlGroups) -> Figures {
    let (Some(class), Some(group)) = (groups.groups.first(), groups.groups.last()) else {
        return Figures::default();
    };
    let root = class.ancestors().find(|dir| dir.join("info").is_dir()).unwrap_or(class);
    let (all, own) = (text(&root.join("schemata")), text(&class.join("schemata")));
    let (l3, bandwidth) = (root.join("info/L3"), root.join("info/MB"));
    let caches = caches(group);
    Figures {
        l3_cache_info: l3.is_dir().then(|| L3 {
            cbm_mask: text(&l3.join("cbm_mask")).trim().to_owned(),
            min_cbm_bits: read_number(&l3.join("min_cbm_bits")).unwrap_or(0),
            num_closids: read_number(&l3.join("num_closids")).unwrap_or(0),
        }),
        l3_cache_schema_root: line(&all, "L3"),
        l3_cache_schema: line(&own, "L3"),
        mem_bw_info: bandwidth.is_dir().then(|| Bandwidth {
            bandwidth_gran: read_number(&bandwidth.join("bandwidth_gran")).unwrap_or(0),
            delay_linear: read_number(&bandwidth.join("delay_linear")).unwrap_or(0),
            min_bandwidth: read_number(&bandwidth.join("min_bandwidth")).unwrap_or(0),
            num_closids: read_number(&bandwidth.join("num_closids")).unwrap_or(0),
        }),
        mem_bw_schema_root: line(&all, "MB"),
        mem_bw_schema: line(&own, "MB"),
        mbm_stats: caches.iter().filter_map(|cache| traffic(cache)).collect(),
        cmt_stats: caches
            .iter()
            .filter_map(|cache| read_number(&cache.join("llc_occupancy")))
            .map(|llc_occupancy| Occupancy { llc_occupancy })
            .collect(),
    }
}

/// The directories `mon_data/mon_L3_NN` of a group, in the caches' order.
fn caches(group: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(group.join("mon_data")).into_iter().flatten().flatten();
    let mut caches: Vec<_> = entries
        .filter(|e| e.file_name().to_string_lossy().starts_with("mon_L3_"))
        .map(|e| e.path())
        .collect();
    caches.sort_unstable();
    caches
}

fn traffic(cache: &Path) -> Option<Traffic> {
    let (total, local) =
        (read_number(&cache.join("mbm_total_bytes")), read_number(&cache.join("mbm_local_bytes")));
    (total.is_some() || local.is_some())
        .then(|| Traffic { mbm_total_bytes: total.unwrap_or(0), mbm_local_bytes: local.unwrap_or(0) })
}

/// The line of one resource (`L3`; with separate masks for code and data also `L3CODE`, the first of the two).
fn line(schemata: &str, resource: &str) -> String {
    schemata.lines().map(str::trim).find(|line| line.starts_with(resource)).unwrap_or_default().to_owned()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `None` where there is no such file, or (`Unavailable`, `Error`) no figure in it.
fn read_number(path: &Path) -> Option<u64> {
    text(path).trim().parse().ok()
}
