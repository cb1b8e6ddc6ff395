// SPDX-License-Identifier: Apache-2.0
//! A group's directory that is known to be the container's: the only kind that is listed, signalled, frozen, emptied or
//! removed.
//!
//! There are two ways to one: [`Own::claim`], by whoever makes the group (or takes one that was there and is nobody's),
//! and [`Own::find`], by the record that the maker left. A plain [`CgroupDir`] can be read and written, no more: a name says
//! nothing of whose a group is.

#![forbid(unsafe_code)]

use std::ops::Deref;

use rustix::fs::{self, AtFlags, CWD, Mode};
use rustix::io::Errno;

use super::dir::{self, CgroupDir};
use super::record::{GroupDir, Record};
use crate::error::{Error, Kind, Result};
use crate::procfs;

/// An open group of the container's.
#[derive(Debug)]
pub(super) struct Own(CgroupDir);

/// What a claim left behind.
#[derive(Debug)]
pub(super) struct Claim {
    /// The group.
    pub own: Own,
    /// Its inode number, for the record.
    pub inode: u64,
    /// Its permission bits.
    pub mode: Mode,
    /// It bears our mark; else the record is all that tells whose it is.
    pub marked: bool,
}

impl Own {
    /// Takes a group that was just made, or found without anybody in it.
    ///
    /// # Errors
    /// `Kind::Invalid` when another container has it.
    pub(super) fn claim(dir: CgroupDir, record: &Record) -> Result<Claim> {
        let marked = match dir.mark(&record.mark)? {
            Some(marked) => marked,
            None => {
                let text = "container's cgroup belongs to another container, which was not deleted";
                return Err(Error::new(Kind::Invalid, text).at(dir.path().to_owned()));
            }
        };
        let (inode, mode) = dir.inode_and_mode()?;
        Ok(Claim { own: Own(dir), inode, mode, marked })
    }

    /// The group of a record, if it is there and is the one that the record means: it bears the mark, or it has the
    /// inode, in the boot in which that was recorded.
    ///
    /// # Errors
    /// `Kind::Os` when that cannot be found out.
    pub(super) fn find(record: &Record, group: &GroupDir) -> Result<Option<Own>> {
        let Some(dir) = CgroupDir::open(&group.full())? else { return Ok(None) };
        let ours = dir.bears(&record.mark)? || is_recorded(record, group, &dir)?;
        Ok(ours.then_some(Own(dir)))
    }

    /// Whether the name still leads to it.
    ///
    /// # Errors
    /// As [`Own::find`].
    pub(super) fn is_there(&self) -> Result<bool> {
        match CgroupDir::open(self.path())? {
            Some(found) => Ok(found.inode()? == self.inode()?),
            None => Ok(false),
        }
    }

    /// Removes it; whether it is gone. It is not while there is anything in it.
    ///
    /// By its name, since rmdir(2) knows nothing else: if the group has been removed by somebody and another one made in its
    /// place a moment ago, that one goes, provided that it is empty and nothing runs in it.
    ///
    /// # Errors
    /// As rmdir(2).
    pub(super) fn remove(&self) -> Result<bool> {
        let path = self.path();
        match fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::BUSY) => Ok(false),
            Err(errno) => Err(Error::os(format!("rmdir({path})"), errno)),
        }
    }

    /// The processes of it and of every group below, ascending.
    pub(super) fn pids(&self) -> Result<Vec<i32>> {
        self.0.processes()
    }

    /// Sends `signal` to every process of it and of every group below; answers which ones.
    pub(super) fn signal_all(&self, signal: i32) -> Result<Vec<i32>> {
        let mut signalled = Vec::new();
        self.0.walk(|dir| {
            signalled.extend(dir::signal_members(dir, signal)?);
            Ok(())
        })?;
        signalled.sort_unstable();
        signalled.dedup();
        Ok(signalled)
    }

    /// Writes `value` to `file` here and in every group below; a group that vanishes meanwhile is fine.
    pub(super) fn write_all_below(&self, file: &str, value: &str) -> Result<()> {
        self.0.walk(|dir| dir::write_in(dir, file, value))
    }

    /// Removes every group below this one, leaves first. A group with processes in it stops the walk: EBUSY.
    pub(super) fn remove_below(&self) -> Result<()> {
        self.0.remove_children()
    }
}

impl Deref for Own {
    type Target = CgroupDir;

    fn deref(&self) -> &CgroupDir {
        &self.0
    }
}

/// Inodes of a hierarchy are never used twice, but they begin anew with every boot, and a state root may outlive one.
fn is_recorded(record: &Record, group: &GroupDir, dir: &CgroupDir) -> Result<bool> {
    match group.inode {
        Some(inode) if inode == dir.inode()? => {
            Ok(record.boot.is_empty() || record.boot == procfs::boot_id()?)
        }
        _ => Ok(false),
    }
}
