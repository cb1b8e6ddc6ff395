// SPDX-License-Identifier: Apache-2.0
//! `Start` of init and of execs, and `Exec`, which registers one.

#![forbid(unsafe_code)]

use std::rc::Rc;

use containerd_shim_protos::api::{ExecProcessRequest, StartRequest, StartResponse};
use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted, TaskStart};
use tokio::task::spawn_local;

use super::{Pod, watch};
use crate::driver::{ExecProcess, LaunchedProcess};
use crate::io::{Prepared, StreamPaths, prepare};
use crate::process::{ProcessPhase, TaskProcess};
use crate::refusal::{Refusal, Result};
use crate::task::Task;
use crate::{threads, work};

impl Pod {
    /// `Exec`: nothing runs yet.
    pub fn exec(&self, request: ExecProcessRequest) -> Result<()> {
        let task = self.task(&request.id)?;
        if request.exec_id.is_empty() {
            return Err(Refusal::invalid("an exec needs an id"));
        }
        corten::state::check_id(&request.exec_id)?;
        // Whatever the container's state: who asks again must be told that it is there.
        if task.execs.borrow().contains_key(&request.exec_id) {
            return Err(Refusal::exists(format!("exec {} already exists", request.exec_id)));
        }
        task.alive()?;
        if task.paused.get() {
            return Err(Refusal::state("cannot exec in a paused container"));
        }
        let json = request.spec.into_option().map(|any| any.value).unwrap_or_default();
        let exec = ExecProcess::read(json, request.terminal)?;
        let wanted = StreamPaths {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let process = TaskProcess::new(request.exec_id.clone(), wanted);
        process.exec.replace(Some(exec));
        task.execs.borrow_mut().insert(request.exec_id.clone(), process);
        let event =
            TaskExecAdded { container_id: request.id, exec_id: request.exec_id, ..Default::default() };
        self.events.push("/tasks/exec-added", "TaskExecAdded", &event);
        Ok(())
    }

    pub async fn start(self: &Rc<Self>, request: &StartRequest) -> Result<StartResponse> {
        let task = self.task(&request.id)?;
        let pid = match request.exec_id.as_str() {
            "" => self.start_init(&task).await?,
            exec_id => self.start_exec(&task, exec_id).await?,
        };
        Ok(StartResponse { pid: pid as u32, ..Default::default() })
    }

    async fn start_init(self: &Rc<Self>, task: &Rc<Task>) -> Result<i32> {
        let _turn = task.turn.lock().await;
        let init = &task.init;
        match init.phase.get() {
            ProcessPhase::Created => {}
            ProcessPhase::Stopped => return Err(Refusal::state("cannot start a container that has stopped")),
            _ => return Err(Refusal::state("cannot start an already running container")),
        }
        let awaiting = task.awaiting.take();
        match awaiting {
            Some(awaiting) => _ = self.restore(task, awaiting).await?,
            None if init.pid.get() == 0 => {
                return Err(Refusal::state("cannot start a container that could not be restored"));
            }
            None => {
                let (driver, id) = (task.driver.clone(), task.id.clone());
                threads::run(move || driver.start(&id)).await?;
            }
        }
        init.phase.set(ProcessPhase::Running);
        let pid = init.pid.get();
        let event = TaskStart { container_id: task.id.clone(), pid: pid as u32, ..Default::default() };
        self.events.push("/tasks/start", "TaskStart", &event);
        if let (Some(size), Some(streams)) = (init.size.take(), init.streams.borrow().as_ref()) {
            streams.resize(size)?;
        }
        Ok(pid)
    }

    async fn start_exec(self: &Rc<Self>, task: &Rc<Task>, exec_id: &str) -> Result<i32> {
        let process = task.process(exec_id)?;
        task.alive()?;
        if process.phase.get() != ProcessPhase::Created {
            return Err(Refusal::state(format!("exec {exec_id} was started already")));
        }
        let Some(exec) = process.exec.take() else {
            return Err(Refusal::state(format!("exec {exec_id} has failed to start")));
        };
        process.phase.set(ProcessPhase::Starting);
        // Execs start beside each other; init's end waits until those under way have said that they started, or has them
        // given up: what is started may lie on a file system that does not answer.
        let (pod, whose, what, under_way) = (self.clone(), task.clone(), process.clone(), task.starting());
        let work = work::begin(format!("the start of exec {exec_id}"));
        let start = spawn_local(async move {
            // Also when its request has been answered without it: what it has launched is to be ended.
            let _work = work;
            let started = pod.launch_exec(&whose, &what, exec).await;
            drop(under_way);
            started
        });
        let started = tokio::select! {
            started = start => started.unwrap_or_else(|error| Err(Refusal::unknown(error.to_string()))),
            () = task.abandoned.wait() => Err(Refusal::state("the container ended before the exec started")),
        };
        started.inspect_err(|_| {
            process.phase.set(ProcessPhase::Created);
            process.give_up();
        })
    }

    async fn launch_exec(
        self: &Rc<Self>,
        task: &Rc<Task>,
        process: &Rc<TaskProcess>,
        exec: ExecProcess,
    ) -> Result<i32> {
        let (made, prepared) = launch(task, process, exec).await?;
        if task.abandoned.has_happened() {
            // Its container's end has been told. Nobody may hear of it any more.
            self.reaper.kill(made.pidfd, made.pid).await;
            return Err(Refusal::state("the container ended before the exec started"));
        }
        self.exec_runs(task, process, made, prepared)
    }

    fn exec_runs(
        self: &Rc<Self>,
        task: &Rc<Task>,
        process: &Rc<TaskProcess>,
        made: LaunchedProcess,
        prepared: Prepared,
    ) -> Result<i32> {
        let pidfd = process.born(made.pid, made.pidfd);
        process.phase.set(ProcessPhase::Running);
        match prepared.start(made.console) {
            Ok(streams) => {
                if let Some(size) = process.size.take() {
                    streams.resize(size)?;
                }
                process.streams.replace(Some(streams));
            }
            Err(refusal) => crate::log::warn(&format!("exec {}: no output: {refusal}", process.exec_id)),
        }
        let event = TaskExecStarted {
            container_id: task.id.clone(),
            exec_id: process.exec_id.clone(),
            pid: made.pid as u32,
            ..Default::default()
        };
        self.events.push("/tasks/exec-started", "TaskExecStarted", &event);
        spawn_local(watch::exec(self.clone(), task.clone(), process.clone(), pidfd));
        Ok(made.pid)
    }
}

async fn launch(
    task: &Rc<Task>,
    process: &Rc<TaskProcess>,
    exec: ExecProcess,
) -> Result<(LaunchedProcess, Prepared)> {
    let (stdio, prepared) = prepare(&process.wanted, &task.owner).await?;
    let (driver, id, reaper) = (task.driver.clone(), task.id.clone(), task.owner.reaper.clone());
    let made = task.starters.run(move || driver.exec(&id, exec, stdio, &reaper)).await?;
    Ok((made, prepared))
}
