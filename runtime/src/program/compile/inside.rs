// SPDX-License-Identifier: Apache-2.0
//! A container in a pid namespace that exists: its first process sets everything up outside, and hops in last, as the user and
//! with the user's capabilities, as `exec` does (decisions/0066). What it needs of the namespace before is a procfs.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::filter::{Entrance, entrance};
use super::{Builder, Gate, slots};
use crate::plan::Plan;
use crate::plan::mounts::{MountSource, MountStep};
use crate::plan::namespaces::NsKind;
use crate::plan::process::Process;
use crate::program::op::{HostOp, Ref, Source, StageOp};
use crate::seccomp::Filter;
use crate::stage::wire::{SLOTS, barrier};

/// The pid namespace that is joined.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// Its file.
    pub(super) joins: Option<Ref>,
    /// The slots of the contexts made for it, by the index of the mount.
    contexts: BTreeMap<usize, usize>,
}

impl Inside {
    pub(super) fn context_of(&self, mount: usize) -> Option<usize> {
        self.contexts.get(&mount).copied()
    }
}

impl Builder {
    /// A procfs of our own: for kernel parameters, and for labels, where our own is the container's.
    pub(super) fn wants_own_proc(&self, plan: &Plan) -> bool {
        let labels = plan.process.as_ref().is_some_and(|p| p.apparmor.is_some() || p.selinux.is_some());
        !plan.sysctl.is_empty() || (labels && self.inside.joins.is_none())
    }

    /// The procfs for labels that are written while it is the host's that we are in: of a keyring, or of a process that
    /// is not in the container's pid namespace yet.
    pub(super) fn labels_before(&mut self, plan: &Plan) -> Ref {
        let process = plan.process.as_ref();
        let key = plan.ask.keyring.is_some() && process.is_some_and(|process| process.selinux.is_some());
        let outside = plan.namespaces.joins(NsKind::Pid)
            && process.is_some_and(|process| process.apparmor.is_some() || process.selinux.is_some());
        if key || outside { self.open("", Source::Proc) } else { Ref::Nothing }
    }

    /// Right before the namespace is joined (after that, every child is in it): the contexts of all that shows its processes.
    /// There are slots for some; what is mounted beyond those takes a kernel that needs no process for it.
    pub(super) fn proc_contexts(&mut self, plan: &Plan, namespace: Ref) {
        self.inside.joins = Some(namespace);
        let mut spare = slots::PROCFS..SLOTS;
        for (index, step) in plan.mounts.iter().enumerate() {
            let MountStep::Mount(mount) = step else { continue };
            let MountSource::Fs { fstype, .. } = &mount.source else { continue };
            if fstype != "proc" || mount.idmap.is_some() {
                continue;
            }
            let slot = match self.anchors.of_mount(index) {
                Some(Ref::Slot(slot)) => Some(slot),
                _ => spare.next(),
            };
            if let Some(slot) = slot {
                self.inside.contexts.insert(index, slot);
                self.stage(&mount.at, StageOp::ProcOf { slot, namespace });
            }
        }
        if self.wants_own_proc(plan) {
            self.stage("/linux/sysctl", StageOp::ProcOf { slot: slots::PROC, namespace });
        }
    }

    /// The context of a file system that is to be mounted, into `slot`. A procfs is never one of the namespace that the stage is in.
    pub(super) fn context(&mut self, at: &str, slot: usize, fstype: &str, prepared: bool) {
        match self.inside.joins {
            _ if prepared => {}
            Some(namespace) if fstype == "proc" => self.stage(at, StageOp::ProcOf { slot, namespace }),
            _ => self.stage(at, StageOp::FsOpen { slot, fstype: fstype.to_owned() }),
        }
    }

    /// Into the pid namespace, and to Ready.
    pub(super) fn hop_in(&mut self, process: &Process, filter: Option<&Filter>) {
        let under = filter.filter(|_| entrance(true, filter, process) == Entrance::HopUnderFilter);
        if let Some(filter) = under {
            self.early_filter(process, filter, &[]);
        }
        self.hop_and_lead();
        if under.is_some_and(|filter| filter.listener.is_some()) {
            self.host("/linux/seccomp/listenerPath", HostOp::Listener);
        }
        self.host("", HostOp::Release);
        self.stage("", StageOp::Setsid);
        if process.terminal.is_some() {
            self.stage("/process/terminal", StageOp::ConsoleControl);
        }
        match under {
            Some(_) => {
                self.limits(process);
                self.ready_with_terminal(process, "/process/terminal");
            }
            None => self.wait(process, filter),
        }
    }

    fn hop_and_lead(&mut self) {
        self.stage("", StageOp::Hop(0));
        self.host("", HostOp::Adopt);
        self.host("", HostOp::Identify);
    }

    /// A container without a process: something that has nothing waits, so that there is a container.
    pub(super) fn become_nobody(&mut self, last_cap: u32, gate: Gate) {
        let joins = self.inside.joins.is_some();
        if joins {
            self.stage("", StageOp::Bound { keep: 0, last: last_cap });
            self.stage("", StageOp::Groups { gids: Vec::new(), may_keep: true });
            self.stage("", StageOp::SetIds { uid: 0, gid: 0 });
            self.stage("", StageOp::Capset { effective: 0, permitted: 0, inheritable: 0 });
        }
        self.stage("", StageOp::Close { from: 3, gate: gate.gate, outcome: gate.outcome, slot: None });
        if joins {
            self.hop_and_lead();
            self.host("", HostOp::Release);
            self.stage("", StageOp::Setsid);
        }
        self.meet("", barrier::READY, Ref::Nothing, &[("", HostOp::Record)]);
    }
}
