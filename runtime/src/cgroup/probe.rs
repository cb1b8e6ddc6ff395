// SPDX-License-Identifier: Apache-2.0
//! What the host has: which cgroup hierarchies are mounted where, and where this process is in them.
//!
//! Facts only, plain data. The driver's choice and every path are made from them in `decide`. [`Hierarchies::parse`]
//! is pure; [`Hierarchies::probe`] is on the way of every `create`, so on a plain v2 host it does not read the
//! mount table at all.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use rustix::fs::{self, CWD};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::procfs;

/// Where every distribution mounts its cgroups.
const STANDARD_MOUNT: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// Inode number of the root of a cgroup2 hierarchy: kernfs numbers from 1. Any other number at a mount point is a
/// subtree that was bound or that a cgroup namespace shows.
const ROOT_INODE: u64 = 1;

/// Which interface limits are written through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// No cgroups are mounted, or they are not to be used.
    #[default]
    None,
    /// Controllers on v1 hierarchies; also the hybrid layout, whose v2 mount has none of the main controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchy {
    /// Mount point, absolute.
    pub mount: String,
    /// This process's group below the mount point, with a leading slash.
    pub own: String,
    /// v1: its controllers as /proc/self/cgroup lists them (`cpu`, `cpuacct`, `name=systemd`); v2: empty.
    pub controllers: Vec<String>,
}

/// The mounted hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// v1 hierarchies, in the order of the mount table.
    pub v1: Vec<Hierarchy>,
    /// The unified hierarchy, if mounted.
    pub v2: Option<Hierarchy>,
    /// This process is not the host's root but this user: systemd's user manager is his, the system's is not.
    pub user: Option<u32>,
}

impl Hierarchies {
    /// None looked at: only whose they would be.
    #[must_use]
    pub(crate) fn unseen() -> Self {
        Hierarchies { user: user(), ..Hierarchies::default() }
    }

    /// Looks at the host. No cgroups at all is not an error.
    ///
    /// # Errors
    /// `Kind::Os` when /proc cannot be read.
    pub fn probe() -> Result<Self> {
        let unified = fs::statfs(STANDARD_MOUNT).is_ok_and(|s| u64::try_from(s.f_type) == Ok(CGROUP2_MAGIC));
        let cgroup = procfs::read("/proc/self/cgroup")?;
        if unified {
            let own = unified_own(&cgroup);
            // With the whole hierarchy mounted (or inside a cgroup namespace's root) the mount table adds nothing.
            if own == "/" || fs::stat(STANDARD_MOUNT).is_ok_and(|s| s.st_ino == ROOT_INODE) {
                let v2 =
                    Hierarchy { mount: STANDARD_MOUNT.into(), own: below("/", own), controllers: Vec::new() };
                return Ok(Hierarchies { v1: Vec::new(), v2: Some(v2), user: user() });
            }
        }
        let mut found = Self::parse(&procfs::read("/proc/self/mountinfo")?, &cgroup);
        if unified {
            // As every runtime does: a stray v1 mount elsewhere does not make a v2 host a v1 host.
            found.v1.clear();
        }
        found.user = user();
        Ok(found)
    }

    /// Reads the texts of /proc/self/mountinfo and /proc/self/cgroup. Pure.
    #[must_use]
    pub fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut found = Hierarchies::default();
        let unified = unified_own(cgroup);
        // A host may have thousands of mounts, of few hierarchies: each is looked up once.
        let mut known = BTreeMap::new();
        for mount in procfs::mounts(mountinfo).filter(|mount| ["cgroup", "cgroup2"].contains(&mount.fstype)) {
            if mount.fstype == "cgroup2" {
                let own = below(&mount.root(), unified);
                let hierarchy = Hierarchy { mount: mount.point(), own, controllers: Vec::new() };
                // The first mount wins, but the usual place beats any other.
                let better = found
                    .v2
                    .as_ref()
                    .is_none_or(|v2| !is_standard(&v2.mount) && is_standard(&hierarchy.mount));
                if better {
                    found.v2 = Some(hierarchy);
                }
                continue;
            }
            let hierarchy = known.entry(mount.options).or_insert_with(|| hierarchy_of(mount.options, cgroup));
            let Some((controllers, own)) = hierarchy else { continue };
            let own = below(&mount.root(), own);
            let hierarchy = Hierarchy { mount: mount.point(), own, controllers: controllers.clone() };
            match found.v1.iter_mut().find(|h| h.controllers == hierarchy.controllers) {
                None => found.v1.push(hierarchy),
                Some(h) if !is_standard(&h.mount) && is_standard(&hierarchy.mount) => *h = hierarchy,
                Some(_) => {}
            }
        }
        found
    }

    /// The directories in which this process may make a group and move a process of its own into it, of those where a
    /// group goes by default: beside our own group on v2 or below it, below it on v1. Besides the directory itself, v2
    /// wants the cgroup.procs of the common ancestor to be writable.
    #[must_use]
    pub(crate) fn delegated(&self) -> Vec<String> {
        let writable = |path: &str| {
            let access = fs::Access::WRITE_OK;
            fs::accessat(CWD, path, access, fs::AtFlags::EACCESS).is_ok()
        };
        let own = |h: &Hierarchy| format!("{}{}", h.mount.trim_end_matches('/'), h.own.trim_end_matches('/'));
        let mut found: Vec<String> = self.v1.iter().map(own).filter(|path| writable(path)).collect();
        if let Some(h) = &self.v2 {
            let own = own(h);
            let beside = own.rsplit_once('/').filter(|_| h.own != "/").map(|(above, _)| above.to_owned());
            let delegated = |path: &String| writable(path) && writable(&format!("{path}/cgroup.procs"));
            found.extend(beside.into_iter().chain([own]).filter(delegated));
        }
        found
    }

    /// Which interface is used for limits.
    #[must_use]
    pub fn version(&self) -> Version {
        let controllers = self.v1.iter().any(|h| h.controllers.iter().any(|c| !c.starts_with("name=")));
        match (&self.v2, controllers) {
            (_, true) => Version::V1,
            (Some(_), false) => Version::V2,
            (None, false) => Version::None,
        }
    }

    /// The v1 hierarchy of `controller`.
    #[must_use]
    pub fn hierarchy_of(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|h| h.controllers.iter().any(|c| c == controller))
    }
}

/// Who asks, if not the host's root: the user outside of the user namespace that this process is in.
fn user() -> Option<u32> {
    let uid = rustix::process::geteuid();
    if !crate::sys::ns::in_user_namespace() {
        return (!uid.is_root()).then(|| uid.as_raw());
    }
    Some(outside(&procfs::read("/proc/self/uid_map").unwrap_or_default(), uid.as_raw()))
}

/// user_namespaces(7): each line is `INSIDE OUTSIDE COUNT`.
fn outside(map: &str, uid: u32) -> u32 {
    let lines = map.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    });
    let of = |(inside, outside, count): (u32, u32, u32)| {
        let distance = uid.checked_sub(inside).filter(|distance| *distance < count)?;
        outside.checked_add(distance)
    };
    lines.filter_map(of).next().unwrap_or(uid)
}

fn is_standard(mount: &str) -> bool {
    mount.strip_prefix(STANDARD_MOUNT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The v1 hierarchy that a superblock with these options is: its controllers and this process's group.
fn hierarchy_of<'a>(options: &str, cgroup: &'a str) -> Option<(Vec<String>, &'a str)> {
    procfs::groups(cgroup).find_map(|(controllers, own)| {
        let all =
            !controllers.is_empty() && controllers.split(',').all(|c| options.split(',').any(|o| o == c));
        all.then(|| (controllers.split(',').map(str::to_owned).collect(), own))
    })
}

fn unified_own(cgroup: &str) -> &str {
    cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/")
}

/// The group `own` seen from a mount whose root is the group `root`. A group outside of it (a mount of somebody
/// else's subtree, a process outside its cgroup namespace) is nowhere there, so the mount's root stands for it.
fn below(root: &str, own: &str) -> String {
    let own = own.strip_suffix(" (deleted)").unwrap_or(own);
    let inside = if root == "/" { Some(own) } else { own.strip_prefix(root) };
    match inside {
        Some(path) if path.starts_with('/') && path.split('/').skip(1).all(is_name) => path.to_owned(),
        _ => "/".to_owned(),
    }
}

/// What a directory can be called.
fn is_name(part: &str) -> bool {
    !matches!(part, "" | "." | "..") && !part.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
52 51 0:32 / /tree/sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
";
    const HYBRID_OWN: &str = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/u\n";

    #[test]
    fn hybrid_is_v1() {
        let h = Hierarchies::parse(HYBRID, HYBRID_OWN);
        assert_eq!(h.version(), Version::V1);
        assert_eq!(h.v1.len(), 3);
        assert_eq!(h.hierarchy_of("cpuacct").unwrap().mount, "/sys/fs/cgroup/cpu,cpuacct");
        let memory = h.hierarchy_of("memory").unwrap();
        assert_eq!((memory.mount.as_str(), memory.own.as_str()), ("/sys/fs/cgroup/memory", "/a/b"));
        assert_eq!(h.hierarchy_of("name=systemd").unwrap().mount, "/sys/fs/cgroup/systemd");
        assert_eq!(h.v2.unwrap().own, "/u");
    }

    #[test]
    fn mounts_of_a_subtree_are_seen_from_their_root() {
        let line = "47 46 0:38 /docker/x /sys/fs/cgroup rw - cgroup2 none rw\n";
        for (own, seen) in [
            ("0::/docker/x\n", "/"),
            ("0::/docker/x/y\n", "/y"),
            ("0::/docker/xy\n", "/"),
            ("0::/other\n", "/"),
            ("0::/../z\n", "/"),
            // Found by the fuzzer: no kernel says so.
            ("0::/docker/x/./y\n", "/"),
            ("0::/docker/x//y\n", "/"),
        ] {
            let h = Hierarchies::parse(line, own);
            assert_eq!(h.version(), Version::V2);
            let own = h.v2.unwrap().own;
            assert_eq!(if own.is_empty() { "/" } else { &own }, seen);
        }
    }

    #[test]
    fn nothing_mounted_is_a_fact_too() {
        let h = Hierarchies::parse("31 23 0:28 / / rw - ext4 /dev/x rw\n", "0::/\n");
        assert_eq!((h.version(), h.clone()), (Version::None, Hierarchies::default()));
    }

    #[test]
    fn spaces_in_mount_points() {
        let h = Hierarchies::parse("1 2 0:3 / /a\\040b\\134 rw - cgroup2 none rw\n", "0::/\n");
        assert_eq!(h.v2.unwrap().mount, "/a b\\");
    }

    #[test]
    fn the_user_outside_of_a_user_namespace() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        for (inside, out) in [(0, 1000), (1, 100_000), (65_536, 165_535), (65_537, 65_537)] {
            assert_eq!(outside(map, inside), out);
        }
        assert_eq!(outside("x y z\n0 4294967295 5\n", 3), 3);
    }

    #[test]
    fn this_host_can_be_probed() {
        Hierarchies::probe().unwrap();
    }
}
