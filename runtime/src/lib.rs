// SPDX-License-Identifier: Apache-2.0
//! Corten, a low-level OCI container runtime.
//!
//! The way of a `create`: [`spec`] reads the configuration, [`facts`] probes the host, [`plan`] decides (pure),
//! [`program`] puts everything in order (pure), [`host`] performs the host's half and meets the stage, the sealed
//! program that performs the other half inside the container. docs/ARCHITECTURE.md is the map.

pub mod ask;
pub mod cgroup;
pub mod container;
pub mod criu;
pub mod doctor;
pub mod error;
#[allow(missing_docs, reason = "public for tests alone: words stand where a name does not say it all")]
pub mod facts;
pub mod features;
pub mod host;
#[allow(missing_docs, reason = "public for tests alone: words stand where a name does not say it all")]
pub mod plan;
pub mod procfs;
#[allow(missing_docs, reason = "public for tests alone: words stand where a name does not say it all")]
pub mod program;
#[allow(missing_docs, reason = "public for tests alone: words stand where a name does not say it all")]
pub mod seccomp;
pub mod setup;
pub mod spec;
// The sealed stage's source, compiled in as well: the fallback where memfds cannot be executed.
#[path = "../stage/mod.rs"]
#[allow(missing_docs, reason = "its documents are for the inside")]
pub mod stage;
pub mod state;
pub mod sys;
pub mod trace;
pub mod verbs;

pub use error::{Error, Kind, Result};
