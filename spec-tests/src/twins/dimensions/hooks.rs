// SPDX-License-Identifier: Apache-2.0
//! Hooks of all six kinds: environment, directory, input, failing, slow.

#![forbid(unsafe_code)]

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::super::plan::Plan;

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// One to four hooks that write down what they see.
pub fn parts() -> BoxedStrategy<Plan> {
    let hook = (
        select(&KINDS[..]),
        select(vec![None, None, Some(json!([])), Some(json!(["A=b", "PATH=/x"])), Some(json!(["EMPTY="]))]),
        select(vec!["", "", "", "", "exit 3", "sleep 0.1", "die SIGTERM"]),
        select(vec![None, None, Some(20)]),
    );
    let hook = hook.prop_map(|(kind, env, then, timeout)| {
        Plan::set(&format!("/hooks/{kind}/-"), one(kind, env, then, timeout))
    });
    let place = Plan::default().thing("dir host/log 777").and(
        "/mounts/-",
        json!({"destination": "/log", "type": "bind", "source": "$DIR/host/log", "options": ["rbind", "rw"]}),
    );
    let steps = select(vec![
        vec!["run @", ":hooks"],
        vec![
            "create @",
            ":hooks",
            "start @",
            ":report",
            "state @",
            "kill @ KILL",
            ":stopped",
            "delete @",
            ":hooks",
        ],
        vec!["create @", "start @", "delete --force @", ":hooks"],
    ]);
    (proptest::collection::vec(hook, 1..5), steps)
        .prop_map(move |(hooks, steps)| {
            Plan::join([place.clone(), Plan::join(hooks), Plan::default().steps(steps)])
        })
        .boxed()
}

/// A hook that says what it sees, and then does something else.
fn one(kind: &str, env: Option<Value>, then: &str, timeout: Option<u32>) -> Value {
    let (path, log) = match kind {
        "startContainer" => ("/probe", "/log/hooks"),
        _ => ("$DIR/rootfs/probe", "$DIR/host/log/hooks"),
    };
    let args = ["probe", "hook", log, kind].into_iter().map(str::to_owned);
    let then = then.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
    let then: Vec<String> = then.collect();
    let parted = if then.is_empty() { None } else { Some("--".to_owned()) };
    let mut hook = json!({"path": path, "args": args.chain(parted).chain(then).collect::<Vec<_>>()});
    if let Some(env) = env {
        hook["env"] = env;
    }
    if let Some(timeout) = timeout {
        hook["timeout"] = json!(timeout);
    }
    hook
}
