// SPDX-License-Identifier: Apache-2.0
//! Where control groups are: /proc/self/mountinfo, /proc/self/cgroup and `cgroupsPath` (with a line of `%` between them)
//! → the container's groups. Mount points and names of groups are whatever somebody chose.

use corten::ask::Manager;
use corten::cgroup::{Hierarchies, Version, decide_groups};

use crate::holds;
use crate::mutate::Shape;
use crate::targets::Target;

pub const TARGET: Target = Target { name: "groups", shape: Shape::Bytes(WORDS), seeds, run, short: 10_000 };

const WORDS: &[&str] = &[
    "\n%\n",
    "\n",
    " ",
    " - cgroup2 none rw",
    " - cgroup cgroup rw,memory",
    "0::/",
    "4:memory:/a",
    "1:cpu,cpuacct:/",
    "/..",
    "../",
    "/",
    "\\040",
    "\\134",
    "\\777",
    " (deleted)",
    "/sys/fs/cgroup",
    ":",
    "name=systemd",
    ",",
    "\0",
    "a/b",
    "//",
];

fn run(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.split("\n%\n");
    let mut part = || parts.next().unwrap_or_default();
    let (mounts, own, path) = (part(), part(), part());
    let found = Hierarchies::parse(mounts, own);
    assert_eq!(found, Hierarchies::parse(mounts, own));
    for hierarchy in found.v1.iter().chain(&found.v2) {
        let up = hierarchy.own.split('/').any(|part| part == "..");
        assert!(hierarchy.own.starts_with('/') && !up, "{hierarchy:?}");
    }
    let plan = match decide_groups(
        &found,
        Manager::Cgroupfs,
        "box",
        Some(path).filter(|path| !path.is_empty()),
        None,
    ) {
        Ok(plan) => plan,
        Err(error) => {
            holds::one_line(&error.to_string());
            return false;
        }
    };
    plan.warnings.iter().for_each(|(at, words)| holds::one_line(&format!("{at} {words}")));
    let record = &plan.record;
    assert_eq!(record.groups.is_empty(), record.version == Version::None);
    for group in &record.groups {
        let parts = group.path.split('/').skip(1);
        let clean = group.path.starts_with('/') && parts.clone().all(|part| !["", ".", ".."].contains(&part));
        assert!(clean && group.path != "/" && !group.path.contains('\0'), "{group:?}");
    }
    record.version != Version::None
}

fn seeds() -> Vec<Vec<u8>> {
    let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    let own = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/u\n";
    let unified = "47 46 0:38 /docker/x /sys/fs/cgroup rw - cgroup2 none rw\n";
    [
        format!("{hybrid}\n%\n{own}\n%\n/a/b"),
        format!("{hybrid}\n%\n{own}\n%\nrelative/../x"),
        format!("{unified}\n%\n0::/docker/x/y (deleted)\n\n%\n"),
        "1 2 0:3 / /a\\040b\\134 rw - cgroup2 none rw\n\n%\n0::/\n\n%\n../../x".to_owned(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect()
}
