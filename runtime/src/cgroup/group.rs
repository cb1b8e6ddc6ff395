// SPDX-License-Identifier: Apache-2.0
//! A container's groups, alive: made from a [`Plan`] or found again from a [`Record`].
//!
//! What is the same on v1 and v2 stands here; `v1` and `v2` have the rest. A group that is not known to be the
//! container's (its inode is not the recorded one; or none was recorded yet and it does not bear our mark) is never
//! emptied and never removed with something in it. A group that has vanished is no error for whoever wants it gone.

#![forbid(unsafe_code)]

pub(super) mod apply;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, CWD};
use rustix::io::Errno;

use super::decide::Plan;
use super::dir::Dir;
use super::made::Made;
use super::placement::{Placement, Seat, SubGroups, join};
use super::probe::Version;
use super::record::{self, GroupDir, Record};
use super::{systemd, v1, v2};
use crate::error::{Error, Kind, Result, Step};

/// How long a freeze may take before it is taken back.
pub(super) const FREEZE_WAIT: Duration = Duration::from_secs(2);
/// How long killing and removing may take: fork bombs are over sooner, processes in uninterruptible sleep are not.
pub(super) const END_WAIT: Duration = Duration::from_secs(2);

/// A container's groups.
#[derive(Debug)]
pub struct Group {
    record: Record,
    /// Opened when first needed, in the order of `record.groups`.
    dirs: Vec<OnceLock<Dir>>,
    /// By group: made by this very object, so that everything in it is the kernel's default.
    fresh: Vec<bool>,
    /// What was made above the groups, outermost first.
    parents: Vec<String>,
    /// There is a holder in them, which needs room beside the first process.
    held: bool,
}

impl Group {
    /// Makes the groups of `plan`; limits come with [`Group::apply_limits`]. If it fails, what it made is removed again.
    ///
    /// # Errors
    /// `Kind::Invalid` for a group that is in use or frozen; `Kind::Unsupported` for a controller that is not there;
    /// `Kind::Os` (EACCES, EPERM, EROFS: no permission for cgroups here).
    pub fn create(plan: &Plan) -> Result<(Group, Placement)> {
        let mut group = Group::open(plan.record.clone());
        let Some(unit) = &plan.unit else {
            group.make(plan)?;
            let placement = group.first_placement(plan)?;
            return Ok((group, placement));
        };
        // Before systemd is asked: it would put a process there, and take the group away with the unit.
        group.refuse_frozen_above().step(|| APPLYING)?;
        let held = systemd::start(unit, plan.record.version).step(|| APPLYING)?;
        let holder = held.map(|(holder, path)| {
            group.record.groups.iter_mut().for_each(|own| own.path.clone_from(&path));
            group.held = true;
            holder
        });
        match group.make(plan).and_then(|()| group.first_placement(plan)) {
            Ok(placement) => Ok((group, Placement { holder, ..placement })),
            Err(error) => {
                drop(holder);
                let _ = systemd::stop(&unit.record);
                Err(error)
            }
        }
    }

    /// Where the first process goes.
    fn first_placement(&self, plan: &Plan) -> Result<Placement> {
        let placement = self.placement(|dir, _| dir.duplicate())?;
        let tight = self.held && plan.writes.iter().any(apply::needs_room);
        let tasks = match self.group_of("pids")? {
            Some((_, dir)) if tight => Some((dir.duplicate()?, "1".to_owned())),
            _ => None,
        };
        Ok(Placement { tasks, ..placement })
    }

    fn make(&mut self, plan: &Plan) -> Result<()> {
        let group = self;
        let mut made = Made::default();
        for index in 0..group.dirs.len() {
            group.fresh[index] = match made.group(&group.record.groups[index]) {
                // Beside v1 it has no limits: whoever may not make groups there goes without one.
                Err(error) if group.is_beside(index) && is_forbidden(&error) => {
                    group.forget(index);
                    break;
                }
                made => made.step(|| APPLYING)?,
            };
            let Some(dir) = group.dir(index)? else {
                let path = group.record.groups[index].full();
                return Err(Error::os(format!("openat2({path})"), Errno::NOENT).at(APPLYING));
            };
            group.refuse_used(index, dir)?;
            match group.record.version {
                Version::V2 => v2::enable(plan, dir)?,
                _ => v1::prepare(&group.record.groups[index], plan).step(|| APPLYING)?,
            }
            dir.mark(&group.record.id);
            let inode = dir.inode()?;
            group.record.groups[index].inode = Some(inode);
        }
        group.parents = made.keep();
        group.parents.retain(|path| group.record.groups.iter().all(|own| own.full() != *path));
        Ok(())
    }

    /// Whether it is the group that a container of v1 has on the unified hierarchy, the last one.
    fn is_beside(&self, index: usize) -> bool {
        self.record.version == Version::V1 && self.record.groups[index].is_unified()
    }

    /// Does without a group, and those after it.
    fn forget(&mut self, index: usize) {
        self.record.groups.truncate(index);
        self.dirs.truncate(index);
        self.fresh.truncate(index);
    }

    /// The groups of `record`. Nothing is opened before it is needed.
    #[must_use]
    pub fn open(record: Record) -> Group {
        let (dirs, fresh) = record.groups.iter().map(|_| (OnceLock::new(), false)).unzip();
        Group { record, dirs, fresh, parents: Vec::new(), held: false }
    }

    /// What State keeps; after [`Group::create`] with the inode numbers.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The groups that [`Group::create`] had to make above its own, outermost first: a create that fails takes them
    /// away again; `delete` leaves them, as runc does, since somebody may have given them limits by then.
    #[must_use]
    pub fn made_parents(&self) -> &[String] {
        &self.parents
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
                return dir.duplicate();
            }
            match dir.open_below(below) {
                // Beside v1, a group that nobody made there is not missed.
                Err(error)
                    if error.errno() == Some(libc::ENOENT)
                        && self.record.version == Version::V1
                        && record.is_unified() =>
                {
                    dir.duplicate()
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

    /// Whether the container was frozen (not: whether a group above it was).
    ///
    /// # Errors
    /// `Kind::Os` when the file cannot be read; a vanished group is not frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        let (index, file) = match self.record.version {
            Version::V2 => (Some(0), "cgroup.freeze"),
            _ => (self.record.index_of("freezer"), "freezer.self_freezing"),
        };
        let dir = index.map(|index| self.dir(index)).transpose()?.flatten();
        let Some(dir) = dir else { return Ok(false) };
        match dir.read(file) {
            Err(error) if gone(&error) => Ok(false),
            other => Ok(other?.trim() == "1"),
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
            Some(dir) if self.is_ours(index, dir) => match self.kill_in(index, dir) {
                Err(error) if gone(&error) => Ok(()),
                other => other,
            },
            _ => Ok(()),
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

    /// Lets killed processes die: on v1 a frozen one does not, on v2 it does.
    ///
    /// # Errors
    /// `Kind::Os` when it cannot be thawed.
    pub fn let_die(&self) -> Result<()> {
        if self.record.version == Version::V1 && self.is_frozen()? { self.freeze(false) } else { Ok(()) }
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
        self.dir(index)?.map_or_else(|| Ok(Vec::new()), Dir::pids)
    }

    /// Removes the groups and those below. Processes left in them are killed and waited for, two seconds at most.
    ///
    /// # Errors
    /// `Kind::Os` (EBUSY) while a process does not die; calling again later is fine.
    pub fn destroy(&self) -> Result<()> {
        if let Some(unit) = &self.record.unit {
            self.stop(unit)?;
        }
        // On v1 the freezer's group comes first: what is frozen in it dies in none of the others. And when it cannot be
        // emptied, the processes are in the others as well.
        let freezer = if self.record.version == Version::V1 { self.record.index_of("freezer") } else { None };
        if let Some(index) = freezer {
            self.destroy_one(index)?;
        }
        let mut first = None;
        for index in (0..self.dirs.len()).filter(|index| Some(*index) != freezer) {
            if let Err(error) = self.destroy_one(index) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Ends the unit, if it is ours: its group is then gone, but for what systemd does not know of.
    fn stop(&self, unit: &record::Unit) -> Result<()> {
        let index = self.record.index_of("name=systemd").unwrap_or(0);
        match self.dir(index)? {
            Some(dir) if self.is_ours(index, dir) => {
                match self.empty(index, dir, Instant::now() + END_WAIT) {
                    Err(error) if gone(&error) || error.errno() == Some(libc::EBUSY) => {}
                    other => other?,
                }
                systemd::stop(unit)
            }
            // It ended by itself, as soon as it was empty.
            _ if unit.keeps_failed => systemd::forget(unit),
            _ => Ok(()),
        }
    }

    fn destroy_one(&self, index: usize) -> Result<()> {
        let Some(dir) = self.dir(index)? else { return Ok(()) };
        let path = dir.path();
        let deadline = Instant::now() + END_WAIT;
        let mut pause = Duration::from_millis(1);
        loop {
            match fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::BUSY) if !self.is_ours(index, dir) => return Ok(()),
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(Error::os(format!("rmdir({path})"), errno)),
            }
            // Asked before it is emptied: that may take as long, and then the group can go.
            if Instant::now() >= deadline {
                let left = dir.pids().unwrap_or_default().len();
                let context = format!("container's cgroup is not empty: {left} process(es) found");
                return Err(Error::os(format!("rmdir({path})"), Errno::BUSY).at(context));
            }
            match self.empty(index, dir, deadline) {
                Ok(()) => {}
                // The group that was opened is gone; what has its name now is somebody else's.
                Err(error) if gone(&error) => return Ok(()),
                Err(error) if error.errno() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
            // v1 tells nobody when a group empties, and its last processes may be half gone; on v2 this is reached
            // only if somebody still puts things in.
            if self.record.version == Version::V1 {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        }
    }

    fn empty(&self, index: usize, dir: &Dir, deadline: Instant) -> Result<()> {
        self.kill_in(index, dir)?;
        if self.record.groups[index].is_unified() {
            v2::wait(dir, "populated", false, deadline)?;
        }
        dir.remove_below()
    }

    fn kill_in(&self, index: usize, dir: &Dir) -> Result<()> {
        match self.record.groups[index].is_unified() {
            true => v2::kill(dir),
            false => v1::kill(dir, self.record.index_of("freezer") == Some(index)),
        }
    }

    /// Whether the group is known to be the container's; see the module's header. [`Group::dir`] has compared the inode.
    fn is_ours(&self, index: usize, dir: &Dir) -> bool {
        self.record.groups[index].inode.is_some() || dir.is_marked(&self.record.id)
    }

    /// The open directory of a group; `None` if it has vanished or is somebody else's.
    fn dir(&self, index: usize) -> Result<Option<&Dir>> {
        if let Some(dir) = self.dirs[index].get() {
            return Ok(Some(dir));
        }
        let group = &self.record.groups[index];
        match Dir::open(&group.full())? {
            Some(dir) if group.inode.is_none() || Some(dir.inode()?) == group.inode => {
                Ok(Some(self.dirs[index].get_or_init(|| dir)))
            }
            _ => Ok(None),
        }
    }

    /// The open directory of a group that must be there.
    pub(super) fn needed(&self, index: usize) -> Result<&Dir> {
        self.dir(index)?
            .ok_or_else(|| Error::os(format!("openat2({})", self.record.groups[index].full()), Errno::NOENT))
    }

    /// Whether the group of `controller` was made by this object, and its directory.
    pub(super) fn group_of(&self, controller: &str) -> Result<Option<(bool, &Dir)>> {
        match self.record.index_of(controller) {
            Some(index) => Ok(Some((self.fresh[index], self.needed(index)?))),
            None => Ok(None),
        }
    }

    fn placement(&self, each: impl Fn(&Dir, &GroupDir) -> Result<Dir>) -> Result<Placement> {
        let mut placement = Placement::default();
        for (index, record) in self.record.groups.iter().enumerate() {
            let dir = each(self.needed(index)?, record)?;
            if !record.is_unified() {
                placement.v1.push(dir);
                continue;
            }
            if let Some(unit) = self.record.unit.clone() {
                let below = dir.path().strip_prefix(&record.full()).unwrap_or_default();
                placement.unit = Some(Seat { unit, below: below.trim_matches('/').to_owned() });
            }
            placement.birth = Some(dir);
        }
        Ok(placement)
    }

    /// Refuses a group that others use, and one that is frozen, or below a frozen one: what is born in it, or moved into it,
    /// stands still, and whoever waits for it.
    fn refuse_used(&self, index: usize, dir: &Dir) -> Result<()> {
        // A unit is a new one; systemd has put its holder into the group.
        let mut used = !self.fresh[index] && self.record.unit.is_none();
        let (mut frozen, mut processes) = (false, 0);
        if self.record.groups[index].is_unified() {
            let events = dir.read("cgroup.events")?;
            frozen = v2::says(&events, "frozen");
            used &= v2::says(&events, "populated");
        } else if self.record.index_of("freezer") == Some(index) {
            frozen = v1::is_stopped(dir)?;
        }
        if used {
            processes = dir.pids()?.len();
            used = processes > 0 || self.record.groups[index].is_unified();
        }
        let text = match (used, frozen) {
            (false, false) => return Ok(()),
            (false, true) => FROZEN.to_owned(),
            (true, _) => format!("container's cgroup is not empty: {processes} process(es) found"),
        };
        Err(Error::new(Kind::Invalid, text).at(dir.path().to_owned()))
    }

    /// Refuses a group that is to be made below a frozen one, or that is there and frozen.
    fn refuse_frozen_above(&self) -> Result<()> {
        for group in self.record.groups.iter().filter(|group| group.is_unified()) {
            let full = group.full();
            let ends = full.match_indices('/').map(|(slash, _)| slash).chain([full.len()]);
            for end in ends.rev().take_while(|end| *end >= group.mount.len()) {
                let Some(dir) = Dir::open(&full[..end])? else { continue };
                match dir.read("cgroup.events") {
                    Ok(events) if v2::says(&events, "frozen") => {
                        return Err(Error::new(Kind::Invalid, FROZEN).at(dir.path().to_owned()));
                    }
                    // The root has no such file, and is never frozen.
                    Err(error) if !gone(&error) => return Err(error),
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

const APPLYING: &str = "unable to apply cgroup configuration";
/// runc's words.
const FROZEN: &str = "container's cgroup unexpectedly frozen";

fn is_forbidden(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

/// Whether the group a file belonged to was removed meanwhile.
pub(super) fn gone(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV))
}
