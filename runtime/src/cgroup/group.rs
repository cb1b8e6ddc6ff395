// SPDX-License-Identifier: Apache-2.0
//! A container's groups, found again from a [`Record`]: freezing, killing, signalling, listing and removing what is in them.
//!
//! They are made in `group/make.rs`, and written in `group/apply.rs`; `stats`, `oom` and `update` read and change them. What
//! is the same on v1 and v2 stands here; `v1` and `v2` have the rest. All of it goes through [`Group::dir`], which gives
//! groups that are known to be the container's ([`Own`]) and no others: another's that has taken the name is left alone.
//! A group that has vanished is no error for whoever wants it gone.

#![forbid(unsafe_code)]

pub(super) mod apply;
mod make;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, CWD};
use rustix::io::Errno;

use super::dir::{CgroupDir, END_WAIT, gone, read_in};
use super::own::Own;
use super::placement::{Placement, SubGroups, UnitGroup, join};
use super::probe::Version;
use super::record::{self, GroupDir, Record};
use super::{systemd, v1, v2};
use crate::error::{Error, Kind, Result, WithStep};

/// A container's groups.
#[derive(Debug)]
pub struct Group {
    record: Record,
    /// Opened when first needed, in the order of `record.groups`.
    dirs: Vec<OnceLock<Own>>,
    /// By group: made by this very object, so that everything in it is the kernel's default.
    fresh: Vec<bool>,
    /// There is a holder in them, which needs room beside the first process.
    held: bool,
}

impl Group {
    /// The groups of `record`. Nothing is opened before it is needed.
    #[must_use]
    pub fn open(record: Record) -> Group {
        let (dirs, fresh) = record.groups.iter().map(|_| (OnceLock::new(), false)).unzip();
        Group { record, dirs, fresh, held: false }
    }

    /// What State keeps; after [`Group::create`] with the inode numbers.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Moves a process into the groups.
    ///
    /// # Errors
    /// `Kind::Os` naming the cgroup.procs that refused.
    pub fn place(&self, pid: i32) -> Result<()> {
        (0..self.dirs.len()).try_for_each(|index| join(self.needed(index)?, pid))
    }

    /// Where a further process of the container goes: into its groups, or below them as `exec --cgroup` says.
    ///
    /// # Errors
    /// `Kind::Invalid` for a path that leads out or a controller that is not there, `Kind::Os` (ENOENT) for a group
    /// that does not exist.
    pub fn exec_placement(&self, subs: &[&str]) -> Result<Placement> {
        let subs = SubGroups::parse(subs)?;
        if let Some(controller) = subs.unknown(&self.record.groups) {
            return Err(Error::new(Kind::Invalid, format!("unknown controller {controller} in --cgroup")));
        }
        self.placement(|dir, record| {
            let below = subs.below(&record.controllers);
            if below.trim_matches('/').is_empty() {
                return Ok(dir.share());
            }
            match dir.open_below(below) {
                // Beside v1, a group that nobody made there is not missed.
                Err(error)
                    if error.errno() == Some(libc::ENOENT)
                        && self.record.version == Version::V1
                        && record.is_unified() =>
                {
                    Ok(dir.share())
                }
                // runc's words: its clients look for `adding pid … to cgroups … : no such file`.
                other => other.step(|| "error adding pid of the new process to cgroups"),
            }
        })
    }

    /// Freezes or thaws every process, and waits until they are.
    ///
    /// # Errors
    /// A freeze that does not come about in two seconds is taken back; `Kind::Unsupported` without a freezer.
    pub fn freeze(&self, on: bool) -> Result<()> {
        match self.record.version {
            Version::None => {
                Err(Error::new(Kind::Unsupported, "a container without cgroups cannot be frozen"))
            }
            Version::V2 => v2::freeze(self.needed(0)?, on),
            Version::V1 => match self.record.index_of("freezer") {
                Some(index) => v1::freeze(self.needed(index)?, on),
                None => Err(Error::new(Kind::Unsupported, "the freezer controller is not mounted")),
            },
        }
    }

    /// The absolute path of the group by which [`Group::freeze`] freezes, if there is one that is known to be the container's.
    ///
    /// # Errors
    /// `Kind::Os` when that cannot be found out.
    pub fn freezer(&self) -> Result<Option<String>> {
        let index = match self.record.version {
            Version::None => None,
            Version::V2 => Some(0),
            Version::V1 => self.record.index_of("freezer"),
        };
        let dir = index.map(|index| self.dir(index)).transpose()?.flatten();
        Ok(dir.map(|dir| dir.path().to_owned()))
    }

    /// Whether the container was frozen (not: whether a group above it was).
    ///
    /// # Errors
    /// `Kind::Os` when the file cannot be read; a vanished group is not frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        let (index, file) = match self.record.version {
            Version::V2 => (Some(0), "cgroup.freeze"),
            _ => (self.record.index_of("freezer"), "freezer.self_freezing"),
        };
        let Some(index) = index.filter(|index| *index < self.dirs.len()) else { return Ok(false) };
        let frozen = |read: Result<String>| match read {
            Err(error) if gone(&error) => Ok(false),
            other => Ok(other?.trim() == "1"),
        };
        // What is not frozen is not, whosesoever it is by now: it is found out only of one that says it is.
        if self.dirs[index].get().is_none() && !frozen(read_in(&self.record.groups[index].full(), file))? {
            return Ok(false);
        }
        match self.dir(index)? {
            Some(dir) => frozen(dir.read(file)),
            None => Ok(false),
        }
    }

    /// SIGKILL for every process of the groups and those below, however fast they fork, frozen or not. It does not wait
    /// for their end.
    ///
    /// # Errors
    /// `Kind::Os` (ETIMEDOUT) if new processes still appear after two seconds (only without `cgroup.kill`).
    pub fn kill(&self) -> Result<()> {
        let index = match self.record.version {
            Version::None => return Ok(()),
            Version::V2 => 0,
            Version::V1 => self.record.index_of("freezer").unwrap_or(0),
        };
        match self.dir(index)? {
            Some(dir) => match self.kill_in(index, dir) {
                Err(error) if gone(&error) => Ok(()),
                other => other,
            },
            None => Ok(()),
        }
    }

    /// `signal` for every process of the groups and those below. One that is made meanwhile may miss it.
    ///
    /// # Errors
    /// `Kind::Os`; a vanished group has none.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let index = self.record.index_of("freezer").unwrap_or(0);
        if self.dirs.is_empty() {
            return Ok(());
        }
        match self.dir(index)? {
            Some(dir) => dir.signal_all(signal).map(drop),
            None => Ok(()),
        }
    }

    /// Whether there is a group that is known to be the container's, or was when it was first asked for.
    ///
    /// # Errors
    /// `Kind::Os` when that cannot be found out.
    pub(crate) fn is_known(&self) -> Result<bool> {
        let index = self.record.index_of("freezer").unwrap_or(0);
        Ok(!self.dirs.is_empty() && self.dir(index)?.is_some())
    }

    /// Lets killed processes die: on v1 a frozen one does not, on v2 it does.
    ///
    /// # Errors
    /// `Kind::Os` when it cannot be thawed.
    pub(crate) fn let_die(&self) -> Result<()> {
        if self.record.version != Version::V1 || !self.is_frozen()? {
            return Ok(());
        }
        match self.freeze(false) {
            // Deleted meanwhile, and so dead.
            Err(error) if gone(&error) => Ok(()),
            other => other,
        }
    }

    /// The processes of the groups and those below, ascending.
    ///
    /// # Errors
    /// `Kind::Os`; a vanished group has none.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let index = self.record.index_of("freezer").unwrap_or(0);
        if self.dirs.is_empty() {
            return Ok(Vec::new());
        }
        self.dir(index)?.map_or_else(|| Ok(Vec::new()), Own::pids)
    }

    /// Removes the groups and those below. Processes left in them are killed and waited for, two seconds at most.
    ///
    /// # Errors
    /// `Kind::Os` (EBUSY) while a process does not die; calling again later is fine.
    pub fn destroy(&self) -> Result<()> {
        self.destroy_but(|_| false)
    }

    fn destroy_but(&self, stays: impl Fn(&GroupDir) -> bool) -> Result<()> {
        if let Some(unit) = &self.record.unit {
            self.stop(unit)?;
        }
        // On v1 the freezer's group comes first: what is frozen in it dies in none of the others. And when it cannot be
        // emptied, the processes are in the others as well.
        let freezer = if self.record.version == Version::V1 { self.record.index_of("freezer") } else { None };
        let goes = |index: &usize| self.record.groups.get(*index).is_some_and(|group| !stays(group));
        if let Some(index) = freezer.filter(goes) {
            self.destroy_one(index)?;
        }
        let mut first = None;
        for index in (0..self.dirs.len()).filter(goes).filter(|index| Some(*index) != freezer) {
            if let Err(error) = self.destroy_one(index) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Ends the unit, if it is ours: its group is then gone, but for what systemd does not know of.
    fn stop(&self, unit: &record::UnitRecord) -> Result<()> {
        let index = self.record.index_of("name=systemd").unwrap_or(0);
        match self.dir(index)? {
            Some(dir) => {
                match self.empty(index, dir, Instant::now() + END_WAIT) {
                    Err(error) if gone(&error) || error.errno() == Some(libc::EBUSY) => {}
                    other => other?,
                }
                systemd::stop(unit)
            }
            // It ended by itself, as soon as it was empty.
            None if unit.keeps_failed => systemd::reset_failed(unit),
            None => Ok(()),
        }
    }

    /// Takes the groups back, as [`Group::destroy`], after a create that failed; but what was found stays, empty.
    ///
    /// # Errors
    /// As [`Group::destroy`].
    pub fn give_back(&self) -> Result<()> {
        for (index, group) in self.record.groups.iter().enumerate().filter(|(_, group)| group.found) {
            let Some(own) = self.dir(index)? else { continue };
            // A group that was killed once kills what is born into it (cgroup_post_fork; seen on Linux 6.18): the next one's
            // process, so it is left at that if there is nothing to kill.
            if own.processes()?.is_empty() {
                own.remove_below().and_then(|()| own.unmark())?;
                continue;
            }
            match self.empty(index, own, Instant::now() + END_WAIT) {
                Err(error) if !gone(&error) => return Err(error.at(group.full())),
                _ => own.unmark()?,
            }
        }
        self.destroy_but(|group| group.found)
    }

    fn destroy_one(&self, index: usize) -> Result<()> {
        let Some(dir) = self.dir(index)? else { return self.remove_unclaimed(index) };
        let path = dir.path();
        let deadline = Instant::now() + END_WAIT;
        let mut pause = Duration::from_millis(1);
        loop {
            if dir.remove()? {
                return Ok(());
            }
            // Asked before it is emptied: that may take as long, and then the group can go.
            if Instant::now() >= deadline {
                let left = dir.pids()?.len();
                let context = format!("container's cgroup is not empty: {left} process(es) found");
                return Err(Error::os(format!("rmdir({path})"), Errno::BUSY).at(context));
            }
            match self.empty(index, dir, deadline) {
                Ok(()) => {}
                Err(error) if gone(&error) => return Ok(()),
                Err(error) if error.errno() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
            // The group that was opened is gone; what has its name now is somebody else's.
            if !dir.is_there()? {
                return Ok(());
            }
            // v1 tells nobody when a group empties, and its last processes may be half gone; on v2 this is reached
            // only if somebody still puts things in.
            if self.record.version == Version::V1 {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        }
    }

    /// A create that died between making a directory and claiming it leaves it without a mark and without anything in it.
    fn remove_unclaimed(&self, index: usize) -> Result<()> {
        let group = &self.record.groups[index];
        if group.inode.is_some() || group.found {
            return Ok(());
        }
        let path = group.full();
        match CgroupDir::open(&path)? {
            Some(dir) if dir.is_unmarked()? => match fs::unlinkat(CWD, &path, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::BUSY) => Ok(()),
                Err(errno) => Err(Error::os(format!("rmdir({path})"), errno)),
            },
            _ => Ok(()),
        }
    }

    fn empty(&self, index: usize, dir: &Own, deadline: Instant) -> Result<()> {
        self.kill_in(index, dir)?;
        if self.record.groups[index].is_unified() {
            v2::wait(dir, "populated", false, deadline)?;
        }
        dir.remove_below()
    }

    fn kill_in(&self, index: usize, dir: &Own) -> Result<()> {
        match self.record.groups[index].is_unified() {
            true => v2::kill(dir),
            false => v1::kill(dir, self.record.index_of("freezer") == Some(index)),
        }
    }

    /// A group that is known to be the container's; `None` if it has vanished, or what has its name is not.
    fn dir(&self, index: usize) -> Result<Option<&Own>> {
        if let Some(own) = self.dirs[index].get() {
            return Ok(Some(own));
        }
        let found = Own::find(&self.record, &self.record.groups[index])?;
        Ok(found.map(|own| self.dirs[index].get_or_init(|| own)))
    }

    /// The open directory of a group that must be there.
    pub(super) fn needed(&self, index: usize) -> Result<&Own> {
        self.dir(index)?.ok_or_else(|| {
            let call = format!("openat2({})", self.record.groups[index].full());
            Error::os(call, Errno::NOENT).at("the container's control group is gone")
        })
    }

    /// Whether the group of `controller` was made by this object, and its directory.
    pub(super) fn group_of(&self, controller: &str) -> Result<Option<(bool, &Own)>> {
        match self.record.index_of(controller) {
            Some(index) => Ok(Some((self.fresh[index], self.needed(index)?))),
            None => Ok(None),
        }
    }

    fn placement(&self, each: impl Fn(&Own, &GroupDir) -> Result<CgroupDir>) -> Result<Placement> {
        let mut placement = Placement::default();
        for (index, record) in self.record.groups.iter().enumerate() {
            let dir = each(self.needed(index)?, record)?;
            if !record.is_unified() {
                placement.v1.push(dir);
                continue;
            }
            if let Some(unit) = self.record.unit.clone() {
                let below = dir.path().strip_prefix(&record.full()).unwrap_or_default();
                placement.unit = Some(UnitGroup { unit, below: below.trim_matches('/').to_owned() });
            }
            placement.birth = Some(dir);
        }
        Ok(placement)
    }
}
