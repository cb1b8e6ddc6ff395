// SPDX-License-Identifier: Apache-2.0
//! The program: what is done to make a container (or to exec in one), as one flat list in order.
//!
//! `op` is the vocabulary (`place` its paths), `compile` THE ORDER, `check` its invariants, `encode` the bytes that the stage reads,
//! `explain` the sentences that `corten plan` prints. All of it is pure. The list holds the host's half too:
//! `host/launch.rs` walks it from the top, doing what is the host's and meeting the stage at barriers.

#![forbid(unsafe_code)]

mod anchored;
pub mod check;
pub mod compile;
pub mod encode;
pub mod explain;
pub mod op;
pub mod place;
mod restoring;

pub(crate) use op::Source;
pub use op::{HostOp, Op, Ref, StageOp, Step};
pub use restoring::{CriuOp, MountPoint, RestorePoint, RestoreSources};

/// The whole list.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// Descriptors that the host opens and the stage inherits; [`Ref::Source`] counts from 0 here.
    pub sources: Vec<Source>,
    /// Every step, in order.
    pub steps: Vec<Step>,
}

impl Program {
    /// For each of the stage's records, the index of its step: faults name records.
    pub fn records(&self) -> Vec<usize> {
        let stage = |(index, step): (usize, &Step)| matches!(step.op, Op::Stage(_)).then_some(index);
        self.steps.iter().enumerate().filter_map(stage).collect()
    }
}
