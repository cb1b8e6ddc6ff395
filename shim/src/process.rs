// SPDX-License-Identifier: Apache-2.0
//! One process of a container, init or exec: what is known of it. Reading it never waits.

#![forbid(unsafe_code)]

mod passing;

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use containerd_shim_protos::api::Status;
use corten::verbs::Exit;
use tokio::sync::Notify;

use crate::clock;
use crate::driver::ExecProcess;
use crate::io::{StreamPaths, Streams};

/// What a client is told of a process that never ran, when it waits for its end (containerd's UnknownExitStatus).
const UNKNOWN: u32 = 255;

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessPhase {
    /// It waits for its start, or is only registered.
    Created,
    /// Its start is under way.
    Starting,
    /// It runs.
    Running,
    /// It has ended.
    Stopped,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessExit {
    /// The exit code, or 128 and the signal.
    pub status: u32,
    /// When, since the epoch; `None` when it never ran.
    pub at: Option<Duration>,
}

impl ProcessExit {
    pub fn now(exit: Exit) -> ProcessExit {
        let status = match exit {
            Exit::Code(code) => code as u32 & 0xff,
            Exit::Signal(signal) => 128 + signal as u32,
        };
        ProcessExit { status, at: Some(clock::since_epoch()) }
    }
}

pub struct TaskProcess {
    /// Empty for init.
    pub exec_id: String,
    /// What its client wants behind its descriptors.
    pub wanted: StreamPaths,
    /// What an exec is to run; taken when it starts.
    pub exec: RefCell<Option<ExecProcess>>,
    /// Its pid; 0 before there is one.
    pub pid: Cell<i32>,
    /// Its pidfd, from birth.
    pub pidfd: RefCell<Option<Rc<OwnedFd>>>,
    /// Where it is.
    pub phase: Cell<ProcessPhase>,
    /// What moves its input and output.
    pub streams: RefCell<Option<Streams>>,
    /// A terminal's size (rows, columns) asked for before there was a terminal.
    pub size: Cell<Option<(u16, u16)>>,
    ended: Cell<Option<ProcessExit>>,
    /// Somebody is to look at `ended` again.
    end: Notify,
}

impl TaskProcess {
    /// One that has not started.
    pub fn new(exec_id: String, wanted: StreamPaths) -> Rc<TaskProcess> {
        Rc::new(TaskProcess {
            exec_id,
            wanted,
            exec: RefCell::default(),
            pid: Cell::new(0),
            pidfd: RefCell::default(),
            phase: Cell::new(ProcessPhase::Created),
            streams: RefCell::default(),
            size: Cell::default(),
            ended: Cell::default(),
            end: Notify::new(),
        })
    }

    /// It lives now.
    pub fn born(&self, pid: i32, pidfd: OwnedFd) -> Rc<OwnedFd> {
        let pidfd = Rc::new(pidfd);
        self.pid.set(pid);
        self.pidfd.replace(Some(pidfd.clone()));
        pidfd
    }

    /// It has ended: whoever waits is told. Only the first end counts.
    pub fn finish(&self, ended: ProcessExit) {
        if self.ended.get().is_none() {
            self.ended.set(Some(ended));
            self.phase.set(ProcessPhase::Stopped);
            // Its number may be another's from now on.
            self.pidfd.take();
        }
        self.end.notify_waiters();
    }

    /// It will never run: whoever waits is told.
    pub fn give_up(&self) {
        if self.ended.get().is_none() {
            self.ended.set(Some(ProcessExit { status: UNKNOWN, at: None }));
        }
        self.end.notify_waiters();
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ProcessExit> {
        self.ended.get()
    }

    /// Waits for its end.
    pub async fn end(&self) -> ProcessExit {
        loop {
            // Registered before the look, so that an end in between is not missed.
            let end = self.end.notified();
            if let Some(ended) = self.ended.get() {
                return ended;
            }
            end.await;
        }
    }

    /// In containerd's words.
    pub fn status(&self, paused: bool) -> Status {
        match self.phase.get() {
            ProcessPhase::Stopped => Status::STOPPED,
            _ if paused => Status::PAUSED,
            ProcessPhase::Running => Status::RUNNING,
            ProcessPhase::Created | ProcessPhase::Starting => Status::CREATED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_become_statuses() {
        assert_eq!(ProcessExit::now(Exit::Code(7)).status, 7);
        assert_eq!(ProcessExit::now(Exit::Signal(9)).status, 137);
        assert!(ProcessExit::now(Exit::Code(0)).at.is_some());
    }

    #[test]
    fn the_first_end_counts_and_wakes() {
        let process = TaskProcess::new(String::new(), StreamPaths::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let waiter = process.clone();
        local.block_on(&runtime, async move {
            let waits = tokio::task::spawn_local(async move { waiter.end().await });
            tokio::task::yield_now().await;
            process.finish(ProcessExit { status: 3, at: None });
            process.finish(ProcessExit { status: 4, at: None });
            assert_eq!(waits.await.unwrap().status, 3);
            assert_eq!(process.end().await.status, 3);
            assert_eq!(process.status(true), Status::STOPPED);
        });
    }
}
