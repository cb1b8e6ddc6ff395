// SPDX-License-Identifier: Apache-2.0
//! Control groups: where a container's group is, its limits, its life.
//!
//! ```text
//! Hierarchies::probe ─facts─> decide ─GroupPlan─> Group::create ─> apply ─> birth or place ─> freeze kill pids ─> destroy
//!                                      └Record─> State         Group::open(Record) ────────────^
//! ```
//!
//! `probe` looks at the host; `decide` is pure: paths, every write, the device program; `limits` is the one table of
//! limits; `group` is the live thing, on the drivers `v1` and `v2`. A [`Record`] is persisted before anything is
//! made, so that `delete` finds the groups after a crash at any point. Which of them are the container's is `own`'s to say;
//! nothing is done to others. Hybrid hosts (controllers on v1, an empty v2 beside them) are v1 hosts, whose containers have a
//! group on v2, too. With `--systemd-cgroup` a `unit` of systemd is the group: `systemd` has it made, over
//! the connection of `corten_dbus`, before anything is born in it; from then on it is a group like the others.

#![forbid(unsafe_code)]

mod change;
mod convert;
mod decide;
mod devices;
mod devices_bpf;
mod dir;
mod foreign;
mod group;
mod limits;
mod made;
mod merge;
pub mod oom;
mod own;
mod owner;
mod placement;
mod probe;
mod properties;
mod record;
mod rootless;
pub mod stats;
mod systemd;
mod unit;
mod update;
mod v1;
mod v2;

pub use change::{Change, change};
pub(crate) use decide::RulesFrom;
pub use decide::{DevicePlan, GroupPlan, decide_groups};
pub use devices::Policy;
pub use devices_bpf::compile as compile_devices;
pub(crate) use dir::mark_of;
pub use group::Group;
pub use made::Made;
pub use oom::{OomMark, OomWatch};
pub use placement::Placement;
pub use probe::{Hierarchies, Hierarchy, Version};
pub use record::Record;
pub(crate) use record::View;
pub(crate) use stats::Stats;
pub(crate) use unit::reads_like_a_unit;

pub use crate::sys::clone::WayIn;
