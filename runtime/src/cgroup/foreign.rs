// SPDX-License-Identifier: Apache-2.0
//! Groups that are not ours to make: those that another runtime made for its container, and a group for the shim itself.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::dir::CgroupDir;
use super::group::Group;
use super::probe::{Hierarchies, Hierarchy, Version};
use super::record::{GroupDir, Record};
use crate::error::Result;
use crate::procfs;

impl Group {
    /// The groups that process `pid` is in: for figures, signals and freezing of a container that another runtime made.
    ///
    /// # Errors
    /// `Kind::Os` when /proc cannot be read.
    pub fn of_process(pid: i32) -> Result<Group> {
        let groups = procfs::read(&format!("/proc/{pid}/cgroup"))?;
        let found = Hierarchies::parse(&procfs::read("/proc/self/mountinfo")?, &groups);
        let version = found.version();
        // They are known by what they are now: a group that takes the name of one of them later is none of them.
        let of = |hierarchy: &Hierarchy| {
            let (mount, path) = (hierarchy.mount.clone(), hierarchy.own.clone());
            let mut group =
                GroupDir { mount, path, controllers: hierarchy.controllers.clone(), ..GroupDir::default() };
            group.inode = CgroupDir::open(&group.full())?.map(|dir| dir.inode()).transpose()?;
            Ok(group)
        };
        let groups: Result<Vec<GroupDir>> = match version {
            Version::V1 => found.v1.iter().map(of).collect(),
            Version::V2 => found.v2.iter().map(of).collect(),
            Version::None => Ok(Vec::new()),
        };
        let groups = groups?;
        Ok(Group::open(Record { version, id: String::new(), groups, ..Record::default() }))
    }
}

impl Hierarchies {
    /// The directories of the group `path` in every hierarchy.
    #[must_use]
    pub fn directories(&self, path: &str) -> Vec<PathBuf> {
        let all: Vec<&Hierarchy> = match self.version() {
            Version::V1 => self.v1.iter().collect(),
            _ => self.v2.iter().collect(),
        };
        all.iter()
            .map(|hierarchy| PathBuf::from(&hierarchy.mount).join(path.trim_start_matches('/')))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_groups_are_found_by_our_pid() {
        let found = Group::of_process(std::process::id() as i32).unwrap();
        let own = Hierarchies::probe().unwrap();
        assert_eq!(found.record().version, own.version());
    }
}
