// SPDX-License-Identifier: Apache-2.0
//! The generators, one file for each dimension, and how they are combined in one container.

#![forbid(unsafe_code)]

mod caller;
mod devices;
mod mounts;
mod process;
mod resources;
mod verbs;

use proptest::prelude::*;
use serde_json::Value;

use super::plan::{Plan, Step};
use crate::harness::host::Host;

/// The names of the dimensions, as `--only` takes them.
pub const NAMES: [&str; 6] = ["process", "caller", "mounts", "devices", "resources", "verbs"];

/// How many of a hundred containers have a dimension.
const SHARE: f64 = 0.4;

/// Plans for this machine: of all dimensions, or of those named.
pub fn plans(host: &Host, systemd: bool, only: &[String]) -> BoxedStrategy<Plan> {
    let chosen = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let share = if only.is_empty() { SHARE } else { 0.95 };
    let dimension = |name: &str, parts: BoxedStrategy<Plan>| match chosen(name) {
        true => proptest::option::weighted(share, parts).prop_map(Option::unwrap_or_default).boxed(),
        false => Just(Plan::default()).boxed(),
    };
    let all = (
        dimension("process", process::parts()),
        dimension("caller", caller::parts()),
        dimension("mounts", mounts::parts()),
        dimension("devices", devices::parts()),
        dimension("resources", resources::parts(host, systemd)),
        dimension("verbs", verbs::parts()),
        sequence(),
    );
    all.prop_map(|(process, caller, mounts, devices, resources, verbs, sequence)| {
        Plan::join([verbs, resources, process, caller, mounts, devices, sequence])
    })
    .boxed()
}

/// What is done with a container whose other dimensions want nothing special.
fn sequence() -> BoxedStrategy<Plan> {
    let long: [Step; 7] =
        ["create @", "start @", ":report", ":look", "exec @", "kill @ KILL", ":stopped"].map(Step::from);
    let deleted = || long.iter().cloned().chain([Step::from("delete @")]);
    prop_oneof![3 => Just(Plan::default()), 2 => Just(Plan::default().steps(deleted()))].boxed()
}

/// Absent, or a value at `pointer`.
fn maybe(
    share: f64,
    pointer: &'static str,
    value: impl Strategy<Value = Value> + 'static,
) -> BoxedStrategy<Plan> {
    let part = value.prop_map(move |value| Plan::set(pointer, value));
    proptest::option::weighted(share, part).prop_map(Option::unwrap_or_default).boxed()
}

/// All of these in one part.
fn together(parts: Vec<BoxedStrategy<Plan>>) -> BoxedStrategy<Plan> {
    parts.prop_map(Plan::join).boxed()
}

/// One of these values.
fn one_of(values: Vec<Value>) -> BoxedStrategy<Value> {
    proptest::sample::select(values).boxed()
}
