// SPDX-License-Identifier: Apache-2.0
//! THE ORDER: what happens when, for `create`, `run` and `exec`.
//!
//! [`create`] reads from top to bottom as a container comes to be. Each line says which subject comes next; what a
//! subject consists of stands in `compile/`. The order itself is argued in docs/ARCHITECTURE.md ("Why this order").

#![forbid(unsafe_code)]

mod anchors;
mod birth;
mod filter;
mod hold;
mod inside;
mod mounting;
mod mounts;
mod process;
mod restore;

pub(crate) use filter::{ADMIN, PTRACE, enters_with_admin};
pub use hold::hold;
use mounting::{Binds, FSCONFIG_MAX};
pub use mounts::{MountsEntry, add_mounts, remove_mounts};
pub use restore::restore;

use super::Program;
use super::op::{HostOp, Must, Op, Ref, Source, StageOp, Step, Tree};
use crate::cgroup::{RulesFrom, WayIn};
use crate::plan::mounts::Propagation;
use crate::plan::namespaces::NsKind;
use crate::plan::{Field, Plan, process::Process};
use crate::stage::wire::barrier;

/// Slots of the stage, by what they hold.
pub(super) mod slots {
    /// A mount under work (a file system context first).
    pub(crate) const MOUNT: usize = 0;
    /// The target of a mount.
    pub(crate) const TARGET: usize = 1;
    /// Our own detached procfs.
    pub(crate) const PROC: usize = 2;
    /// A terminal's master.
    pub(crate) const MASTER: usize = 3;
    /// A terminal's other side.
    pub(crate) const TERMINAL: usize = 4;
    /// A seccomp listener.
    pub(crate) const LISTENER: usize = 5;
    /// The first of those that hold mounts (`anchors.rs`).
    pub(crate) const ANCHORS: usize = 6;
    /// The first of those that hold contexts of a procfs (`inside.rs`), up to the last there is.
    pub(crate) const PROCFS: usize = 12;
}

/// mount(2): MS_SLAVE.
const MS_SLAVE: u64 = 1 << 19;
/// mount(2): MS_PRIVATE.
const MS_PRIVATE: u64 = 1 << 18;

/// How the rootfs propagates at first: what is below its top as slaves, its top not at all. pivot_root(2) refuses a shared
/// top; as a slave, if that was asked for, it stays where the host's events come.
fn rootfs_propagation(plan: &Plan) -> Vec<Propagation> {
    let slaves = Propagation { flag: MS_SLAVE, recursive: true };
    let asked = !plan.rootfs.propagation_at.is_empty();
    match plan.rootfs.propagation.flag {
        MS_SLAVE if asked => vec![slaves],
        // In the runtime's mount namespace nothing may spread from it, nor into it.
        _ if plan.mounts_on_host => vec![Propagation { flag: MS_PRIVATE, recursive: true }],
        _ => vec![slaves, Propagation { flag: MS_PRIVATE, recursive: false }],
    }
}

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
    /// The name of the container's session keyring, if it has one of its own.
    pub keyring: Option<String>,
    /// How it gets into the container's control groups.
    pub way_in: WayIn,
    /// This process has no privilege over the one that it makes, once that has changed its ids.
    pub unprivileged: bool,
    /// The caller's groups can be dropped before the user namespace is joined.
    pub drops_groups: bool,
    /// The signals that the caller ignores ([`Facts::ignored`](crate::facts::Facts::ignored)).
    pub ignored: u64,
    /// The kernel's last capability.
    pub last_cap: u32,
    /// The container has groups in resctrl.
    pub rdt: bool,
    /// The caller's supplementary groups are kept (see `plan/annotations.rs`).
    pub keep_groups: bool,
    pub seccomp: Option<crate::seccomp::Filter>,
    /// Descriptors kept from 3 on.
    pub keep_fds: u32,
}

/// Where a process waits for `start`, and where it tells `start` how its exec went, if not there.
#[derive(Clone, Copy)]
struct Gate {
    gate: Ref,
    outcome: Ref,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { gate: Ref::Nothing, outcome: Ref::Nothing }
    }
}

/// Steps of the default bundle, rounded up: growing a long list copies it again and again.
const STEPS: usize = 256;

/// The program under construction.
struct Builder {
    program: Program,
    /// The stage copies mounts: what it has to copy.
    copies: Option<Vec<(String, Ref, Tree)>>,
    /// The field that wants a network namespace which the host makes and the stage has not joined yet.
    network: Option<String>,
    /// The kernel has mount_setattr(2): mounts are complete before they are attached.
    set_attr: bool,
    /// The mounts that are held until the container is hardened.
    anchors: anchors::Anchors,
    /// The pid namespace that is joined, last of all; and what was made for it before.
    inside: inside::Inside,
    /// The slot in which the context of the next mount lies already.
    context: Option<usize>,
}

impl Builder {
    fn new(set_attr: bool) -> Builder {
        let program = Program { sources: Vec::with_capacity(16), steps: Vec::with_capacity(STEPS) };
        Builder {
            program,
            copies: None,
            network: None,
            set_attr,
            anchors: Default::default(),
            inside: Default::default(),
            context: None,
        }
    }

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
    let mut b = Builder::new(plan.set_attr);
    let b = &mut b;
    b.copies = plan.copies_inside.then(Vec::new);
    b.prologue(plan);
    let rootfs = b.rootfs(plan);
    let binds = b.bind_sources(plan);
    b.anchors = anchors::Anchors::of(plan, &binds);
    let joins = b.namespace_files(plan);
    let proc = b.labels_before(plan);
    let gate = b.gate(plan);
    // The first process, in its namespaces.
    b.births(plan, &joins);
    b.while_the_stage_works(plan);
    b.trees_inside();
    // Inside: the session and the network's first device.
    if let Some(name) = &plan.ask.keyring {
        if let Some(label) = plan.process.as_ref().and_then(|process| process.selinux.as_ref()) {
            b.key_label(label, proc);
        }
        b.stage("", StageOp::Keyring { name: name.clone(), new: true });
    }
    b.stage("", StageOp::Setsid);
    b.network(plan);
    b.names(plan);
    // The file system, seen from the host's tree.
    b.host_tree(plan, rootfs);
    b.stage("/root/path", StageOp::Root(rootfs));
    b.mounts(plan, &binds);
    b.devices(plan, &binds);
    b.terminal(plan);
    if let Some(process) = plan.process.as_ref().filter(|process| process.cwd != "/") {
        b.stage("/process/cwd", StageOp::Mkdir(process.cwd.clone()));
    }
    b.late_remounts(plan);
    b.join_network();
    if plan.cgroup.device_rules == RulesFrom::Nodes {
        const AT: &str = "/linux/resources/devices";
        b.meet(AT, barrier::DEVICES, Ref::Nothing, &[(AT, HostOp::DeviceRules)]);
    }
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
        Some(process) => b.become_user(plan, process, last_cap, gate, proc),
        None => b.become_nobody(last_cap, gate),
    }
    if !plan.ask.run {
        b.stage("", StageOp::Gate);
    }
    if let Some(process) = &plan.process {
        b.last_filter(process, plan.seccomp.as_ref());
    }
    b.hooks_inside(plan, "startContainer", &plan.hooks.start_container, "created");
    if let Some(process) = &plan.process {
        b.exec(process);
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
    let mut b = Builder::new(true);
    if process.terminal.is_some() {
        b.host("/terminal", HostOp::ConsoleSocket);
    }
    let init = b.open("", Source::Init);
    let root = if entry.chroot { b.open("", Source::InitRoot) } else { Ref::Nothing };
    // The label is written before the hop, by a process of our own pid namespace; our /proc is nobody else's.
    let labelled = process.apparmor.is_some() || process.selinux.is_some();
    let proc = if labelled { b.open("", Source::Proc) } else { Ref::Nothing };
    let early_score = process.oom_score_adj.filter(|_| entry.unprivileged);
    // What the first process is in, the final one is born into.
    let wait = early_score.is_some() || entry.rdt;
    b.host("", HostOp::Clone { flags: 0, wait, way_in: entry.way_in });
    if entry.rdt {
        b.host("/linux/intelRdt", HostOp::RdtPlace);
    }
    if entry.way_in == WayIn::JoinsItself {
        b.host("", HostOp::Place);
    }
    if let Some(score) = early_score {
        b.host(&format!("{}/oomScoreAdj", process.at), HostOp::OomScoreAdj(score));
    }
    if wait {
        b.host("", HostOp::Release);
    }
    b.stage("", StageOp::Signals(entry.ignored));
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
    if let Some(name) = &entry.keyring {
        if let Some(label) = &process.selinux {
            b.key_label(label, proc);
        }
        b.stage("", StageOp::Keyring { name: name.clone(), new: false });
    }
    b.enter_as(entry, process, proc);
    b.last_filter(process, entry.seccomp.as_ref());
    b.exec(process);
    b.host("", HostOp::Outcome);
    b.program
}

impl Builder {
    /// The gate: a socket, or two FIFOs under a filter that refuses accept4(2).
    fn gate(&mut self, plan: &Plan) -> Gate {
        let accepts =
            plan.process.as_ref().is_none_or(|process| filter::lets_accept(process, plan.seccomp.as_ref()));
        match (plan.ask.run, accepts) {
            (true, _) => Gate::default(),
            (false, true) => Gate { gate: self.open("", Source::Gate), outcome: Ref::Nothing },
            (false, false) => {
                Gate { gate: self.open("", Source::GateFifo), outcome: self.open("", Source::OutcomeFifo) }
            }
        }
    }

    /// On the host, before any process exists: everything that can fail without a trace.
    fn prologue(&mut self, plan: &Plan) {
        if plan.process.as_ref().is_some_and(|process| process.terminal.is_some()) {
            self.host("/process/terminal", HostOp::ConsoleSocket);
        }
        if let Some(join) = plan.namespaces.join_of(NsKind::User) {
            self.host(&join.at, HostOp::JoinedIds);
        }
        self.host("", HostOp::Reserve);
        self.host("/linux/cgroupsPath", HostOp::Cgroup);
        if let Some(owner) = &plan.group_owner {
            self.host(&owner.at, HostOp::CgroupOwner(owner.value));
        }
        if plan.cgroup.device_rules == RulesFrom::Birth {
            self.host("/linux/resources/devices", HostOp::DeviceRules);
        }
        if plan.rdt.is_some() {
            self.host("/linux/intelRdt", HostOp::Rdt);
        }
    }

    /// The network's first device, and those that come from the host.
    fn network(&mut self, plan: &Plan) {
        if let Some(at) = plan.namespaces.new_at(NsKind::Network).filter(|_| self.network.is_none()) {
            self.stage(at, StageOp::Loopback);
        }
        if !plan.netdevs.is_empty() {
            self.join_network();
            self.meet(
                "/linux/netDevices",
                barrier::NETWORK,
                Ref::Nothing,
                &[("/linux/netDevices", HostOp::NetDevices)],
            );
        }
    }

    /// The mount namespace's copy of the host's tree, and the rootfs in it. A joined one is used as runc and crun do: what it
    /// had is gone with the old root. In the runtime's own only the rootfs is attached, and nothing of the host's is changed.
    fn host_tree(&mut self, plan: &Plan, rootfs: Ref) {
        if plan.namespaces.has(NsKind::Mount) {
            // Never shared: what is mounted here must not appear on the host.
            self.stage("", StageOp::Propagate(Propagation { flag: MS_SLAVE, recursive: true }));
        }
        if plan.namespaces.has(NsKind::Mount) || plan.mounts_on_host {
            let path = plan.rootfs.path.to_string_lossy().into();
            self.stage("/root/path", StageOp::AttachHost { mount: rootfs, path });
            // What is attached in a shared mount is shared with all who share that.
            if !self.set_attr || plan.mounts_on_host {
                self.propagate("/root/path", rootfs, &rootfs_propagation(plan));
            }
        }
    }

    /// The rootfs as a detached tree of its own.
    fn rootfs(&mut self, plan: &Plan) -> Ref {
        let tree = Tree {
            path: plan.rootfs.path.clone(),
            recursive: true,
            nofollow: false,
            attrs: Default::default(),
            all_attrs: Default::default(),
            propagation: if self.set_attr { rootfs_propagation(plan) } else { Vec::new() },
            idmap: None,
            must: Must::Directory,
        };
        let rootfs = self.tree("/root/path", tree);
        if let (Ref::Source(index), true) = (rootfs, plan.mounts_on_host) {
            self.host("/root/path", HostOp::OwnMount(index));
        }
        rootfs
    }

    /// The label that keys made from here on get; an exec ends it. A new keyring with the label of the one who makes it
    /// would not be the container's to use.
    fn key_label(&mut self, label: &Field<String>, dir: Ref) {
        let (path, data) = ("thread-self/attr/keycreate".to_owned(), label.value.clone());
        self.stage(&label.at, StageOp::Write { dir, path, data });
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
        let op = match (plan.namespaces.has(NsKind::Mount), plan.ask.no_pivot) {
            (true, false) => StageOp::Pivot,
            (true, true) => StageOp::MoveRoot(plan.rootfs.uncovered.clone()),
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
