// SPDX-License-Identifier: Apache-2.0
//! A pod, handed over and gone on with.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::sync::Mutex;

use super::held::{Sandbox, SandboxPhase, SandboxPlace};
use crate::driver::Driver;
use crate::handover::state::{EndState, PhaseState, SandboxState};
use crate::handover::{Handed, Outgoing};
use crate::process::ProcessExit;
use crate::ready::Once;
use crate::refusal::{Refusal, Result};
use crate::sandbox::files::PodFiles;
use crate::sandbox::wish::PodWish;

impl Sandbox {
    /// As it is handed over.
    pub fn pass(&self, to: &mut Outgoing) -> SandboxState {
        SandboxState {
            id: self.place.id.clone(),
            bundle: self.place.bundle.clone(),
            driver: self.place.driver.pass(),
            root: self.place.files.root.clone(),
            state: self.place.files.state.clone(),
            wish: serde_json::to_value(&self.wish).unwrap_or_default(),
            phase: match self.phase.get() {
                SandboxPhase::Created => PhaseState::Created,
                SandboxPhase::Ready => PhaseState::Running,
                SandboxPhase::Ended => PhaseState::Stopped,
            },
            pid: self.pid.get(),
            pidfd: self.pidfd.borrow().as_ref().map(|pidfd| to.fd(&**pidfd)),
            started_at: self.started_at.get(),
            ended: self.ended.get().map(|ended| EndState { status: ended.status, at: ended.at }),
        }
    }

    /// Goes on with one; what held it is to be watched again.
    ///
    /// # Errors
    /// What of it does not read.
    pub fn resumed(state: &SandboxState, from: &Handed) -> Result<Rc<Sandbox>> {
        let wish: PodWish = serde_json::from_value(state.wish.clone())
            .map_err(|error| Refusal::invalid(format!("the hand-over's sandbox: {error}")))?;
        let pidfd = state.pidfd.map(|place| from.shared(place)).transpose()?;
        let place = SandboxPlace {
            id: state.id.clone(),
            bundle: state.bundle.clone(),
            driver: Driver::resumed(&state.driver, &state.bundle),
            files: PodFiles { root: state.root.clone(), state: state.state.clone() },
        };
        let ended = state.ended.map(|ended| ProcessExit { status: ended.status, at: ended.at });
        let sandbox = Rc::new(Sandbox {
            place,
            wish,
            phase: Cell::new(match state.phase {
                PhaseState::Created => SandboxPhase::Created,
                PhaseState::Running => SandboxPhase::Ready,
                PhaseState::Stopped => SandboxPhase::Ended,
            }),
            pid: Cell::new(state.pid),
            pidfd: RefCell::new(pidfd),
            started_at: Cell::new(state.started_at),
            ended: Cell::new(ended),
            over: Once::default(),
            turn: Mutex::new(()),
        });
        if sandbox.phase.get() == SandboxPhase::Ended {
            sandbox.over.happen();
        }
        Ok(sandbox)
    }

    /// The descriptor that tells of its end.
    pub fn watched(&self) -> Option<Rc<OwnedFd>> {
        self.pidfd.borrow().clone()
    }
}
