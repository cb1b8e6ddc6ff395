// SPDX-License-Identifier: Apache-2.0
//! What goes to a container's control groups: `Pids`, `Stats`, `Pause`, `Resume`, `Update`.

#![forbid(unsafe_code)]

use std::rc::Rc;

use containerd_shim_protos::api::{
    PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResumeRequest, StatsRequest, StatsResponse,
    UpdateTaskRequest,
};
use containerd_shim_protos::events::task::{TaskPaused, TaskResumed};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::oci::ProcessDetails;

use super::Pod;
use crate::process::ProcessPhase;
use crate::refusal::{Refusal, Result};
use crate::task::Task;
use crate::threads;

impl Pod {
    /// `Pids`: never empty for a container that is not deleted. containerd, come back, takes one without processes for
    /// a leak and deletes it, and how it ended meanwhile would be lost.
    pub async fn pids(&self, request: &PidsRequest) -> Result<PidsResponse> {
        let task = self.task(&request.id)?;
        let mut pids = match task.group.get().cloned() {
            Some(group) => task.askers.run(move || Ok(group.pids()?)).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let init = task.init.pid.get();
        if pids.is_empty() {
            pids.push(init);
        }
        let processes = pids.into_iter().map(|pid| info(&task, pid)).collect();
        Ok(PidsResponse { processes, ..Default::default() })
    }

    pub async fn stats(&self, request: &StatsRequest) -> Result<StatsResponse> {
        let task = self.task(&request.id)?;
        let Some(group) = task.group.get().cloned() else {
            return Err(Refusal::not_found(format!("container {} has no control group: not found", task.id)));
        };
        let stats = task.askers.run(move || crate::stats::collect(&group)).await?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..Default::default() })
    }

    pub async fn pause(&self, request: &PauseRequest) -> Result<()> {
        let task = self.task(&request.id)?;
        let _turn = task.turn.lock().await;
        if task.paused.get() || task.init.phase.get() != ProcessPhase::Running {
            return Err(Refusal::state(format!("cannot pause container {}: it is not running", task.id)));
        }
        freeze(&task, true).await?;
        task.paused.set(true);
        let event = TaskPaused { container_id: task.id.clone(), ..Default::default() };
        self.events.push("/tasks/paused", "TaskPaused", &event);
        Ok(())
    }

    pub async fn resume(&self, request: &ResumeRequest) -> Result<()> {
        let task = self.task(&request.id)?;
        let _turn = task.turn.lock().await;
        if !task.paused.get() {
            return Err(Refusal::state(format!("cannot resume container {}: it is not paused", task.id)));
        }
        freeze(&task, false).await?;
        task.paused.set(false);
        let event = TaskResumed { container_id: task.id.clone(), ..Default::default() };
        self.events.push("/tasks/resumed", "TaskResumed", &event);
        Ok(())
    }

    pub async fn update(&self, request: UpdateTaskRequest) -> Result<()> {
        let task = self.task(&request.id)?;
        let resources = request.resources.into_option().map(|any| any.value).unwrap_or_default();
        if resources.is_empty() {
            return Err(Refusal::invalid("resources are missing"));
        }
        let _turn = task.turn.lock().await;
        task.alive()?;
        let (driver, id) = (task.driver.clone(), task.id.clone());
        threads::run(move || driver.update(&id, &resources)).await
    }
}

async fn freeze(task: &Rc<Task>, on: bool) -> Result<()> {
    let (driver, id) = (task.driver.clone(), task.id.clone());
    threads::run(move || driver.freeze(&id, on)).await
}

fn info(task: &Task, pid: i32) -> ProcessInfo {
    let mut info = ProcessInfo { pid: pid as u32, ..Default::default() };
    let execs = task.execs.borrow();
    if let Some(exec) = execs.values().find(|exec| exec.pid.get() == pid && exec.ended().is_none()) {
        let details = ProcessDetails { exec_id: exec.exec_id.clone(), ..Default::default() };
        info.info = MessageField::some(Any {
            type_url: "containerd.runc.v1.ProcessDetails".into(),
            value: details.write_to_bytes().unwrap_or_default(),
            ..Default::default()
        });
    }
    info
}
