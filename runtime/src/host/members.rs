// SPDX-License-Identifier: Apache-2.0
//! The processes of a container without a control group: those of its pid namespace, as far as it has one of its own.

#![forbid(unsafe_code)]

use std::collections::HashMap;
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
    let entries = std::fs::read_dir("/proc").call(|| "open(/proc)")?;
    let mut inside: HashMap<i32, bool> = HashMap::new();
    let mut parents: HashMap<i32, i32> = HashMap::new();
    for entry in entries {
        let name = entry.call(|| "read(/proc)")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let path = format!("/proc/{pid}/ns/pid");
        let own = visible(namespace(&path).call(|| format!("stat({path})")))?;
        inside.insert(pid, own == Some(theirs));
        let parent = visible(Stat::of(pid))?.and_then(|stat| stat.field(4));
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    Ok(belonging(&inside, &parents))
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
fn belonging(inside: &HashMap<i32, bool>, parents: &HashMap<i32, i32>) -> Vec<i32> {
    // One after the other they were read, so pids that were given anew meanwhile may stand in a ring: no line of
    // ancestors is longer than there are processes.
    let belongs = |pid: i32| {
        let ancestors = std::iter::successors(Some(pid), |pid| parents.get(pid).copied());
        ancestors.take(parents.len() + 1).any(|pid| inside.get(&pid) == Some(&true))
    };
    let mut found: Vec<i32> = inside.keys().copied().filter(|pid| belongs(*pid)).collect();
    found.sort_unstable();
    found
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
        assert_eq!(belonging(&inside.into(), &parents.into()), [5, 6, 7]);
        // A ring through one of the container's, and one process that is its own parent.
        let parents = [(5, 9), (9, 5), (8, 8)];
        assert_eq!(belonging(&inside.into(), &parents.into()), [5, 9]);
    }
}
