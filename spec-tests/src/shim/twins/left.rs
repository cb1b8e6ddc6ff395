// SPDX-License-Identifier: Apache-2.0
//! What is left when all has been deleted, and when the shim was told to end.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::hostdiff::descendants;
use crate::shim::daemon::Daemon;

/// The descriptors of a shim that holds no container: how many there are of each kind that belongs to one.
pub fn descriptors(d: &Daemon, pid: i32) -> Value {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let dir = d.t.place.dir.to_string_lossy().into_owned();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
        let kind = match target.as_str() {
            target if target.contains("/ptmx") => "terminals",
            target
                if target.starts_with(&dir) && !target.ends_with("/log") && !target.contains("/state/") =>
            {
                "files of the client"
            }
            target if target.contains("cgroup") || target.contains("memory.") => "control groups",
            _ => continue,
        };
        *kinds.entry(kind).or_default() += 1;
    }
    json!(kinds)
}

/// Processes, sockets, mounts, and what the runtime keeps.
pub fn after(d: &Daemon) -> Value {
    let names = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.ends_with("lock"))
            .count()
    };
    let mut processes: Vec<_> = descendants().into_iter().filter(|p| !p.zombie).map(|p| p.name).collect();
    processes.sort();
    let state = d.state().to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    json!({
        "step": "left",
        "code": 0,
        "processes": processes,
        "sockets": names(Path::new("/run/containerd/s")),
        "states": names(&d.runtime_root().join(&d.namespace)),
        "mounts": mounts.lines().filter(|line| line.contains(&state)).count(),
    })
}
