// SPDX-License-Identifier: Apache-2.0
//! A container that exists: its directory, its state, and what it is doing right now.
//!
//! The status is never stored: it follows from what lives. An init that is gone means stopped; a frozen group
//! means paused; a gate means created. What cannot be found out is an error, and none of these.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ask::Home;
use crate::cgroup::{Group, Version};
use crate::error::{Error, Kind, Result};
use crate::host::identity::has_exited;
use crate::host::members;
use crate::spec::{self, Resources, Spec};
use crate::state::{Dir, OCI_VERSION, Root, State, Status};

/// What a container is doing (runtime.md#state).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Some `create` is at work on it.
    Creating,
    /// Its process waits at the gate.
    Created,
    /// The user's program runs.
    Running,
    /// It is frozen.
    Paused,
    /// Its init is gone (or never came to be).
    Stopped,
}

impl Phase {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Creating => "creating",
            Phase::Created => "created",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Stopped => "stopped",
        }
    }
}

/// A container, looked up by id. What its record names is asked as it is now; the record itself stays as it was read.
#[derive(Debug)]
pub struct Container {
    #[doc(hidden)] // its directory
    pub dir: Dir,
    #[doc(hidden)] // as it was read
    pub state: State,
    /// Its control group.
    pub(crate) group: Group,
}

impl Container {
    /// Opens and reads it.
    #[doc = include_str!("verbs/examples/container.md")]
    /// # Errors
    /// `Kind::NotFound`; `Kind::Invalid` for a state that does not read.
    pub fn open(home: &Home, id: &str) -> Result<Container> {
        Container::read(Dir::open(&home.root, id)?)
    }

    /// The same, in a state root that is open.
    ///
    /// # Errors
    /// As `open`.
    pub(crate) fn open_in(root: &Arc<Root>, id: &str) -> Result<Container> {
        Container::read(Dir::open_in(root, id)?)
    }

    /// The container of a directory and what it holds.
    pub(crate) fn of(dir: Dir, state: State) -> Container {
        let group = Group::open(state.cgroup.clone());
        Container { dir, state, group }
    }

    fn read(dir: Dir) -> Result<Container> {
        let state = dir.read().map_err(|error| match error.errno() {
            // Between mkdir and the first state, and while `delete` removes one, a directory holds none.
            Some(libc::ENOENT) => {
                let id = dir.id();
                Error::new(Kind::NotFound, format!("container does not exist: {id} (no state)"))
            }
            _ => error,
        })?;
        Ok(Container::of(dir, state))
    }

    /// The same, holding other verbs off.
    ///
    /// # Errors
    /// As `open`.
    pub(crate) fn open_locked(home: &Home, id: &str) -> Result<Container> {
        let dir = Dir::open(&home.root, id)?;
        dir.lock()?;
        Container::read(dir)
    }

    /// Its phase, and init's pidfd unless it is stopped or still being created.
    ///
    /// # Errors
    /// When neither the process nor the group can be looked at.
    pub(crate) fn phase(&self) -> Result<(Phase, Option<OwnedFd>)> {
        let newer;
        let init = match &self.state.init {
            Some(init) => init,
            None if self.dir.is_locked()? => return Ok((Phase::Creating, None)),
            // Its `create` is dead; or it was done with it after we had read.
            None => match self.dir.read() {
                Ok(State { init: Some(init), .. }) => {
                    newer = init;
                    &newer
                }
                Ok(_) => return Ok((Phase::Stopped, None)),
                // Deleted meanwhile.
                Err(error) if error.errno() == Some(libc::ENOENT) => return Ok((Phase::Stopped, None)),
                Err(error) => return Err(error),
            },
        };
        let Some(pidfd) = init.open()? else { return Ok((Phase::Stopped, None)) };
        let phase = if self.group.is_frozen()? {
            Phase::Paused
        } else if self.dir.has("gate")? {
            Phase::Created
        } else if has_exited(pidfd.as_fd())? {
            // Asked once more: `delete` removes the gate once init is dead, and what it leaves is not one that runs.
            return Ok((Phase::Stopped, None));
        } else {
            Phase::Running
        };
        Ok((phase, Some(pidfd)))
    }

    /// Its control group.
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    #[doc(hidden)] // nothing else of it
    pub fn into_group(self) -> Group {
        self.group
    }

    /// Its processes, ascending: those of its group or, without one, of its pid namespace.
    ///
    /// # Errors
    /// `Kind::Unsupported` when neither is its own.
    pub fn pids(&self) -> Result<Vec<i32>> {
        if !self.state.cgroup.groups.is_empty() {
            return self.group().pids();
        }
        match self.phase()? {
            // Held by its pidfd, so that its number is nobody else's meanwhile.
            (_, Some(_held)) => {
                members::in_pid_namespace_of(self.state.init.as_ref().map_or(0, |init| init.pid))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Its configuration, as it was at create.
    ///
    /// # Errors
    /// When the copy is gone or does not read.
    pub(crate) fn spec(&self) -> Result<Spec> {
        spec::read("config.json", &self.dir.read_file("config.json")?)
    }

    /// The resources in force.
    ///
    /// # Errors
    /// As `spec`.
    pub(crate) fn resources(&self) -> Result<Resources> {
        match &self.state.resources {
            Some(resources) => Ok(resources.clone()),
            None => Ok(self.spec()?.linux.resources.unwrap_or_default()),
        }
    }

    /// What [`state`](fn@crate::verbs::state) tells.
    ///
    /// # Errors
    /// When neither the process nor the group can be looked at.
    pub fn status(&self) -> Result<Status> {
        let (phase, _) = self.phase()?;
        let alive = !matches!(phase, Phase::Stopped | Phase::Creating);
        let state = &self.state;
        Ok(Status {
            oci_version: OCI_VERSION,
            id: state.id.clone(),
            pid: state.init.as_ref().filter(|_| alive).map_or(0, |init| init.pid),
            status: phase.name(),
            bundle: state.bundle.display().to_string(),
            rootfs: state.rootfs.display().to_string(),
            created: state.created.clone(),
            annotations: state.annotations.clone(),
            owner: String::new(),
        })
    }
}

/// The user's name in /etc/passwd, else the number.
pub(crate) fn owner(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

/// SIGKILL to everything of a container, and a bounded wait for init's end.
///
/// # Errors
/// `Kind::Os` when init does not die (it hangs in the kernel); trying again later may succeed.
pub(crate) fn kill_and_wait(container: &Container, pidfd: Option<&OwnedFd>) -> Result<()> {
    use crate::host::identity;
    let limit = Duration::from_secs(10);
    let group = container.group();
    if let Some(pidfd) = pidfd {
        identity::kill(pidfd.as_fd())?;
    }
    // Also when init is gone: without a pid namespace of its own it leaves the others behind.
    group.kill()?;
    match pidfd {
        Some(pidfd) if !wait_for_end(pidfd.as_fd(), group, limit)? => {
            Err(Error::new(Kind::Os, format!("container init still running: {}", container.state.id)))
        }
        _ => Ok(()),
    }
}

/// Waits until init has ended, or nothing of the container is left in its groups: the first process of a pid namespace
/// stays until the others' parents have reaped them, execs among them, and those may be in no hurry. It runs nothing
/// then, and has left its groups and mounts (do_exit).
fn wait_for_end(pidfd: BorrowedFd<'_>, group: &Group, limit: Duration) -> Result<bool> {
    use crate::host::identity::wait_for_exit;
    let deadline = Instant::now() + limit;
    let mut step = Duration::from_millis(50);
    let known = group.record().version != Version::None;
    loop {
        if wait_for_exit(pidfd, Some(step))? || (known && group.is_known()? && group.pids()?.is_empty()) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        step = (step * 2).min(Duration::from_millis(500));
    }
}
