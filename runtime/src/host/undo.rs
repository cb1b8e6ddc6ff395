// SPDX-License-Identifier: Apache-2.0
//! The undo journal: every change of the host is entered before it is made, and undone in reverse if the launch
//! fails. `delete` does the same from the state on disk when the launcher itself died.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use super::netdev::Moved;
use super::{hooks, identity, rdt};
use crate::ask::Home;
use crate::cgroup;
use crate::error::{Context, Result};
use crate::plan::Plan;
use crate::state::{Dir, OwnMount};

/// One entry.
pub(super) enum Undo<'a> {
    /// Remove the state directory.
    Dir(&'a Dir),
    /// Kill what is in the control group and remove it.
    Cgroup(Rc<cgroup::Group>),
    /// Remove the directories that were made for it.
    Directories(cgroup::Made),
    /// Kill a child and reap it.
    Child(OwnedFd),
    /// Take a mount away from the runtime's mount namespace, with all that is mounted in it.
    Mount(OwnMount),
    /// Run the poststop hooks: the container existed.
    Poststop(&'a Plan),
    /// Remove a file.
    File(PathBuf),
    /// Remove groups of resctrl.
    Rdt(Vec<PathBuf>),
    /// Bring a network device back.
    NetDevice(Rc<Moved>),
}

#[derive(Default)]
pub(super) struct Journal<'a>(Vec<Undo<'a>>);

impl<'a> Journal<'a> {
    pub(super) fn push(&mut self, undo: Undo<'a>) {
        self.0.push(undo);
    }

    /// A process that exists. One of which nothing can be noted ends at once: in a caller that lives on, a shim, nobody else would wait for it.
    pub(super) fn push_child(&mut self, pidfd: &OwnedFd) -> Result<()> {
        match pidfd.try_clone() {
            Ok(copy) => self.push(Undo::Child(copy)),
            Err(error) => {
                end_child(pidfd.as_fd())?;
                return Err(error).call(|| "dup(pidfd)");
            }
        }
        Ok(())
    }

    /// All went well: nothing is undone.
    pub(super) fn keep(&mut self) {
        self.0.clear();
    }

    /// Undoes everything, newest first; what cannot be undone is warned about, and the rest goes on. The record of it stays
    /// then, for `delete` to go on with.
    pub(super) fn undo(&mut self, home: &Home) {
        let mut left = false;
        for entry in self.0.drain(..).rev() {
            // What the record does not name cannot be found by it.
            let recorded = matches!(entry, Undo::Cgroup(_) | Undo::Mount(_) | Undo::Rdt(_) | Undo::Child(_));
            if let (Undo::Dir(dir), true) = (&entry, left) {
                let path = dir.path().display();
                (home.warn)(&format!("{path} stays, for `delete --force`: not everything could be undone"));
                continue;
            }
            if let Err(error) = undo(entry, home) {
                left |= recorded;
                (home.warn)(&format!("while undoing: {error}"));
            }
        }
    }
}

fn undo(entry: Undo<'_>, home: &Home) -> Result<()> {
    match entry {
        Undo::Dir(dir) => dir.remove(),
        Undo::Cgroup(group) => group.give_back(),
        Undo::Directories(made) => made.undo(),
        Undo::Child(pidfd) => end_child(pidfd.as_fd()),
        Undo::Poststop(plan) => {
            hooks::poststop(home, &plan.hooks.poststop, &plan.id, &plan.bundle, &plan.annotations);
            Ok(())
        }
        Undo::File(path) => {
            let _ = std::fs::remove_file(path);
            Ok(())
        }
        Undo::Mount(mount) => mount.remove(),
        Undo::Rdt(groups) => rdt::remove(&groups),
        Undo::NetDevice(device) => device.back(),
    }
}

fn end_child(pidfd: BorrowedFd<'_>) -> Result<()> {
    match identity::end(pidfd) {
        // Waited for already: it ended early, or made place for the one that it cloned.
        Err(error) if error.errno() == Some(libc::ECHILD) => Ok(()),
        other => other,
    }
}
