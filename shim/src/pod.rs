// SPDX-License-Identifier: Apache-2.0
//! The containers of this shim, and the requests that are answered from memory. The others are in `pod/`.

#![forbid(unsafe_code)]

mod alone;
mod checkpoint;
mod create;
mod end;
mod oom;
mod passing;
mod resources;
mod sandbox;
mod start;
#[cfg(test)]
mod tests;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::rc::Rc;

use containerd_shim_protos::api::{
    CloseIORequest, ConnectRequest, ConnectResponse, ResizePtyRequest, ShutdownRequest, StateRequest,
    StateResponse, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::MessageField;
use corten::state::Identity;
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use tokio::sync::Notify;

use self::sandbox::Sandbox;
use crate::clock;
use crate::events::Events;
use crate::idle::Idle;
use crate::options::Options;
use crate::process::ProcessPhase;
use crate::reaper::Reaper;
use crate::refusal::{Refusal, Result};
use crate::task::Task;

/// The shim's containers.
pub struct Pod {
    /// containerd's namespace.
    pub namespace: String,
    /// Where its events go.
    pub events: Rc<Events>,
    /// Who hears of the ends of processes.
    pub reaper: Reaper,
    /// The server, for the records that `delete` reads.
    pub server: Server,
    /// The options that the server was started with.
    options: Options,
    tasks: RefCell<BTreeMap<String, Rc<Task>>>,
    /// The pod that is held here, without a container.
    sandbox: RefCell<Option<Rc<Sandbox>>>,
    /// Ids that a `Create` under way has taken, and whether its client has given it up.
    taken: RefCell<BTreeMap<String, bool>>,
    asked_to_end: Cell<bool>,
    /// `Shutdown` came when there was nothing but creates under way: it counts if the last of them comes to nothing.
    shut_down: Cell<bool>,
    /// The server is to end.
    pub end: Notify,
    /// Whether there is something to do.
    pub idle: Idle,
    /// Connections of clients.
    clients: Cell<usize>,
    /// Clients, containers or creates have come or gone.
    changed: Notify,
}

/// Who serves.
#[derive(Clone)]
pub struct Server {
    /// The socket's address.
    pub address: String,
    /// The process; `None` where /proc does not tell.
    pub process: Option<Identity>,
}

impl Server {
    /// This process, listening at `address`.
    pub fn here(address: &str) -> Server {
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).ok();
        let process = pidfd.and_then(|pidfd| Identity::of(std::process::id() as i32, pidfd.as_fd()).ok());
        Server { address: address.to_owned(), process }
    }
}

impl Pod {
    /// Without containers yet.
    pub fn new(
        namespace: &str,
        options: Options,
        server: Server,
        events: Rc<Events>,
        reaper: Reaper,
    ) -> Rc<Pod> {
        Rc::new(Pod {
            namespace: namespace.to_owned(),
            options,
            sandbox: RefCell::default(),
            events,
            reaper,
            server,
            tasks: RefCell::default(),
            taken: RefCell::default(),
            asked_to_end: Cell::new(false),
            shut_down: Cell::new(false),
            end: Notify::new(),
            idle: Idle::default(),
            clients: Cell::new(0),
            changed: Notify::new(),
        })
    }

    fn task(&self, id: &str) -> Result<Rc<Task>> {
        let found = self.tasks.borrow().get(id).cloned();
        found.ok_or_else(|| Refusal::not_found(format!("container {id} does not exist: not found")))
    }

    /// Answers in every state, from memory.
    pub fn state(&self, request: &StateRequest) -> Result<StateResponse> {
        let task = self.task(&request.id)?;
        let process = task.process(&request.exec_id)?;
        let ended = process.ended();
        let mut response = StateResponse {
            id: if request.exec_id.is_empty() { task.id.clone() } else { request.exec_id.clone() },
            bundle: task.bundle.display().to_string(),
            pid: process.pid.get() as u32,
            stdin: process.wanted.stdin.clone(),
            stdout: process.wanted.stdout.clone(),
            stderr: process.wanted.stderr.clone(),
            terminal: process.wanted.terminal,
            exit_status: ended.map_or(0, |ended| ended.status),
            exited_at: MessageField::some(clock::stamp(ended.and_then(|ended| ended.at))),
            exec_id: request.exec_id.clone(),
            ..Default::default()
        };
        response.status = process.status(task.paused.get()).into();
        Ok(response)
    }

    /// Never an error.
    pub fn connect(&self, request: &ConnectRequest) -> ConnectResponse {
        let pid = self.task(&request.id).map_or(0, |task| task.init.pid.get());
        ConnectResponse { shim_pid: std::process::id(), task_pid: pid as u32, ..Default::default() }
    }

    /// Waits for a process's end, also before its start.
    pub async fn wait(&self, request: &WaitRequest) -> Result<WaitResponse> {
        let process = self.task(&request.id)?.process(&request.exec_id)?;
        let ended = process.end().await;
        Ok(WaitResponse {
            exit_status: ended.status,
            exited_at: MessageField::some(clock::stamp(ended.at)),
            ..Default::default()
        })
    }

    /// A size that comes before the terminal is kept for it.
    pub fn resize_pty(&self, request: &ResizePtyRequest) -> Result<()> {
        let process = self.task(&request.id)?.process(&request.exec_id)?;
        let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        let size = (clamp(request.height), clamp(request.width));
        if process.phase.get() == ProcessPhase::Stopped && !process.exec_id.is_empty() {
            return Err(Refusal::state("cannot resize a stopped process"));
        }
        let streams = process.streams.borrow();
        match streams.as_ref() {
            Some(streams) => streams.resize(size),
            None => {
                process.size.set(Some(size));
                Ok(())
            }
        }
    }

    /// Idempotent; fine without a stdin.
    pub fn close_io(&self, request: &CloseIORequest) -> Result<()> {
        let process = self.task(&request.id)?.process(&request.exec_id)?;
        if request.stdin
            && let Some(streams) = process.streams.borrow().as_ref()
        {
            streams.close_stdin();
        }
        Ok(())
    }

    /// Ends the server if it has neither a container nor a sandbox. `now` says nothing more, as with containerd's own shim.
    pub fn shutdown(&self, _request: &ShutdownRequest) -> Result<()> {
        self.shut_down.set(self.tasks.borrow().is_empty() && self.sandbox.borrow().is_none());
        self.end_if_empty();
        Ok(())
    }

    /// SIGTERM or SIGINT: containers are not to die of it, so it means "when there are none any more".
    pub fn asked_to_end(&self) {
        self.asked_to_end.set(true);
        self.end_if_empty();
        if !self.is_empty() {
            crate::log::warn("asked to end by a signal: will do so when the last container has been deleted");
        }
    }

    /// Called whenever a container or a create has gone.
    fn end_if_empty(&self) {
        self.changed.notify_one();
        if (self.asked_to_end.get() || self.shut_down.get()) && self.is_empty() {
            self.end.notify_one();
        }
    }

    fn is_empty(&self) -> bool {
        self.tasks.borrow().is_empty() && self.taken.borrow().is_empty() && self.sandbox.borrow().is_none()
    }

    fn remove(&self, id: &str) {
        self.tasks.borrow_mut().remove(id);
        self.end_if_empty();
    }
}
