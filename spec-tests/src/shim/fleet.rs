// SPDX-License-Identifier: Apache-2.0
//! Containers in a containerd that listens on a socket: what is measured is containerd, the shim and the runtime, and no client's start.
//!
//! It speaks to containerd's own services (containerd.services.containers.v1 and tasks.v1), as `ctr` does, from one process.

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::cri::text;
use super::grpc;
use super::wire::{Fields, Message};
use crate::harness::case::Trouble;

const NAMESPACE: &str = "scale";
const SPEC_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// How they are made: root file systems are overlays over `rootfs`, their other directories in `dir`; control groups are below `group`.
pub struct Fleet {
    socket: PathBuf,
    /// The runtime's type.
    pub runtime: String,
    rootfs: PathBuf,
    dir: PathBuf,
    pub group: String,
    spec: Value,
}

impl Fleet {
    /// Containers of the default bundle, each of which runs `args`; the words are the fields in their order.
    pub fn new([socket, runtime, rootfs, dir, group]: [&String; 5], args: &[&str]) -> Result<Self, Trouble> {
        let mut spec: Value = serde_json::from_str(include_str!("../harness/default.json"))?;
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = json!(args);
        spec["root"] = json!({"path": "rootfs"});
        Ok(Self {
            socket: socket.into(),
            runtime: runtime.clone(),
            rootfs: rootfs.into(),
            dir: dir.into(),
            group: group.clone(),
            spec,
        })
    }

    /// Makes a container, and the request for its task's Create.
    pub fn make(&self, id: &str) -> Result<Message, Trouble> {
        let own = self.dir.join(id);
        for sub in ["upper", "work"] {
            fs::create_dir_all(own.join(sub))?;
        }
        let mut spec = self.spec.clone();
        spec["linux"]["cgroupsPath"] = format!("{}/{id}", self.group).into();
        let spec = serde_json::to_vec(&spec).map_err(|error| error.to_string())?;
        let runtime = Message::new().text(1, &self.runtime);
        let container = text(id).message(4, &runtime).any(5, SPEC_URL, &spec);
        let request = Message::new().message(1, &container);
        self.call("/containerd.services.containers.v1.Containers/Create", &request)?;
        let mount = Message::new()
            .text(1, "overlay")
            .text(2, "overlay")
            .text(4, &format!("lowerdir={}", self.rootfs.display()))
            .text(4, &format!("upperdir={}", own.join("upper").display()))
            .text(4, &format!("workdir={}", own.join("work").display()));
        Ok(text(id).message(3, &mount))
    }

    /// Removes a container whose task is deleted.
    pub fn forget(&self, id: &str) -> Result<(), Trouble> {
        self.call("/containerd.services.containers.v1.Containers/Delete", &text(id))?;
        Ok(fs::remove_dir_all(self.dir.join(id))?)
    }

    /// A request about tasks.
    pub fn task(&self, method: &str, request: &Message) -> Result<Fields, Trouble> {
        self.call(&format!("/containerd.services.tasks.v1.Tasks/{method}"), request)
    }

    fn call(&self, method: &str, request: &Message) -> Result<Fields, Trouble> {
        grpc::call_in(&self.socket, Some(NAMESPACE), method, request)
    }
}
