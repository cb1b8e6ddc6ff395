// SPDX-License-Identifier: Apache-2.0
//! The Sandbox service of containerd: a pod without a pause container (`containerd.runtime.sandbox.v1.Sandbox`). A server holds
//! one pod; its containers are asked for by the task service, as any.

#![forbid(unsafe_code)]

mod held;
mod passing;

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, PingRequest, PlatformResponse, SandboxMetricsRequest, SandboxStatusRequest,
    SandboxStatusResponse, ShutdownSandboxRequest, StartSandboxRequest, StartSandboxResponse,
    StopSandboxRequest, WaitSandboxRequest, WaitSandboxResponse,
};
use containerd_shim_protos::types::platform::Platform;
use corten::state::check_id;
use tokio::task::spawn_local;

pub use self::held::Sandbox;
use self::held::{SandboxPhase, SandboxPlace};
use super::Pod;
use crate::driver::Driver;
use crate::options::Options;
use crate::record::ShimRecord;
use crate::refusal::{Refusal, Result};
use crate::sandbox::files::PodFiles;
use crate::sandbox::wish::PodWish;
use crate::{clock, log, threads};

/// How long a stop waits, should it not say.
const PATIENCE: Duration = Duration::from_secs(10);

impl Pod {
    fn sandbox(&self, id: &str) -> Result<Rc<Sandbox>> {
        let held = self.sandbox.borrow();
        let found = held.as_ref().filter(|sandbox| sandbox.place.id == id).cloned();
        found.ok_or_else(|| Refusal::not_found(format!("sandbox {id} does not exist: not found")))
    }

    /// Notes what is asked for, for `delete`, too. Nothing else is made yet.
    pub async fn create_sandbox(&self, request: &CreateSandboxRequest) -> Result<()> {
        let id = &request.sandbox_id;
        check_id(id)?;
        let known = self.sandbox.borrow().as_ref().map(|sandbox| sandbox.place.id.clone());
        match known {
            Some(known) if known == *id => {
                return Err(Refusal::exists(format!("sandbox {id} already exists")));
            }
            Some(known) => return Err(Refusal::state(format!("this shim holds sandbox {known}"))),
            None => {}
        }
        if !request.rootfs.is_empty() {
            return Err(Refusal::invalid("a sandbox of this runtime has no root file system"));
        }
        let wish = PodWish::read(request.options.as_ref(), &request.netns_path)?;
        let bundle = PathBuf::from(&request.bundle_path);
        if !bundle.is_absolute() || !bundle.is_dir() {
            return Err(Refusal::invalid(format!("bundle {:?} is no directory", request.bundle_path)));
        }
        let files = PodFiles::of(&bundle, id)?;
        // Whatever runtime the containers have, what holds the namespaces is ours.
        let options = Options { binary_name: String::new(), systemd_cgroup: false, ..self.options.clone() };
        let driver = Driver::new(&options, &self.namespace, false, &bundle);
        let record = ShimRecord {
            version: 1,
            id: id.clone(),
            address: self.server.address.clone(),
            server: self.server.process.clone(),
            options,
            files: Some(files.clone()),
            ..ShimRecord::default()
        };
        let place = SandboxPlace { id: id.clone(), bundle: bundle.clone(), driver, files };
        let sandbox = Sandbox::new(place, wish);
        let _turn = sandbox.turn.lock().await;
        self.sandbox.replace(Some(sandbox.clone()));
        let written = threads::run(move || Ok(record.begin(&bundle)?)).await;
        if written.is_err() {
            self.sandbox.take();
        }
        self.shut_down.set(false);
        self.end_if_empty();
        written
    }

    /// Makes files and namespaces.
    pub async fn start_sandbox(&self, request: &StartSandboxRequest) -> Result<StartSandboxResponse> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let _turn = sandbox.turn.lock().await;
        match sandbox.phase.get() {
            SandboxPhase::Created => {}
            SandboxPhase::Ready => return Err(Refusal::state("the sandbox has been started")),
            SandboxPhase::Ended => return Err(Refusal::state("the sandbox has ended")),
        }
        let (place, wish, reaper) = (sandbox.place.clone(), sandbox.wish.clone(), self.reaper.clone());
        let made = threads::run(move || place.make(&wish, &reaper)).await?;
        let pidfd = sandbox.born(made);
        spawn_local(sandbox.clone().watch(pidfd, self.reaper.clone()));
        Ok(StartSandboxResponse {
            pid: sandbox.pid.get() as u32,
            created_at: MessageField::some(clock::stamp(sandbox.started_at.get())),
            ..Default::default()
        })
    }

    /// What containers are to be made for; the same for every pod.
    pub fn platform(&self) -> PlatformResponse {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let platform =
            Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), ..Default::default() };
        PlatformResponse { platform: MessageField::some(platform), ..Default::default() }
    }

    /// Ends the pod's containers, then what holds its namespaces. What is over already is fine.
    pub async fn stop_sandbox(&self, request: &StopSandboxRequest) -> Result<()> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let _turn = sandbox.turn.lock().await;
        let limit = match request.timeout_secs {
            0 => PATIENCE,
            seconds => Duration::from_secs(seconds.into()),
        };
        self.end_sandbox(&sandbox, limit).await
    }

    /// With its turn.
    async fn end_sandbox(&self, sandbox: &Rc<Sandbox>, limit: Duration) -> Result<()> {
        let tasks: Vec<_> = self.tasks.borrow().values().cloned().collect();
        for task in tasks.into_iter().filter(|task| !task.over.has_happened()) {
            let (driver, id) = (task.driver.clone(), task.id.clone());
            // One that has ended meanwhile is none to be killed.
            if let Err(refusal) = threads::run(move || driver.kill(&id, libc::SIGKILL, true)).await {
                log::debug(&format!("container {}: {refusal}", task.id));
            }
        }
        sandbox.end(limit).await?;
        let files = sandbox.place.files.clone();
        threads::run(move || {
            files.unmount();
            Ok(())
        })
        .await
    }

    /// Waits until the pod is not ready any more, also before it is.
    pub async fn wait_sandbox(&self, request: &WaitSandboxRequest) -> Result<WaitSandboxResponse> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        sandbox.over.wait().await;
        let ended = sandbox.ended.get();
        Ok(WaitSandboxResponse {
            exit_status: ended.map_or(0, |ended| ended.status),
            exited_at: MessageField::some(clock::stamp(ended.and_then(|ended| ended.at))),
            ..Default::default()
        })
    }

    /// Answers in every state, from memory.
    pub fn sandbox_status(&self, request: &SandboxStatusRequest) -> Result<SandboxStatusResponse> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let ready = sandbox.phase.get() == SandboxPhase::Ready;
        let mut info = HashMap::new();
        if request.verbose {
            let told = serde_json::json!({
                "pid": sandbox.pid.get(),
                "config": sandbox.wish,
                "files": sandbox.place.files,
            });
            info.insert("info".to_owned(), told.to_string());
        }
        Ok(SandboxStatusResponse {
            sandbox_id: sandbox.place.id.clone(),
            pid: if ready { sandbox.pid.get() as u32 } else { 0 },
            state: if ready { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" }.to_owned(),
            info,
            created_at: MessageField::some(clock::stamp(sandbox.started_at.get())),
            exited_at: MessageField::some(clock::stamp(sandbox.ended.get().and_then(|ended| ended.at))),
            ..Default::default()
        })
    }

    /// Whether there is such a pod.
    pub fn ping_sandbox(&self, request: &PingRequest) -> Result<()> {
        self.sandbox(&request.sandbox_id).map(drop)
    }

    /// Nothing of the pod runs in a group of its own: its containers have figures, and containerd reads the pod's from their
    /// parent group.
    pub fn sandbox_metrics(&self, request: &SandboxMetricsRequest) -> Result<Vec<u8>> {
        self.sandbox(&request.sandbox_id)?;
        Err(Refusal::unimplemented("a sandbox without a container has no figures of its own"))
    }

    /// Takes all of the pod away, and ends the server with the last of its containers. One that is not there is fine.
    pub async fn shutdown_sandbox(&self, request: &ShutdownSandboxRequest) -> Result<()> {
        let held = self.sandbox.borrow().clone();
        if let Some(sandbox) = held {
            // Another's is not ours to take away.
            if sandbox.place.id != request.sandbox_id {
                return self.sandbox(&request.sandbox_id).map(drop);
            }
            let _turn = sandbox.turn.lock().await;
            self.end_sandbox(&sandbox, PATIENCE).await?;
            let place = sandbox.place.clone();
            threads::run(move || place.remove()).await?;
            self.sandbox.take();
        }
        // Not `shut_down`, which the task service's Shutdown of one of several containers takes back.
        self.asked_to_end.set(true);
        self.end_if_empty();
        Ok(())
    }
}
