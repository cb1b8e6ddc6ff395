// SPDX-License-Identifier: Apache-2.0
//! The sandbox service: pods without a container of their own.

#![forbid(unsafe_code)]

use std::rc::Rc;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, PingRequest, SandboxMetricsRequest, SandboxStatusRequest, ShutdownSandboxRequest,
    StartSandboxRequest, StopSandboxRequest, WaitSandboxRequest,
};
use containerd_shim_protos::ttrpc::Request;

use super::{encode_answer, encode_empty, read};
use crate::pod::Pod;
use crate::refusal::{Refusal, Result};

/// Its name, in every version so far.
pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// Leaves of a WaitSandbox what it says to us.
pub fn shorten(request: &mut Request) {
    if let Ok(wait) = read::<WaitSandboxRequest>(&request.payload) {
        let short = WaitSandboxRequest { sandbox_id: wait.sandbox_id, ..Default::default() };
        request.payload = short.write_to_bytes().unwrap_or_default();
    }
}

/// Answers a request of the service.
///
/// # Errors
/// Unimplemented for what came to it later: containerd goes on without.
pub async fn call(pod: &Rc<Pod>, request: &Request) -> Result<Vec<u8>> {
    let bytes = request.payload.as_slice();
    match request.method.as_str() {
        "CreateSandbox" => encode_empty(pod.create_sandbox(&read::<CreateSandboxRequest>(bytes)?).await),
        "StartSandbox" => encode_answer(pod.start_sandbox(&read::<StartSandboxRequest>(bytes)?).await),
        "Platform" => encode_answer(Ok(pod.platform())),
        "StopSandbox" => encode_empty(pod.stop_sandbox(&read::<StopSandboxRequest>(bytes)?).await),
        "WaitSandbox" => encode_answer(pod.wait_sandbox(&read::<WaitSandboxRequest>(bytes)?).await),
        "SandboxStatus" => encode_answer(pod.sandbox_status(&read::<SandboxStatusRequest>(bytes)?)),
        "PingSandbox" => encode_empty(pod.ping_sandbox(&read::<PingRequest>(bytes)?)),
        "ShutdownSandbox" => {
            encode_empty(pod.shutdown_sandbox(&read::<ShutdownSandboxRequest>(bytes)?).await)
        }
        "SandboxMetrics" => pod.sandbox_metrics(&read::<SandboxMetricsRequest>(bytes)?),
        other => Err(Refusal::unimplemented(format!("method {other}"))),
    }
}
