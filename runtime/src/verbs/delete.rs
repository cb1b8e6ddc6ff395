// SPDX-License-Identifier: Apache-2.0
//! `delete`: the undo journal replayed from the state on disk.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use crate::ask::Home;
use crate::cgroup::{self, Group};
use crate::container::{Container, Phase, end};
use crate::error::{Error, Kind, Result};
use crate::facts::Facts;
use crate::host::{hooks, rdt};
use crate::plan;
use crate::spec::{self, Spec};
use crate::state::Dir;

/// `delete`: removes a stopped (or created) container; with `force` kills it first, and an absent one is fine.
///
/// # Errors
/// `Kind::Status` for a running container without `force`; `Kind::Os` for what could not be removed: the state
/// stays then, and a later call goes on.
pub fn delete(home: &Home, id: &str, force: bool) -> Result<()> {
    let container = match Container::open_locked(home, id) {
        Err(error) if error.kind() == Kind::NotFound && force => return leftover(home, id),
        Err(error) if error.kind() == Kind::NotFound => return absent(home, id, error),
        Err(error) if force => return unreadable(home, id, error),
        other => other?,
    };
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

/// Stops a container, undoes what was made for it, and runs the poststop hooks.
pub(super) fn destroy(
    home: &Home,
    container: &Container,
    phase: Phase,
    pidfd: Option<OwnedFd>,
) -> Result<()> {
    if phase != Phase::Stopped {
        end(container, pidfd)?;
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
            let obeyed = plan::annotations::read(&annotations).unwrap_or_default();
            plan::hooks::decide(&hooks, &obeyed.hook_output).unwrap_or_default().poststop
        }
        Some(Err(_)) | None => Vec::new(),
    };
    container.dir.remove()?;
    let state = &container.state;
    hooks::poststop(home, &hooks, &state.id, &state.bundle, &state.annotations);
    Ok(())
}

/// A directory without a state: its `create` died before it wrote one, and nothing else was made.
fn leftover(home: &Home, id: &str) -> Result<()> {
    match Dir::open(&home.root, id) {
        Ok(dir) => dir.lock().and_then(|()| dir.remove()),
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn absent(home: &Home, id: &str, error: Error) -> Result<()> {
    match Dir::open(&home.root, id) {
        Ok(_) => leftover(home, id),
        Err(_) => Err(error),
    }
}

/// A state that does not read: the group is found again from the configuration's copy, and whatever is in it ends.
fn unreadable(home: &Home, id: &str, error: Error) -> Result<()> {
    let dir = Dir::open(&home.root, id)?;
    dir.lock()?;
    (home.warn)(&format!("{error}; removing what can be found"));
    if let Ok(spec) = dir.read_file("config.json").and_then(|bytes| spec::read::<Spec>("config.json", &bytes))
    {
        let path = spec.linux.cgroups_path.as_deref().filter(|path| !path.is_empty());
        let facts = Facts::probe()?;
        let plan = cgroup::decide(&facts.cgroups, home.manager, id, path, None)?;
        let group = Group::open(plan.record);
        group.kill()?;
        group.destroy()?;
    }
    dir.remove()
}
