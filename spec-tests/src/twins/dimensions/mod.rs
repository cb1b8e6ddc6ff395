// SPDX-License-Identifier: Apache-2.0
//! The generators, one file for each dimension, and how they are combined in one container.

#![forbid(unsafe_code)]

mod caller;
mod devices;
mod groups;
mod hooks;
mod mounts;
mod process;
mod resources;
mod seccomp;
mod terminals;
mod verbs;

use proptest::prelude::*;
use serde_json::Value;

use super::plan::{Plan, Step};
use crate::harness::host::Host;

/// The names of the dimensions, as `--only` takes them.
pub const NAMES: [&str; 10] = [
    "process",
    "caller",
    "mounts",
    "devices",
    "resources",
    "verbs",
    "hooks",
    "seccomp",
    "groups",
    "terminals",
];

/// What may be in any container: how many of a hundred have it.
const SHARE: f64 = 0.35;

/// Plans for this machine: of all dimensions, or of those named.
pub fn plans(host: &Host, systemd: bool, only: &[String]) -> BoxedStrategy<Plan> {
    let chosen = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let share = if only.is_empty() { SHARE } else { 0.95 };
    let part = |name: &str, parts: BoxedStrategy<Plan>| match chosen(name) {
        true => proptest::option::weighted(share, parts).prop_map(Option::unwrap_or_default).boxed(),
        false => Just(Plan::default()).boxed(),
    };
    let parts = vec![
        part("process", process::parts()),
        part("caller", caller::parts()),
        part("mounts", mounts::parts()),
        part("devices", devices::parts()),
        part("seccomp", seccomp::parts()),
    ];
    // Those that bring commands of their own: one at most.
    let mut courses = vec![(if only.is_empty() { 4 } else { 1 }, sequence())];
    let course = [
        ("resources", 2, resources::parts(host, systemd)),
        ("verbs", 3, verbs::parts()),
        ("hooks", 2, hooks::parts()),
        ("groups", 2, groups::parts(host)),
        ("terminals", 2, terminals::parts()),
    ];
    courses.extend(
        course.into_iter().filter(|(name, ..)| chosen(name)).map(|(_, weight, parts)| (weight * 3, parts)),
    );
    // A course comes first, because its commands and its caller hold; its configuration comes last, because it needs it.
    (parts, proptest::strategy::Union::new_weighted(courses))
        .prop_map(|(parts, course)| {
            let config = course.config.clone();
            let first = Plan { config: Vec::new(), ..course };
            Plan::join([first].into_iter().chain(parts).chain([Plan { config, ..Plan::default() }]))
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
