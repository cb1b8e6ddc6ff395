// SPDX-License-Identifier: Apache-2.0
//! THE ORDER: what happens when, for `create`, `run` and `exec`.
//!
//! [`create`] reads from top to bottom as a container comes to be. Each line says which subject comes next; what a
//! subject consists of stands in `compile/`. The order itself is argued in docs/ARCHITECTURE.md ("Why this order").

#![forbid(unsafe_code)]

mod mounting;
mod process;

use super::Program;
use super::op::{HostOp, Must, Op, Ref, Source, StageOp, Step, Tree};
use crate::plan::mounts::{Attrs, Propagation};
use crate::plan::namespaces::NsKind;
use crate::plan::{Plan, process::Process};
use crate::stage::wire::barrier;

/// Slots of the stage, by what they hold.
pub(super) mod slots {
    /// A mount under work (a file system context first).
    pub const MOUNT: usize = 0;
    /// The target of a mount.
    pub const TARGET: usize = 1;
    /// Our own detached procfs.
    pub const PROC: usize = 2;
    /// A terminal's master.
    pub const MASTER: usize = 3;
    /// A terminal's other side.
    pub const TERMINAL: usize = 4;
    /// A seccomp listener.
    pub const LISTENER: usize = 5;
}

/// mount(2): MS_SLAVE.
const MS_SLAVE: u64 = 1 << 19;
/// mount(2): MS_PRIVATE.
const MS_PRIVATE: u64 = 1 << 18;

/// What `exec` needs to know about the container it enters.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The container's id.
    pub id: String,
    /// CLONE_NEW* flags of the namespaces to enter, CLONE_NEWPID excepted.
    pub kinds: u64,
    /// The container has a pid namespace of its own.
    pub pid: bool,
    /// The container has a user namespace of its own.
    pub user: bool,
    /// The container was made without pivot_root.
    pub chroot: bool,
    /// The container has a session keyring of its own.
    pub keyring: bool,
    /// The process must be placed by pid (cgroup v1).
    pub place: bool,
    /// This process has no privilege over the one that it makes, once that has changed its ids.
    pub unprivileged: bool,
    /// The caller's groups can be dropped before the user namespace is joined.
    pub drops_groups: bool,
    /// The kernel's last capability.
    pub last_cap: u32,
    /// The compiled filter.
    pub seccomp: Option<crate::seccomp::Filter>,
    /// Descriptors kept from 3 on.
    pub keep_fds: u32,
}

/// The program under construction.
#[derive(Default)]
struct Builder {
    program: Program,
    /// The stage copies mounts: what it has to copy.
    inside: Option<Vec<(String, Ref, Tree)>>,
}

impl Builder {
    fn host(&mut self, at: &str, op: HostOp) {
        self.program.steps.push(Step { at: at.to_owned(), op: Op::Host(op) });
    }

    fn stage(&mut self, at: &str, op: StageOp) {
        self.program.steps.push(Step { at: at.to_owned(), op: Op::Stage(op) });
    }

    /// Adds a source and the step that opens it.
    fn open(&mut self, at: &str, source: Source) -> Ref {
        let index = self.program.sources.len();
        self.program.sources.push(source);
        self.host(at, HostOp::Open(index));
        Ref::Source(index)
    }

    /// A copied tree: opened by the host or, where it may not, later by the stage.
    fn tree(&mut self, at: &str, tree: Tree) -> Ref {
        if self.inside.is_none() {
            return self.open(at, Source::Tree(tree));
        }
        let place = self.open(at, Source::Place);
        self.inside.iter_mut().for_each(|trees| trees.push((at.to_owned(), place, tree.clone())));
        place
    }

    /// The trees that were left to the stage, with their attributes, before anything is mounted.
    fn trees_inside(&mut self) {
        for (at, place, tree) in self.inside.take().unwrap_or_default() {
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

    /// The stage comes to a barrier, the host does its part, the stage goes on.
    fn meet(&mut self, at: &str, barrier: u8, fd: Ref, host: &[(&str, HostOp)]) {
        self.stage(at, StageOp::Barrier { barrier, fd });
        self.host(at, HostOp::Await(barrier));
        host.iter().for_each(|(at, op)| self.host(at, op.clone()));
        self.host("", HostOp::Release);
    }
}

/// `create` and `run`: from nothing to a container whose process waits (or, for `run`, runs).
pub fn create(plan: &Plan, last_cap: u32) -> Program {
    let inside = plan.copies_inside.then(Vec::new);
    let b = &mut Builder { inside, ..Builder::default() };
    // On the host, before any process exists: everything that can fail without a trace.
    if plan.process.as_ref().is_some_and(|process| process.terminal.is_some()) {
        b.host("/process/terminal", HostOp::ConsoleSocket);
    }
    b.host("", HostOp::Reserve);
    b.host("/linux/cgroupsPath", HostOp::Cgroup);
    let rootfs = b.rootfs(plan);
    let binds = b.bind_sources(plan);
    let joins = b.namespace_files(plan);
    let gate = if plan.ask.run { Ref::Nothing } else { b.open("", Source::Gate) };
    // The first process, in its namespaces.
    b.births(plan, &joins);
    b.trees_inside();
    // Inside: the session and the network's first device.
    if !plan.ask.no_new_keyring {
        b.keyring(&plan.id, plan.namespaces.has_new(NsKind::User), false);
    }
    b.stage("", StageOp::Setsid);
    if let Some(at) = plan.namespaces.new_at(NsKind::Network) {
        b.stage(at, StageOp::Loopback);
    }
    b.names(plan);
    // The file system, seen from the host's tree.
    if plan.namespaces.has_new(NsKind::Mount) {
        // Never shared: what is mounted here must not appear on the host.
        b.stage("", StageOp::Propagate(Propagation { flag: MS_SLAVE, recursive: true }));
        b.stage(
            "/root/path",
            StageOp::AttachHost { mount: rootfs, path: plan.rootfs.path.to_string_lossy().into() },
        );
    }
    b.stage("/root/path", StageOp::Root(rootfs));
    b.mounts(plan, &binds);
    b.devices(plan, &binds);
    b.terminal(plan);
    if let Some(process) = plan.process.as_ref().filter(|process| process.cwd != "/") {
        b.stage("/process/cwd", StageOp::Mkdir(process.cwd.clone()));
    }
    b.late_remounts(plan);
    // Hooks that must see the mounts and still reach the host's tree (where runc and crun run them, too).
    if !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty() {
        b.meet("/hooks/createRuntime", barrier::HOOKS, Ref::Nothing, &[("", HostOp::Hooks)]);
    }
    if !plan.hooks.create_container.is_empty() {
        b.stage("/hooks/createContainer", StageOp::ChdirHost(plan.bundle.to_string_lossy().into()));
    }
    b.hooks_inside(plan, "createContainer", &plan.hooks.create_container, "creating");
    // The change of root, and what hardens the new one.
    b.change_root(plan);
    b.harden(plan);
    // Who the process is; then it waits.
    match &plan.process {
        Some(process) => b.become_user(plan, process, last_cap, gate),
        None => {
            b.stage("", StageOp::Close { from: 3, gate, slot: None });
            b.meet("", barrier::READY, Ref::Nothing, &[("", HostOp::Record)]);
        }
    }
    if !plan.ask.run {
        b.stage("", StageOp::Gate);
    }
    b.hooks_inside(plan, "startContainer", &plan.hooks.start_container, "created");
    if let Some(process) = &plan.process {
        b.exec(process, plan.seccomp.as_ref());
    }
    if plan.ask.run {
        b.host("", HostOp::Outcome);
        b.host("/hooks/poststart", HostOp::Poststart);
    }
    core::mem::take(&mut b.program)
}

/// `exec`: one more process in a container.
///
/// The first process joins everything, becomes the user and gives its privileges up; only then it hops into the pid
/// namespace. What the container can see, and ptrace(2) if it has CAP_SYS_PTRACE, has no more than itself
/// (CVE-2016-9962).
pub fn exec(entry: &Entry, process: &Process) -> Program {
    let mut b = Builder::default();
    if process.terminal.is_some() {
        b.host("/terminal", HostOp::ConsoleSocket);
    }
    let init = b.open("", Source::Init);
    let root = if entry.chroot { b.open("", Source::InitRoot) } else { Ref::Nothing };
    // The label is written before the hop, by a process of our own pid namespace; our /proc is nobody else's.
    let labelled = process.apparmor.is_some() || process.selinux.is_some();
    let proc = if labelled { b.open("", Source::Proc) } else { Ref::Nothing };
    let early_score = process.oom_score_adj.filter(|_| entry.unprivileged);
    let wait = entry.place || early_score.is_some();
    b.host("", HostOp::Clone { flags: 0, wait });
    if entry.place {
        b.host("", HostOp::Place);
    }
    if let Some(score) = early_score {
        b.host(&format!("{}/oomScoreAdj", process.at), HostOp::OomScoreAdj(score));
    }
    if wait {
        b.host("", HostOp::Release);
    }
    b.stage("", StageOp::Signals);
    if entry.drops_groups {
        b.stage("", StageOp::DropGroups);
    }
    // The pid namespace is for the one that is cloned later.
    let kinds = entry.kinds | if entry.pid { NsKind::Pid.flag() } else { 0 };
    if kinds != 0 {
        b.stage("", StageOp::Setns { from: init, kinds });
    }
    if entry.user {
        b.stage("", StageOp::BecomeRoot);
    }
    if entry.chroot {
        b.stage("", StageOp::Chroot(root));
    }
    b.stage("", StageOp::Root(Ref::Nothing));
    if entry.keyring {
        b.keyring(&entry.id, entry.user, true);
    }
    b.enter_as(entry, process, proc);
    b.exec(process, entry.seccomp.as_ref());
    b.host("", HostOp::Outcome);
    b.program
}

impl Builder {
    /// The rootfs as a detached tree of its own.
    fn rootfs(&mut self, plan: &Plan) -> Ref {
        let tree = Tree {
            path: plan.rootfs.path.clone(),
            recursive: true,
            nofollow: false,
            attrs: Default::default(),
            all_attrs: Default::default(),
            // Its top is private whatever was asked: pivot_root(2) refuses a shared one.
            propagation: vec![
                Propagation { flag: MS_SLAVE, recursive: true },
                Propagation { flag: MS_PRIVATE, recursive: false },
            ],
            idmap: None,
            must: Must::Directory,
        };
        self.tree("/root/path", tree)
    }

    fn namespace_files(&mut self, plan: &Plan) -> Vec<(NsKind, Ref, String)> {
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
    fn births(&mut self, plan: &Plan, joins: &[(NsKind, Ref, String)]) {
        let new = plan.namespaces.new_flags();
        let user_joined = joins.iter().any(|(kind, ..)| *kind == NsKind::User);
        let time = plan.namespaces.has_new(NsKind::Time);
        let user_new = plan.namespaces.has_new(NsKind::User);
        let pid_joined = joins.iter().any(|(kind, ..)| *kind == NsKind::Pid);
        let hop = time || pid_joined || (user_joined && new != 0) || (user_new && !joins.is_empty());
        let proc = if time { self.open("", Source::Proc) } else { Ref::Nothing };
        let place = plan.cgroup.record.version == crate::cgroup::Version::V1;
        // A cgroup namespace is rooted where its maker is: by pid, that is only right once placed.
        let late = if place && !hop { new & NsKind::Cgroup.flag() } else { 0 };
        // Without privilege the user namespace gives some, so it comes first also with a hop.
        let user_first = if plan.user_first { new & NsKind::User.flag() } else { 0 };
        let flags = if hop { user_first } else { new & !late };
        let mapped = flags & NsKind::User.flag() != 0;
        let wait = place || mapped;
        self.host("/linux/namespaces", HostOp::Clone { flags, wait });
        if mapped {
            self.id_maps(plan);
        }
        if place {
            self.host("/linux/cgroupsPath", HostOp::Place);
        }
        // While the process is still ours in the eyes of /proc.
        if plan.user_first && wait {
            self.oom_score_adj(plan);
        }
        if wait {
            self.host("", HostOp::Release);
        }
        self.stage("", StageOp::Signals);
        if plan.drops_groups {
            self.stage("", StageOp::DropGroups);
        }
        if late != 0 {
            self.stage(plan.namespaces.new_at(NsKind::Cgroup).unwrap_or_default(), StageOp::Unshare(late));
        }
        if time {
            self.time_namespace(plan, proc);
        }
        // The user namespace last: our own has power over the others, whoever owns them. Without privilege first: what
        // power there is comes from it.
        let (user, others): (Vec<_>, Vec<_>) = joins.iter().partition(|(kind, ..)| *kind == NsKind::User);
        let ordered = if plan.user_first { [user, others] } else { [others, user] };
        for (kind, fd, at) in ordered.into_iter().flatten() {
            self.stage(at, StageOp::Setns { from: *fd, kinds: kind.flag() });
            if *kind == NsKind::User {
                self.stage(at, StageOp::BecomeRoot);
            }
        }
        if hop {
            self.stage("/linux/namespaces", StageOp::Hop(new & !NsKind::Time.flag() & !flags));
            self.host("/linux/namespaces", HostOp::Adopt);
            if user_new && !mapped {
                self.id_maps(plan);
            }
            self.host("", HostOp::Release);
            if user_new && !mapped {
                self.stage("/linux/uidMappings", StageOp::BecomeRoot);
            }
        }
        if !(plan.user_first && wait) {
            self.oom_score_adj(plan);
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

    /// A session keyring: others of the container may search it (runc: 0x8 for others in a user namespace, else
    /// 0x80000 for the user).
    fn keyring(&mut self, id: &str, userns: bool, join: bool) {
        let permissions = if userns { 0x8 } else { 0x8_0000 };
        self.stage("", StageOp::Keyring { name: format!("_ses.{id}"), permissions, join });
    }

    fn names(&mut self, plan: &Plan) {
        if let Some(name) = &plan.hostname {
            self.stage("/hostname", StageOp::Hostname(name.clone()));
        }
        if let Some(name) = &plan.domainname {
            self.stage("/domainname", StageOp::Domainname(name.clone()));
        }
    }

    fn change_root(&mut self, plan: &Plan) {
        let op = match (plan.namespaces.has_new(NsKind::Mount), plan.ask.no_pivot) {
            (true, false) => StageOp::Pivot,
            (true, true) => StageOp::MoveRoot,
            // Without a mount namespace of its own there is no root to change, only one to go to.
            (false, _) => StageOp::Chroot(Ref::Source(0)),
        };
        self.stage("/root/path", op);
        let wanted = plan.rootfs.propagation;
        if !plan.rootfs.propagation_at.is_empty() && wanted.flag != MS_PRIVATE {
            self.stage(
                &plan.rootfs.propagation_at,
                StageOp::SetAttr {
                    mount: Ref::Nothing,
                    attrs: Default::default(),
                    propagation: wanted.flag,
                    recursive: wanted.recursive,
                },
            );
        }
    }
}
