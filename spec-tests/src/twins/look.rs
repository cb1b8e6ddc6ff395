// SPDX-License-Identifier: Apache-2.0
//! What the kernel holds of a container, read from outside: its groups and their values, and its first process.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::harness::host::Host;

/// Files of a group that hold what was asked for, on v1 and v2. Counters and statistics are not among them.
const VALUES: [&str; 40] = [
    "blkio.bfq.weight",
    "blkio.throttle.read_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.write_iops_device",
    "blkio.weight",
    "cgroup.freeze",
    "cgroup.subtree_control",
    "cgroup.type",
    "cpu.cfs_burst_us",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.rt_period_us",
    "cpu.rt_runtime_us",
    "cpu.shares",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.mems",
    "devices.list",
    "freezer.self_freezing",
    "freezer.state",
    "io.bfq.weight",
    "io.max",
    "io.weight",
    "memory.high",
    "memory.kmem.limit_in_bytes",
    "memory.kmem.tcp.limit_in_bytes",
    "memory.limit_in_bytes",
    "memory.low",
    "memory.max",
    "memory.memsw.limit_in_bytes",
    "memory.min",
    "memory.oom_control",
    "memory.soft_limit_in_bytes",
    "memory.swap.max",
    "memory.swappiness",
    "pids.max",
];

/// The groups that bear the mark, the values in those of process `pid`, and the process itself.
pub fn at(host: &Host, mark: &str, pid: i32) -> Value {
    let mut values = Map::new();
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    for line in memberships.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if path.contains(mark) {
            let name = if controllers.is_empty() { "unified" } else { controllers };
            values.insert(name.to_owned(), values_in(&directory(host, controllers, path)));
        }
    }
    json!({ "groups": groups(host, mark), "values": values, "process": process(pid) })
}

fn directory(host: &Host, controllers: &str, path: &str) -> PathBuf {
    let base = Path::new("/sys/fs/cgroup");
    let top = match controllers {
        _ if host.is_v2() => base.to_owned(),
        "" => base.join("unified"),
        names => base.join(names.trim_start_matches("name=")),
    };
    top.join(path.trim_start_matches('/'))
}

fn values_in(dir: &Path) -> Value {
    let hugetlb = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned());
    let hugetlb = hugetlb.filter(|name| {
        name.starts_with("hugetlb.") && (name.ends_with(".max") || name.ends_with("limit_in_bytes"))
    });
    let names = VALUES.iter().map(|name| name.to_string()).chain(hugetlb);
    let value = |name: String| {
        let text = fs::read_to_string(dir.join(&name)).ok()?;
        let mut lines: Vec<_> = text.lines().map(str::trim_end).collect();
        // A list of rules or devices has no order.
        lines.sort();
        Some((name, json!(lines.join("\n"))))
    };
    names.filter_map(value).collect::<Map<_, _>>().into()
}

/// The directories of groups that bear the mark.
pub fn groups(host: &Host, mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = host.mounted_hierarchies();
    while let Some(dir) = todo.pop() {
        let below = fs::read_dir(&dir).into_iter().flatten().flatten();
        todo.extend(
            below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
        let path = dir.to_string_lossy();
        if path.contains(mark) {
            found.push(path.into_owned());
        }
    }
    found.sort();
    found
}

/// What its files in /proc say, of the things that a runtime sets.
fn process(pid: i32) -> Value {
    let text = |name: &str| {
        fs::read_to_string(format!("/proc/{pid}/{name}")).ok().map(|text| text.trim_end().to_owned())
    };
    let status = text("status").unwrap_or_default();
    let line = |key: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let keys = [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "SigIgn",
    ];
    let lines: Map<String, Value> = keys.iter().map(|key| (key.to_string(), json!(line(key)))).collect();
    json!({
        "status": lines,
        "oom_score_adj": text("oom_score_adj"),
        "coredump_filter": text("coredump_filter"),
    })
}
