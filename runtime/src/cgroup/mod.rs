// SPDX-License-Identifier: Apache-2.0
//! Control groups: where a container's group is, its limits, its life.
//!
//! ```text
//! Hierarchies::probe ─facts─> decide ─Plan─> Group::create ─> apply ─> birth or place ─> freeze kill pids ─> destroy
//!                                      └Record─> State         Group::open(Record) ────────────^
//! ```
//!
//! `probe` looks at the host; `decide` is pure: paths, every write, the device program; `limits` is the one table of
//! limits; `group` is the live thing, on the drivers `v1` and `v2`. A [`Record`] is persisted before anything is
//! made, so that `delete` finds the groups after a crash at any point. Hybrid hosts (controllers on v1, an empty
//! v2 beside them) are v1 hosts. The systemd driver is not built yet.

#![forbid(unsafe_code)]

mod convert;
mod decide;
mod devices;
mod devices_bpf;
mod dir;
mod group;
mod items;
mod limits;
mod placement;
mod probe;
mod record;
mod rootless;
mod v1;
mod v2;
mod values;

pub use decide::{DevicePlan, Line, Manager, Plan, Write, decide};
pub use devices::{Devices, Policy, Rule, Type};
pub use devices_bpf::compile as compile_devices;
pub use group::Group;
pub use placement::Placement;
pub use probe::{Hierarchies, Hierarchy, Version};
pub use record::{GroupDir, Record, View};
