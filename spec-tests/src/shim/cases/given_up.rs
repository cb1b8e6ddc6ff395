// SPDX-License-Identifier: Apache-2.0
//! Clients that gave up: a create that nobody waits for, a shim that nobody knows. Neither stays.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::errors::fails;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::hostdiff::descendants;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::task::{Io, RUNNING, Shim, Task};
use crate::shim::ttrpc::NOT_FOUND;
use crate::shim::wire::Message;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let waits = "its Delete waits for the create";
    vec![
        case("given-up/create-that-fails", |t| create(t, 1)).runc(waits),
        case("given-up/create-that-succeeds", |t| create(t, 0)).runc(waits),
        case("given-up/create-from-a-checkpoint", from_checkpoint).runc(waits),
        case("given-up/shim-without-client", shim_without_client).takes(120.0).runc("stays for ever"),
    ]
}

/// What containerd does when the time for a create is over: Delete, which finds nothing yet, and Shutdown. The create
/// comes to its end later, by a hook that ends with `code`.
fn create(t: &Test, code: i32) -> Verdict {
    let d = Daemon::new(t)?;
    let script = format!("{}; exit {code}", hold_up(t));
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]});
    let b = d.bundle("forever")?.set("/hooks", json!({"createRuntime": [hook]}));
    b.write()?;
    let task = Task::new(d.shim(&b)?, &b.id);
    let request = task.create_request(&b, &Io::null(), &d.rootfs(), &d.options());
    give_up(&d, &b, &task, &request)
}

/// What holds the create up until [`give_up`] lets it go on.
fn hold_up(t: &Test) -> String {
    let (begun, go) = (t.path("begun"), t.path("go"));
    format!("touch {}; until [ -e {} ]; do sleep 0.02; done", begun.display(), go.display())
}

/// Gives the create up while it is held up.
fn give_up(d: &Daemon, b: &Bundle, task: &Task, request: &Message) -> Verdict {
    let begun = d.t.path("begun");
    let create = task.shim.begin("Create", request);
    d.t.until(|| "what holds the create up".into(), || Ok(begun.exists().then_some(())))?;
    fails("Delete meanwhile", task.delete(""), &[NOT_FOUND], "not found|not created")?;
    task.shim.call("Shutdown", &Message::new().text(1, &b.id))?;
    std::thread::sleep(Duration::from_millis(50));
    check!(create.is_open(), "Create was answered while it is held up");
    fs::write(d.t.path("go"), "")?;
    d.is_gone(&task.shim)?;
    check!(create.within(5.0).is_err(), "Create succeeded for a client that had given it up");
    same("events", d.events.story(&b.id), Vec::<String>::new())?;
    d.remove(b)?;
    d.finish()
}

/// Such a create makes no container yet; it mounts the rootfs, which takes as long as its helper does.
fn from_checkpoint(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    super::layers::helper(&d, &format!("{}; exec mount --bind \"$1\" \"$2\"", hold_up(t)))?;
    let b = d.bundle("forever")?;
    b.write()?;
    let task = Task::new(d.shim(&b)?, &b.id);
    let mount = Message::new().text(1, "fuse3.slow").text(2, &d.rootfs.to_string_lossy());
    let request = task.create_request(&b, &Io::null(), &[mount], &d.options()).text(8, &t.file("images"));
    give_up(&d, &b, &task, &request)
}

/// containerd fails right after `start`, or goes and does not come back: a shim that has neither a container nor a
/// client ends. One that has a container stays.
fn shim_without_client(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (never, gone, lives) = (d.bundle("")?, d.bundle("")?, d.bundle("forever")?);
    let busy = d.create(&lives, &Io::null())?;
    busy.start("")?;
    let unknown = d.start(&never)?.address;
    let left = d.shim(&gone)?;
    let known = left.address.clone();
    let (address, id) = (busy.shim.address.clone(), busy.id.clone());
    d.forget_shims();
    drop((left, busy));
    std::thread::sleep(Duration::from_secs(1));
    check!(Path::new(&unknown).exists(), "a shim does not wait for its client");
    std::thread::sleep(Duration::from_secs(29));
    t.until(
        || "the end of the shims".into(),
        || Ok((!Path::new(&unknown).exists() && !Path::new(&known).exists()).then_some(())),
    )?;
    d.remove(&never)?;
    d.remove(&gone)?;
    let task = Task::new(Arc::new(Shim::connect(&address, 3, &id)?), &id);
    same("the state of the one with a container", task.state("")?.status, RUNNING)?;
    d.end(&lives, &task)?;
    t.until(
        || "the end of all".into(),
        || {
            t.reap();
            Ok(descendants().is_empty().then_some(()))
        },
    )?;
    d.finish()
}
