// SPDX-License-Identifier: Apache-2.0
//! A sequence of requests as data, and the strategy that makes them.

#![forbid(unsafe_code)]

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// What is done with a shim.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// The shim drives runc by its command line, under a path of the test's own.
    #[serde(skip_serializing_if = "is_default")]
    pub behind: bool,
    /// What the containers run: words of the probe; `forever` when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub init: String,
    /// The containers' input and output: none when empty, `fifo` or `terminal`.
    #[serde(skip_serializing_if = "is_default")]
    pub io: String,
    /// The requests, as `model.rs` reads them.
    pub steps: Vec<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Containers: the shim's first, a member of its group, and one that never is.
const CONTAINERS: [(u32, &str); 3] = [(10, "a"), (4, "b"), (1, "z")];
/// Execs; `-` is the container's first process.
const PROCESSES: [(u32, &str); 3] = [(6, "-"), (4, "x"), (2, "y")];

fn word(words: &'static [(u32, &'static str)]) -> BoxedStrategy<String> {
    let arms = words.iter().map(|(weight, word)| (*weight, Just((*word).to_owned()).boxed()));
    proptest::strategy::Union::new_weighted(arms.collect()).boxed()
}

fn words(parts: Vec<BoxedStrategy<String>>) -> BoxedStrategy<String> {
    parts.prop_map(|words| words.join(" ")).boxed()
}

/// `VERB CONTAINER PROCESS` and what else.
fn about(verb: &'static [(u32, &'static str)], more: Vec<BoxedStrategy<String>>) -> BoxedStrategy<String> {
    let head = vec![word(verb), word(&CONTAINERS), word(&PROCESSES)];
    words(head.into_iter().chain(more).collect())
}

/// A request that changes something.
fn change() -> BoxedStrategy<String> {
    const PROGRAMS: [(u32, &str); 6] =
        [(4, "exits"), (4, "stays"), (2, "missing"), (1, "empty"), (1, "nowhere"), (1, "terminal")];
    const SIGNALS: [(u32, &str); 7] =
        [(6, "9"), (3, "15"), (1, "0"), (1, "10"), (1, "64"), (1, "65"), (1, "4000000000")];
    const UPDATES: [(u32, &str); 5] =
        [(3, "pids"), (1, "memory"), (1, "wrong"), (1, "empty"), (1, "rubbish")];
    prop_oneof![
        4 => about(&[(1, "create")], vec![]),
        8 => about(&[(1, "start")], vec![]),
        6 => about(&[(1, "exec")], vec![word(&PROGRAMS)]),
        6 => about(&[(1, "kill")], vec![word(&SIGNALS), word(&[(3, "one"), (1, "all")])]),
        5 => about(&[(1, "delete")], vec![]),
        2 => about(&[(1, "pause"), (1, "resume")], vec![]),
        1 => about(&[(1, "update")], vec![word(&UPDATES)]),
        1 => about(&[(2, "closeio"), (1, "resize"), (1, "checkpoint")], vec![]),
        1 => about(&[(1, "shutdown")], vec![word(&[(2, "later"), (1, "now")])]),
    ]
    .boxed()
}

/// A request that looks.
fn look() -> BoxedStrategy<String> {
    about(&[(3, "state"), (3, "wait"), (2, "pids"), (2, "stats"), (1, "connect"), (1, "nonsense")], vec![])
}

fn step() -> BoxedStrategy<String> {
    let cut = words(vec![
        word(&[(2, "hangup"), (1, "cancel")]),
        word(&[(1, "0"), (1, "1"), (1, "10"), (1, "60")]),
        prop_oneof![2 => change(), 1 => look()].boxed(),
    ]);
    prop_oneof![12 => change(), 5 => look(), 1 => cut].boxed()
}

/// Plans of all kinds.
pub fn plans() -> BoxedStrategy<Plan> {
    const INITS: [(u32, &str); 5] =
        [(8, ""), (3, "exit 7"), (1, "spawn forever -- forever"), (1, "echo -- exit 12"), (1, "missing")];
    let begin = prop_oneof![
        1 => Just(vec![]),
        2 => Just(vec!["create a -"]),
        5 => Just(vec!["create a -", "start a -"]),
        1 => Just(vec!["create a -", "start a -", "create b -"]),
        1 => Just(vec!["create a -", "create b -", "start a -", "start b -"]),
    ];
    let rest = proptest::collection::vec(step(), 1..10);
    (prop::bool::weighted(0.3), word(&INITS), word(&[(3, ""), (1, "fifo"), (1, "terminal")]), begin, rest)
        .prop_map(|(behind, init, io, begin, rest)| {
            let steps = begin.into_iter().map(str::to_owned).chain(rest).collect();
            Plan { behind, init, io, steps }
        })
        .boxed()
}
