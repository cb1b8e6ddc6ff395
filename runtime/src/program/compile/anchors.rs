// SPDX-License-Identifier: Apache-2.0
//! Which of our own mounts the stage holds on to until the container is hardened (decisions/0029).
//!
//! Whoever can write to the rootfs can rename mount points while we are at work (rename(2) asks only about its own mount
//! namespace): what is to be hidden inside such a mount, or made in it, must not be looked up by a name that leads
//! elsewhere meanwhile.

#![forbid(unsafe_code)]

use super::{Binds, Builder, FSCONFIG_MAX, slots};
use crate::plan::Plan;
use crate::plan::devices::Via;
use crate::plan::mounts::{Mount, Source, Step};
use crate::program::op::Ref;
use crate::program::place::{Place, inside};
use crate::stage::wire::SLOTS;

/// The mounts that are held: their index in the plan, and where their descriptor is.
#[derive(Debug, Default)]
pub(super) struct Anchors(Vec<(usize, Ref)>);

impl Anchors {
    /// Those that something will be looked up in. When the slots run out, what is left goes by name.
    pub(super) fn of(plan: &Plan, binds: &Binds) -> Anchors {
        let mut this = Anchors::default();
        for field in plan.masked.iter().chain(&plan.readonly) {
            this.hold(covering(plan, &field.value, is_kernel), binds);
        }
        for device in plan.devices.iter().filter(|device| matches!(device.via, Via::Mknod)) {
            this.hold(covering(plan, &device.path, is_empty), binds);
        }
        for (path, _) in &plan.dev_links {
            this.hold(covering(plan, path, is_empty), binds);
        }
        for step in &plan.mounts {
            this.hold(remounted(plan, step), binds);
        }
        this
    }

    fn hold(&mut self, mount: Option<usize>, binds: &Binds) {
        let Some(index) = mount.filter(|index| self.of_mount(*index).is_none()) else { return };
        let used = self.0.iter().filter(|(_, held)| matches!(held, Ref::Slot(_))).count();
        match binds.mounts.get(index) {
            Some(source @ Ref::Source(_)) => self.0.push((index, *source)),
            _ if slots::ANCHORS + used < SLOTS => self.0.push((index, Ref::Slot(slots::ANCHORS + used))),
            _ => {}
        }
    }

    /// What holds the mount with this index.
    pub(super) fn of_mount(&self, index: usize) -> Option<Ref> {
        self.0.iter().find(|(held, _)| *held == index).map(|(_, held)| *held)
    }

    /// What holds the mount that `step` changes after everything else is in place.
    pub(super) fn of_remount(&self, plan: &Plan, step: &Step) -> Option<Ref> {
        remounted(plan, step).and_then(|index| self.of_mount(index))
    }

    fn place(&self, plan: &Plan, path: &str, wanted: fn(&Mount) -> bool) -> Place {
        let held = covering(plan, path, wanted).and_then(|index| Some((index, self.of_mount(index)?)));
        let inside = held.and_then(|(index, _)| inside(&mount_at(plan, index)?.target, path));
        match (held, inside) {
            (Some((_, anchor)), Some(inside)) => Place { path: path.to_owned(), anchor, inside },
            _ => Place::named(path),
        }
    }
}

impl Builder {
    /// Of something to hide or to make read-only.
    pub(super) fn hardened(&self, plan: &Plan, path: &str) -> Place {
        self.anchors.place(plan, path, is_kernel)
    }

    /// Of something to make.
    pub(super) fn made(&self, plan: &Plan, path: &str) -> Place {
        self.anchors.place(plan, path, is_empty)
    }
}

fn mount_at(plan: &Plan, index: usize) -> Option<&Mount> {
    match plan.mounts.get(index) {
        Some(Step::Mount(mount)) => Some(mount),
        _ => None,
    }
}

/// The last mount that covers `path`, if it is `wanted`; what is mounted inside of a wanted one is reached through that.
fn covering(plan: &Plan, path: &str, wanted: fn(&Mount) -> bool) -> Option<usize> {
    let mut found: Option<usize> = None;
    for (index, step) in plan.mounts.iter().enumerate() {
        let Step::Mount(mount) = step else { continue };
        if mount.target != path && inside(&mount.target, path).is_none() {
            continue;
        }
        // From the outer one: a read-only path of it may come to cover the inner one with a copy.
        let within = found
            .and_then(|outer| mount_at(plan, outer))
            .is_some_and(|outer| inside(&outer.target, &mount.target).is_some());
        if !within {
            let below = mount.target != path && mount.target != "/";
            found = (below && wanted(mount) && is_ours(mount)).then_some(index);
        }
    }
    found
}

/// The mount that a late remount is about: the one of the same entry.
fn remounted(plan: &Plan, step: &Step) -> Option<usize> {
    let Step::Remount { at, target, late: true, .. } = step else { return None };
    (0..plan.mounts.len()).find(|index| {
        mount_at(plan, *index).is_some_and(|mount| {
            mount.at == *at && mount.target == *target && target != "/" && is_ours(mount)
        })
    })
}

/// Made by us, or a bind of the kernel's: nothing that somebody else has written, and a descriptor for it.
fn is_ours(mount: &Mount) -> bool {
    match &mount.source {
        Source::Fs { options, .. } => {
            mount.idmap.is_some()
                || options
                    .iter()
                    .all(|(_, value)| value.as_ref().is_none_or(|value| value.len() <= FSCONFIG_MAX))
        }
        Source::Bind { procfs, .. } => *procfs,
    }
}

/// The kernel's own files.
fn is_kernel(mount: &Mount) -> bool {
    match &mount.source {
        Source::Fs { fstype, .. } => fstype == "proc" || fstype == "sysfs",
        Source::Bind { procfs, .. } => *procfs,
    }
}

/// A file system that begins empty: no symbolic link in it leads anywhere.
fn is_empty(mount: &Mount) -> bool {
    matches!(&mount.source, Source::Fs { fstype, .. } if fstype == "tmpfs") && !mount.copy_up
}
