// SPDX-License-Identifier: Apache-2.0
//! Corten, a low-level OCI container runtime, as a library: what the program `corten` and the containerd shim call.
//!
//! [`verbs`] has a function for each thing that can be done with a container. A verb takes a [`Home`](ask::Home), which says where
//! containers are kept, and what is asked ([`ask`]: plain data), and returns data or one [`Error`]. It prints nothing, ends no
//! process, and leaves what belongs to the whole process as it was.
//!
//! ```no_run
//! use corten::ask::{Create, Home, Manager};
//! use corten::verbs;
//! use std::os::fd::AsFd;
//!
//! fn main() -> corten::Result<()> {
//!     let warn = |line: &str| eprintln!("warning: {line}");
//!     let home = Home { root: "/run/corten".into(), manager: Manager::Cgroupfs, rootless: None, warn: &warn, trace: None };
//!     let ask = Create { id: "one".into(), bundle: "/srv/bundle".into(), ..Create::default() };
//!     let init = verbs::create(&home, ask)?;
//!     verbs::start(&home, "one")?;
//!     println!("it ended: {:?}", verbs::wait(init.pidfd.as_fd())?);
//!     verbs::delete(&home, "one", false)
//! }
//! ```
//!
//! What is shown here is the library, and `runtime/tests/data/surface` names all of it. What else can be reached from other crates is for the
//! crate's own programs and tests, and changes without notice.
//!
//! Features: `oci-spec` (off) takes and gives the `oci-spec` crate's types: `Create::with_spec`, and conversions of processes, states
//! and features.
// The way of a `create`: `spec` reads the configuration, `facts` probes the host, `plan` decides (pure), `program` puts everything in order
// (pure), `host` performs the host's half and meets the stage, the sealed program that performs the other half inside the container.
// docs/ARCHITECTURE.md is the map.

pub mod ask;
pub mod features;
pub mod spec;
pub mod verbs;

pub use container::Container;
pub use error::{Error, Kind, Result};

// From here on: not of the surface.
#[doc(hidden)]
pub mod cgroup;
#[doc(hidden)]
pub mod container;
#[doc(hidden)]
pub mod criu;
#[doc(hidden)]
pub mod doctor;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
#[allow(missing_docs, reason = "public for tests alone: words stand where a name does not say it all")]
pub mod facts;
#[doc(hidden)]
pub mod host;
#[cfg(feature = "oci-spec")]
mod oci;
#[doc(hidden)]
#[allow(missing_docs, reason = "public for tests alone: words stand where a name does not say it all")]
pub mod plan;
#[doc(hidden)]
pub mod procfs;
#[doc(hidden)]
#[allow(missing_docs, reason = "public for tests alone: words stand where a name does not say it all")]
pub mod program;
#[doc(hidden)]
#[allow(missing_docs, reason = "public for tests alone: words stand where a name does not say it all")]
pub mod seccomp;
#[doc(hidden)]
pub mod setup;
// The sealed stage's source, compiled in as well: the fallback where memfds cannot be executed.
#[doc(hidden)]
#[path = "../stage/mod.rs"]
#[allow(missing_docs, reason = "its documents are for the inside")]
pub mod stage;
#[doc(hidden)]
pub mod state;
#[doc(hidden)]
pub mod sys;
#[doc(hidden)]
pub mod trace;
