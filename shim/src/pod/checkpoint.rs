// SPDX-License-Identifier: Apache-2.0
//! `Checkpoint`, and the `Start` of a container that was created from one.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::rc::Rc;

use containerd_shim_protos::api::CheckpointTaskRequest;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use corten::ask::{CgroupMode, CriuSettings};
use corten::plan::namespaces::NsKind;

use super::Pod;
use crate::driver::{CheckpointWish, LaunchedProcess};
use crate::io::{Prepared, prepare};
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
        let restored = run_restore(task, awaiting).await;
        let (made, prepared) = restored.inspect_err(|_| task.init.give_up())?;
        Ok(self.init_lives(task, prepared, made))
    }
}

async fn run_restore(task: &Task, awaiting: Awaiting) -> Result<(LaunchedProcess, Prepared)> {
    let Awaiting { mut wish, images } = awaiting;
    let (stdio, prepared) = prepare(&task.init.wanted, &task.owner).await?;
    wish.stdio = stdio;
    let (driver, bundle) = (task.driver.clone(), task.bundle.clone());
    let work = work_path(&wish.options.criu_work_path, &bundle);
    let restored = threads::run(move || {
        let made = driver.restore(wish, images, work)?;
        if let Err(error) = note_pid(&bundle, made.pid) {
            log::warn(&format!("{}: {error}", bundle.display()));
        }
        Ok(made)
    });
    Ok((restored.await?, prepared))
}

/// `delete` is to know the pid.
fn note_pid(bundle: &Path, pid: i32) -> Result<()> {
    if let Some(mut record) = ShimRecord::read(bundle) {
        record.pid = pid;
        record.replace(bundle)?;
    }
    Ok(())
}

/// Where CRIU's log and statistics go, if the options say so.
fn work_path(wanted: &str, bundle: &Path) -> PathBuf {
    if wanted.is_empty() { bundle.join(WORK) } else { wanted.into() }
}

/// `containerd.runc.v1.CheckpointOptions`, or the older `containerd.linux.runc.CheckpointOptions`, whose two paths have each other's
/// number. Clients send none for a type of runtime that they do not know: the container goes on then.
fn read_options(options: Option<&Any>) -> Result<CheckpointOptions> {
    let Some(any) = options.filter(|any| !any.type_url.is_empty() || !any.value.is_empty()) else {
        return Ok(CheckpointOptions::default());
    };
    let older = any.type_url.ends_with("linux.runc.CheckpointOptions");
    if !older && !any.type_url.ends_with("runc.v1.CheckpointOptions") {
        return Err(Refusal::invalid(format!("checkpoint options of an unknown type {:?}", any.type_url)));
    }
    let mut read = CheckpointOptions::parse_from_bytes(&any.value)
        .map_err(|error| Refusal::invalid(format!("CheckpointOptions: {error}")))?;
    if older {
        std::mem::swap(&mut read.image_path, &mut read.work_path);
    }
    Ok(read)
}

fn read(path: &str, options: Option<&Any>, task: &Task) -> Result<CheckpointWish> {
    let read = read_options(options)?;
    let path = if path.is_empty() { &read.image_path } else { path };
    if path.is_empty() {
        return Err(Refusal::invalid("a checkpoint needs a path"));
    }
    let cgroups = CgroupMode::parse(&read.cgroups_mode)
        .ok_or_else(|| Refusal::invalid(format!("cgroups_mode {:?} is not known", read.cgroups_mode)))?;
    if let Some(other) = read.empty_namespaces.iter().find(|name| *name != "network") {
        return Err(Refusal::invalid(format!("empty_namespaces: {other:?} is not supported")));
    }
    Ok(CheckpointWish {
        exit: read.exit,
        criu: CriuSettings {
            image_path: path.into(),
            work_path: Some(work_path(&read.work_path, &task.bundle)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_type_has_its_paths_under_other_numbers() {
        let mut read = Vec::new();
        for url in ["containerd.runc.v1.CheckpointOptions", "x/containerd.linux.runc.CheckpointOptions"] {
            let value = vec![0x42, 1, b'8', 0x4a, 1, b'9'];
            let any = Any { type_url: url.into(), value, ..Any::default() };
            let options = read_options(Some(&any)).unwrap();
            read.push([options.image_path, options.work_path]);
        }
        assert_eq!(read, [["8", "9"], ["9", "8"]]);
        assert!(read_options(Some(&Any { type_url: "x.Other".into(), ..Any::default() })).is_err());
        assert_eq!(read_options(None), Ok(CheckpointOptions::default()));
    }
}
