// SPDX-License-Identifier: Apache-2.0
//! Terminals: every byte that comes out of a container with a terminal, through the caller's terminal, a pipe or a file.

#![forbid(unsafe_code)]

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::super::plan::{Caller, Plan, Stream};

const SAID: [&[&str]; 6] = [
    &["/probe", "print", "one"],
    &["/probe", "print", "one", "--", "print", "two", "--", "complain", "three"],
    &["/probe", "print", "one", "--", "sleep", "0.02", "--", "print", "two"],
    &["/probe", "sleep", "0.01", "--", "print", "late"],
    &["/probe", "flood", "8000"],
    &["/probe", "print", "one", "--", "exit", "3"],
];

/// A container with a terminal that says something, or one beside which a process with a terminal does.
pub fn parts() -> BoxedStrategy<Plan> {
    let stream =
        || prop_oneof![2 => Just(Stream::Terminal), 2 => Just(Stream::Pipe), 1 => Just(Stream::Plain)];
    let size = proptest::option::of(Just(json!({"height": 10, "width": 33})));
    (select(&SAID[..]), stream(), stream(), size, any::<bool>())
        .prop_map(|(said, stdin, stdout, size, exec)| {
            let caller = Caller { stdin, stdout, ..Caller::default() };
            let mut plan = Plan { caller, ..Plan::default() };
            if exec {
                let words = format!("exec --tty @ {}", said.join(" "));
                let steps = ["run --detach @", ":report", &words, "kill @ KILL", ":stopped", "delete @"];
                return Plan { caller: plan.caller.clone(), ..plan.steps(steps) };
            }
            plan =
                plan.and("/process/terminal", json!(true)).and("/process/args", json!(said)).steps(["run @"]);
            match size {
                Some(size) => plan.and("/process/consoleSize", size),
                None => plan,
            }
        })
        .boxed()
}
