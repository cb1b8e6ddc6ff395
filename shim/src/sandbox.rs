// SPDX-License-Identifier: Apache-2.0
//! A pod without a container of its own: what it is to be ([`wish`]), and the files that containerd mounts into its containers
//! ([`files`]). What holds its namespaces, and the requests, stand in `pod/sandbox.rs` (decision 0082).

#![forbid(unsafe_code)]

pub mod files;
pub mod wish;
