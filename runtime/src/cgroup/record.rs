// SPDX-License-Identifier: Apache-2.0
//! What State keeps of a container's groups: enough to find, kill and remove them after a crash.
//!
//! Plain data. It is persisted twice: by `create` before any group exists (no inodes), and again with what
//! [`Group::record`](super::Group::record) says once they do.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::probe::{Hierarchies, Hierarchy, Version};

/// The groups of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Which interface they are driven through; `None`: the container has no group of its own.
    pub version: Version,
    /// The container's id.
    pub id: String,
    /// What is written on the groups, and on no others: drawn by lot at create. Two containers may have the same id, in
    /// two state roots.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mark: String,
    /// The boot in which the inode numbers below hold (/proc/sys/kernel/random/boot_id).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// v2: one group. v1: one for each hierarchy, the unified one last where it is mounted, too.
    pub groups: Vec<GroupDir>,
    /// The systemd unit that they belong to, if systemd made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitRecord>,
}

/// A unit of systemd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitRecord {
    pub name: String,
    /// It is the user's manager that has it, not the system's.
    #[serde(default)]
    pub user: bool,
    /// A failed one stays until somebody resets it (an annotation asked for that).
    #[serde(default)]
    pub keeps_failed: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupDir {
    /// Mount point of its hierarchy.
    pub mount: String,
    /// Path below the mount point, with a leading slash; never the root.
    pub path: String,
    /// v1: the hierarchy's controllers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
    /// The directory's inode number, once it is known. A group of another number was made by somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// It was there before this container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
}

impl GroupDir {
    /// The directory's absolute path.
    #[must_use]
    pub fn full(&self) -> String {
        format!("{}{}", self.mount.trim_end_matches('/'), self.path)
    }

    /// Whether it is on the unified hierarchy.
    pub(super) fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// One v1 hierarchy as a cgroup mount inside a container shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Name of its directory in the container's /sys/fs/cgroup (`cpu,cpuacct`, `systemd`).
    pub dir: String,
    /// Its controllers; also the mount data of a fresh mount (`cpu,cpuacct`, `name=systemd`).
    pub controllers: Vec<String>,
    /// The group on the host, to be bound there.
    pub path: String,
    /// Symbolic links beside the directory, for co-mounted controllers (`cpu`, `cpuacct`).
    pub links: Vec<String>,
}

impl Record {
    /// What is wrong with a record from a file: nothing that `decide` made has any of this.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let counted = match self.version {
            Version::None => self.groups.is_empty(),
            Version::V1 => !self.groups.is_empty(),
            Version::V2 => self.groups.len() == 1,
        };
        if !counted {
            return Some("not the number of groups that its version has");
        }
        let plain = |path: &str| {
            path.starts_with('/')
                && !path.contains('\0')
                && path.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part))
        };
        let whole = |group: &GroupDir| plain(&group.mount) && plain(&group.path);
        (!self.groups.iter().all(whole))
            .then_some("a group needs a mount point and a path below it, both absolute")
    }

    /// The container's group on the unified hierarchy, absolute.
    #[must_use]
    pub fn v2_path(&self) -> Option<String> {
        (self.version == Version::V2).then(|| self.groups.first().map(GroupDir::full)).flatten()
    }

    /// The container's groups as a v1 cgroup mount shows them.
    #[must_use]
    pub fn v1_views(&self) -> Vec<View> {
        let v1 = self.groups.iter().filter(|group| !group.is_unified());
        v1.map(|g| view(&g.mount, &g.controllers, g.full())).collect()
    }

    /// v1: which of the groups is that of `controller`; v2: the only one.
    pub(super) fn index_of(&self, controller: &str) -> Option<usize> {
        match self.version {
            Version::V1 => self.groups.iter().position(|g| g.controllers.iter().any(|c| c == controller)),
            _ => self.groups.first().map(|_| 0),
        }
    }
}

impl Hierarchies {
    /// This process's own groups as a v1 cgroup mount shows them: for a container without groups of its own.
    #[must_use]
    pub(crate) fn v1_views(&self) -> Vec<View> {
        let full = |h: &Hierarchy| format!("{}{}", h.mount, h.own.trim_end_matches('/'));
        self.v1.iter().map(|h| view(&h.mount, &h.controllers, full(h))).collect()
    }

    /// This process's own group on the unified hierarchy, absolute.
    #[must_use]
    pub(crate) fn v2_path(&self) -> Option<String> {
        self.v2.as_ref().map(|h| format!("{}{}", h.mount, h.own.trim_end_matches('/')))
    }
}

fn view(mount: &str, controllers: &[String], path: String) -> View {
    let dir = mount.rsplit('/').next().unwrap_or_default().to_owned();
    let together = controllers.len() > 1;
    let links = controllers.iter().filter(|c| together && **c != dir).cloned().collect();
    View { dir, controllers: controllers.to_vec(), path, links }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(mount: &str, controllers: &[&str]) -> GroupDir {
        let controllers = controllers.iter().map(|&c| c.to_owned()).collect();
        GroupDir { mount: mount.into(), path: "/a".into(), controllers, ..GroupDir::default() }
    }

    #[test]
    fn views_have_links_for_mounts_of_several_controllers() {
        let groups = vec![
            group("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"]),
            group("/sys/fs/cgroup/systemd", &["name=systemd"]),
        ];
        let record = Record { version: Version::V1, id: "x".into(), groups, ..Record::default() };
        let views = record.v1_views();
        assert_eq!(
            (views[0].dir.as_str(), views[0].links.as_slice()),
            ("cpu,cpuacct", &["cpu".to_owned(), "cpuacct".into()][..])
        );
        assert_eq!((views[1].dir.as_str(), views[1].links.len()), ("systemd", 0));
        assert_eq!(views[1].path, "/sys/fs/cgroup/systemd/a");
        assert_eq!((record.index_of("cpuacct"), record.index_of("memory")), (Some(0), None));
    }

    #[test]
    fn survives_the_state_file() {
        let mut record = Record {
            version: Version::V2,
            id: "x".into(),
            groups: vec![group("/sys/fs/cgroup", &[])],
            ..Record::default()
        };
        for inode in [None, Some(7)] {
            record.groups[0].inode = inode;
            record.unit =
                inode.map(|_| UnitRecord { name: "a.scope".into(), user: true, keeps_failed: false });
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
        assert_eq!(record.v2_path().unwrap(), "/sys/fs/cgroup/a");
    }
}
