// SPDX-License-Identifier: Apache-2.0
//! From a request's names to the function that answers it. containerd.task.v2 and v3 differ in nothing but the name.

#![forbid(unsafe_code)]

mod sandbox;

use std::rc::Rc;

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, CreateTaskRequest, DeleteRequest, Empty,
    ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StateRequest, StatsRequest, UpdateTaskRequest, WaitRequest,
};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::Request;

use crate::pod::Pod;
use crate::refusal::{Refusal, Result};

/// Both names of the one service.
const SERVICES: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// The service of our own: another program is to go on in this one's place (`upgrade/`).
pub const UPGRADE: (&str, &str) = ("corten.shim.v1.Upgrade", "Upgrade");

/// Whether a request asks for that.
pub fn wants_successor(request: &Request) -> bool {
    (request.service.as_str(), request.method.as_str()) == UPGRADE
}

/// A request as people name it. Every one begins with the id of a container; one that does not is answered anyway.
pub fn name(request: &Request) -> String {
    let id = match request.payload.as_slice() {
        [0x0a, length, rest @ ..] => rest.get(..usize::from(*length)).unwrap_or_default(),
        _ => &[],
    };
    format!("{} of {}", request.method, String::from_utf8_lossy(id))
}

/// Whether a request changes nothing and may take for ever.
pub fn only_waits(request: &Request) -> bool {
    request.method == "Wait" || request.method == "WaitSandbox"
}

/// Leaves of a request that only waits what it says to us, so that its waiting costs no more. One that does not read is
/// answered at once anyway.
pub fn shorten(request: &mut Request) {
    if request.service == sandbox::SERVICE {
        sandbox::shorten(request);
    } else if let Ok(wait) = read::<WaitRequest>(&request.payload) {
        let short = WaitRequest { id: wait.id, exec_id: wait.exec_id, ..Default::default() };
        request.payload = short.write_to_bytes().unwrap_or_default();
    }
    request.metadata = Vec::new();
    request.special_fields = Default::default();
}

/// Answers a request.
///
/// # Errors
/// Unimplemented for every service and method that is not ours: containerd probes for some, and goes on without.
// What is large is in a box: else the task of every request, of each Wait too, has room for it.
pub async fn call(pod: &Rc<Pod>, request: &Request) -> Result<Vec<u8>> {
    if request.service == sandbox::SERVICE {
        return Box::pin(sandbox::call(pod, request)).await;
    }
    if !SERVICES.contains(&request.service.as_str()) {
        return Err(Refusal::unimplemented(format!("service {}", request.service)));
    }
    let bytes = request.payload.as_slice();
    match request.method.as_str() {
        "State" => encode_answer(pod.state(&read::<StateRequest>(bytes)?)),
        "Connect" => encode_answer(Ok(pod.connect(&read::<ConnectRequest>(bytes)?))),
        "Wait" => encode_answer(pod.wait(&read::<WaitRequest>(bytes)?).await),
        "Create" => encode_answer(Box::pin(pod.create(read::<CreateTaskRequest>(bytes)?)).await),
        "Start" => encode_answer(Box::pin(pod.start(&read::<StartRequest>(bytes)?)).await),
        "Exec" => encode_empty(pod.exec(read::<ExecProcessRequest>(bytes)?)),
        "Kill" => encode_empty(pod.kill(&read::<KillRequest>(bytes)?).await),
        "Delete" => encode_answer(pod.delete(&read::<DeleteRequest>(bytes)?).await),
        "Pids" => encode_answer(pod.pids(&read::<PidsRequest>(bytes)?).await),
        "Stats" => encode_answer(pod.stats(&read::<StatsRequest>(bytes)?).await),
        "Pause" => encode_empty(pod.pause(&read::<PauseRequest>(bytes)?).await),
        "Resume" => encode_empty(pod.resume(&read::<ResumeRequest>(bytes)?).await),
        "Update" => encode_empty(pod.update(read::<UpdateTaskRequest>(bytes)?).await),
        "ResizePty" => encode_empty(pod.resize_pty(&read::<ResizePtyRequest>(bytes)?)),
        "CloseIO" => encode_empty(pod.close_io(&read::<CloseIORequest>(bytes)?)),
        "Shutdown" => encode_empty(pod.shutdown(&read::<ShutdownRequest>(bytes)?)),
        "Checkpoint" => encode_empty(pod.checkpoint(read::<CheckpointTaskRequest>(bytes)?).await),
        other => Err(Refusal::unimplemented(format!("method {other}"))),
    }
}

fn read<M: Message>(bytes: &[u8]) -> Result<M> {
    M::parse_from_bytes(bytes).map_err(|error| Refusal::invalid(format!("malformed {}: {error}", M::NAME)))
}

fn encode_answer<M: Message>(answer: Result<M>) -> Result<Vec<u8>> {
    answer.map(|answer| answer.write_to_bytes().unwrap_or_default())
}

fn encode_empty(answer: Result<()>) -> Result<Vec<u8>> {
    encode_answer(answer.map(|()| Empty::new()))
}
