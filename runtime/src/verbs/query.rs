// SPDX-License-Identifier: Apache-2.0
//! `state`, `list` and `ps`.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::ask::Home;
use crate::container::{Container, owner};
use crate::error::{Kind, Result};
use crate::state::{Root, Status};
use crate::sys::thread::ThreadAtWork;

/// Of so many containers that have to be looked at (some 30 µs each) a thread of their own is worth its start (some 60 µs).
const WORTH_A_THREAD: usize = 64;

/// `state`: one container (compatibility J1).
///
/// Source: runtime.md, "Query State" and "State".
#[doc = include_str!("examples/state.md")]
/// # Errors
/// `Kind::NotFound`.
pub fn state(home: &Home, id: &str) -> Result<Status> {
    Container::open(home, id)?.status()
}

/// `list`: every container of the root, by id; unreadable entries are warned about.
///
/// Source: runc-list(8).
#[doc = include_str!("examples/list.md")]
/// # Errors
/// A root that is not there, or cannot be read.
pub fn list(home: &Home) -> Result<Vec<Status>> {
    let root = Arc::new(Root::open(&home.root)?);
    let ids: Arc<[String]> = root.ids()?.into();
    // A few are looked at without asking what the machine has.
    let threads = match ids.len() / WORTH_A_THREAD {
        0 | 1 => 1,
        several => several.min(crate::sys::sched::processors()),
    };
    let share = ids.len().div_ceil(threads).max(1);
    let mut shares = (0..ids.len()).step_by(share).map(|from| from..ids.len().min(from + share));
    let first = shares.next().unwrap_or(0..0);
    let begin = |part: Range<usize>| {
        let (root, ids, theirs) = (root.clone(), ids.clone(), part.clone());
        (part, ThreadAtWork::start(move || looked_at(&root, &ids, theirs)))
    };
    let others: Vec<_> = shares.map(begin).collect();
    let mut told = looked_at(&root, &ids, first);
    for (part, thread) in others {
        let theirs = thread.and_then(ThreadAtWork::finish);
        told.extend(theirs.unwrap_or_else(|_| looked_at(&root, &ids, part)));
    }
    // /etc/passwd is read once for a user, not for each of a thousand containers.
    let mut names = BTreeMap::new();
    let mut all = Vec::with_capacity(told.len());
    for (id, told) in ids.iter().zip(told) {
        match told {
            Ok((uid, status)) => {
                let name: &String = names.entry(uid).or_insert_with_key(|uid| owner(*uid));
                all.push(Status { owner: name.clone(), ..status });
            }
            // Deleted meanwhile, or not made yet.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => (home.warn)(&format!("container {id}: {error}")),
        }
    }
    Ok(all)
}

/// What these are, and whose.
fn looked_at(root: &Arc<Root>, ids: &[String], part: Range<usize>) -> Vec<Result<(u32, Status)>> {
    let ids = ids.get(part).unwrap_or_default();
    let one = |id| Container::open_in(root, id).and_then(|it| Ok((it.state.owner, it.status()?)));
    ids.iter().map(|id| one(id)).collect()
}

/// The ids of the containers of the root, sorted.
#[doc = include_str!("examples/ids.md")]
/// # Errors
/// As [`list`].
pub fn ids(home: &Home) -> Result<Vec<String>> {
    Root::open(&home.root)?.ids()
}

/// `ps`: the pids of every process in the container's cgroup tree or, without one, in its pid namespace; ascending.
///
/// They are those of the caller's pid namespace. Source: runc-ps(8).
#[doc = include_str!("examples/pids.md")]
/// # Errors
/// `Kind::Unsupported` for a container with neither.
pub fn pids(home: &Home, id: &str) -> Result<Vec<i32>> {
    Container::open(home, id)?.pids()
}
