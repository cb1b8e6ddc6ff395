// SPDX-License-Identifier: Apache-2.0
//! What happens when a process ends. Exactly one exit is told of each, after its start, and init's after all others'.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use containerd_shim_protos::events::task::TaskExit;
use containerd_shim_protos::protobuf::MessageField;
use tokio::time::timeout;

use super::Pod;
use crate::process::{ProcessExit, TaskProcess};
use crate::record::ShimRecord;
use crate::task::Task;
use crate::{clock, log, threads, work};

/// How long init's exit is held back for execs that do not end although they were killed.
const EXECS: Duration = Duration::from_secs(5);

/// How long init's exit is held back for starts of execs that are under way.
const STARTS: Duration = Duration::from_millis(200);

/// And how long, twice, for everything in the container to be killed.
const KILLED: Duration = Duration::from_secs(1);

/// Watches init from its birth.
pub async fn init(pod: Rc<Pod>, task: Rc<Task>, pidfd: Rc<OwnedFd>) {
    let process = task.init.clone();
    let exit = pod.reaper.end_of(&pidfd, process.pid.get()).await;
    let ended = ProcessExit::now(exit);
    let _work = work::begin(format!("the end of {}", task.id));
    task.over.happen();
    task.starters.dismiss();
    wait_for_starts(&task).await;
    // Whoever holds the turn tells of a start that this is the end of.
    let turn = task.turn.lock().await;
    if !task.own_pids {
        // Nobody else would end what init leaves behind; it must be over before the exit is told.
        kill_all(&task).await;
    }
    let execs = async {
        for exec in task.running_execs() {
            exec.end().await;
        }
    };
    if timeout(EXECS, execs).await.is_err() {
        log::warn(&format!("container {}: an exec outlives init", task.id));
    }
    pod.oom_at_end(&task).await;
    task.paused.set(false);
    record(&task, ended);
    finish(&pod, &task, &process, ended);
    drop(turn);
}

/// Starts of execs that are under way are told before init's end. Those that hang are killed in the container's groups;
/// those that do not even end of that are given up.
async fn wait_for_starts(task: &Rc<Task>) {
    if task.starts.wait_until_none(STARTS).await {
        return;
    }
    // What cannot be killed keeps its killer, too.
    let _ = timeout(KILLED, kill_all(task)).await;
    if !task.starts.wait_until_none(KILLED).await {
        log::warn(&format!("container {}: an exec that hangs in its start is given up", task.id));
        task.abandoned.happen();
    }
}

async fn kill_all(task: &Rc<Task>) {
    let (driver, id) = (task.driver.clone(), task.id.clone());
    if let Err(refusal) = threads::run(move || driver.kill(&id, libc::SIGKILL, true)).await {
        log::debug(&format!("container {}: after init's end: {refusal}", task.id));
    }
}

/// Watches an exec, once its start has been told.
pub async fn exec(pod: Rc<Pod>, task: Rc<Task>, process: Rc<TaskProcess>, pidfd: Rc<OwnedFd>) {
    let exit = pod.reaper.end_of(&pidfd, process.pid.get()).await;
    finish(&pod, &task, &process, ProcessExit::now(exit));
}

fn finish(pod: &Pod, task: &Task, process: &TaskProcess, ended: ProcessExit) {
    pod.idle.wake();
    if let Some(streams) = process.streams.borrow().as_ref() {
        streams.over();
    }
    let id = if process.exec_id.is_empty() { &task.id } else { &process.exec_id };
    let event = TaskExit {
        container_id: task.id.clone(),
        id: id.clone(),
        pid: process.pid.get() as u32,
        exit_status: ended.status,
        exited_at: MessageField::some(clock::stamp(ended.at)),
        ..Default::default()
    };
    pod.events.push("/tasks/exit", "TaskExit", &event);
    process.finish(ended);
}

/// For a `delete` that comes instead of us.
fn record(task: &Task, ended: ProcessExit) {
    let Some(mut record) = ShimRecord::read(&task.bundle) else { return };
    record.ended(ended);
    if let Err(error) = record.replace(&task.bundle) {
        log::warn(&error.to_string());
    }
}
