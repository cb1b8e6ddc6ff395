// SPDX-License-Identifier: Apache-2.0
//! How a process gets into its groups: born there (v2), or moved there by its pid (v1, and the fallback).

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::dir::Dir;
use super::record;
use super::systemd::{self, Holder};
use crate::error::{Error, Kind, Result, Step};

/// How often the kernel is asked again to take a process that is still being made (`TASK_NEW` gives EINVAL on v1).
const TRIES: u32 = 5;

/// Where a process that is about to be made goes.
#[derive(Debug)]
pub enum Placement {
    /// `clone3(CLONE_INTO_CGROUP)` with this directory. Where the kernel refuses (EBUSY: the group has limited children;
    /// EOPNOTSUPP: it is threaded; ENOSYS, EPERM, EACCES: clone3 is filtered or the common ancestor is not ours), a
    /// process made otherwise may be given to [`Placement::place`].
    AtBirth(OwnedFd),
    /// [`Placement::place`], before the process does anything.
    ByPid(Groups),
    /// As `AtBirth`, in the group of a systemd unit.
    InUnit(Seat),
}

/// Groups to join; none at all for a container without cgroups.
#[derive(Debug, Default)]
pub struct Groups(pub(super) Vec<Dir>, pub(super) Option<Holder>);

/// The group of a unit.
#[derive(Debug)]
pub struct Seat {
    pub(super) group: Dir,
    pub(super) unit: record::Unit,
    /// The group's path below the unit's.
    pub(super) below: String,
    pub(super) holder: Option<Holder>,
    /// What pids.max is to be once the holder is gone.
    pub(super) tasks: Option<String>,
}

impl Placement {
    /// Moves a process into the groups.
    ///
    /// # Errors
    /// `Kind::Os` naming the cgroup.procs that refused.
    pub fn place(&self, pid: i32) -> Result<()> {
        match self {
            Placement::AtBirth(group) => {
                super::dir::join(group.as_fd(), pid).map_err(threaded).step(|| adding(pid))
            }
            Placement::ByPid(Groups(groups, _)) => groups.iter().try_for_each(|group| join(group, pid)),
            Placement::InUnit(seat) => match join(&seat.group, pid) {
                // Of the two groups' common parent only root is the owner: systemd's business.
                Err(error) if matches!(error.errno(), Some(libc::EACCES | libc::EPERM)) => {
                    systemd::attach(&seat.unit, &seat.below, pid).step(|| adding(pid))
                }
                other => other,
            },
        }
    }

    /// What a process writes "0" to in order to move itself; empty where it is born in its group.
    ///
    /// # Errors
    /// `Kind::Os`: it is to be moved by its pid then.
    pub fn seats(&self) -> Result<Vec<OwnedFd>> {
        match self {
            Placement::ByPid(Groups(groups, _)) => groups.iter().map(Dir::seat).collect(),
            Placement::AtBirth(_) | Placement::InUnit(_) => Ok(Vec::new()),
        }
    }

    /// The same placement, kept by `holder` until [`Placement::settle`].
    pub(super) fn held_by(mut self, holder: Option<Holder>) -> Placement {
        match &mut self {
            Placement::AtBirth(_) => {}
            Placement::ByPid(Groups(_, own)) => *own = holder,
            Placement::InUnit(seat) => seat.holder = holder,
        }
        self
    }

    /// The process is in its groups: what kept them until then goes.
    ///
    /// # Errors
    /// `Kind::Os` when a limit that had to wait for this is refused.
    pub fn settle(&mut self) -> Result<()> {
        match self {
            Placement::AtBirth(_) => Ok(()),
            Placement::ByPid(Groups(_, holder)) => {
                holder.take();
                Ok(())
            }
            Placement::InUnit(seat) => {
                seat.holder.take();
                seat.tasks.take().map_or(Ok(()), |limit| seat.group.write("pids.max", &limit))
            }
        }
    }

    /// The directory for `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn at_birth(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Placement::AtBirth(group) => Some(group.as_fd()),
            Placement::InUnit(seat) => Some(seat.group.as_fd()),
            Placement::ByPid(_) => None,
        }
    }
}

/// Moves a process into one group.
pub(super) fn join(group: &Dir, pid: i32) -> Result<()> {
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
    use crate::cgroup::GroupDir;

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
