// SPDX-License-Identifier: Apache-2.0
//! What dead containers and dead shims have left: containers whose end nobody will come to clear away, bundles whose shim is gone,
//! groups that bear our mark and are nobody's. What merely has stopped waits for its engine, and is no leftover.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{HostCheck, Signs};
use crate::cgroup::mark_of;
use crate::container::{Container, Phase};
use crate::error::{Kind, Result};
use crate::facts::Facts;
use crate::procfs::boot_id;
use crate::state::{Identity, Root};

/// Where the shim keeps the state of containers, by containerd's namespaces (`shim/src/options.rs`).
const SHIM_ROOTS: &str = "/run/containerd/corten";
/// Where containerd has the bundles of running tasks, by namespaces.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task";
/// A directory without a state that is younger may be one that some `create` has made a moment ago.
const YOUNG: Duration = Duration::from_secs(60);
/// How many groups are looked at, and how deep.
const MANY: usize = 10_000;
const DEEP: usize = 12;

/// A container's directory of which there is something to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadContainer {
    pub(super) root: PathBuf,
    pub(super) id: String,
    pub(super) why: Dead,
}

/// Why nobody will come for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dead {
    /// Its `create` has died.
    HalfMade,
    /// It is of another boot.
    OtherBoot,
    /// It has stopped, and its bundle is gone.
    BundleGone,
    /// It has stopped: whoever made it may come for it.
    Stopped,
    /// It has stopped, and something of it runs.
    Haunted,
    /// Its state cannot be read, or is no state.
    Unreadable(String),
}

impl Dead {
    /// Whether it may go: known to be dead, nothing of it runs, and nobody is to come.
    pub(super) fn may_go(&self) -> bool {
        matches!(self, Dead::HalfMade | Dead::OtherBoot | Dead::BundleGone)
    }

    fn words(&self) -> String {
        match self {
            Dead::HalfMade => "its create died".to_owned(),
            Dead::OtherBoot => "of another boot".to_owned(),
            Dead::BundleGone => "stopped, its bundle is gone".to_owned(),
            Dead::Stopped => "stopped, not deleted".to_owned(),
            Dead::Haunted => "stopped, something of it runs".to_owned(),
            Dead::Unreadable(error) => error.clone(),
        }
    }
}

/// A bundle of ours whose shim is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadShim {
    pub(super) namespace: String,
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    /// The socket that it served: all members of a pod have the same one.
    pub(super) address: String,
    /// Something of the container runs, or it is not known whether.
    pub(super) runs: bool,
}

/// What is left, as far as this user can see.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    pub(super) containers: Vec<DeadContainer>,
    pub(super) shims: Vec<DeadShim>,
    /// Empty groups with a mark of no container in the roots that were looked at.
    pub(super) groups: Vec<String>,
    /// The shim's program, which clears away after a dead one.
    pub(super) shim_program: Option<PathBuf>,
}

pub(super) fn look(facts: &Facts, root: &Path) -> Leftovers {
    let roots: BTreeSet<PathBuf> =
        std::iter::once(root.to_owned()).chain(directories(Path::new(SHIM_ROOTS))).collect();
    // Groups first: what is made meanwhile has its state before its groups.
    let marked = if facts.euid == 0 { marked_groups(facts) } else { Vec::new() };
    let mut found = Leftovers::default();
    let mut marks = BTreeSet::new();
    for root in &roots {
        containers(root, &mut found.containers, &mut marks);
    }
    found.shims = directories(Path::new(BUNDLES)).iter().flat_map(|dir| dead_shims(dir)).collect();
    let nobodys = marked.into_iter().filter(|(path, mark)| !marks.contains(mark) && is_empty(path));
    found.groups = nobodys.map(|(path, _)| path.display().to_string()).collect();
    found
}

/// The directories in one; none in one that cannot be read.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    all.sort();
    all
}

fn containers(root: &Path, found: &mut Vec<DeadContainer>, marks: &mut BTreeSet<String>) {
    let Ok(open) = Root::open(root).map(Arc::new) else { return };
    for id in open.ids().unwrap_or_default() {
        let container = match Container::open_in(&open, &id) {
            Ok(container) => Some(container),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => {
                let why = Dead::Unreadable(error.to_string());
                found.push(DeadContainer { root: root.to_owned(), id, why });
                continue;
            }
        };
        marks.extend(container.as_ref().map(|container| container.state.cgroup.mark.clone()));
        let judged = judge_now(&root.join(&id), container.as_ref());
        let why = judged.unwrap_or_else(|error| Some(Dead::Unreadable(error.to_string())));
        found.extend(why.map(|why| DeadContainer { root: root.to_owned(), id, why }));
    }
}

/// Whether a container is dead, and for whom it waits; `None`: it lives, or somebody is at work on it. Without a container, of a
/// directory that holds no state.
///
/// # Errors
/// What could not be found out: it is not dead then.
pub(super) fn judge(dir: &Path, found: Option<(&Container, Phase)>) -> Result<Option<Dead>> {
    let Some((container, phase)) = found else {
        let made = std::fs::symlink_metadata(dir).and_then(|meta| meta.modified());
        let old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > YOUNG));
        return Ok(old.then_some(Dead::HalfMade));
    };
    if phase != Phase::Stopped {
        return Ok(None);
    }
    let state = &container.state;
    let boot = state.init.as_ref().map(|init| init.boot_id.as_str());
    if boot.is_some_and(|boot| !boot.is_empty()) && boot != Some(boot_id()?) {
        return Ok(Some(Dead::OtherBoot));
    }
    if !state.cgroup.groups.is_empty() && !container.group().pids()?.is_empty() {
        return Ok(Some(Dead::Haunted));
    }
    let bundle = std::fs::symlink_metadata(&state.bundle);
    Ok(Some(match (boot, bundle) {
        (None, _) => Dead::HalfMade,
        (Some(_), Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Dead::BundleGone,
        _ => Dead::Stopped,
    }))
}

/// The same of what it does right now.
fn judge_now(dir: &Path, container: Option<&Container>) -> Result<Option<Dead>> {
    let found = container.map(|container| Ok((container, container.phase()?.0))).transpose()?;
    judge(dir, found)
}

/// What of the shim's record (`shim/src/record.rs`) says whose the bundle is.
#[derive(Deserialize)]
struct BundleRecord {
    version: u32,
    id: String,
    address: String,
    server: Option<Identity>,
}

fn dead_shims(namespace: &Path) -> Vec<DeadShim> {
    let name = namespace.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found: Vec<DeadShim> =
        directories(namespace).into_iter().filter_map(|bundle| dead_shim(&name, bundle)).collect();
    // One member that runs speaks for its pod.
    let alive: BTreeSet<String> =
        found.iter().filter(|shim| shim.runs).map(|shim| shim.address.clone()).collect();
    found.iter_mut().for_each(|shim| shim.runs = alive.contains(&shim.address));
    found
}

fn dead_shim(namespace: &str, bundle: PathBuf) -> Option<DeadShim> {
    let bytes = std::fs::read(bundle.join("corten.json")).ok()?;
    let record: BundleRecord = serde_json::from_slice(&bytes).ok()?;
    // Which process it was is not known of an older one; not known is not dead.
    let server = record.server.filter(|_| record.version == 1)?;
    if !matches!(server.open(), Ok(None)) {
        return None;
    }
    let root = Path::new(SHIM_ROOTS).join(namespace);
    let container = Root::open(&root).and_then(|root| Container::open_in(&Arc::new(root), &record.id));
    let (state, runs) = match container {
        Ok(container) => {
            let dead = judge_now(&root.join(&record.id), Some(&container));
            (
                true,
                !matches!(
                    dead,
                    Ok(Some(Dead::OtherBoot | Dead::BundleGone | Dead::HalfMade | Dead::Stopped))
                ),
            )
        }
        Err(error) if error.kind() == Kind::NotFound || error.errno() == Some(libc::ENOENT) => (false, false),
        Err(_) => (true, true),
    };
    let socket = record.address.strip_prefix("unix://").is_some_and(|path| Path::new(path).exists());
    // What is left of a bundle itself is containerd's to remove.
    (state || socket).then(|| DeadShim {
        namespace: namespace.to_owned(),
        id: record.id,
        bundle,
        address: record.address,
        runs,
    })
}

/// Groups that bear a mark, in all hierarchies.
fn marked_groups(facts: &Facts) -> Vec<(PathBuf, String)> {
    let mounts = facts.cgroups.v1.iter().chain(&facts.cgroups.v2).map(|h| PathBuf::from(&h.mount));
    let mut pending: Vec<(PathBuf, usize)> = mounts.map(|mount| (mount, 0)).collect();
    let (mut found, mut seen) = (Vec::new(), 0);
    while let Some((dir, depth)) = pending.pop() {
        seen += 1;
        if let Some(path) = dir.to_str()
            && let Ok(Some(mark)) = mark_of(path)
        {
            found.push((dir, String::from_utf8_lossy(&mark).into_owned()));
        } else if seen < MANY && depth < DEEP {
            pending.extend(directories(&dir).into_iter().map(|below| (below, depth + 1)));
        }
    }
    found
}

/// Whether it is there still, without processes or groups below.
fn is_empty(group: &Path) -> bool {
    let procs = std::fs::read_to_string(group.join("cgroup.procs"));
    procs.is_ok_and(|procs| procs.is_empty()) && directories(group).is_empty()
}

pub(super) fn examine(signs: &Signs) -> Vec<HostCheck> {
    let left = &signs.leftovers;
    let mut all = vec![dead_containers(&left.containers), shims(&left.shims)];
    if signs.facts.euid == 0 {
        all.push(groups(&left.groups));
    }
    all
}

/// The first few of a list, and how many there are.
fn some(all: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 3;
    let count = all.len();
    let first = all.take(SHOWN).collect::<Vec<_>>().join("; ");
    if count > SHOWN { format!("{count}: {first}; …") } else { first }
}

fn dead_containers(all: &[DeadContainer]) -> HostCheck {
    let id = "leftovers.containers";
    let told = |all: &[&DeadContainer]| {
        some(all.iter().map(|one| format!("{} ({})", one.root.join(&one.id).display(), one.why.words())))
    };
    let of = |wanted: fn(&Dead) -> bool| all.iter().filter(|one| wanted(&one.why)).collect::<Vec<_>>();
    let (dead, odd) = (of(Dead::may_go), of(|why| matches!(why, Dead::Unreadable(_) | Dead::Haunted)));
    let stopped = of(|why| *why == Dead::Stopped);
    match (dead.is_empty(), odd.is_empty(), stopped.is_empty()) {
        (false, ..) => HostCheck::warn(id, told(&dead), "corten doctor --clean removes them"),
        (_, false, _) => {
            HostCheck::warn(id, told(&odd), "look at them; corten delete --force ID ends what there is")
        }
        (.., false) => {
            HostCheck::note(id, told(&stopped), "corten delete ID, if no engine is to come for them")
        }
        _ => HostCheck::ok(id, "none"),
    }
}

fn shims(all: &[DeadShim]) -> HostCheck {
    let id = "leftovers.shims";
    let told = |all: Vec<&DeadShim>| {
        some(
            all.into_iter()
                .map(|one| format!("{}/{}", one.namespace, one.id))
                .collect::<Vec<_>>()
                .into_iter(),
        )
    };
    let (running, dead): (Vec<&DeadShim>, Vec<&DeadShim>) = all.iter().partition(|one| one.runs);
    match (dead.is_empty(), running.is_empty()) {
        (false, _) => HostCheck::warn(
            id,
            told(dead),
            "start containerd, which clears them away, or: corten doctor --clean",
        ),
        (true, false) => HostCheck::warn(
            id,
            format!("without a shim, and something of them runs: {}", told(running)),
            "start containerd, which ends them and clears them away",
        ),
        _ => HostCheck::ok(id, "none"),
    }
}

fn groups(all: &[String]) -> HostCheck {
    let id = "leftovers.groups";
    match all {
        [] => HostCheck::ok(id, "none"),
        all => HostCheck::note(
            id,
            format!(
                "empty, with the mark of a container in none of the state roots looked at: {}",
                some(all.iter().cloned())
            ),
            "if no other state root has it (--root): rmdir",
        ),
    }
}
