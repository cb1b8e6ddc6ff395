// SPDX-License-Identifier: Apache-2.0
//! `state`, `list` and `ps`.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ask::Home;
use crate::container::{Container, owner};
use crate::error::{Kind, Result};
use crate::state::{Root, Status};

/// `state`: one container (compatibility J1).
///
/// # Errors
/// `Kind::NotFound`.
pub fn state(home: &Home, id: &str) -> Result<Status> {
    Container::open(home, id)?.status()
}

/// `list`: every container of the root, by id; unreadable entries are warned about.
///
/// # Errors
/// A root that is not there, or cannot be read.
pub fn list(home: &Home) -> Result<Vec<Status>> {
    let root = Arc::new(Root::open(&home.root)?);
    let ids = root.ids()?;
    let mut all = Vec::with_capacity(ids.len());
    // /etc/passwd is read once for a user, not for each of a thousand containers.
    let mut names = BTreeMap::new();
    for id in ids {
        let told = Container::open_in(&root, &id).and_then(|container| {
            let name: &String = names.entry(container.state.owner).or_insert_with_key(|uid| owner(*uid));
            Ok(Status { owner: name.clone(), ..container.status()? })
        });
        match told {
            Ok(status) => all.push(status),
            // Deleted meanwhile, or not made yet.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => (home.warn)(&format!("container {id}: {error}")),
        }
    }
    Ok(all)
}

/// `ps`: the pids of every process in the container's cgroup tree or, without one, in its pid namespace; ascending.
///
/// # Errors
/// `Kind::Unsupported` for a container with neither.
pub fn pids(home: &Home, id: &str) -> Result<Vec<i32>> {
    Container::open(home, id)?.pids()
}
