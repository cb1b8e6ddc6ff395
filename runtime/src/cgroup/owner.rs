// SPDX-License-Identifier: Apache-2.0
//! Whose the container's group is (config-linux.md, "Cgroup ownership"; cgroups(7), "Cgroups delegation: delegation of a
//! hierarchy to a less privileged user"): the directory and the files that the kernel names for it, nothing else.

#![forbid(unsafe_code)]

use rustix::io::Errno;

use super::group::Group;
use super::probe::Version;
use crate::error::{Error, Result};

/// The kernel's list (Linux 4.15).
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
/// What the specification puts in its place.
const WITHOUT_LIST: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

impl Group {
    /// Gives the group on the unified hierarchy to the host's user `uid`, to make groups below it.
    ///
    /// # Errors
    /// `Kind::Os`; a file of the list that this group does not have is none.
    pub(crate) fn give_to(&self, uid: u32) -> Result<()> {
        if self.record().version != Version::V2 || self.record().groups.is_empty() {
            return Ok(());
        }
        let dir = self.needed(0)?;
        let failed = |file: &str, errno| Error::os(format!("fchownat({}/{file}, {uid})", dir.path()), errno);
        dir.give_to(".", uid).map_err(|errno| failed(".", errno))?;
        let list = std::fs::read_to_string(DELEGATE).unwrap_or_else(|_| WITHOUT_LIST.to_owned());
        // Names of files and nothing else.
        for file in list.split_whitespace().filter(|file| !file.contains('/')) {
            match dir.give_to(file, uid) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(file, errno)),
            }
        }
        Ok(())
    }
}
