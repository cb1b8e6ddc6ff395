// SPDX-License-Identifier: Apache-2.0
//! How the container's first process comes to be: namespaces joined and made, id maps, groups, what the host does meanwhile.

#![forbid(unsafe_code)]

use super::Builder;
use crate::cgroup::{RulesFrom, WayIn};
use crate::plan::Plan;
use crate::plan::mounts::Attrs;
use crate::plan::namespaces::NsKind;
use crate::program::op::{HostOp, Ref, Source, StageOp, Tree};
use crate::stage::wire::barrier;

impl Builder {
    pub(super) fn namespace_files(&mut self, plan: &Plan) -> Vec<(NsKind, Ref, String)> {
        let mut files = Vec::new();
        let foreign = crate::plan::sysctl::foreign(&plan.sysctl, &plan.namespaces);
        for join in &plan.namespaces.join {
            let demand = foreign.iter().find(|(other, _)| other.kind == join.kind);
            let foreign = demand.map(|(_, at)| (*at).to_owned());
            let source = Source::Namespace { path: join.path.clone(), kind: join.kind, foreign };
            files.push((join.kind, self.open(&join.at, source), join.at.clone()));
        }
        files
    }

    /// clone3 and what must be true before the stage may act. Usually one clone into all new namespaces at once.
    /// Where namespaces that exist must be entered first (with a user namespace in play, or a pid namespace, in which
    /// others would see our own process, or a time namespace to be set up), the first process does that and hops: it
    /// clones the final one beside itself.
    pub(super) fn births(&mut self, plan: &Plan, joins: &[(NsKind, Ref, String)]) {
        let new = plan.namespaces.new_flags();
        let user_joined = joins.iter().any(|(kind, ..)| *kind == NsKind::User);
        let time = plan.namespaces.has_new(NsKind::Time);
        let user_new = plan.namespaces.has_new(NsKind::User);
        let pid_joined = joins.iter().any(|(kind, ..)| *kind == NsKind::Pid);
        let first = time || (user_joined && new != 0) || (user_new && !joins.is_empty());
        // Where a pid namespace is joined, nothing of ours may be seen in there: the one hop comes last, and what is to be
        // made meanwhile the first process makes for itself.
        let hop = first && !pid_joined;
        let proc = if time { self.open("", Source::Proc) } else { Ref::Nothing };
        let way_in = plan.cgroup.record.version.way_in();
        let joins_groups = way_in == WayIn::JoinsItself;
        // Without privilege the user namespace gives some, so it comes first also with a hop.
        let user_first = if plan.user_first { new & NsKind::User.flag() } else { 0 };
        // An IPC namespace has a file system for /dev/mqueue, which belongs to its maker: the container's root, and that
        // is only somebody once ids are mapped.
        let ipc = if user_new { new & NsKind::Ipc.flag() } else { 0 };
        // A cgroup namespace is rooted where its maker is: that is only right once it has joined its groups.
        let late = if first { 0 } else { ipc | if joins_groups { new & NsKind::Cgroup.flag() } else { 0 } };
        // Half of clone3's time is the network namespace: the host makes it while the stage mounts. Not where its owner
        // must be the container's user namespace, which only the inside can make it in.
        if !first && !user_new && plan.host_network {
            self.network = plan.namespaces.new_at(NsKind::Network).map(str::to_owned);
        }
        let apart = if self.network.is_some() { NsKind::Network.flag() } else { 0 };
        let flags = if first { user_first } else { new & !late & !apart };
        let mapped = flags & NsKind::User.flag() != 0;
        let wait = mapped || (joins_groups && plan.user_first);
        self.host("/linux/namespaces", HostOp::Clone { flags, wait, way_in });
        if mapped {
            self.id_maps(plan);
        }
        if joins_groups {
            self.host("/linux/cgroupsPath", HostOp::Place);
        }
        // While the process is still ours in the eyes of /proc.
        if plan.user_first && wait {
            self.oom_score_adj(plan);
        }
        if wait {
            self.host("", HostOp::Release);
        }
        self.stage("", StageOp::Signals(plan.ignored));
        if plan.drops_groups {
            self.stage("", StageOp::DropGroups);
        }
        if late != 0 {
            self.stage("/linux/namespaces", StageOp::Unshare(late));
        }
        if time {
            self.time_namespace(plan, proc);
        }
        // The user namespace last: our own has power over the others, whoever owns them. Without privilege first: what
        // power there is comes from it.
        let (user, others): (Vec<_>, Vec<_>) = joins.iter().partition(|(kind, ..)| *kind == NsKind::User);
        let ordered = if plan.user_first { [user, others] } else { [others, user] };
        let late_new = (first && pid_joined).then_some(new & !flags);
        self.join_all(plan, ordered.into_iter().flatten(), late_new, user_new && !mapped);
        if hop {
            let ipc = if mapped { 0 } else { ipc };
            self.stage("/linux/namespaces", StageOp::Hop(new & !NsKind::Time.flag() & !flags & !ipc));
            self.host("/linux/namespaces", HostOp::Adopt);
            if user_new && !mapped {
                self.id_maps(plan);
            }
            self.host("", HostOp::Release);
            if user_new && !mapped {
                self.stage("/linux/uidMappings", StageOp::BecomeRoot);
            }
            if ipc != 0 {
                self.stage("/linux/namespaces", StageOp::Unshare(ipc));
            }
        }
        if !(plan.user_first && wait) {
            self.oom_score_adj(plan);
        }
    }

    /// Joins what exists. `new`: the namespaces that this process makes for itself, `user` (not mapped yet) among them, because the
    /// hop comes last.
    fn join_all<'a>(
        &mut self,
        plan: &Plan,
        joins: impl Iterator<Item = &'a (NsKind, Ref, String)>,
        mut new: Option<u64>,
        user: bool,
    ) {
        for (kind, fd, at) in joins {
            if *kind == NsKind::Pid {
                // Without privilege, a mount namespace that it has power over comes first.
                if let Some(new) = new.take_if(|_| plan.user_first) {
                    self.unshare_late(plan, new, user);
                }
                self.proc_contexts(plan, *fd);
            }
            self.stage(at, StageOp::Setns { from: *fd, kinds: kind.flag() });
            if *kind == NsKind::User {
                self.stage(at, StageOp::BecomeRoot);
            }
        }
        if let Some(new) = new {
            self.unshare_late(plan, new, user);
        }
    }

    /// The new namespaces of a first process that does not hop before the end, the user namespace first: it owns the others.
    fn unshare_late(&mut self, plan: &Plan, new: u64, user: bool) {
        if user {
            self.stage("/linux/namespaces", StageOp::Unshare(NsKind::User.flag()));
            self.stage("/linux/uidMappings", StageOp::Barrier { barrier: barrier::MAPPED, fd: Ref::Nothing });
            self.host("/linux/uidMappings", HostOp::Await(barrier::MAPPED));
            self.id_maps(plan);
            self.host("", HostOp::Release);
            self.stage("/linux/uidMappings", StageOp::BecomeRoot);
        }
        let others = new & !NsKind::User.flag() & !NsKind::Time.flag();
        if others != 0 {
            self.stage("/linux/namespaces", StageOp::Unshare(others));
        }
    }

    fn id_maps(&mut self, plan: &Plan) {
        if let Some(writers) = plan.writers {
            self.host("/linux/uidMappings", HostOp::IdMaps(writers));
        }
    }

    fn oom_score_adj(&mut self, plan: &Plan) {
        if let Some(score) = plan.process.as_ref().and_then(|process| process.oom_score_adj) {
            self.host("/process/oomScoreAdj", HostOp::OomScoreAdj(score));
        }
        if plan.rdt.is_some() {
            self.host("/linux/intelRdt", HostOp::RdtPlace);
        }
    }

    /// While the stage is at work: what need not be there before the process is, but before it is "created".
    pub(super) fn while_the_stage_works(&mut self, plan: &Plan) {
        if let Some(at) = self.network.clone() {
            self.host(&at, HostOp::Network);
        }
        if plan.cgroup.device_rules == RulesFrom::Meanwhile {
            self.host("/linux/resources/devices", HostOp::DeviceRules);
        }
        self.host("", HostOp::Keep);
        if self.inside.joins.is_none() {
            self.host("", HostOp::Identify);
        }
    }

    /// A new time namespace applies to children: unshare, set the offsets, and let the hop's clone enter it.
    fn time_namespace(&mut self, plan: &Plan, proc: Ref) {
        let at = plan.namespaces.new_at(NsKind::Time).unwrap_or_default();
        self.stage(at, StageOp::Unshare(NsKind::Time.flag()));
        if !plan.namespaces.time_offsets.is_empty() {
            let data = plan.namespaces.time_offsets.join("\n");
            self.stage(
                "/linux/timeOffsets",
                StageOp::Write { dir: proc, path: "self/timens_offsets".into(), data },
            );
        }
    }

    /// A copied tree: opened by the host or, where it may not, later by the stage.
    pub(super) fn tree(&mut self, at: &str, tree: Tree) -> Ref {
        if self.copies.is_none() {
            return self.open(at, Source::Tree(tree));
        }
        let place = self.open(at, Source::Place);
        self.copies.iter_mut().for_each(|trees| trees.push((at.to_owned(), place, tree.clone())));
        place
    }

    /// The trees that were left to the stage, with their attributes, before anything is mounted.
    pub(super) fn trees_inside(&mut self) {
        for (at, place, tree) in self.copies.take().unwrap_or_default() {
            let Tree { attrs, all_attrs, propagation, .. } = tree;
            let bare = Tree {
                attrs: Attrs::default(),
                all_attrs: Attrs::default(),
                propagation: Vec::new(),
                ..tree
            };
            self.stage(&at, StageOp::OpenTree { into: place, tree: bare });
            for change in propagation {
                self.set_attr(&at, place, Attrs::default(), change.flag, change.recursive);
            }
            self.set_attr(&at, place, all_attrs, 0, true);
            self.set_attr(&at, place, attrs, 0, false);
        }
    }
}
