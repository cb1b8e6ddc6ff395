// SPDX-License-Identifier: Apache-2.0
//! Mounts of type `cgroup` (and `cgroup2`): what the container sees of the control groups.
//!
//! With a cgroup namespace the hierarchies are mounted, and the namespace limits the view. Without one the unified
//! hierarchy is bound as the host has it, which is what a container in the host's cgroup namespace must see for its own
//! /proc/self/cgroup to mean anything; of each v1 hierarchy, as runc does, the container's own group.
//!
//! The unified hierarchy is never mounted anew for the host's namespace: such a mount sets the options of all others
//! (nsdelegate, memory_recursiveprot) to its own.

#![forbid(unsafe_code)]

use super::read::{Reading, only_sets};
use super::{Attrs, Mount, MountSource, MountStep};
use crate::cgroup::{self, Version, View};
use crate::error::{Error, Kind, Result};
use crate::plan::Field;
use crate::plan::namespaces::{Namespaces, NsKind};
use crate::plan::process::Process;

/// What every mount of cgroups gets besides the entry's options, as in runc.
const HARDENED: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

pub(super) fn steps(entry: &Reading, steps: &mut Vec<MountStep>) -> Result<()> {
    if entry.idmap.is_some() {
        return Err(Error::invalid(&entry.at, "control groups cannot be id-mapped"));
    }
    let host = &entry.context.facts.cgroups;
    let own = &entry.context.cgroup.record;
    // A container without groups of its own is in the runtime's.
    let group = own.v2_path().or_else(|| host.v2_path());
    match (host.version(), group) {
        (Version::V2, Some(group)) => {
            let whole = host.v2.as_ref().map_or(group.as_str(), |v2| v2.mount.as_str());
            let source = match entry.context.namespaces.has(NsKind::Cgroup) {
                _ if namespaced(entry) => fs("cgroup2", entry.source, entry.data("cgroup2")?),
                // Of a namespace that it joined, and through which it may not mount: no more than that shows.
                true => bind(&group),
                false => bind(whole),
            };
            let mut mount = entry.mount(source)?;
            harden(&mut mount);
            if matches!(mount.source, MountSource::Bind { .. }) {
                settle_writing(entry, &mut mount);
            }
            steps.push(MountStep::Mount(mount));
            Ok(())
        }
        (Version::V1, _) => {
            let views = if own.version == Version::V1 { own.v1_views() } else { host.v1_views() };
            v1(entry, &views, steps)
        }
        _ => Err(Error::invalid(&entry.at, "no cgroup hierarchy is mounted").with_kind(Kind::Unsupported)),
    }
}

/// Whose the container's group is to be: its user's, if that is to make groups of its own (config-linux.md, "Cgroup
/// ownership"): in a user namespace, which makes the user somebody else than the host's, with a new cgroup namespace and a
/// writable mount of the unified hierarchy at its usual place.
#[must_use]
pub(crate) fn group_owner(
    steps: &[MountStep],
    namespaces: &Namespaces,
    cgroup: &cgroup::GroupPlan,
    process: Option<&Process>,
) -> Option<Field<u32>> {
    let record = &cgroup.record;
    let delegates = record.version == Version::V2
        && !record.groups.is_empty()
        && namespaces.has(NsKind::User)
        && namespaces.has_new(NsKind::Cgroup);
    let writable = |step: &MountStep| match step {
        MountStep::Mount(Mount {
            at,
            target,
            source: MountSource::Fs { fstype, .. },
            attrs,
            recursive,
            ..
        }) => {
            let readonly = (attrs.set | recursive.set) & libc::MOUNT_ATTR_RDONLY != 0;
            (fstype == "cgroup2" && target == "/sys/fs/cgroup" && !readonly).then(|| at.clone())
        }
        _ => None,
    };
    let at = delegates.then(|| steps.iter().rev().find_map(writable)).flatten()?;
    Some(Field { at, value: process.map_or(0, |process| process.uid) })
}

/// The legacy layout: a tmpfs with a directory for every hierarchy, and links for controllers that share one.
fn v1(entry: &Reading, views: &[View], steps: &mut Vec<MountStep>) -> Result<()> {
    let mode = vec![("mode".to_owned(), Some("755".to_owned()))];
    let mut top = entry.mount(fs("tmpfs", Some("tmpfs"), mode))?;
    let readonly = Attrs::sets(top.attrs.set & libc::MOUNT_ATTR_RDONLY);
    harden(&mut top);
    top.attrs.set &= !readonly.set;
    steps.push(MountStep::Mount(top));
    for view in views {
        steps.push(MountStep::Mount(directory(entry, view)?));
    }
    for view in views {
        steps.extend(view.links.iter().map(|link| MountStep::Symlink {
            at: entry.at.clone(),
            path: below(entry, link),
            target: view.dir.clone(),
        }));
    }
    if readonly.set != 0 {
        let (at, target) = (entry.at.clone(), entry.target.clone());
        steps.push(MountStep::Remount {
            at,
            target,
            attrs: readonly,
            recursive: Attrs::default(),
            late: false,
        });
    }
    Ok(())
}

fn directory(entry: &Reading, view: &View) -> Result<Mount> {
    let parameter = |controller: &String| match controller.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (controller.clone(), None),
    };
    let source = match namespaced(entry) {
        true => fs("cgroup", Some("cgroup"), view.controllers.iter().map(parameter).collect()),
        false => bind(&view.path),
    };
    let mut mount = entry.mount(source)?;
    harden(&mut mount);
    mount.target = below(entry, &view.dir);
    Ok(mount)
}

fn below(entry: &Reading, name: &str) -> String {
    format!("{}/{name}", entry.target.trim_end_matches('/'))
}

/// Whether the cgroup namespace is the container's, and mountable: a new user namespace may not mount through one
/// that it does not own.
fn namespaced(entry: &Reading) -> bool {
    let namespaces = entry.context.namespaces;
    let joined = namespaces.joins(NsKind::Cgroup) && !namespaces.has_new(NsKind::User);
    namespaces.has_new(NsKind::Cgroup) || joined
}

/// A mount of the hierarchies. Never with the superblock's `ro`: all of them share theirs with the host.
fn fs(fstype: &str, source: Option<&str>, options: Vec<(String, Option<String>)>) -> MountSource {
    let (fstype, source) = (fstype.to_owned(), source.map(str::to_owned));
    MountSource::Fs { fstype, source, options, mode_of_target: false }
}

fn bind(group: &str) -> MountSource {
    MountSource::Bind {
        path: group.into(),
        recursive: true,
        nofollow: false,
        copy_symlink: false,
        procfs: false,
        inside: None,
    }
}

/// A bind of the hierarchy is as writable as its entry says. Not without root: the groups there are in part the user's own,
/// on the host (CVE-2023-25809).
fn settle_writing(entry: &Reading, mount: &mut Mount) {
    const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    let facts = entry.context.facts;
    if facts.in_userns || facts.euid != 0 {
        mount.attrs.set |= RDONLY;
        mount.recursive.set |= if facts.mount_setattr { RDONLY } else { 0 };
    } else if !entry.readonly() {
        mount.attrs.implied |= RDONLY;
    }
}

fn harden(mount: &mut Mount) {
    if matches!(mount.source, MountSource::Bind { .. }) {
        only_sets(&mut mount.attrs);
    }
    mount.attrs.set |= HARDENED;
}
