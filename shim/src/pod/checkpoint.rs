// SPDX-License-Identifier: Apache-2.0
//! `Checkpoint`, and the `Start` of a container that was created from one.

#![forbid(unsafe_code)]

use std::rc::Rc;

use containerd_shim_protos::api::CheckpointTaskRequest;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use corten::ask::{CgroupMode, CriuSettings};
use corten::plan::namespaces::NsKind;

use super::Pod;
use crate::driver::CheckpointWish;
use crate::process::ProcessPhase;
use crate::record::ShimRecord;
use crate::refusal::{Refusal, Result};
use crate::task::{Awaiting, Task};
use crate::{log, threads};

/// CRIU's log and statistics, below the bundle, where nobody has said otherwise.
pub(super) const WORK: &str = "criu-work";

impl Pod {
    /// `Checkpoint`: nobody is told of it but who asked, as with containerd's own shim.
    pub async fn checkpoint(&self, request: CheckpointTaskRequest) -> Result<()> {
        let task = self.task(&request.id)?;
        let wanted = read(&request.path, request.options.as_ref(), &task)?;
        let _turn = task.turn.lock().await;
        match task.init.phase.get() {
            ProcessPhase::Running => {}
            ProcessPhase::Stopped => return Err(Refusal::state("cannot checkpoint a stopped task")),
            _ => return Err(Refusal::state("cannot checkpoint a task in created state")),
        }
        let (driver, id) = (task.driver.clone(), task.id.clone());
        threads::run(move || driver.checkpoint(&id, wanted)).await
    }

    /// Restores what `Create` was asked for. The turn is the caller's.
    pub(super) async fn restore(self: &Rc<Self>, task: &Rc<Task>, awaiting: Awaiting) -> Result<i32> {
        let Awaiting { wish, prepared, images } = awaiting;
        let (driver, bundle, work) = (task.driver.clone(), task.bundle.clone(), task.bundle.join(WORK));
        let restored = threads::run(move || {
            let made = driver.restore(wish, images, work)?;
            if let Err(error) = note_pid(&bundle, made.pid) {
                log::warn(&format!("{}: {error}", bundle.display()));
            }
            Ok(made)
        });
        let made = restored.await.inspect_err(|_| task.init.give_up())?;
        Ok(self.init_lives(task, prepared, made))
    }
}

/// `delete` is to know the pid.
fn note_pid(bundle: &std::path::Path, pid: i32) -> Result<()> {
    if let Some(mut record) = ShimRecord::read(bundle) {
        record.pid = pid;
        record.replace(bundle)?;
    }
    Ok(())
}

/// `containerd.runc.v1.CheckpointOptions`, and the older `containerd.linux.runc.CheckpointOptions`, which has the same fields. Clients send
/// none for a type of runtime that they do not know: the container goes on then.
fn read(path: &str, options: Option<&Any>, task: &Task) -> Result<CheckpointWish> {
    let any = options.filter(|any| !any.type_url.is_empty() || !any.value.is_empty());
    let read = match any {
        None => CheckpointOptions::default(),
        Some(any)
            if any.type_url.ends_with("runc.v1.CheckpointOptions")
                || any.type_url.ends_with("linux.runc.CheckpointOptions") =>
        {
            CheckpointOptions::parse_from_bytes(&any.value)
                .map_err(|error| Refusal::invalid(format!("CheckpointOptions: {error}")))?
        }
        Some(any) => {
            return Err(Refusal::invalid(format!(
                "checkpoint options of an unknown type {:?}",
                any.type_url
            )));
        }
    };
    let path = if path.is_empty() { &read.image_path } else { path };
    if path.is_empty() {
        return Err(Refusal::invalid("a checkpoint needs a path"));
    }
    let cgroups = CgroupMode::parse(&read.cgroups_mode)
        .ok_or_else(|| Refusal::invalid(format!("cgroups_mode {:?} is not known", read.cgroups_mode)))?;
    if let Some(other) = read.empty_namespaces.iter().find(|name| *name != "network") {
        return Err(Refusal::invalid(format!("empty_namespaces: {other:?} is not supported")));
    }
    let work = if read.work_path.is_empty() { task.bundle.join(WORK) } else { read.work_path.clone().into() };
    Ok(CheckpointWish {
        exit: read.exit,
        criu: CriuSettings {
            image_path: path.into(),
            work_path: Some(work),
            tcp_established: read.open_tcp,
            ext_unix_sk: read.external_unix_sockets,
            shell_job: read.terminal,
            file_locks: read.file_locks,
            cgroups,
            empty_namespaces: NsKind::Network.flag() as u32,
            ..CriuSettings::default()
        },
    })
}
