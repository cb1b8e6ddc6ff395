// SPDX-License-Identifier: Apache-2.0
//! Mount points of this process, where a plan has to know them one by one.

#![forbid(unsafe_code)]

use crate::error::Result;
use crate::procfs;

/// Those below /sys. Those of a mount that is not to be reached any more (another one lies over its directory) are left out.
pub(super) fn below_sys() -> Result<Vec<String>> {
    let table = procfs::read("/proc/thread-self/mountinfo")?;
    let points = procfs::mounts(&table).map(|mount| mount.point()).filter(|point| point.starts_with("/sys/"));
    let mut points: Vec<String> = points.filter(|point| std::fs::symlink_metadata(point).is_ok()).collect();
    points.sort();
    points.dedup();
    Ok(points)
}

/// The mount points of a mountinfo table that have none but `/` above them.
pub(super) fn outermost(table: &str) -> Vec<String> {
    let mut points: Vec<String> = procfs::mounts(table).map(|mount| mount.point()).collect();
    points.retain(|point| point != "/");
    points.sort();
    let mut top: Vec<String> = Vec::new();
    for point in points {
        let below = |top: &String| point.strip_prefix(top.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if !top.iter().any(below) {
            top.push(point);
        }
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outermost_mounts_once_for_each() {
        let line = |at: &str| format!("1 1 0:1 / {at} rw - tmpfs tmpfs rw\n");
        let table: String =
            ["/", "/sys/fs/cgroup", "/proc", "/sys", "/sys-x", "/proc", "/a\\040b", "/proc/sys"]
                .map(line)
                .concat();
        assert_eq!(outermost(&table), ["/a b", "/proc", "/proc", "/sys", "/sys-x"]);
    }
}
