// SPDX-License-Identifier: Apache-2.0
//! `events`: what a container uses, and when it runs out of memory.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use crate::ask::Home;
use crate::cgroup::{Group, OomWatch, Stats};
use crate::container::{Container, Phase};
use crate::error::{Error, Kind, Result};
use crate::host::rdt::{Figures, figures};
use crate::state::ResctrlGroups;

/// What a container uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// By its control groups.
    pub cgroup: Stats,
    /// By its groups of Intel RDT; empty without.
    pub resctrl: Figures,
}

/// The figures of a container that is created, running or paused.
///
/// Memory is in bytes, time in nanoseconds, unless a field says otherwise. Source: runc-events(8), Documentation/admin-guide/cgroup-v2.rst.
#[doc = include_str!("examples/stats.md")]
/// # Errors
/// `Kind::Status` for a stopped container, `Kind::Unsupported` for one without a control group.
pub fn stats(home: &Home, id: &str) -> Result<Usage> {
    Watch::of(Container::open(home, id)?)?.stats()
}

/// A container that is followed until its end.
#[derive(Debug)]
pub struct Watch {
    /// Init: readable when it has ended.
    pub pidfd: OwnedFd,
    /// Out of memory; `None` without the memory controller.
    pub oom: Option<OomWatch>,
    group: Group,
    resctrl: Option<ResctrlGroups>,
    id: String,
}

impl Watch {
    fn of(container: Container) -> Result<Watch> {
        let id = container.state.id.clone();
        match container.phase()? {
            (Phase::Created | Phase::Running | Phase::Paused, Some(pidfd)) => Ok(Watch {
                pidfd,
                oom: None,
                resctrl: container.state.rdt.clone(),
                group: container.into_group(),
                id,
            }),
            _ => Err(not_running(&id)),
        }
    }

    /// The figures now.
    ///
    /// # Errors
    /// `Kind::Status` when the container is gone.
    pub fn stats(&self) -> Result<Usage> {
        let cgroup = self.group.stats().map_err(|error| match error.errno() {
            Some(libc::ENOENT | libc::ENODEV) => not_running(&self.id),
            _ => error,
        })?;
        Ok(Usage { cgroup, resctrl: self.resctrl.as_ref().map(figures).unwrap_or_default() })
    }
}

/// Follows a container.
#[doc = include_str!("examples/watch.md")]
/// # Errors
/// As [`stats`].
pub fn watch(home: &Home, id: &str) -> Result<Watch> {
    let mut watch = Watch::of(Container::open(home, id)?)?;
    watch.oom = match watch.group.oom_watch() {
        Ok(oom) => Some(oom),
        Err(error) if error.kind() == Kind::Unsupported => None,
        Err(error) => return Err(error),
    };
    Ok(watch)
}

fn not_running(id: &str) -> Error {
    Error::new(Kind::Status, format!("container with id {id} is not running"))
}
