// SPDX-License-Identifier: Apache-2.0
//! The invariants of every program, checked before anything is done (docs/ARCHITECTURE.md, "Invariants"): a mistake in the plan
//! or in THE ORDER ends here, not in a container with a hole.

#![forbid(unsafe_code)]

use super::Program;
use super::anchored::AttachedMounts;
use super::compile::ADMIN;
use super::op::{HostOp, Op, Ref, Source, StageOp};
use super::restoring::RestorePoint;
use crate::error::{Error, Kind, Result};
use crate::plan::namespaces::NsKind;
use crate::stage::wire;

/// Phases in the only order in which they may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Join,
    HostTree,
    Mount,
    ChangeRoot,
    Harden,
    Labels,
    Bounding,
    Ids,
    Capabilities,
    Close,
    Gate,
    Filter,
    StartHooks,
    Exec,
}

/// A restore has no stage. Its processes go on only once they have been compared and written down, and sources are there
/// before CRIU is.
fn check_restore(program: &Program) -> Result<()> {
    let position = |wanted: &dyn Fn(&HostOp) -> bool| {
        program.steps.iter().position(|step| matches!(&step.op, Op::Host(op) if wanted(op)))
    };
    let stage = program.steps.iter().position(|step| matches!(step.op, Op::Stage(_)));
    if let Some(index) = stage {
        return Err(bug(index, "a step of the stage in a restore".into()));
    }
    let order = [
        position(&|op| *op == HostOp::Reserve),
        position(&|op| *op == HostOp::Cgroup),
        position(&|op| matches!(op, HostOp::MountPoints(_))),
        position(&|op| matches!(op, HostOp::Restore(_))),
        position(&|op| *op == HostOp::AwaitCriu(RestorePoint::Processes)),
        position(&|op| *op == HostOp::Compare),
        position(&|op| *op == HostOp::Identify),
        position(&|op| *op == HostOp::Record),
        position(&|op| *op == HostOp::Resume),
    ];
    let last_open = program.steps.iter().rposition(|step| matches!(step.op, Op::Host(HostOp::Open(_))));
    if order.contains(&None) || !order.is_sorted() || last_open >= order[2] {
        return Err(bug(program.steps.len(), "a restore out of order".into()));
    }
    Ok(())
}

/// Refuses a program whose phases are out of order, that uses the host's tree after the change of root, writes
/// anywhere but to a procfs of ours, hides or makes something in a mount that is not (any more) what is there, uses a source's descriptor after they are closed, executes the user's program
/// without having given up what it must, or does not end in that exec (or at the gate, without a process).
///
/// # Errors
/// `Kind::Invalid`, naming the step: a bug of `compile`, never of the configuration.
pub fn check(program: &Program) -> Result<()> {
    if program.steps.iter().any(|step| matches!(step.op, Op::Host(HostOp::Restore(_)))) {
        return check_restore(program);
    }
    let mut reached = Rank::Join;
    let mut seen = Seen::default();
    let mut last: Option<&StageOp> = None;
    for (index, step) in program.steps.iter().enumerate() {
        let Op::Stage(op) = &step.op else { continue };
        if matches!(last, Some(StageOp::Exec { .. } | StageOp::Hold(_))) {
            return Err(bug(index, "a step after the exec".into()));
        }
        check_refs(program, op).map_err(|text| bug(index, text))?;
        if let Some(rank) = rank(op, &seen) {
            if rank < reached {
                return Err(bug(index, format!("{rank:?} after {reached:?}")));
            }
            reached = rank;
        }
        seen.check_step(program, op).map_err(|text| bug(index, text.into()))?;
        last = Some(op);
    }
    match last {
        Some(
            StageOp::Exec { .. }
            | StageOp::Gate
            | StageOp::Hold(_)
            | StageOp::Hook { .. }
            | StageOp::Barrier { .. },
        ) => Ok(()),
        _ => Err(bug(program.steps.len(), "no exec at the end".into())),
    }
}

/// What came so far, as far as later steps depend on it.
#[derive(Default)]
struct Seen {
    /// Slots that hold a procfs (or the context of one).
    procfs: [bool; wire::SLOTS],
    no_new_privs: bool,
    closed: bool,
    bounded: bool,
    groups: bool,
    ids: bool,
    capabilities: bool,
    /// CAP_SYS_ADMIN is effective, be it the process's or lent to it.
    admin: bool,
    lent: bool,
    filtered: bool,
    /// A pid namespace was joined: the next hop is into it.
    enters: bool,
    hooked: bool,
    executable: bool,
    /// A kernel parameter was written through the host's procfs, which shows those of the namespaces that one is in.
    parameters: bool,
    anchors: AttachedMounts,
}

impl Seen {
    fn check_step(&mut self, program: &Program, op: &StageOp) -> std::result::Result<(), &'static str> {
        if self.closed && refs(op).iter().any(|fd| matches!(fd, Ref::Source(_))) {
            return Err("a source after they are closed");
        }
        self.anchors.check_step(program, op)?;
        match op {
            StageOp::FsOpen { slot, fstype } => {
                if let Some(procfs) = self.procfs.get_mut(*slot) {
                    *procfs = fstype == "proc";
                }
            }
            StageOp::ProcOf { slot, .. } => {
                if let Some(procfs) = self.procfs.get_mut(*slot) {
                    *procfs = true;
                }
            }
            StageOp::Target { slot, .. }
            | StageOp::AttachOrLink { slot, .. }
            | StageOp::CopyInside { slot, .. } => {
                if let Some(procfs) = self.procfs.get_mut(*slot) {
                    *procfs = false;
                }
            }
            StageOp::Write { dir, .. } if !self.is_procfs(program, *dir) => {
                return Err("a write outside of our own procfs");
            }
            StageOp::Write { dir: Ref::Source(_), path, .. } if path.starts_with("sys/") => {
                self.parameters = true;
            }
            StageOp::Setns { .. } | StageOp::Unshare(_) | StageOp::Hop(_) | StageOp::JoinSent(_)
                if self.parameters =>
            {
                return Err("a namespace after a kernel parameter was written");
            }
            StageOp::Seccomp { .. } => {
                self.filter()?;
            }
            StageOp::Hop(_)
                if self.enters && !(self.closed && self.ids && (self.capabilities || self.lent)) =>
            {
                return Err("a hop into a pid namespace that exists, with more than the process is to have");
            }
            StageOp::Setns { kinds, .. } => self.enters |= kinds & NsKind::Pid.flag() != 0,
            StageOp::NoNewPrivs => self.no_new_privs = true,
            StageOp::Close { .. } => self.closed = true,
            StageOp::Bound { .. } => self.bounded = true,
            StageOp::Groups { .. } | StageOp::KeepGroups => self.groups = true,
            StageOp::SetIds { .. } => self.ids = true,
            StageOp::LendAdmin { .. } => (self.lent, self.admin) = (true, true),
            StageOp::Capset { .. } if self.lent && !self.filtered => {
                return Err("a lent capability goes before the filter that it is for");
            }
            StageOp::Capset { effective, .. } => {
                (self.capabilities, self.lent) = (true, false);
                self.admin = effective & ADMIN != 0;
            }
            StageOp::Gate | StageOp::Exec { .. } | StageOp::Hook { kind: "startContainer", .. }
                if self.lent =>
            {
                return Err("a lent capability stays");
            }
            StageOp::Hook { kind: "startContainer", .. } => self.hooked = true,

            StageOp::Lookup(_) => self.executable = true,
            StageOp::Gate if !self.closed => return Err("a gate with descriptors of the host open"),
            // Others may be in its pid namespace, and it has nothing to do that takes anything.
            StageOp::Hold(_) if !(self.closed && self.bounded && self.groups && self.capabilities) => {
                return Err("a holder that keeps descriptors, groups or capabilities");
            }
            StageOp::Exec { .. } => {
                let all =
                    [self.closed, self.bounded, self.groups, self.ids, self.capabilities, self.executable];
                if all.contains(&false) {
                    return Err("an exec that keeps descriptors, ids or capabilities");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The filter: nothing but what it allows can be done after it, so everything is.
    fn filter(&mut self) -> std::result::Result<(), &'static str> {
        if !self.no_new_privs && !self.admin {
            return Err("the filter needs no_new_privs or CAP_SYS_ADMIN");
        }
        if !self.closed {
            return Err("the filter before the descriptors are closed");
        }
        if self.hooked {
            return Err("the filter after a startContainer hook");
        }
        self.filtered = true;
        Ok(())
    }

    fn is_procfs(&self, program: &Program, dir: Ref) -> bool {
        match dir {
            Ref::Slot(n) => self.procfs.get(n) == Some(&true),
            Ref::Source(n) => program.sources.get(n) == Some(&Source::Proc),
            Ref::Nothing => false,
        }
    }
}

fn bug(step: usize, text: String) -> Error {
    Error::new(Kind::Invalid, text).at(format!("internal error: program step {step}"))
}

fn rank(op: &StageOp, seen: &Seen) -> Option<Rank> {
    Some(match op {
        // A hop into nothing new may come at any time: `exec` does it last.
        StageOp::Hop(0) => return None,
        // A network namespace changes nothing that the others depend on.
        StageOp::JoinSent(_) => return None,
        StageOp::Setns { .. } | StageOp::Unshare(_) | StageOp::Hop(_) | StageOp::DropGroups => Rank::Join,
        StageOp::Propagate(_) | StageOp::AttachHost { .. } | StageOp::OpenTree { .. } => Rank::HostTree,
        StageOp::Attach { .. }
        | StageOp::CopyInside { .. }
        | StageOp::AttachOrLink { .. }
        | StageOp::FsMode { .. }
        | StageOp::Label { .. }
        | StageOp::CopyUp { .. }
        | StageOp::Unmount { .. }
        | StageOp::MountClassic { .. } => Rank::Mount,
        StageOp::Mknod { .. } | StageOp::Symlink { .. } | StageOp::Mkdir(_) => Rank::Mount,
        StageOp::ConsoleBind(_) | StageOp::ChdirHost(_) => Rank::Mount,
        StageOp::Pivot | StageOp::MoveRoot(_) | StageOp::Chroot(_) => Rank::ChangeRoot,
        StageOp::Mask { .. } | StageOp::Readonly(_) => Rank::Harden,
        StageOp::ChownStdio(_) => Rank::Labels,
        StageOp::Bound { .. } => Rank::Bounding,
        StageOp::SetIds { .. } | StageOp::Groups { .. } | StageOp::KeepGroups => Rank::Ids,
        // What was lent goes right after the filter, after everything is closed.
        StageOp::Capset { .. } if seen.lent => return None,
        StageOp::LendAdmin { .. } | StageOp::Capset { .. } | StageOp::Ambient(_) | StageOp::Lookup(_) => {
            Rank::Capabilities
        }
        // Without privileges it is the last thing but the hooks that run under it; with an agent, too, it may be earlier.
        StageOp::Seccomp { listener: None, .. } if !seen.admin => Rank::Filter,
        StageOp::Gate => Rank::Gate,
        StageOp::Hook { kind: "startContainer", .. } => Rank::StartHooks,
        StageOp::Close { .. } => Rank::Close,
        StageOp::Exec { .. } | StageOp::Hold(_) => Rank::Exec,
        _ => return None,
    })
}

/// Every descriptor that an operation names: two at most.
fn refs(op: &StageOp) -> [Ref; 2] {
    let slot = |slot: &Option<usize>| [slot.map_or(Ref::Nothing, Ref::Slot), Ref::Nothing];
    match op {
        StageOp::Setns { from: fd, .. }
        | StageOp::Barrier { fd, .. }
        | StageOp::Root(fd)
        | StageOp::AttachHost { mount: fd, .. }
        | StageOp::OpenTree { into: fd, .. }
        | StageOp::SetAttr { mount: fd, .. }
        | StageOp::Write { dir: fd, .. }
        | StageOp::Chroot(fd)
        | StageOp::CloseFd(fd) => [*fd, Ref::Nothing],
        StageOp::Attach { mount, target } => [*mount, *target],
        StageOp::Mask { place, .. }
        | StageOp::Readonly(place)
        | StageOp::Mknod { place, .. }
        | StageOp::Symlink { place, .. } => [place.anchor, Ref::Nothing],
        StageOp::Target { slot, like: fd, .. } | StageOp::AttachOrLink { slot, mount: fd, .. } => {
            [Ref::Slot(*slot), *fd]
        }
        StageOp::FsOpen { slot, .. }
        | StageOp::CopyInside { slot, .. }
        | StageOp::FsSet { slot, .. }
        | StageOp::FsMount { slot, .. }
        | StageOp::Label { slot, .. }
        | StageOp::MountClassic { slot, .. }
        | StageOp::ConsoleBind(slot)
        | StageOp::ConsoleStdio(slot) => [Ref::Slot(*slot), Ref::Nothing],
        StageOp::ProcOf { slot, namespace } => [Ref::Slot(*slot), *namespace],
        StageOp::Unmount { place, proc, .. } => [*place, *proc],
        StageOp::FsMode { slot, target } | StageOp::CopyUp { slot, target } => {
            [Ref::Slot(*slot), Ref::Slot(*target)]
        }
        StageOp::Console { master, terminal, .. } => [Ref::Slot(*master), Ref::Slot(*terminal)],
        StageOp::Seccomp { listener: some, .. } | StageOp::Close { slot: some, .. } => slot(some),
        _ => [Ref::Nothing; 2],
    }
}

/// References must exist; no path goes up or holds a NUL, and those that are looked up in the root are absolute.
fn check_refs(program: &Program, op: &StageOp) -> std::result::Result<(), String> {
    let known = |fd: &Ref| match fd {
        Ref::Nothing => true,
        Ref::Slot(n) => *n < wire::SLOTS,
        Ref::Source(n) => *n < program.sources.len(),
    };
    let gate = if let StageOp::Close { gate, .. } = op { Some(*gate) } else { None };
    if let Some(fd) = refs(op).iter().chain(&gate).find(|fd| !known(fd)) {
        return Err(format!("unknown descriptor {fd:?}"));
    }
    let (path, absolute) = match op {
        StageOp::Write { path, .. } => (path, false),
        StageOp::Target { path, .. }
        | StageOp::CopyInside { path, .. }
        | StageOp::AttachOrLink { path, .. }
        | StageOp::Mkdir(path) => (path, true),
        StageOp::Mknod { place, .. } | StageOp::Symlink { place, .. } => (&place.path, true),
        StageOp::Mask { place, .. } | StageOp::Readonly(place) => (&place.path, true),
        _ => return Ok(()),
    };
    if path.contains("..") && path.split('/').any(|part| part == "..") {
        return Err(format!("path {path} leads up"));
    }
    if path.starts_with('/') != absolute {
        return Err(format!("path {path} starts in the wrong place"));
    }
    if path.contains('\0') {
        return Err("NUL in a path".into());
    }
    if path.ends_with('/') && matches!(op, StageOp::Mknod { .. } | StageOp::Symlink { .. }) {
        return Err(format!("path {path} names nothing that can be made"));
    }
    Ok(())
}
