// SPDX-License-Identifier: Apache-2.0
//! `doctor --clean`: removes what is known to be dead and ours, by the code of `delete`, under the container's lock, and only if it
//! is found to be dead once more there. Nothing is signalled: what something of runs is left alone. Groups without a container are
//! told and not removed: of another state root nothing is known.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use super::leftovers::{DeadContainer, DeadShim, Leftovers, judge};
use crate::ask::{Home, Manager};
use crate::error::{Context, Error, Kind, Result};
use crate::verbs;

/// What it was and how its removal went.
pub type Cleaned = (String, Result<()>);

/// Removes what of `left` may go.
pub fn clean(left: &Leftovers, warn: &dyn Fn(&str)) -> Vec<Cleaned> {
    let dead = left.containers.iter().filter(|one| one.why.may_go());
    let mut all: Vec<Cleaned> = dead
        .filter_map(|one| container(one, warn).transpose().map(|done| (name(one), done.map(drop))))
        .collect();
    let mut done = BTreeSet::new();
    for one in left.shims.iter().filter(|one| !one.runs) {
        // The first of a pod takes the others along.
        if done.insert(&one.address) {
            all.push((
                format!("shim of {}/{}", one.namespace, one.id),
                shim(one, left.shim_program.as_deref()),
            ));
        }
    }
    all
}

fn name(one: &DeadContainer) -> String {
    format!("container {}", one.root.join(&one.id).display())
}

/// `None`: it was not dead any more, or somebody is at work on it.
fn container(one: &DeadContainer, warn: &dyn Fn(&str)) -> Result<Option<()>> {
    let home =
        Home { root: one.root.clone(), manager: Manager::default(), rootless: None, warn, trace: None };
    let dir = one.root.join(&one.id);
    let removed = verbs::delete_dead(&home, &one.id, |found| {
        // Asked once more, under the lock.
        Ok(judge(&dir, found)?.is_some_and(|why| why.may_go()))
    })?;
    Ok(removed.then_some(()))
}

/// As containerd has it done: the shim's own `delete`, which looks once more whether the server is dead.
fn shim(one: &DeadShim, program: Option<&Path>) -> Result<()> {
    let Some(program) = program else {
        return Err(Error::new(Kind::Unsupported, "its program is neither in PATH nor beside containerd"));
    };
    let mut command = Command::new(program);
    command.args(["-namespace", &one.namespace, "-id", &one.id, "-bundle"]).arg(&one.bundle).arg("delete");
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let done = command.output().call(|| format!("execve({})", program.display()))?;
    match done.status.success() {
        true => Ok(()),
        false => {
            Err(Error::new(Kind::Peer, String::from_utf8_lossy(&done.stderr).trim().to_owned()).at("shim"))
        }
    }
}
