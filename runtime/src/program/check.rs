// SPDX-License-Identifier: Apache-2.0
//! The invariants of every program, checked before anything is done (design: security by construction).

#![forbid(unsafe_code)]

use super::Program;
use super::op::{Op, Ref, StageOp};
use crate::error::{Error, Kind, Result};
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
    StartHooks,
    Exec,
}

/// Refuses a program whose phases are out of order, that uses the host's tree after the change of root, writes
/// outside its own procfs, or does not end in exactly one exec (or in a gate, for a container without a process).
///
/// # Errors
/// `Kind::Invalid`, naming the step: a bug of `compile`, never of the configuration.
pub fn check(program: &Program) -> Result<()> {
    let mut reached = Rank::Join;
    let mut last = None;
    for (index, step) in program.steps.iter().enumerate() {
        let Op::Stage(op) = &step.op else { continue };
        check_refs(program, op).map_err(|text| bug(index, text))?;
        if let Some(rank) = rank(op) {
            if rank < reached {
                return Err(bug(index, format!("{rank:?} after {reached:?}")));
            }
            reached = rank;
        }
        last = Some(op);
    }
    match last {
        Some(StageOp::Exec { .. } | StageOp::Gate | StageOp::Hook { .. } | StageOp::Barrier { .. }) => Ok(()),
        _ => Err(bug(program.steps.len(), "no exec at the end".into())),
    }
}

fn bug(step: usize, text: String) -> Error {
    Error::new(Kind::Invalid, text).at(format!("internal error: program step {step}"))
}

fn rank(op: &StageOp) -> Option<Rank> {
    Some(match op {
        // A hop into nothing new may come at any time: `exec` does it last.
        StageOp::Hop(0) => return None,
        StageOp::Setns { .. } | StageOp::Unshare(_) | StageOp::Hop(_) => Rank::Join,
        StageOp::Propagate(_) | StageOp::AttachHost { .. } => Rank::HostTree,
        StageOp::Attach { .. }
        | StageOp::FsMode { .. }
        | StageOp::CopyUp { .. }
        | StageOp::MountClassic { .. } => Rank::Mount,
        StageOp::Mknod { .. } | StageOp::Symlink { .. } | StageOp::Mkdir(_) => Rank::Mount,
        StageOp::ConsoleBind(_) | StageOp::ChdirHost(_) => Rank::Mount,
        StageOp::Pivot | StageOp::MoveRoot | StageOp::Chroot(_) => Rank::ChangeRoot,
        StageOp::Mask(_) | StageOp::Readonly(_) => Rank::Harden,
        StageOp::ChownStdio(_) => Rank::Labels,
        StageOp::Bound { .. } => Rank::Bounding,
        StageOp::SetIds { .. } | StageOp::Groups(_) => Rank::Ids,
        StageOp::Capset { .. } | StageOp::Ambient(_) | StageOp::Lookup(_) => Rank::Capabilities,
        StageOp::Gate => Rank::Gate,
        StageOp::Hook { kind: "startContainer", .. } => Rank::StartHooks,
        StageOp::Close { .. } => Rank::Close,
        StageOp::Exec { .. } => Rank::Exec,
        _ => return None,
    })
}

/// References must exist; writes go to our own procfs (or, before everything, the host's); nothing goes up a path.
fn check_refs(program: &Program, op: &StageOp) -> std::result::Result<(), String> {
    let known = |fd: Ref| match fd {
        Ref::Nothing => true,
        Ref::Slot(n) => n < wire::SLOTS,
        Ref::Source(n) => n < program.sources.len(),
    };
    let (refs, path): (Vec<Ref>, Option<&str>) = match op {
        StageOp::Setns { from, .. } => (vec![*from], None),
        StageOp::Attach { mount, target } => (vec![*mount, *target], None),
        StageOp::Target { like, path, .. } => (vec![*like], Some(path)),
        StageOp::Write { dir, path, .. } => (vec![*dir], Some(path)),
        StageOp::Mknod { path, .. } | StageOp::Symlink { path, .. } => (vec![], Some(path)),
        StageOp::Mask(path) | StageOp::Readonly(path) | StageOp::Mkdir(path) => (vec![], Some(path)),
        _ => (vec![], None),
    };
    if let Some(fd) = refs.iter().find(|&&fd| !known(fd)) {
        return Err(format!("unknown descriptor {fd:?}"));
    }
    if let StageOp::Write { path, .. } = op
        && path.split('/').any(|part| part == "..")
    {
        return Err(format!("path {path} leads up"));
    }
    if path.is_some_and(|path| path.contains('\0')) {
        return Err("NUL in a path".into());
    }
    Ok(())
}
