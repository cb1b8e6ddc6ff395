// SPDX-License-Identifier: Apache-2.0
//! What `check` demands of places that are found by a mount (decisions/0029).

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::Program;
use super::op::{Must, Ref, Source, StageOp};
use super::place::{Place, inside};
use crate::stage::wire::SLOTS;

/// The mounts that are attached, with their descriptors.
#[derive(Default)]
pub(super) struct AttachedMounts {
    /// For each slot, the path of its target.
    targets: [Option<String>; SLOTS],
    /// For each slot, the type of its file system.
    types: [Option<String>; SLOTS],
    /// The sources that the stage itself has made copies of a procfs (decisions/0016).
    copied: BTreeSet<usize>,
    /// The descriptor of a mount, and its mount point.
    attached: Vec<(Ref, String)>,
    /// Something was made read-only by name: it may be a copy that covers a mount.
    covered: bool,
}

impl AttachedMounts {
    pub(super) fn check_step(&mut self, program: &Program, op: &StageOp) -> Result<(), &'static str> {
        match op {
            StageOp::Target { slot, path, .. } | StageOp::AttachOrLink { slot, path, .. } => {
                self.forget(Ref::Slot(*slot));
                if let Some(target) = self.targets.get_mut(*slot) {
                    *target = Some(path.clone());
                }
            }
            StageOp::FsOpen { slot, fstype } => {
                self.forget(Ref::Slot(*slot));
                if let Some(of_slot) = self.types.get_mut(*slot) {
                    *of_slot = Some(fstype.clone());
                }
            }
            StageOp::CopyInside { slot, must, .. } => {
                self.forget(Ref::Slot(*slot));
                if let Some(of_slot) = self.types.get_mut(*slot) {
                    *of_slot = (*must == Must::Proc).then(|| "proc".to_owned());
                }
            }
            StageOp::ProcOf { slot, .. } => {
                self.forget(Ref::Slot(*slot));
                if let Some(of_slot) = self.types.get_mut(*slot) {
                    *of_slot = Some("proc".to_owned());
                }
            }
            StageOp::OpenTree { into: Ref::Source(n), tree } if tree.must == Must::Proc => {
                self.copied.insert(*n);
            }
            StageOp::CloseFd(fd) | StageOp::Root(fd) => self.forget(*fd),
            StageOp::Close { .. } => self.attached.clear(),
            StageOp::Attach { mount, target: Ref::Slot(target) } => {
                if let Some(Some(path)) = self.targets.get(*target).cloned() {
                    self.attach(*mount, path);
                }
            }
            StageOp::Mask { place, .. } => self.may_be_hardened(program, place)?,
            StageOp::Readonly(place) => {
                self.may_be_hardened(program, place)?;
                self.covered |= !place.is_anchored();
                // It is a copy, with what is mounted there: the original is out of reach.
                self.attached.retain(|(_, at)| *at != place.path && inside(&place.path, at).is_none());
            }
            StageOp::Mknod { place, .. } | StageOp::Symlink { place, .. } => self.lies_there(place)?,
            _ => {}
        }
        Ok(())
    }

    fn forget(&mut self, fd: Ref) {
        self.attached.retain(|(held, _)| *held != fd);
    }

    /// What this one covers is out of reach.
    fn attach(&mut self, mount: Ref, path: String) {
        self.attached.retain(|(held, at)| *held != mount && *at != path && inside(&path, at).is_none());
        self.attached.push((mount, path));
    }

    fn lies_there(&self, place: &Place) -> Result<(), &'static str> {
        let held = |(fd, at): &(Ref, String)| *fd == place.anchor && *at == place.mount_point();
        if !place.is_anchored() && place.inside == 0 {
            return Ok(());
        }
        if !self.attached.iter().any(held) || inside(place.mount_point(), &place.path) != Some(place.inside) {
            return Err("a place in a mount that is not there");
        }
        Ok(())
    }

    fn may_be_hardened(&self, program: &Program, place: &Place) -> Result<(), &'static str> {
        self.lies_there(place)?;
        if place.is_anchored() && self.covered {
            return Err("a mount that may be covered already is hardened");
        }
        if place.is_anchored() && !self.is_kernels(program, place.anchor) {
            return Err("something else than the kernel's files is hardened by its mount");
        }
        Ok(())
    }

    fn is_kernels(&self, program: &Program, fd: Ref) -> bool {
        let kernel = |fstype: &str| fstype == "proc" || fstype == "sysfs";
        match fd {
            Ref::Slot(n) => self.types.get(n).and_then(Option::as_deref).is_some_and(kernel),
            Ref::Source(n) => match program.sources.get(n) {
                Some(Source::Tree(tree)) => tree.must == Must::Proc,
                Some(Source::Fs(fs)) => kernel(&fs.fstype),
                Some(Source::Place) => self.copied.contains(&n),
                _ => false,
            },
            Ref::Nothing => false,
        }
    }
}
