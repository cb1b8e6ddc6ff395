// SPDX-License-Identifier: Apache-2.0
//! A process, handed over and gone on with.

#![forbid(unsafe_code)]

use std::rc::Rc;

use super::{ProcessExit, ProcessPhase, TaskProcess};
use crate::driver::ExecProcess;
use crate::handover::state::{EndState, PhaseState, ProcessState};
use crate::handover::{Handed, Outgoing};
use crate::io::{StreamPaths, Streams};
use crate::reaper::Reaper;
use crate::refusal::Result;

impl TaskProcess {
    /// As it is handed over. None is on its way into life: that is work.
    pub fn pass(&self, to: &mut Outgoing) -> ProcessState {
        let wanted = &self.wanted;
        ProcessState {
            exec_id: self.exec_id.clone(),
            terminal: wanted.terminal,
            stdin: wanted.stdin.clone(),
            stdout: wanted.stdout.clone(),
            stderr: wanted.stderr.clone(),
            exec: self.exec.borrow().as_ref().map(|exec| to.piece(exec.json())),
            pid: self.pid.get(),
            pidfd: self.pidfd.borrow().as_deref().map(|pidfd| to.fd(pidfd)),
            phase: match self.phase.get() {
                ProcessPhase::Created | ProcessPhase::Starting => PhaseState::Created,
                ProcessPhase::Running => PhaseState::Running,
                ProcessPhase::Stopped => PhaseState::Stopped,
            },
            streams: self.streams.borrow().as_ref().map(|streams| streams.pass(to)),
            size: self.size.get(),
            ended: self.ended.get().map(|ProcessExit { status, at }| EndState { status, at }),
        }
    }

    /// Goes on with one that was handed over.
    ///
    /// # Errors
    /// A descriptor that is not there; a process that does not read.
    pub fn resumed(state: &ProcessState, from: &Handed, reaper: &Reaper) -> Result<Rc<TaskProcess>> {
        let wanted = StreamPaths {
            terminal: state.terminal,
            stdin: state.stdin.clone(),
            stdout: state.stdout.clone(),
            stderr: state.stderr.clone(),
        };
        let process = TaskProcess::new(state.exec_id.clone(), wanted);
        let exec = state.exec.map(|json| ExecProcess::read(from.piece(json).to_vec(), state.terminal));
        process.exec.replace(exec.transpose()?);
        process.pid.set(state.pid);
        process.pidfd.replace(state.pidfd.map(|pidfd| from.shared(pidfd)).transpose()?);
        process.phase.set(match state.phase {
            PhaseState::Created => ProcessPhase::Created,
            PhaseState::Running => ProcessPhase::Running,
            PhaseState::Stopped => ProcessPhase::Stopped,
        });
        process.size.set(state.size);
        process.ended.set(state.ended.map(|EndState { status, at }| ProcessExit { status, at }));
        let streams =
            state.streams.as_ref().map(|streams| Streams::resumed(streams, from, reaper)).transpose()?;
        if let Some(streams) = streams.as_ref().filter(|_| state.phase == PhaseState::Stopped) {
            streams.over();
        }
        process.streams.replace(streams);
        Ok(process)
    }
}
