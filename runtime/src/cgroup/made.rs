// SPDX-License-Identifier: Apache-2.0
//! Making the directories of groups, so that a failure on the way takes them away again.

#![forbid(unsafe_code)]

use rustix::fs::{self, AtFlags, CWD, Mode};
use rustix::io::Errno;

use super::record::GroupDir;
use crate::error::{Context, Result};

/// The mode of a group, whatever the caller's umask is.
pub(super) const MODE: Mode = Mode::from_raw_mode(0o755);

/// Directories made so far, to be removed again should the create fail. Those above the groups stay after a create that
/// did not: `delete` leaves them, as runc does, since somebody may have given them limits by then.
#[derive(Debug, Default)]
pub struct Made(Vec<String>);

impl Made {
    /// Makes one group with what is missing above it. Whether the group itself is new.
    pub(super) fn group(&mut self, group: &GroupDir) -> Result<bool> {
        let full = group.full();
        let start = full.len() - group.path.len() + 1;
        let mut tries = 0;
        loop {
            match self.dir(&full) {
                // Again, because another create that failed may take a common parent away between these two steps.
                Err(error) if error.errno() == Some(libc::ENOENT) && tries < 3 => tries += 1,
                other => return other,
            }
            for (slash, _) in full[start..].match_indices('/') {
                self.dir(&full[..start + slash])?;
            }
        }
    }

    fn dir(&mut self, path: &str) -> Result<bool> {
        match fs::mkdirat(CWD, path, MODE) {
            Ok(()) => {
                self.0.push(path.to_owned());
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno).call(|| format!("mkdir({path})")),
        }
    }

    /// The groups are claimed: who has them takes care of them from now on.
    pub(super) fn hand_over(&mut self, groups: &[GroupDir]) {
        self.0.retain(|path| groups.iter().all(|group| group.full() != *path));
    }

    /// Removes them, the last one first, but for one that somebody put something into.
    ///
    /// # Errors
    /// The first that rmdir(2) gives for another reason; the rest is removed.
    pub fn undo(&self) -> Result<()> {
        let mut undone = Ok(());
        for path in self.0.iter().rev() {
            let removed = match fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
                Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => Ok(()),
                other => other.call(|| format!("rmdir({path})")),
            };
            undone = undone.and(removed);
        }
        undone
    }
}
