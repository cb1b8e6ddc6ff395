// SPDX-License-Identifier: Apache-2.0
//! `Kill` and `Delete`.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use containerd_shim_protos::api::{DeleteRequest, DeleteResponse, KillRequest};
use containerd_shim_protos::events::task::TaskDelete;
use containerd_shim_protos::protobuf::MessageField;
use corten::sys::tty::send;

use super::Pod;
use crate::process::{ProcessExit, ProcessPhase, TaskProcess};
use crate::refusal::{Refusal, Result};
use crate::task::Task;
use crate::{clock, log, mounts, threads};

/// How long a process's output may take after its end (containerd's figure).
const DRAIN: Duration = Duration::from_secs(10);

impl Pod {
    /// `Kill`. It waits for nobody: it is what ends things that hang.
    pub async fn kill(&self, request: &KillRequest) -> Result<()> {
        let task = self.task(&request.id)?;
        let process = task.process(&request.exec_id)?;
        let signal = i32::try_from(request.signal).ok().filter(|signal| (0..=64).contains(signal));
        let Some(signal) = signal else {
            return Err(Refusal::invalid(format!("signal {} is not known", request.signal)));
        };
        if !request.exec_id.is_empty() {
            return kill_exec(&process, signal);
        }
        if process.phase.get() == ProcessPhase::Stopped {
            // All that was left went with init; to none a signal can be given without fail.
            return if request.all { Ok(()) } else { Err(finished()) };
        }
        let simple = signal != libc::SIGKILL || (task.own_pids && !task.paused.get());
        if !request.all && simple {
            return signal_to(&process, signal);
        }
        let (driver, id, all) = (task.driver.clone(), task.id.clone(), request.all);
        let thaw = task.paused.get() && signal == libc::SIGKILL;
        let kill = move || {
            driver.kill(&id, signal, all)?;
            if thaw {
                // A frozen process of v1 does not even die; it may have thawed by its own end.
                let _ = driver.freeze(&id, false);
            }
            Ok(())
        };
        task.askers.run(kill).await
    }

    pub async fn delete(self: &Rc<Self>, request: &DeleteRequest) -> Result<DeleteResponse> {
        if request.exec_id.is_empty() {
            self.give_up_create(&request.id);
        }
        let task = self.task(&request.id)?;
        let (process, ended) = match request.exec_id.as_str() {
            "" => self.delete_init(&task).await?,
            exec_id => {
                let process = delete_exec(&task, exec_id).await?;
                let ended = process.ended();
                (process, ended)
            }
        };
        Ok(DeleteResponse {
            pid: process.pid.get() as u32,
            exit_status: ended.map_or(0, |ended| ended.status),
            exited_at: MessageField::some(clock::stamp(ended.and_then(|ended| ended.at))),
            ..Default::default()
        })
    }

    /// Init, and how it ended: `None` for one that was never started, and is killed for its deletion.
    async fn delete_init(self: &Rc<Self>, task: &Rc<Task>) -> Result<(Rc<TaskProcess>, Option<ProcessExit>)> {
        let turn = task.turn.lock().await;
        // Somebody else's Delete may have come first.
        self.task(&task.id)?;
        let init = task.init.clone();
        let never_ran = init.phase.get() == ProcessPhase::Created && init.ended().is_none();
        // One that was to be restored has no process.
        let awaited = never_ran && init.pid.get() == 0;
        if awaited {
            task.awaiting.take();
            init.give_up();
        }
        let _turn = match never_ran && !awaited {
            true => {
                // Its end is told by whoever watches it, who needs the turn for that.
                signal_to(&init, libc::SIGKILL).or_else(unless_finished)?;
                drop(turn);
                init.end().await;
                let turn = task.turn.lock().await;
                self.task(&task.id)?;
                turn
            }
            false => turn,
        };
        let Some(ended) = init.ended() else {
            return Err(Refusal::state(format!("cannot delete a running process: container {}", task.id)));
        };
        let told = (!never_ran).then_some(ended);
        // Clean up first: output that nobody reads must not cost the container its end.
        let (driver, id, mounted, rootfs) =
            (task.driver.clone(), task.id.clone(), task.mounted, task.bundle.join("rootfs"));
        let removed = threads::run(move || {
            let removed = driver.delete(&id);
            if mounted {
                mounts::unmount_all(&rootfs);
            }
            removed
        });
        if let Err(refusal) = removed.await {
            log::warn(&format!("container {}: delete: {refusal}", task.id));
            return Err(refusal);
        }
        let streams = init.streams.take();
        if let Some(streams) = &streams {
            streams.drain(DRAIN).await;
        }
        let execs = std::mem::take(&mut *task.execs.borrow_mut());
        execs.values().for_each(|exec| exec.give_up());
        self.remove(&task.id);
        let event = TaskDelete {
            container_id: task.id.clone(),
            pid: init.pid.get() as u32,
            exit_status: told.map_or(0, |ended| ended.status),
            exited_at: MessageField::some(clock::stamp(told.and_then(|ended| ended.at))),
            ..Default::default()
        };
        self.events.push("/tasks/delete", "TaskDelete", &event);
        Ok((init, told))
    }
}

async fn delete_exec(task: &Rc<Task>, exec_id: &str) -> Result<Rc<TaskProcess>> {
    let process = task.process(exec_id)?;
    match process.phase.get() {
        ProcessPhase::Stopped | ProcessPhase::Created => {}
        ProcessPhase::Starting | ProcessPhase::Running => {
            return Err(Refusal::state(format!("cannot delete a running process: exec {exec_id}")));
        }
    }
    let streams = process.streams.take();
    if let Some(streams) = &streams {
        streams.drain(DRAIN).await;
    }
    let mut execs = task.execs.borrow_mut();
    if execs.get(exec_id).is_some_and(|held| Rc::ptr_eq(held, &process)) {
        execs.remove(exec_id);
    }
    process.give_up();
    Ok(process)
}

fn kill_exec(process: &TaskProcess, signal: i32) -> Result<()> {
    match process.phase.get() {
        ProcessPhase::Created | ProcessPhase::Starting => {
            Err(Refusal::state("process not created: it has not started"))
        }
        ProcessPhase::Stopped => Err(finished()),
        ProcessPhase::Running => signal_to(process, signal),
    }
}

fn signal_to(process: &TaskProcess, signal: i32) -> Result<()> {
    let Some(pidfd) = process.pidfd.borrow().clone() else { return Err(finished()) };
    match send(pidfd.as_fd(), signal) {
        Err(rustix::io::Errno::SRCH) => Err(finished()),
        other => {
            other.map_err(|errno| corten::Error::os(format!("pidfd_send_signal({signal})"), errno).into())
        }
    }
}

fn unless_finished(refusal: Refusal) -> Result<()> {
    if refusal == finished() { Ok(()) } else { Err(refusal) }
}

/// In the words of Go's os package, which clients look for.
fn finished() -> Refusal {
    Refusal::not_found("os: process already finished: not found")
}
