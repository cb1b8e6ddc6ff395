// SPDX-License-Identifier: Apache-2.0
//! A containerd of our own, and the cases in which it drives a shim: `containerd-shim-corten-v2`, or
//! `containerd-shim-runc-v2` as the measure.
//!
//! [`daemon`] calls the binary and hears the [`events`]; [`task`] is the client of the task service, on [`ttrpc`] and
//! [`wire`]; [`fifo`] holds containerd's ends of the output; [`procs`] reads what a shim holds; [`pod`] is the client of the sandbox service; [`bench`]
//! measures.
//! [`twins`] compares two shims on random requests.
//! [`successor`] is a program that a shim is told to go on as, and should not.
//! [`cri`] is a kubelet for real containerd, on [`grpc`]; [`scale`] keeps more and more containers alive in one.
//! What a shim must do is told by containerd's api/ and core/runtime/v2, read at 1.6 to 2.4.

#![forbid(unsafe_code)]

pub mod bench;
mod cases;
pub mod cli;
pub mod cri;
mod daemon;
pub mod docker_front;
mod events;
mod fifo;
mod fleet;
mod grpc;
mod pod;
pub mod rates;
pub mod registry;
pub mod scale;
pub mod successor;
mod task;
mod ttrpc;
pub mod twins;
mod wire;
