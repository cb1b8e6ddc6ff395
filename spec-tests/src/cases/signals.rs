// SPDX-License-Identifier: Apache-2.0
//! `kill`, and the signals a foreground `run` passes on.

#![forbid(unsafe_code)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::check;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = SPELLINGS
        .iter()
        .map(|(word, signal, crun)| {
            let spelled = move |t: &Test| spelled(t, word, signal);
            case(format!("kill/spelled-{word}"), spelled).peer("crun", crun)
        })
        .collect();
    all.extend([kills(), kill_all(), forwarded()].into_iter().flatten());
    all
}

fn kills() -> Vec<Case> {
    vec![
        case("kill/default-is-TERM", |t| spelled(t, "", "SIGTERM")),
        case("kill/KILL-ends-the-container", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let pid = t.pid(&b)?;
            t.cli(&format!("kill {} KILL", b.id))?.ok()?;
            same("the exit code", t.exit_code(pid)?, 137)
        }),
        case("kill/created-container", |t| {
            let b = t.bundle()?;
            t.create(&b)?;
            let pid = t.pid(&b)?;
            t.cli(&format!("kill {} 9", b.id))?.ok()?;
            same("the exit code", t.exit_code(pid)?, 137)
        }),
        case("kill/stopped-container", |t| {
            let b = t.bundle()?.probe("exit 0");
            t.launch(&b)?;
            t.await_status(&b, "stopped")?;
            let late = t.cli(&format!("kill {} KILL", b.id))?;
            late.refuses(&["container not running|no such process"]).map(drop)
        }),
        case("kill/unknown-id", |t| {
            t.cli("kill nobody-knows-me KILL")?.refuses(&["does not exist|no such file"]).map(drop)
        }),
        case("kill/unknown-signal", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            for word in ["NOSUCH", "SIGNOSUCH", "-1", "1000", "9x"] {
                let refused = t.cli_words(&["kill", "--", &b.id, word])?;
                check!(refused.code != 0, "signal {word} was accepted");
                check!(refused.errors().len() == 1, "{refused}");
            }
            t.has_status(&b, "running")
        })
        .crun("takes 9x for 9"),
        case("kill/signal-0-only-asks", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            t.cli(&format!("kill {} 0", b.id))?.ok()?;
            t.has_status(&b, "running")
        }),
    ]
}

fn kill_all() -> Vec<Case> {
    vec![
        case("kill/all-reaches-every-process", all_reaches_every_process)
            .runc("signals only the first process since 1.2"),
        case("kill/all-of-stopped-succeeds", |t| {
            let b = t.bundle()?.probe("exit 0");
            t.launch(&b)?;
            t.await_status(&b, "stopped")?;
            t.cli(&format!("kill --all {} KILL", b.id))?.ok().map(drop)
        }),
        case("kill/without-pid-namespace-ends-all", |t| {
            let b =
                t.bundle()?.probe("spawn sleep 100 -- spawn sleep 100 -- forever").without_namespace("pid");
            let before = t.snapshot();
            t.launch(&b)?;
            t.cli(&format!("kill {} KILL", b.id))?.ok()?;
            t.await_status(&b, "stopped")?;
            t.cli(&format!("delete {}", b.id))?.ok()?;
            t.unchanged_since(&before)
        }),
    ]
}

fn forwarded() -> Vec<Case> {
    vec![
        case("signals/run-passes-them-on", run_passes_signals_on),
        case("signals/run-told-to-end-tells-the-container", |t| {
            let b = t.bundle()?.probe("block SIGINT -- print up -- forever");
            let running = t.spawn(t.bundle_command("run", &b)?)?;
            running.log().lines(t, 1)?;
            kill(Pid::from_raw(running.child.id() as i32), Signal::SIGINT)?;
            t.finish(running)?.exits(130).map(drop)
        }),
    ]
}

const SPELLINGS: [(&str, &str, &str); 8] = [
    ("TERM", "SIGTERM", ""),
    ("SIGTERM", "SIGTERM", ""),
    ("term", "SIGTERM", "knows capital letters only"),
    ("sigusr1", "SIGUSR1", "knows capital letters only"),
    ("USR2", "SIGUSR2", ""),
    ("15", "SIGTERM", ""),
    ("1", "SIGHUP", ""),
    ("SIGINT", "SIGINT", ""),
];

fn spelled(t: &Test, word: &str, signal: &str) -> Verdict {
    let b = t.bundle()?.probe("block SIGTERM SIGUSR1 SIGUSR2 SIGHUP SIGINT -- print ready -- await");
    let log = t.launch(&b)?;
    log.lines(t, 1)?;
    t.cli(&format!("kill {} {word}", b.id))?.ok()?;
    same("what arrived", log.lines(t, 2)?[1].as_str(), format!("got {signal}").as_str())?;
    t.await_status(&b, "stopped")
}

fn all_reaches_every_process(t: &Test) -> Verdict {
    let child = "spawn block SIGUSR1 ++ put /tmp/up x ++ await";
    let b = t.bundle()?.writable();
    let b = b
        .probe(&format!("block SIGUSR1 -- {child} -- wait-for /tmp/up -- print ready -- await -- sleep 0.2"));
    let log = t.launch(&b)?;
    log.lines(t, 1)?;
    t.cli(&format!("kill --all {} USR1", b.id))?.ok()?;
    let lines = log.lines(t, 3)?;
    same("processes that got it", lines.iter().filter(|line| *line == "got SIGUSR1").count(), 2)?;
    t.await_status(&b, "stopped")
}

fn run_passes_signals_on(t: &Test) -> Verdict {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGUSR1, 138)] {
        let b = t.bundle()?.probe("block SIGTERM SIGHUP SIGUSR1 -- print up -- forever");
        let running = t.spawn(t.bundle_command("run", &b)?)?;
        running.log().lines(t, 1)?;
        kill(Pid::from_raw(running.child.id() as i32), signal)?;
        t.finish(running)?.exits(code)?;
    }
    Ok(())
}
