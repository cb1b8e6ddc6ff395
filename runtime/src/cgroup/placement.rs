// SPDX-License-Identifier: Apache-2.0
//! Where a process goes, and how it gets there: the ways are told by [`WayIn`].

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Access, AtFlags};

use super::dir::CgroupDir;
use super::probe::Version;
use super::record;
use super::systemd::{self, Holder};
use crate::error::{Error, Kind, Result, WithStep};
use crate::sys::clone::WayIn;

/// How often the kernel is asked again to take a process that is still being made (`TASK_NEW` gives EINVAL on v1).
const TRIES: u32 = 5;

/// Where a process that is about to be made goes. One without any group belongs to a container without cgroups.
#[derive(Debug, Default)]
pub struct Placement {
    /// The group on the unified hierarchy, to be born into. Where the kernel refuses (EOPNOTSUPP: it is threaded; ENOSYS,
    /// EPERM, EACCES: clone3 is filtered or the common ancestor is not ours), a process made otherwise may be given to
    /// [`Placement::place`]; for EBUSY there is [`Placement::if_nesting`], before that.
    pub(super) birth: Option<CgroupDir>,
    /// The groups on v1 hierarchies, to be joined before the process does anything.
    pub(super) v1: Vec<CgroupDir>,
    /// The unit whose group the one on the unified hierarchy is.
    pub(super) unit: Option<UnitGroup>,
    /// What keeps the unit until the process is in it.
    pub(super) holder: Option<Holder>,
    /// The group's pids.max once that is gone.
    pub(super) tasks: Option<(CgroupDir, String)>,
    /// The container's first process, for a further one.
    pub(super) init: Option<i32>,
}

/// The group of a systemd unit, or one below it.
#[derive(Debug, Clone)]
pub(super) struct UnitGroup {
    pub(super) unit: record::UnitRecord,
    /// The group's path below the unit's.
    pub(super) below: String,
}

impl Version {
    /// The way of a process into its groups, unless the kernel refuses it.
    #[must_use]
    pub fn way_in(self) -> WayIn {
        match self {
            Version::V1 => WayIn::JoinsItself,
            Version::V2 | Version::None => WayIn::Born,
        }
    }
}

impl Placement {
    /// Puts a process into the groups; which of the two ways it was, by its pid or by systemd. A group that takes no more is
    /// left for the one that [`Placement::if_nesting`] finds.
    ///
    /// # Errors
    /// `Kind::Os` naming the cgroup.procs that refused.
    pub fn place(&self, pid: i32) -> Result<WayIn> {
        self.v1.iter().try_for_each(|group| join(group, pid))?;
        let Some(group) = &self.birth else { return Ok(WayIn::MovedByPid) };
        match (join(group, pid).map_err(threaded), &self.unit) {
            (Ok(()), _) => Ok(WayIn::MovedByPid),
            (Err(error), _) if !is_denied(&error) => match self.if_nesting(&error)? {
                Some(beside) => beside.place(pid),
                None => Err(error),
            },
            // Of the two groups' common parent only root is the owner: systemd's business.
            (Err(_), Some(group)) => systemd::attach_process(&group.unit, &group.below, pid)
                .map(|()| WayIn::PutBySystemd)
                .step(|| adding(pid)),
            // Beside v1 it has no limits: whoever may not use it goes without.
            (Err(_), None) if !self.v1.is_empty() => Ok(WayIn::MovedByPid),
            (Err(error), None) => Err(error),
        }
    }

    /// For a process that joins the groups by itself: their files that it writes "0" to. None where it is born in its group.
    ///
    /// # Errors
    /// `Kind::Os`: it is to be moved by its pid then.
    pub(crate) fn tasks_files(&self) -> Result<Vec<OwnedFd>> {
        self.v1.iter().map(CgroupDir::open_tasks).collect()
    }

    /// The same placement for a further process of the container whose first one is `init`.
    #[must_use]
    pub fn or_beside(self, init: i32) -> Placement {
        Placement { init: Some(init), ..self }
    }

    /// Another placement for a process that the group on the unified hierarchy has refused with `error`, because the container
    /// has enabled controllers for groups below it (EBUSY, from clone3 as from a write to cgroup.procs; cgroups(7), "no
    /// internal processes"): where its first process is now, as runc and crun do. `None` for other errors, and where
    /// that is not known, or nowhere else.
    ///
    /// The container may move its first process meanwhile, or nest further: then the new placement is refused as well.
    ///
    /// # Errors
    /// `Kind::Os` when the groups cannot be read.
    pub(crate) fn if_nesting(&self, error: &Error) -> Result<Option<Placement>> {
        if error.errno() == Some(libc::EBUSY) { self.beside_init() } else { Ok(None) }
    }

    /// Where the container's first process is now, if that is another group than its own.
    ///
    /// # Errors
    /// `Kind::Os` when the groups cannot be read.
    pub fn beside_init(&self) -> Result<Option<Placement>> {
        let (Some(init), Some(own)) = (self.init, &self.birth) else { return Ok(None) };
        let Some(found) = own.find(init)? else { return Ok(None) };
        let below = found.path().strip_prefix(own.path()).unwrap_or_default().trim_matches('/').to_owned();
        let unit = self.unit.clone().map(|group| UnitGroup { below, ..group });
        let v1 = self.v1.iter().map(CgroupDir::share).collect();
        Ok(Some(Placement { birth: Some(found), v1, unit, ..Placement::default() }))
    }

    /// The process is in its groups: what kept them until then goes.
    ///
    /// # Errors
    /// `Kind::Os` when a limit that had to wait for this is refused.
    pub(crate) fn release_holder(&mut self) -> Result<()> {
        self.holder.take();
        self.tasks.take().map_or(Ok(()), |(group, limit)| group.write("pids.max", &limit))
    }

    /// The directory for `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn at_birth(&self) -> Option<BorrowedFd<'_>> {
        self.birth.as_ref().map(AsFd::as_fd)
    }

    /// Whether a process that is born in the group would run on all CPUs and memory nodes all the same: before Linux 5.15.108
    /// and 6.1.25 a clone3 with CLONE_INTO_CGROUP left the group's cpuset out, a move does not. Asked is for what Linux 5.12
    /// brought, since that is known already; no distribution keeps a kernel in between.
    #[must_use]
    pub(crate) fn forgets_cpuset(&self) -> bool {
        let has = |group: &CgroupDir| {
            rustix::fs::accessat(group, "cpuset.cpus", Access::EXISTS, AtFlags::empty()).is_ok()
        };
        !crate::sys::mount::has_set_attr() && self.birth.as_ref().is_some_and(has)
    }
}

fn is_denied(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EACCES | libc::EPERM))
}

/// Moves a process into one group.
pub(super) fn join(group: &CgroupDir, pid: i32) -> Result<()> {
    let pid_text = pid.to_string();
    let mut tries = 0;
    loop {
        match group.write("cgroup.procs", &pid_text) {
            Err(error) if error.errno() == Some(libc::EINVAL) && tries < TRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.step(|| adding(pid)),
        }
    }
}

/// cgroup-v2.rst, "Threads": a threaded group, and one below it that is not threaded itself, take no process.
fn threaded(error: Error) -> Error {
    match error.errno() {
        Some(libc::EOPNOTSUPP) => {
            error.at("the cgroup is threaded, or below a threaded one, and takes no process")
        }
        _ => error,
    }
}

fn adding(pid: i32) -> String {
    format!("error adding pid {pid} to cgroups")
}

/// The values of `exec --cgroup`: `PATH`, or `CONTROLLER[,CONTROLLER]:PATH` (v1). Pure.
pub(super) struct SubGroups<'a> {
    everywhere: &'a str,
    by_controller: Vec<(&'a str, &'a str)>,
}

impl<'a> SubGroups<'a> {
    /// Reads and checks them.
    pub(super) fn parse(values: &[&'a str]) -> Result<Self> {
        let no = |text: String| Err(Error::new(Kind::Invalid, text));
        let mut subs = SubGroups { everywhere: "", by_controller: Vec::new() };
        for value in values {
            let Some((controllers, path)) = value.split_once(':') else {
                if values.len() > 1 {
                    return no(format!("invalid --cgroup argument: {value} (missing <controller>: prefix)"));
                }
                subs.everywhere = checked(value)?;
                continue;
            };
            for controller in controllers.split(',') {
                if controller.is_empty() {
                    return no(format!("invalid --cgroup argument: {value} (empty <controller> prefix)"));
                }
                if subs.by_controller.iter().any(|(known, _)| *known == controller) {
                    return no(format!("invalid --cgroup argument(s): duplicate controller {controller:?}"));
                }
                subs.by_controller.push((controller, checked(path)?));
            }
        }
        Ok(subs)
    }

    /// The path below the group of these controllers.
    pub(super) fn below(&self, controllers: &[String]) -> &'a str {
        let own =
            self.by_controller.iter().find(|(name, _)| controllers.iter().any(|c| bare(c) == bare(name)));
        own.map_or(self.everywhere, |(_, path)| path)
    }

    /// A controller that none of the groups has.
    pub(super) fn unknown(&self, groups: &[super::record::GroupDir]) -> Option<&'a str> {
        let known = |name: &str| groups.iter().any(|g| g.controllers.iter().any(|c| bare(c) == bare(name)));
        self.by_controller.iter().map(|(name, _)| *name).find(|name| !known(name))
    }
}

/// `name=systemd` is also called `systemd`.
fn bare(controller: &str) -> &str {
    controller.strip_prefix("name=").unwrap_or(controller)
}

fn checked(path: &str) -> Result<&str> {
    if path.split('/').any(|part| part == "..") || path.contains('\0') {
        return Err(Error::new(Kind::Invalid, format!("bad sub cgroup path: {path:?}")));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::record::GroupDir;

    #[test]
    fn sub_groups() {
        let cpu = ["cpu".to_owned(), "cpuacct".to_owned()];
        let systemd = ["name=systemd".to_owned()];
        let subs = SubGroups::parse(&["cpu,memory:/a", "systemd:b"]).unwrap();
        assert_eq!((subs.below(&cpu), subs.below(&systemd), subs.below(&[])), ("/a", "b", ""));
        let groups = [GroupDir { controllers: cpu.to_vec(), ..GroupDir::default() }];
        assert_eq!(subs.unknown(&groups), Some("memory"));
        assert_eq!(SubGroups::parse(&["/a/b"]).unwrap().below(&cpu), "/a/b");
        for (values, words) in [
            (&["a", "cpu:b"][..], "missing <controller>: prefix"),
            (&["cpu,:b"], "empty <controller> prefix"),
            (&["cpu:b", "cpu:c"], "duplicate controller"),
            (&["a/../.."], "bad sub cgroup path"),
            (&["cpu:.."], "bad sub cgroup path"),
        ] {
            let error = SubGroups::parse(values).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
