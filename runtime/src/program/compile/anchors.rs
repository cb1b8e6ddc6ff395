// SPDX-License-Identifier: Apache-2.0
//! Which of our own mounts the stage holds on to until the container is hardened (decisions/0029).
//!
//! Whoever can write to the rootfs can rename mount points while we are at work (rename(2) asks only about its own mount
//! namespace): what is to be hidden inside such a mount, or made in it, must not be looked up by a name that leads
//! elsewhere meanwhile.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::{Binds, Builder, FSCONFIG_MAX, slots};
use crate::plan::Plan;
use crate::plan::devices::Via;
use crate::plan::mounts::{Mount, MountSource, MountStep};
use crate::program::op::Ref;
use crate::program::place::{Place, inside};

/// The mounts that are held.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    /// The last mount on each mount point, by its index in the plan: what lies below it on the same place plays no part.
    last: BTreeMap<String, usize>,
    /// Where the descriptor of a held mount is, by its index in the plan.
    held: BTreeMap<usize, Ref>,
    /// The same by the index of the remount that comes late.
    remounts: BTreeMap<usize, Ref>,
    /// How many of the held ones are in slots.
    slots: usize,
}

impl Anchors {
    /// Those that something will be looked up in. When the slots run out, what is left goes by name.
    pub(super) fn of(plan: &Plan, binds: &Binds) -> Anchors {
        let mut this = Anchors::default();
        // The mount that a late remount is about: the one of the same entry.
        let mut entries = BTreeMap::new();
        for (index, mount) in (0..plan.mounts.len()).filter_map(|index| Some((index, mount_at(plan, index)?)))
        {
            this.last.insert(mount.target.clone(), index);
            if mount.target != "/" && is_ours(mount) {
                entries.entry((&mount.at, &mount.target)).or_insert(index);
            }
        }
        for field in plan.masked.iter().chain(&plan.readonly) {
            this.hold(this.covering(plan, &field.value, is_kernel), binds);
        }
        for device in plan.devices.iter().filter(|device| matches!(device.via, Via::Mknod)) {
            this.hold(this.covering(plan, &device.path, is_empty), binds);
        }
        for (path, _) in &plan.dev_links {
            this.hold(this.covering(plan, path, is_empty), binds);
        }
        for (step, remount) in plan.mounts.iter().enumerate() {
            let MountStep::Remount { at, target, late: true, .. } = remount else { continue };
            let held = this.hold(entries.get(&(at, target)).copied(), binds);
            this.remounts.extend(held.map(|held| (step, held)));
        }
        this
    }

    fn hold(&mut self, mount: Option<usize>, binds: &Binds) -> Option<Ref> {
        let index = mount?;
        if let Some(held) = self.of_mount(index) {
            return Some(held);
        }
        let held = match binds.mounts.get(index) {
            Some(source @ Ref::Source(_)) => *source,
            _ if slots::ANCHORS + self.slots < slots::PROCFS => {
                self.slots += 1;
                Ref::Slot(slots::ANCHORS + self.slots - 1)
            }
            _ => return None,
        };
        self.held.insert(index, held);
        Some(held)
    }

    /// What holds the mount with this index.
    pub(super) fn of_mount(&self, index: usize) -> Option<Ref> {
        self.held.get(&index).copied()
    }

    /// What holds the mount that the step with this index changes after everything else is in place.
    pub(super) fn of_remount(&self, index: usize) -> Option<Ref> {
        self.remounts.get(&index).copied()
    }

    /// The last mount that covers `path`, if it is `wanted`; what is mounted inside of a wanted one is reached through
    /// that.
    fn covering(&self, plan: &Plan, path: &str, wanted: fn(&Mount) -> bool) -> Option<usize> {
        let mount_on = |place: &str| Some((*self.last.get(place)?, place.len()));
        let mut above: Vec<(usize, usize)> = places(path).filter_map(mount_on).collect();
        above.sort_unstable();
        let mut found: Option<(usize, usize)> = None;
        for (index, length) in above {
            // From the outer one: a read-only path of it may come to cover the inner one with a copy.
            if found.is_none_or(|(_, outer)| outer >= length) {
                let below = 1 < length && length < path.len();
                let good =
                    below && mount_at(plan, index).is_some_and(|mount| wanted(mount) && is_ours(mount));
                found = good.then_some((index, length));
            }
        }
        found.map(|(index, _)| index)
    }

    fn place(&self, plan: &Plan, path: &str, wanted: fn(&Mount) -> bool) -> Place {
        let held = self.covering(plan, path, wanted).and_then(|index| Some((index, self.of_mount(index)?)));
        let inside = held.and_then(|(index, _)| inside(&mount_at(plan, index)?.target, path));
        match (held, inside) {
            (Some((_, anchor)), Some(inside)) => Place { path: path.to_owned(), anchor, inside },
            _ => Place::named(path),
        }
    }
}

impl Builder {
    /// Of something to hide or to make read-only.
    pub(super) fn place_to_harden(&self, plan: &Plan, path: &str) -> Place {
        self.anchors.place(plan, path, is_kernel)
    }

    /// Of something to make.
    pub(super) fn place_to_make(&self, plan: &Plan, path: &str) -> Place {
        self.anchors.place(plan, path, is_empty)
    }
}

fn mount_at(plan: &Plan, index: usize) -> Option<&Mount> {
    match plan.mounts.get(index) {
        Some(MountStep::Mount(mount)) => Some(mount),
        _ => None,
    }
}

/// Every directory on the way to `path`, from the root, and `path`. What is longer than a path may be, nothing is mounted
/// on.
fn places(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(at, _)| at.max(1)).chain([path.len()]);
    ends.take_while(|end| *end < libc::PATH_MAX as usize).filter_map(|end| path.get(..end))
}

/// Made by us, or a bind of the kernel's: nothing that somebody else has written, and a descriptor for it.
fn is_ours(mount: &Mount) -> bool {
    match &mount.source {
        MountSource::Fs { options, .. } => {
            mount.idmap.is_some()
                || options
                    .iter()
                    .all(|(_, value)| value.as_ref().is_none_or(|value| value.len() <= FSCONFIG_MAX))
        }
        // With copy-symlink it may be a link that is made, and no mount.
        MountSource::Bind { procfs, copy_symlink, .. } => *procfs && !copy_symlink,
    }
}

/// The kernel's own files.
fn is_kernel(mount: &Mount) -> bool {
    match &mount.source {
        MountSource::Fs { fstype, .. } => fstype == "proc" || fstype == "sysfs",
        MountSource::Bind { procfs, .. } => *procfs,
    }
}

/// A file system that begins empty: no symbolic link in it leads anywhere.
fn is_empty(mount: &Mount) -> bool {
    matches!(&mount.source, MountSource::Fs { fstype, .. } if fstype == "tmpfs") && !mount.copy_up
}
