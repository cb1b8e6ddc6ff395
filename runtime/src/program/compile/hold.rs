// SPDX-License-Identifier: Apache-2.0
//! THE ORDER of `hold`: the namespaces of a pod, and a process that keeps them by waiting in them. It has no file system but
//! what its user sees of the host's, and none at all where others may see it.

#![forbid(unsafe_code)]

use super::{Builder, slots};
use crate::plan::Plan;
use crate::plan::mounts::Propagation;
use crate::plan::namespaces::NsKind;
use crate::program::Program;
use crate::program::op::{HostOp, Ref, Source, StageOp};
use crate::stage::wire::barrier;

/// What it is called in a list of processes.
const NAME: &str = "corten-pod";
/// What the file system that it gets instead of the host's may do: MOUNT_ATTR_RDONLY, NOSUID, NODEV, NOEXEC.
const NOTHING: u64 = 0xf;

/// `hold`: from nothing to a process that waits in the plan's namespaces. Control groups, root file system and process of the
/// plan are not looked at.
pub fn hold(plan: &Plan, last_cap: u32) -> Program {
    let mut b = Builder::new(plan.set_attr);
    let b = &mut b;
    if let Some(join) = plan.namespaces.join_of(NsKind::User) {
        b.host(&join.at, HostOp::JoinedIds);
    }
    b.host("", HostOp::Reserve);
    let joins = b.namespace_files(plan);
    let proc = if plan.sysctl.is_empty() { Ref::Nothing } else { b.open("/linux/sysctl", Source::Proc) };
    b.births(plan, &joins);
    b.while_the_stage_works(plan);
    b.stage("", StageOp::Setsid);
    b.network(plan);
    b.join_network();
    b.names(plan);
    // Through the host's procfs: it shows the parameters of the namespaces that one is in, and a pid namespace of the host's
    // has no other for root of a user namespace.
    for field in &plan.sysctl {
        let (path, data) = (format!("sys/{}", field.value.0), field.value.1.clone());
        b.stage(&field.at, StageOp::Write { dir: proc, path, data });
    }
    if plan.namespaces.has_new(NsKind::Mount) {
        b.empty_root();
    }
    b.stage("", StageOp::Bound { keep: 0, last: last_cap });
    b.stage("", StageOp::Groups { gids: Vec::new(), may_keep: true });
    b.stage("", StageOp::SetIds { uid: 0, gid: 0 });
    b.stage("", StageOp::Capset { effective: 0, permitted: 0, inheritable: 0 });
    b.stage("", StageOp::Close { from: 3, gate: Ref::Nothing, outcome: Ref::Nothing, slot: None });
    // Before anybody can come in.
    b.stage("", StageOp::Disown);
    b.meet("", barrier::READY, Ref::Nothing, &[("", HostOp::Record)]);
    b.stage("", StageOp::Hold(NAME.to_owned()));
    core::mem::take(&mut b.program)
}

impl Builder {
    /// Where there is nothing: the containers of a pid namespace see its first process, and what that has they can reach by
    /// /proc/1/root. It covers the host's root, the one directory that everybody may look up, and is pivoted into.
    fn empty_root(&mut self) {
        const AT: &str = "/linux/namespaces";
        let slot = slots::MOUNT;
        self.stage(AT, StageOp::Propagate(Propagation { flag: super::MS_SLAVE, recursive: true }));
        self.stage(AT, StageOp::FsOpen { slot, fstype: "tmpfs".into() });
        for (key, value) in [("mode", "0555"), ("nr_inodes", "1"), ("size", "4096")] {
            self.stage(AT, StageOp::FsSet { slot, key: key.into(), value: Some(value.into()) });
        }
        self.stage(AT, StageOp::FsMount { slot, attrs: NOTHING });
        self.stage(AT, StageOp::AttachHost { mount: Ref::Slot(slot), path: "/".into() });
        self.stage(AT, StageOp::Root(Ref::Slot(slot)));
        self.stage(AT, StageOp::Pivot);
    }
}
