// SPDX-License-Identifier: Apache-2.0
//! Twins of shims: random sequences of requests, performed equally on `containerd-shim-corten-v2` and on
//! `containerd-shim-runc-v2`; what a client is told, what containerd hears, and what is left are compared.
//!
//! [`plan`] makes sequences out of a seed, [`perform`] performs one through our own containerd ([`model`] reads the requests,
//! [`told`] the answers and events, [`finale`] ends everything, [`left`] looks at what remains), and [`cli`] judges: a difference is a row of docs/differences.md (a block of the kind `json
//! shims`), or a finding, which is made small.

#![forbid(unsafe_code)]

pub mod cli;
mod finale;
mod left;
mod model;
mod perform;
mod plan;
mod told;
