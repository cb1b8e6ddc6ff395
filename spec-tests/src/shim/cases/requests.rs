// SPDX-License-Identifier: Apache-2.0
//! Each of the task service's seventeen requests fails, in every way it can: what is no message, an id that nobody has, a state that
//! forbids it (R19 of docs/reliability.md). After each the shim answers everything else, and holds what it held.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::task::{Io, METHODS, OF_NOBODY, PROCESS, RESOURCES, RUNNING, Shim, Task};
use crate::shim::ttrpc::CLOSED;
use crate::shim::wire::Message;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![case("errors/each-request-fails", each_fails).takes(180.0)]
}

fn each_fails(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (first, keeper) = d.launch("forever")?;
    // The first exec makes what later ones share.
    works(&d, &keeper)?;
    let before = procs::usage(keeper.shim.pid)?;
    let mut failed = 0;
    for method in METHODS {
        let mut requests = vec![("what is no message", no_message())];
        if !OF_NOBODY.contains(&method) {
            requests.push(("an id that nobody has", Message::new().text(1, "nobody")));
        }
        requests.extend(forbidden(&d, &keeper, method)?);
        for (what, request) in requests {
            fails(&keeper.shim, method, what, &request)?;
            works(&d, &keeper).map_err(|trouble| format!("after {method} of {what}: {trouble:?}"))?;
            failed += 1;
        }
    }
    let after = procs::usage(keeper.shim.pid)?;
    same("descriptors", after.fds, before.fds)?;
    same("zombies", after.zombies, before.zombies)?;
    check!(after.threads <= before.threads + 1, "{} threads have become {}", before.threads, after.threads);
    eprintln!(
        "REQUESTS {failed} failing requests of {} kinds, the shim answered everything after each",
        METHODS.len()
    );
    d.end(&first, &keeper)?;
    d.finish()
}

/// A field of a kind that there is not.
fn no_message() -> Message {
    Message(vec![0x0f, 0xff, 0xff])
}

/// What the state of the container, which runs, forbids.
fn forbidden(d: &Daemon, keeper: &Task, method: &str) -> Result<Vec<(&'static str, Message)>, Trouble> {
    let about = || Message::new().text(1, &keeper.id);
    let of_nobody = || about().text(2, "nobody");
    Ok(match method {
        "State" | "Delete" => vec![("an exec that nobody has", of_nobody()), ("one that runs", about())]
            .into_iter()
            .take(if method == "State" { 1 } else { 2 })
            .collect(),
        "Create" => {
            let taken =
                Message::new().text(1, &keeper.id).text(2, &d.state().join(&keeper.id).to_string_lossy());
            vec![
                ("an id that is taken", taken),
                ("a bundle that is not there", Message::new().text(1, "new").text(2, "/no/such")),
            ]
        }
        "Start" => vec![("an exec that nobody has", of_nobody()), ("one that runs", about())],
        "Resume" => vec![("one that is not paused", about())],
        "Checkpoint" => vec![("a place that cannot be", about().text(2, "/proc/no/such"))],
        "Kill" => vec![
            ("an exec that nobody has", of_nobody().number(3, 9)),
            ("a signal that there is not", about().number(3, 99)),
        ],
        "Exec" => vec![
            ("no process", about().text(2, "x")),
            ("what is no process", about().text(2, "x").any(7, PROCESS, b"{")),
        ],
        "Update" => vec![
            ("what is no resources", about().any(2, RESOURCES, b"{")),
            ("a limit that is none", about().any(2, RESOURCES, br#"{"pids":{"limit":"x"}}"#)),
        ],
        "ResizePty" | "CloseIO" | "Wait" => vec![("an exec that nobody has", of_nobody())],
        _ => Vec::new(),
    })
}

fn fails(shim: &Arc<Shim>, method: &str, what: &str, request: &Message) -> Verdict {
    match shim.begin(method, request).within(20.0) {
        Ok(_) => Err(format!("{method} of {what} succeeds").into()),
        Err(failure) => {
            check!(failure.code < CLOSED, "{method} of {what}: {failure:?}");
            check!(!failure.text.is_empty(), "{method} of {what} says nothing");
            Ok(())
        }
    }
}

/// Everything that a container that runs can be asked, and an exec and a container more.
fn works(d: &Daemon, keeper: &Task) -> Verdict {
    same("the state", keeper.state("")?.status, RUNNING)?;
    check!(!keeper.pids()?.is_empty(), "it has no processes");
    keeper.stats()?;
    keeper.pause()?;
    keeper.resume()?;
    keeper.update(&serde_json::json!({"pids": {"limit": 100}}))?;
    same("an exec's status", keeper.execute("x", &["/probe", "exit", "4"], &Io::null())?.status, 4)?;
    let b = d.bundle("exit 6")?;
    let task = Task::new(keeper.shim.clone(), &b.id);
    task.create(d, &b, &Io::null())?;
    task.start("")?;
    same("a container's status", task.exit("")?.status, 6)?;
    task.delete("")?;
    d.remove(&b)
}
