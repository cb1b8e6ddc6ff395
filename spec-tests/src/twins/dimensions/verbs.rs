// SPDX-License-Identifier: Apache-2.0
//! Sequences of commands, legal and not: too early, too late, twice, after the init's death.

#![forbid(unsafe_code)]

use proptest::prelude::*;
use proptest::sample::select;

use super::super::plan::{Plan, Step};

/// Each entry is performed as a whole: what only time decides is waited for.
const MOVES: [&[&str]; 30] = [
    &["create @"],
    &["create @"],
    &["start @", ":report"],
    &["start @", ":report"],
    &["exec @ /probe print hello"],
    &["exec @ /probe exit 7"],
    &["exec @ /missing"],
    &["exec --detach @ /probe sleep 0"],
    &["exec --cwd /tmp --env A=b @ /probe try exec /probe print x"],
    &["kill @ KILL", ":stopped"],
    &["kill @ 9", ":stopped"],
    &["kill @ SIGWINCH"],
    &["kill @ 0"],
    &["kill @ NONSENSE"],
    &["kill --all @ KILL", ":stopped"],
    &["delete @"],
    &["delete @"],
    &["delete --force @"],
    &["pause @"],
    &["pause @"],
    &["resume @"],
    &["resume @"],
    &["update --pids-limit 50 @"],
    &["ps @"],
    &["state @"],
    &["state @"],
    &[":end"],
    &["run --detach @", ":report"],
    &["create @2"],
    &["delete --force @2"],
];

/// Up to ten of them, most of which begin with a container.
pub fn parts() -> BoxedStrategy<Plan> {
    let begin = select(vec![&["create @"][..], &["create @", "start @", ":report"][..], &[][..]]);
    let moves = proptest::collection::vec(select(&MOVES[..]), 1..9);
    let plan = |(begin, moves): (&[&str], Vec<&[&str]>)| {
        let words = begin.iter().chain(moves.into_iter().flatten());
        Plan::default().steps(words.map(|words| Step::from(*words)))
    };
    (begin, moves).prop_map(plan).boxed()
}
