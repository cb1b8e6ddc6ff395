// SPDX-License-Identifier: Apache-2.0
//! The runtime dies: killed at any moment of a command, it must leave what `delete --force` can clear away.

#![forbid(unsafe_code)]

use std::time::Duration;

use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::test::{Running, Test};

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("crash/create-killed", |t| {
            at_every_moment(t, Test::bundle, |t, b| t.spawn(t.bundle_command("create", b)?), |_, _| Ok(()))
        })
        .runc("at times: a22: writes its state last")
        .crun("at times: writes its state last"),
        case("crash/run-killed", |t| {
            at_every_moment(t, Test::bundle, |t, b| t.spawn(t.bundle_command("run", b)?), |_, _| Ok(()))
        })
        .runc("at times: a22: writes its state last")
        .crun("at times: writes its state last"),
        case("crash/start-killed", |t| {
            at_every_moment(
                t,
                Test::bundle,
                |t, b| spawn(t, &format!("start {}", b.id)),
                |t, b| t.create(b).map(drop),
            )
        }),
        case("crash/exec-killed", |t| {
            let launch = |t: &Test, b: &Bundle| t.launch(b).map(drop);
            at_every_moment(
                t,
                Test::bundle,
                |t, b| spawn(t, &format!("exec {} /probe forever", b.id)),
                launch,
            )
        }),
        case("crash/delete-killed", |t| {
            let launch = |t: &Test, b: &Bundle| t.launch(b).map(drop);
            at_every_moment(t, Test::bundle, |t, b| spawn(t, &format!("delete --force {}", b.id)), launch)
        }),
    ]
}

fn spawn(t: &Test, words: &str) -> Result<Running, Trouble> {
    let mut command = t.runtime();
    command.args(words.split_whitespace());
    t.spawn(command)
}

/// Prepares a container, begins the command, kills it a little later each time, and clears away.
pub(super) fn at_every_moment(
    t: &Test,
    bundle: impl Fn(&Test) -> Result<Bundle, Trouble>,
    begin: impl Fn(&Test, &Bundle) -> Result<Running, Trouble>,
    prepare: impl Fn(&Test, &Bundle) -> Verdict,
) -> Verdict {
    let before = t.snapshot();
    for step in 0..24u64 {
        let b = bundle(t)?.probe("forever");
        prepare(t, &b)?;
        let mut running = begin(t, &b)?;
        std::thread::sleep(Duration::from_micros(step * step * 60));
        running.child.kill()?;
        t.finish(running)?;
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        let clean = t.unchanged_since(&before);
        clean
            .map_err(|trouble| Trouble::Fail(format!("killed after {} µs: {trouble:?}", step * step * 60)))?;
    }
    Ok(())
}
