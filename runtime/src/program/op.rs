// SPDX-License-Identifier: Apache-2.0
//! The vocabulary of programs.
//!
//! A stage operation cannot hold a free path: it names a descriptor ([`Ref`]) or a path that is looked up below
//! the container's root; the exceptions, [`StageOp::Propagate`], [`StageOp::AttachHost`] and (without root)
//! [`StageOp::OpenTree`], name the host's own tree and are refused by `check` once anything is mounted in the root. The
//! file is longer than others because the vocabulary is one table, and each word of it is explained where it stands.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use super::place::Place;
use super::restoring::{CriuOp, MountPoint, RestorePoint, RestoreSources};
use crate::cgroup::WayIn;
use crate::plan::hooks::Hook;
use crate::plan::ids::Writers;
use crate::plan::mempolicy::MemPolicy;
use crate::plan::mounts::{Attrs, Idmap, Propagation};
use crate::plan::namespaces::NsKind;
use crate::plan::rlimits::Rlimit;

/// What a hook reads on stdin: the state up to the pid, and after it.
pub(crate) type HookState = Arc<(String, String)>;

/// A descriptor as a program names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ref {
    Nothing,
    /// One that the stage opened: a slot.
    Slot(usize),
    /// One that the host opened: an index into `Program::sources`.
    Source(usize),
}

/// What the host opens for the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A detached copy of a mount tree (open_tree(2) with OPEN_TREE_CLONE), with its attributes already set.
    Tree(Tree),
    /// A descriptor whose place the stage gives to a tree that it copies itself.
    Place,
    /// A file system of its own that the host mounts, detached, because it is to be id-mapped.
    Fs(FsTree),
    /// A device node that the host makes, detached, with an owner of the user namespace's.
    Node(Node),
    /// A namespace file, whose kind is checked.
    Namespace {
        /// Absolute path.
        path: String,
        /// What it must be.
        kind: NsKind,
        /// JSON pointer of the kernel parameter on whose account it must not be the runtime's own.
        foreign: Option<String>,
    },
    /// The host's /proc, for writes about the stage itself before the container's namespaces exist.
    Proc,
    /// The listening socket at which the stage waits for `start`.
    Gate,
    /// The FIFO that takes its place where the process's filter refuses accept4(2).
    GateFifo,
    /// The FIFO that goes with it: what becomes of the exec is told there.
    OutcomeFifo,
    /// The pidfd of the container's init.
    Init,
    /// The root directory of the container's init (for containers made without pivot_root).
    InitRoot,
}

/// A file system to mount, id-mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsTree {
    pub fstype: String,
    /// Device or dummy name.
    pub source: Option<String>,
    /// Parameters for fsconfig(2).
    pub options: Vec<(String, Option<String>)>,
    /// MOUNT_ATTR_* to set.
    pub attrs: u64,
    /// Attributes of the whole tree.
    pub all_attrs: Attrs,
    /// Propagation changes, in order.
    pub propagation: Vec<Propagation>,
    /// Id mapping.
    pub idmap: Idmap,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Type and permission bits.
    pub mode: u32,
    /// Device number.
    pub rdev: u64,
    /// Owner on the host.
    pub uid: u32,
    /// Group on the host.
    pub gid: u32,
    /// The host's node of that number, bound where none can be made.
    pub path: PathBuf,
}

/// A mount tree to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// With everything mounted below.
    pub recursive: bool,
    /// Do not follow a symbolic link at the end.
    pub nofollow: bool,
    /// Attributes of the top mount.
    pub attrs: Attrs,
    /// Attributes of the whole tree.
    pub all_attrs: Attrs,
    /// Propagation changes, in order.
    pub propagation: Vec<Propagation>,
    /// Id mapping.
    pub idmap: Option<Idmap>,
    /// Must be a directory (the root file system) or a device node of this number.
    pub must: Must,
}

/// What a tree's top must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    Anything,
    Directory,
    /// A procfs (a bind onto /proc).
    Proc,
    /// Anything; a symbolic link is opened itself, to be made again (`copy-symlink`).
    LinkOrTree,
}

/// One step: the operation and what in the configuration asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// JSON pointer; empty when no field did.
    pub at: String,
    pub op: Op,
}

/// Whose operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Done by the host side, in its own namespaces.
    Host(HostOp),
    Stage(StageOp),
    /// Done by CRIU, which is asked for all of it at once.
    Criu(CriuOp),
}

/// What the host does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostOp {
    /// Take the id: make the state directory and write the state "creating", with the control group's path.
    Reserve,
    /// Read the mappings of the user namespace that is joined, and compare them with the configuration's.
    JoinedIds,
    /// Make the control group and write its limits.
    Cgroup,
    /// Give the control group to the host's user that this user of the container is.
    CgroupOwner(u32),
    /// Note which mount this source is, which is to be attached in the runtime's own mount namespace.
    OwnMount(usize),
    /// Find or make the groups of Intel RDT.
    Rdt,
    /// Put the process into them.
    RdtPlace,
    /// Move network devices into the container.
    NetDevices,
    /// Make the network namespace, with `lo` up, and send it to the stage.
    Network,
    /// Put the device rules on the control group.
    DeviceRules,
    /// Keep a copy of the configuration.
    Keep,
    /// Note which process it is, so that it is never taken for a later one with its pid.
    Identify,
    Open(usize),
    /// Connect the console socket, so that a missing one is told before anything runs.
    ConsoleSocket,
    /// clone3(2): the first process, with these CLONE_NEW* flags.
    Clone {
        /// CLONE_NEW* flags.
        flags: u64,
        /// Whether it holds still before the stage until it is let go on.
        wait: bool,
        /// How it gets into its control groups, unless the kernel refuses it.
        way_in: WayIn,
    },
    /// Take over the final process that the first one cloned.
    Adopt,
    /// Write uid_map and gid_map.
    IdMaps(Writers),
    /// See to it that the process is in its control groups (where clone3 could not).
    Place,
    /// Write oom_score_adj.
    OomScoreAdj(i32),
    /// Let the process go on.
    Release,
    /// Wait until the stage reaches this barrier (wire::barrier).
    Await(u8),
    /// Run the prestart and createRuntime hooks.
    Hooks,
    /// Hand the seccomp listener to its agent.
    Listener,
    /// Raise the hard limits that the stage was refused.
    Rlimits,
    /// Set scheduler, I/O priority and CPU affinity.
    Schedule,
    /// Hand the terminal's master to the console socket, or keep it.
    Console,
    /// Write the state, the pid file and the pidfd socket: the container is created.
    Record,
    /// Wait for the outcome of the exec.
    Outcome,
    /// Run the poststart hooks.
    Poststart,
    /// Make the mount points that the rootfs lacks.
    MountPoints(Vec<MountPoint>),
    /// Start CRIU in the container's groups, with these sources in a mount namespace of its own, and ask it.
    Restore(RestoreSources),
    /// Wait until CRIU has come to this point.
    AwaitCriu(RestorePoint),
    /// Bring up `lo` of the network namespace that CRIU has made.
    Loopback,
    /// Let no packet into that namespace: a connection that is not back yet would be reset.
    HoldPackets,
    /// Let them in again.
    LetPacketsIn,
    /// Compare what the processes may do, and what is mounted, with the configuration.
    Compare,
    /// Let them go on, and wait until CRIU is done.
    Resume,
}

/// What the stage does. Paths are absolute below the container's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageOp {
    /// Default the signals that were ignored (bit n - 1: signal n), unblock all.
    Signals(u64),
    /// Join a namespace (CLONE_NEW* flags when `from` is a pidfd).
    Setns {
        /// Namespace file or pidfd.
        from: Ref,
        /// CLONE_NEW* flags.
        kinds: u64,
    },
    Unshare(u64),
    /// Clone the final process into these new namespaces.
    Hop(u64),
    /// Become root of the user namespace.
    BecomeRoot,
    /// The container's session keyring.
    Keyring {
        name: String,
        /// It is made, and must not have been there; else (`exec`) it is joined.
        new: bool,
    },
    /// A session of its own.
    Setsid,
    /// Bring `lo` up.
    Loopback,
    /// Join the namespace of this kind (a CLONE_NEW* flag) that the host has made and sends.
    JoinSent(u64),
    /// Tell the host, with a descriptor if any, and wait.
    Barrier {
        /// wire::barrier
        barrier: u8,
        /// What goes with it.
        fd: Ref,
    },
    /// sethostname(2)
    Hostname(String),
    /// setdomainname(2)
    Domainname(String),
    /// Change the propagation of the host's tree in the new mount namespace.
    Propagate(Propagation),
    /// Attach a mount to a target.
    Attach {
        mount: Ref,
        target: Ref,
    },
    /// Attach a mount to a path, or make the same link there if what was opened is a symbolic link.
    AttachOrLink {
        /// The mount, or the link.
        mount: Ref,
        /// Where the target's descriptor goes.
        slot: usize,
        path: String,
        /// wire::TARGET_*
        flags: u16,
    },
    /// Attach a mount to a path of the host's tree.
    AttachHost {
        mount: Ref,
        /// Absolute host path.
        path: String,
    },
    /// Change to a directory of the host's tree (the bundle, for createContainer hooks).
    ChdirHost(String),
    /// Look-ups start here (`Nothing`: at our own root).
    Root(Ref),
    /// Find or make a mount target.
    Target {
        /// Where the descriptor goes.
        slot: usize,
        path: String,
        /// wire::TARGET_*
        flags: u16,
        /// A mount whose type (directory or not) the target takes.
        like: Ref,
    },
    /// fsopen(2)
    FsOpen {
        /// Where the context goes.
        slot: usize,
        /// File system type.
        fstype: String,
    },
    /// The context of a procfs of a pid namespace that the stage is not in.
    ProcOf {
        /// Where the context goes.
        slot: usize,
        namespace: Ref,
    },
    /// fsconfig(2) with a string, or a flag.
    FsSet {
        /// The context.
        slot: usize,
        /// Parameter.
        key: String,
        /// Value; `None` for a flag.
        value: Option<String>,
    },
    /// Take over the mode of the target.
    FsMode {
        /// The context.
        slot: usize,
        /// The target's slot.
        target: usize,
    },
    /// fsmount(2): the context becomes a mount with these MOUNT_ATTR_* bits.
    FsMount {
        /// The context.
        slot: usize,
        /// MOUNT_ATTR_*
        attrs: u64,
    },
    /// mount(2) on a target, for options that fsconfig(2) cannot carry.
    MountClassic {
        /// The target.
        slot: usize,
        /// File system type.
        fstype: String,
        source: String,
        /// MS_* flags.
        flags: u64,
        data: String,
    },
    /// mount_setattr(2); `Nothing` is the root.
    SetAttr {
        mount: Ref,
        attrs: Attrs,
        /// MS_* propagation flag, or 0.
        propagation: u64,
        /// For the whole tree.
        recursive: bool,
    },
    /// The SELinux label of a new mount that does not take `context=`.
    Label {
        /// The mount.
        slot: usize,
        label: String,
    },
    /// Copy the content of the target into the new tmpfs.
    CopyUp {
        /// The tmpfs.
        slot: usize,
        target: usize,
    },
    /// A device node.
    Mknod {
        /// Where.
        place: Place,
        /// Type and permission bits.
        mode: u32,
        /// Device number.
        rdev: u64,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A symbolic link.
    Symlink {
        /// Where.
        place: Place,
        /// What it says.
        target: String,
    },
    /// Make a directory with its parents, if that can be done.
    Mkdir(String),
    /// Hide a path.
    Mask {
        place: Place,
        /// `mountLabel`, for what covers a directory.
        label: Option<String>,
    },
    /// Make a path read-only.
    Readonly(Place),
    /// pivot_root(2).
    Pivot,
    /// umount2(2) of the mount at a target, with all below it.
    Unmount {
        /// The target.
        slot: usize,
        /// A descriptor whose place the target takes, for its number to be known.
        place: Ref,
        /// The host's procfs, in which that number is a path.
        proc: Ref,
    },
    /// MS_MOVE and chroot(2), and these mounts of the host's tree away.
    MoveRoot(Vec<String>),
    /// Write to a file below a descriptor.
    Write {
        /// Where.
        dir: Ref,
        /// Relative path.
        path: String,
        data: String,
    },
    /// Open a terminal.
    Console {
        /// Slot of the master.
        master: usize,
        /// Slot of the other side.
        terminal: usize,
        /// Rows and columns.
        size: Option<(u16, u16)>,
    },
    /// Bind the terminal onto /dev/console.
    ConsoleBind(usize),
    /// Make it stdin, stdout and stderr.
    ConsoleStdio(usize),
    /// Make stdin the controlling terminal of our session.
    ConsoleControl,
    /// Give stdin, stdout and stderr to this user.
    ChownStdio(u32),
    Umask(u32),
    Personality(u32),
    /// set_mempolicy(2)
    MemPolicy(MemPolicy),
    /// PR_SET_NO_NEW_PRIVS
    NoNewPrivs,
    /// Change to the working directory; `again`: after the change of ids, where root was refused before.
    Chdir {
        path: String,
        /// Second attempt, and check.
        again: bool,
    },
    /// setgroups(2)
    Groups {
        gids: Vec<u32>,
        /// A denial (user_namespaces(7)) leaves them as they are.
        may_keep: bool,
    },
    /// Keep the caller's supplementary groups.
    KeepGroups,
    /// setgroups(2) without any, before a user namespace is joined that may deny it.
    DropGroups,
    /// open_tree(2) with OPEN_TREE_CLONE of what a path leads to in the root by now.
    CopyInside {
        /// Where the copy goes.
        slot: usize,
        path: String,
        /// With everything mounted below.
        recursive: bool,
        /// Do not follow a symbolic link at the end.
        nofollow: bool,
        /// What its top must be.
        must: Must,
    },
    /// open_tree(2) with OPEN_TREE_CLONE of a path of the host's tree, as root of the container's user namespace.
    OpenTree {
        /// The source whose place it takes.
        into: Ref,
        /// The tree; its attributes and propagation are steps of their own.
        tree: Tree,
    },
    /// setresgid(2), setresuid(2)
    SetIds {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Drop from the bounding set all but these.
    Bound {
        /// What stays.
        keep: u64,
        /// The kernel's last capability.
        last: u32,
    },
    Capset {
        effective: u64,
        permitted: u64,
        inheritable: u64,
    },
    /// capset(2) with CAP_SYS_ADMIN beside, which a filter takes that is loaded without no_new_privs. `Capset` takes it away
    /// again, right after the filter.
    LendAdmin {
        effective: u64,
        permitted: u64,
        inheritable: u64,
    },
    /// Raise ambient capabilities.
    Ambient(u64),
    /// Load the filter.
    Seccomp {
        /// Instructions, each as the kernel's 8 bytes.
        filter: Vec<u64>,
        /// SECCOMP_FILTER_FLAG_*
        flags: u64,
        /// Slot of the listener.
        listener: Option<usize>,
    },
    /// Choose the executable.
    Lookup(Vec<String>),
    /// Find HOME for this user and put it at the end of the environment.
    Home(u32),
    /// Wait for `start` at the gate that `Close` kept.
    Gate,
    /// Ignore SIGCHLD: children that end, and orphans of a pid namespace that come to its first process, leave no zombie.
    Disown,
    /// Wait for ever under this name, so that the namespaces stay: the end of a `hold`.
    Hold(String),
    /// Run a hook inside.
    Hook {
        /// Its number among its kind, from 0.
        number: u16,
        /// Which kind, for messages.
        kind: &'static str,
        /// The hook. Boxed: every step of a program is as large as the largest kind.
        hook: Box<Hook>,
        /// One for all hooks of a kind.
        state: HookState,
        /// wire::AVOID_*: what the filter that is loaded by then refuses.
        avoid: u32,
    },
    /// Close every descriptor from `from` on, but for the gate.
    Close {
        /// The first one.
        from: u32,
        /// The gate, if there is one.
        gate: Ref,
        /// Where `start` hears what becomes of the exec, if the gate is a FIFO.
        outcome: Ref,
        /// A slot that is kept, too.
        slot: Option<usize>,
    },
    /// Resource limits: raise the hard ones (`set` false), set them.
    Rlimits {
        limits: Vec<Rlimit>,
        /// Set, not only raise.
        set: bool,
    },
    /// chroot(2) to a directory.
    Chroot(Ref),
    CloseFd(Ref),
    /// execve(2)
    Exec {
        /// argv
        args: Vec<String>,
        /// Environment (HOME is appended by `Home`).
        env: Vec<String>,
        /// Room for HOME is needed.
        home: bool,
    },
}
