// SPDX-License-Identifier: Apache-2.0
//! `delete`: the undo journal replayed from the state on disk.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::ask::Home;
use crate::cgroup::Group;
use crate::container::{Container, Phase, kill_and_wait};
use crate::error::{Error, Kind, Result};
use crate::host::{hooks, identity, permitted, rdt};
use crate::plan;
use crate::spec::Spec;
use crate::state::{Dir, Identity, State};

/// How long a single wait of `delete --force` for another verb gets: what holds it is asked to end again before each.
const PATIENCE: Duration = Duration::from_secs(1);

/// `delete`: removes a stopped (or created) container; with `force` kills it first, and an absent one is fine. The record
/// goes last, and only after all that it names: one that cannot be read stays, with what it names.
///
/// Source: runtime.md, "Delete"; `force` is runc's.
#[doc = include_str!("examples/delete.md")]
/// # Errors
/// `Kind::Status` for a running container without `force`; whatever keeps from reading the state; `Kind::Os` for what
/// could not be removed: the state stays then, and a later call goes on.
pub fn delete(home: &Home, id: &str, force: bool) -> Result<()> {
    let dir = match Dir::open(&home.root, id) {
        Err(error) if error.kind() == Kind::NotFound && force => return Ok(()),
        other => other?,
    };
    match if force { seize(&dir) } else { dir.lock() } {
        // Another `delete` was quicker: what has the id now, if anything, is none of ours.
        Err(error) if error.kind() == Kind::NotFound && force => return Ok(()),
        other => other?,
    }
    let state = match dir.read() {
        // Its `create` died before it wrote one, and nothing else was made; or its `delete`, when all else was gone.
        Err(error) if error.errno() == Some(libc::ENOENT) => return dir.remove(),
        other => other?,
    };
    let container = Container::of(dir, state);
    let (phase, pidfd) = container.phase()?;
    match phase {
        Phase::Stopped | Phase::Created => {}
        _ if force => {}
        other => {
            let name = other.name();
            let text = format!("cannot delete container {id} that is not stopped: {name}");
            return Err(Error::new(Kind::Status, text));
        }
    }
    destroy(home, &container, phase, pidfd)
}

/// `delete` of what `is_dead` finds so while nobody else is at work on it, and only then; whether it was removed. It is given the
/// container and what that does, or nothing of a directory that holds no state.
///
/// # Errors
/// As [`delete`]; whatever keeps from telling. Nothing is removed then.
pub(crate) fn delete_dead(
    home: &Home,
    id: &str,
    is_dead: impl FnOnce(Option<(&Container, Phase)>) -> Result<bool>,
) -> Result<bool> {
    let dir = Dir::open(&home.root, id)?;
    if !dir.lock_within(Duration::ZERO)? {
        return Ok(false);
    }
    let state = match dir.read() {
        Err(error) if error.errno() == Some(libc::ENOENT) => {
            let dead = is_dead(None)?;
            return if dead { dir.remove().map(|()| true) } else { Ok(false) };
        }
        state => state?,
    };
    let container = Container::of(dir, state);
    let phase = match container.phase()?.0 {
        // The lock is ours, so no `create` is at work on it.
        Phase::Creating => Phase::Stopped,
        other => other,
    };
    if phase != Phase::Stopped || !is_dead(Some((&container, phase)))? {
        return Ok(false);
    }
    destroy(home, &container, phase, None).map(|()| true)
}

/// Stops a container, undoes what was made for it, and runs the poststop hooks.
pub(super) fn destroy(
    home: &Home,
    container: &Container,
    phase: Phase,
    pidfd: Option<OwnedFd>,
) -> Result<()> {
    if phase != Phase::Stopped {
        kill_and_wait(container, pidfd.as_ref())?;
    }
    // Kills what a stopped container without a pid namespace of its own may have left behind.
    container.group().destroy()?;
    if let Some(mount) = &container.state.mount {
        mount.remove()?;
    }
    if let Some(record) = &container.state.rdt {
        rdt::remove(&record.owned)?;
    }
    // Read before the directory goes, run after: a failing hook must not keep the container (runtime.md, step 13).
    let hooks = match container.state.poststop.then(|| container.spec()) {
        Some(Ok(Spec { hooks, annotations, .. })) => {
            let listed = permitted::listed(&annotations, false).unwrap_or_default();
            let obeyed = plan::annotations::read(&annotations, &listed).unwrap_or_default();
            plan::hooks::decide_hooks(&hooks, &obeyed.hook_output).unwrap_or_default().poststop
        }
        Some(Err(_)) | None => Vec::new(),
    };
    container.dir.remove()?;
    let state = &container.state;
    hooks::poststop(home, &hooks, &state.id, &state.bundle, &state.annotations);
    Ok(())
}

/// Ends the container's processes, whoever holds it; but for a group by whose name another container goes by now.
fn kill_what_it_names(dir: &Dir, state: State) -> Result<()> {
    let init = state.init.as_ref().map(Identity::open).transpose()?.flatten();
    init.map_or(Ok(()), |init| identity::kill(init.as_fd()))?;
    if dir.is_named()? { Group::open(state.cgroup).kill() } else { Ok(()) }
}

/// Holds the container, whatever another verb is at work on: what that waits for is killed, and it lets go.
fn seize(dir: &Dir) -> Result<()> {
    let mut patience = Duration::from_millis(2);
    while !dir.lock_within(patience)? {
        if let Some(hook) = dir.hook()?.map(|hook| hook.open()).transpose()?.flatten() {
            identity::kill(hook.as_fd())?;
        }
        match dir.read() {
            // Of a state that is not written yet, or was removed, nothing is to be killed; of one that cannot be read, nothing is known.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            other => kill_what_it_names(dir, other?)?,
        }
        if patience > PATIENCE {
            return dir.lock();
        }
        patience *= 2;
    }
    Ok(())
}
