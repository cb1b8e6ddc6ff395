// SPDX-License-Identifier: Apache-2.0
//! Making the directories of groups, so that a failure on the way takes them away again.

#![forbid(unsafe_code)]

use rustix::fs::{self, AtFlags, CWD, Mode};
use rustix::io::Errno;

use super::record::GroupDir;
use crate::error::{Context, Result};

/// Directories made so far; removed again unless kept.
#[derive(Default)]
pub(super) struct Made(Vec<String>);

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
        match fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                self.0.push(path.to_owned());
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno).call(|| format!("mkdir({path})")),
        }
    }

    /// All of it stays; tells what it is.
    pub(super) fn keep(mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // Somebody may have put a group of theirs below one of ours by now: then it stays.
            let _ = fs::unlinkat(CWD, path, AtFlags::REMOVEDIR);
        }
    }
}
