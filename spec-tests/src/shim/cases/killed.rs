// SPDX-License-Identifier: Apache-2.0
//! The shim is killed at any of its system calls while it does what it was asked for (R01, R18 of docs/reliability.md).

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use serde_json::json;

use super::crash::{cleaned_up, kill_shim};
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::procs;
use crate::harness::sniper::kill_at;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::task::{Io, RESOURCES, Task};
use crate::shim::wire::Message;

/// Points of each request that are tried; with `--long` so many.
const FEW: usize = 5;
const MANY: usize = 90;
/// How long containerd's `delete`, and what the kernel takes down after it, may take.
const CLEARING: Duration = Duration::from_secs(2);

pub fn cases() -> Vec<Case> {
    let all = ["Create", "Start", "Exec", "Kill", "Delete", "Update"];
    let one = |method: &'static str| {
        let name = format!("crash/shim-killed-in-{}", method.to_lowercase());
        case(name, move |t| at_calls(t, method)).takes(600.0).runc("leaves its socket")
    };
    all.into_iter().map(one).collect()
}

fn at_calls(t: &Test, method: &str) -> Verdict {
    let d = Daemon::new(t)?;
    let all = killed_at(&d, method, None)?;
    let count = if t.host.long { MANY } else { FEW };
    let (begin, step) = (Instant::now(), all.div_ceil(count).max(1));
    let points = (1..=all).skip(step / 2).step_by(step);
    let mut tried = 0;
    for at in points {
        killed_at(&d, method, Some(at)).map_err(|trouble| {
            Trouble::Fail(format!("killed at call {at} of {all} in {method}: {trouble:?}"))
        })?;
        tried += 1;
    }
    let rate = f64::from(tried) / begin.elapsed().as_secs_f64();
    eprintln!(
        "FAULTS crash/shim-killed-in-{} {tried} points of {all}, {rate:.0} a second, 0 left",
        method.to_lowercase()
    );
    Ok(())
}

/// A shim and its container, killed at this call of a request, and cleared away as containerd does. How many calls there were.
fn killed_at(d: &Daemon, method: &str, at: Option<usize>) -> Result<usize, Trouble> {
    let b = d.bundle("forever")?;
    let task = Task::new(d.shim(&b)?, &b.id);
    if method != "Create" {
        task.create(d, &b, &Io::null())?;
    }
    if !matches!(method, "Create" | "Start") {
        task.start("")?;
    }
    let about = Message::new().text(1, &task.id);
    let (name, request) = match method {
        "Create" => ("Create", task.create_request(&b, &Io::null(), &d.rootfs(), &d.options())),
        "Exec" => {
            task.exec("x", &["/probe", "forever"], &Io::null())?;
            ("Start", about.text(2, "x"))
        }
        "Kill" => ("Kill", about.number(3, 9).flag(4, true)),
        "Delete" => {
            task.end()?;
            ("Delete", about)
        }
        "Update" => {
            let resources = json!({"cpu": {"shares": 512}, "pids": {"limit": 77}});
            ("Update", about.any(2, RESOURCES, resources.to_string().as_bytes()))
        }
        _ => ("Start", about),
    };
    let mut asked = None;
    let calls = kill_at(task.shim.pid, at, || asked = Some(task.shim.begin(name, &request)))?;
    // One that was not reached, because this time it took fewer.
    if procs::is_alive(task.shim.pid) {
        kill_shim(d, &task.shim)?;
    }
    drop(asked);
    cleaned_up(d, &b, "killed", CLEARING)?;
    d.forget_shims();
    Ok(calls)
}
