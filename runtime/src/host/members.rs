// SPDX-License-Identifier: Apache-2.0
//! The processes of a container without a control group: those of its pid namespace, as far as it has one of its own.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use crate::error::{Context, Error, Kind, Result};
use crate::procfs::Stat;

/// Every process in the pid namespace of `init`, which is alive, and in those below it, ascending. What the kernel does
/// not let us look at (somebody else's process) is none of them.
///
/// # Errors
/// `Kind::Unsupported` when the namespace is our own: nothing tells its processes from others then.
pub(crate) fn in_pid_namespace_of(init: i32) -> Result<Vec<i32>> {
    let path = format!("/proc/{init}/ns/pid");
    let theirs = namespace(&path).call(|| format!("stat({path})"))?;
    let own = namespace("/proc/self/ns/pid").call(|| "stat(/proc/self/ns/pid)")?;
    if theirs == own {
        let text = "a container without a control group and without a pid namespace of its own";
        return Err(Error::new(
            Kind::Unsupported,
            format!("{text}: its processes cannot be told from others"),
        ));
    }
    let all = every_process()?;
    let mut inside: BTreeMap<i32, bool> = BTreeMap::new();
    for pid in &all {
        let path = format!("/proc/{pid}/ns/pid");
        let own = visible(namespace(&path).call(|| format!("stat({path})")))?;
        inside.insert(*pid, own == Some(theirs));
    }
    Ok(belonging(&inside, &ParentTable::of(&all)?))
}

/// The pids that procfs lists.
///
/// # Errors
/// Those of reading it.
fn every_process() -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").call(|| "open(/proc)")? {
        let name = entry.call(|| "read(/proc)")?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// Who is whose parent. They are read one after the other, so pids that were given anew meanwhile may stand in a ring.
pub(crate) struct ParentTable(BTreeMap<i32, i32>);

impl ParentTable {
    /// Of these; without those that have ended or are none of ours to look at.
    ///
    /// # Errors
    /// Any other error of reading /proc/PID/stat.
    pub(crate) fn of(pids: &[i32]) -> Result<ParentTable> {
        let mut parents = BTreeMap::new();
        for pid in pids {
            let parent = visible(Stat::of(*pid))?.and_then(|stat| stat.field(4));
            parents.extend(parent.map(|parent| (*pid, parent)));
        }
        Ok(ParentTable(parents))
    }

    /// Whether anything is known of it.
    pub(crate) fn has(&self, pid: i32) -> bool {
        self.0.contains_key(&pid)
    }

    /// The process itself and its ancestors: no line of them is longer than there are processes.
    pub(crate) fn ancestry(&self, pid: i32) -> impl Iterator<Item = i32> {
        std::iter::successors(Some(pid), |pid| self.0.get(pid).copied()).take(self.0.len() + 1)
    }
}

/// What is told of a process; `None` if it has ended, or is none of ours to look at. Any other error is neither.
fn visible<T>(told: Result<T>) -> Result<Option<T>> {
    match told {
        Err(error)
            if matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM)) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Those that are inside, or descend from one that is: a process of a namespace below does. Ascending.
fn belonging(inside: &BTreeMap<i32, bool>, parents: &ParentTable) -> Vec<i32> {
    let belongs = |pid: i32| parents.ancestry(pid).any(|pid| inside.get(&pid) == Some(&true));
    inside.keys().copied().filter(|pid| belongs(*pid)).collect()
}

/// Device and inode of a namespace file tell namespaces apart.
fn namespace(path: &str) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_belong_and_rings_end() {
        let inside = [(1, false), (5, true), (6, false), (7, false), (8, false), (9, false), (10, false)];
        // 5 is the container's, 6 and 7 below it; 8 and 9 each other's parent; 10's parent is not known.
        let parents = [(1, 0), (5, 1), (6, 5), (7, 6), (8, 9), (9, 8), (10, 77)];
        assert_eq!(belonging(&inside.into(), &ParentTable(parents.into())), [5, 6, 7]);
        // A ring through one of the container's, and one process that is its own parent.
        let parents = [(5, 9), (9, 5), (8, 8)];
        assert_eq!(belonging(&inside.into(), &ParentTable(parents.into())), [5, 9]);
    }
}
