// SPDX-License-Identifier: Apache-2.0
//! Events while containerd is away, slow or silent.

#![forbid(unsafe_code)]

use std::time::Duration;

use crate::check;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::task::Io;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let gives_up = "gives up after five tries";
    vec![
        case("events/daemon-away", |t| daemon_away(t, 1.0)).takes(60.0),
        case("events/daemon-away-for-long", |t| daemon_away(t, 25.0))
            .needs(&[Need::Long])
            .runc(gives_up)
            .takes(120.0),
        case("events/daemon-away-at-the-exit", away_at_exit).takes(60.0),
        case("events/daemon-silent", daemon_silent).takes(60.0),
        case("events/connection-lost", connection_lost).takes(60.0),
        case("events/shutdown-flushes", shutdown_flushes).takes(60.0).runc("at times: ends at once"),
    ]
}

/// What happens while nobody listens is told afterwards, all of it and in order.
fn daemon_away(t: &Test, seconds: f64) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    d.events.of_kind(&b.id, "start")?;
    d.events.close();
    for n in 0..5 {
        same("the status", task.execute(&format!("x{n}"), &["/probe", "exit", "3"], &Io::null())?.status, 3)?;
    }
    std::thread::sleep(Duration::from_secs_f64(seconds));
    d.events.open()?;
    for n in 0..5 {
        d.events.exit(&b.id, &format!("x{n}"))?;
    }
    d.end(&b, &task)?;
    let mut want = vec!["create".to_owned(), "start".to_owned()];
    for n in 0..5 {
        want.extend(["exec-added", "exec-started", "exit"].map(|kind| format!("{kind} x{n}")));
    }
    want.extend(["exit", "delete"].map(String::from));
    d.events.of_kind(&b.id, "delete")?;
    same("the events", d.events.story(&b.id), want)?;
    d.finish()
}

fn away_at_exit(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("sleep 0.3 -- exit 44")?;
    d.events.of_kind(&b.id, "start")?;
    d.events.close();
    same("the status", task.exit("")?.status, 44)?;
    d.events.open()?;
    same("the event's status", d.events.exit(&b.id, "")?.status, 44)?;
    d.end(&b, &task)?;
    d.finish()
}

/// containerd takes an event and does not answer: the service goes on.
fn daemon_silent(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    d.events.set_silent(true);
    for n in 0..20 {
        same("the status", task.execute(&format!("x{n}"), &["/probe", "exit", "3"], &Io::null())?.status, 3)?;
    }
    d.events.set_silent(false);
    d.events.exit(&b.id, "x19")?;
    d.end(&b, &task)?;
    check!(d.events.count(&b.id, "exit") == 21, "{} exits", d.events.count(&b.id, "exit"));
    d.finish()
}

fn connection_lost(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    for n in 0..10 {
        d.events.close();
        d.events.open()?;
        same("the status", task.execute(&format!("x{n}"), &["/probe", "exit", "3"], &Io::null())?.status, 3)?;
        d.events.exit(&b.id, &format!("x{n}"))?;
    }
    d.end(&b, &task)?;
    d.finish()
}

fn shutdown_flushes(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    for _ in 0..5 {
        let (b, task) = d.launch("exit 1")?;
        task.exit("")?;
        task.delete("")?;
        d.shut_down(&task.shim)?;
        same("the events", d.events.story(&b.id).len(), 4)?;
        d.remove(&b)?;
    }
    d.finish()
}
