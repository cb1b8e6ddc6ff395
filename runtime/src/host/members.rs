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
pub fn of(init: i32) -> Result<Vec<i32>> {
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
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut inside: HashMap<i32, bool> = HashMap::new();
    let mut parents: HashMap<i32, i32> = HashMap::new();
    for pid in pids {
        inside.insert(pid, namespace(&format!("/proc/{pid}/ns/pid")).is_ok_and(|ns| ns == theirs));
        let parent = Stat::of(pid).ok().and_then(|stat| stat.field(4));
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    // A process of a namespace below descends from one of the container's.
    let belongs = |mut pid: i32| loop {
        match (inside.get(&pid), parents.get(&pid)) {
            (Some(true), _) => break true,
            (_, Some(&parent)) if parent > 0 && parent != pid => pid = parent,
            _ => break false,
        }
    };
    let mut found: Vec<i32> = inside.keys().copied().filter(|pid| belongs(*pid)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Device and inode of a namespace file tell namespaces apart.
fn namespace(path: &str) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}
