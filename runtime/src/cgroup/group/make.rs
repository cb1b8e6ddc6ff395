// SPDX-License-Identifier: Apache-2.0
//! Making the groups of a [`GroupPlan`], or taking those that are there; what fails gives back what it found.
//!
//! Counterpart: `group.rs` finds them again, and removes them.

#![forbid(unsafe_code)]

use rustix::io::Errno;

use super::{Group, apply};
use crate::cgroup::decide::GroupPlan;
use crate::cgroup::dir::{CgroupDir, gone};
use crate::cgroup::made::{MODE, Made};
use crate::cgroup::own::{Claim, Own};
use crate::cgroup::placement::Placement;
use crate::cgroup::probe::Version;
use crate::cgroup::record::Record;
use crate::cgroup::{systemd, v1, v2};
use crate::error::{Error, Kind, Result, WithStep};

/// Keeps the record of groups that are being made.
pub(crate) type Note<'a> = dyn FnMut(&Record) -> Result<()> + 'a;

const APPLYING: &str = "unable to apply cgroup configuration";
/// runc's words.
const FROZEN: &str = "container's cgroup unexpectedly frozen";

fn is_forbidden(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

impl Group {
    /// Makes the groups of `plan`; limits come with [`Group::apply_limits`]. Directories that it makes are entered in `made`,
    /// for the caller to undo. `note` is to keep the record as it is, because what is done next could not be told otherwise.
    ///
    /// # Errors
    /// `Kind::Invalid` for a group that is in use, frozen or another container's; `Kind::Unsupported` for a controller that
    /// is not there; `Kind::Os` (EACCES, EPERM, EROFS: no permission for cgroups here).
    pub fn create(plan: &GroupPlan, made: &mut Made, note: &mut Note<'_>) -> Result<(Group, Placement)> {
        let mut group = Group::open(plan.record.clone());
        let mut holder = None;
        if let Some(unit) = &plan.unit {
            // Before systemd is asked: it would put a process there, and take the group away with the unit.
            group.refuse_frozen_above().step(|| APPLYING)?;
            let held = systemd::start(unit, plan.record.version).step(|| APPLYING)?;
            holder = held.map(|(holder, path)| {
                group.record.groups.iter_mut().for_each(|own| own.path.clone_from(&path));
                group.held = true;
                holder
            });
        }
        match group.make(plan, made, note).and_then(|()| group.first_placement(plan)) {
            Ok(placement) => {
                made.hand_over(&group.record.groups);
                Ok((group, Placement { holder, ..placement }))
            }
            Err(error) => {
                drop(holder);
                group.unclaim();
                if let Some(unit) = &plan.unit {
                    // Without its holder it ends by itself.
                    let _ = systemd::stop(&unit.record);
                }
                Err(error)
            }
        }
    }

    /// Where the first process goes.
    fn first_placement(&self, plan: &GroupPlan) -> Result<Placement> {
        let placement = self.placement(|dir, _| Ok(dir.share()))?;
        let tight = self.held && plan.writes.iter().any(apply::needs_room);
        let tasks = match self.group_of("pids")? {
            Some((_, dir)) if tight => Some((dir.share(), "1".to_owned())),
            _ => None,
        };
        Ok(Placement { tasks, ..placement })
    }

    fn make(&mut self, plan: &GroupPlan, made: &mut Made, note: &mut Note<'_>) -> Result<()> {
        for index in 0..self.dirs.len() {
            self.fresh[index] = match made.group(&self.record.groups[index]) {
                // Beside v1 it has no limits: whoever may not make groups there goes without one.
                Err(error) if self.is_beside(index) && is_forbidden(&error) => {
                    self.forget(index);
                    break;
                }
                made => made.step(|| APPLYING)?,
            };
            // A unit is a new one: systemd has just made its group.
            self.record.groups[index].found = !self.fresh[index] && plan.unit.is_none();
        }
        // Before any of them is touched: what is not of our making and not claimed yet is not `delete`'s to remove.
        if self.record.groups.iter().any(|group| group.found) {
            note(&self.record)?;
        }
        let mut marked = true;
        for index in 0..self.dirs.len() {
            marked &= self.claim(index, plan)?;
        }
        // Without a mark the inode is all that tells whose they are.
        if marked { Ok(()) } else { note(&self.record) }
    }

    /// Makes a group that is there ours; whether it bears our mark.
    fn claim(&mut self, index: usize, plan: &GroupPlan) -> Result<bool> {
        let path = self.record.groups[index].full();
        let dir = CgroupDir::open(&path)?
            .ok_or_else(|| Error::os(format!("openat2({path})"), Errno::NOENT).at(APPLYING))?;
        self.refuse_used(index, &dir)?;
        let Claim { own, inode, mode, marked } = Own::claim(dir, &self.record).step(|| APPLYING)?;
        self.record.groups[index].inode = Some(inode);
        // The caller's umask has taken something away: a container may be somebody else, who is to look into its group.
        if self.fresh[index] && mode != MODE {
            own.set_mode(MODE).step(|| APPLYING)?;
        }
        let own = self.dirs[index].get_or_init(|| own);
        match self.record.version {
            Version::V2 => v2::enable(plan, own)?,
            _ => v1::prepare(&self.record.groups[index], own, plan).step(|| APPLYING)?,
        }
        Ok(marked || self.record.mark.is_empty())
    }

    /// Gives back what was found and claimed.
    fn unclaim(&self) {
        let claimed = self.record.groups.iter().zip(&self.dirs).filter(|(group, _)| group.found);
        for own in claimed.filter_map(|(_, dir)| dir.get()) {
            // Should that fail, the next create is told that another container has it.
            let _ = own.unmark();
        }
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

    /// Refuses a group that others use, and one that is frozen, or below a frozen one: what is born in it, or moved into it,
    /// stands still, and whoever waits for it.
    fn refuse_used(&self, index: usize, dir: &CgroupDir) -> Result<()> {
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
            processes = dir.processes()?.len();
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
                let Some(dir) = CgroupDir::open(&full[..end])? else { continue };
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
