// SPDX-License-Identifier: Apache-2.0
//! THE ORDER of `mounts add` and `mounts remove`: a process that goes into a container which is there, mounts or unmounts with the steps of a create,
//! says that it has, and is ended. It never enters the pid namespace: nobody in there sees it.

#![forbid(unsafe_code)]

use super::mounting::Binds;
use super::{Builder, slots};
use crate::cgroup::WayIn;
use crate::plan::Plan;
use crate::plan::mounts::MountStep;
use crate::program::Program;
use crate::program::op::{HostOp, Ref, Source, StageOp};
use crate::stage::wire::{self, barrier};

/// The container that is gone into.
#[derive(Debug, Clone, Copy)]
pub struct MountsEntry {
    /// CLONE_NEW* flags of its namespaces, CLONE_NEWPID excepted.
    pub kinds: u64,
    /// It has a user namespace of its own.
    pub user: bool,
    /// It was made without pivot_root.
    pub chroot: bool,
    /// The signals that the caller ignores.
    pub ignored: u64,
}

/// What the plan mounts, into the container.
pub fn add_mounts(plan: &Plan, entry: MountsEntry) -> Program {
    let mut b = Builder::new(plan.set_attr);
    let binds = Binds { mounts: b.mount_sources(plan), devices: Vec::new() };
    b.go_in(entry);
    b.mounts(plan, &binds);
    b.late_remounts(plan);
    b.say_so()
}

/// What is mounted at the plan's destinations, away from there, the last first.
pub fn remove_mounts(plan: &Plan, entry: MountsEntry) -> Program {
    let mut b = Builder::new(plan.set_attr);
    let (proc, place) = (b.open("", Source::Proc), b.open("", Source::Place));
    b.go_in(entry);
    for step in plan.mounts.iter().rev() {
        let MountStep::Mount(mount) = step else { continue };
        let (path, slot) = (mount.target.clone(), slots::TARGET);
        let flags = wire::TARGET_EXISTING | if mount.over_symlink { wire::TARGET_LINK } else { 0 };
        b.stage(&mount.at, StageOp::Target { slot, path, flags, like: Ref::Nothing });
        b.stage(&mount.at, StageOp::Unmount { slot, place, proc });
    }
    b.say_so()
}

impl Builder {
    fn go_in(&mut self, entry: MountsEntry) {
        let init = self.open("", Source::Init);
        let root = if entry.chroot { self.open("", Source::InitRoot) } else { Ref::Nothing };
        self.host("", HostOp::Clone { flags: 0, wait: false, way_in: WayIn::Born });
        self.stage("", StageOp::Signals(entry.ignored));
        self.stage("", StageOp::Setns { from: init, kinds: entry.kinds });
        if entry.user {
            self.stage("", StageOp::BecomeRoot);
        }
        self.stage("", StageOp::Root(root));
    }

    /// It waits there for its end.
    fn say_so(mut self) -> Program {
        self.stage("", StageOp::Barrier { barrier: barrier::READY, fd: Ref::Nothing });
        self.host("", HostOp::Await(barrier::READY));
        self.program
    }
}
