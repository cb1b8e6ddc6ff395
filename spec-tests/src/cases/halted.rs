// SPDX-License-Identifier: Apache-2.0
//! SIGSTOP and SIGCONT, or a signal that ends, to the runtime's own processes at random (R09 of docs/reliability.md): a verb whose
//! command or stage is stopped for a while ends as it would have, and one that is ended leaves what `delete --force` clears away.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::dice::Dice;
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::hostdiff::descendants;
use crate::harness::test::Test;

/// Signals come within so many microseconds of a verb's begin.
const MOMENTS: u64 = 9_000;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let short = &[Need::LongUnlessV1];
    let leaves = "at times: writes its state last";
    vec![
        case("signals/stopped-and-continued", |t| stopped(t, 6)).needs(short).takes(120.0),
        case("signals/stopped-and-continued-300", |t| stopped(t, 300)).needs(&[Need::Long]).takes(3600.0),
        case("signals/ended-at-random", |t| ended(t, 24)).needs(short).takes(120.0).both(leaves),
        case("signals/ended-at-random-2000", |t| ended(t, 2000))
            .needs(&[Need::Long])
            .takes(3600.0)
            .both(leaves),
    ]
}

/// A life of eight verbs; each has one of its processes stopped, and going on after a while.
fn stopped(t: &Test, lives: usize) -> Verdict {
    let (begin, mut dice, mut halts, mut verbs) = (Instant::now(), Dice::of(9), 0, 0);
    let before = t.snapshot();
    let b = t.bundle()?.probe("forever");
    b.write()?;
    let (id, dir) = (b.id.as_str(), b.dir.to_string_lossy());
    for life in 0..lives {
        let words: [&[&str]; 8] = [
            &["create", "--bundle", &dir, id],
            &["start", id],
            &["exec", id, "/probe", "exit", "3"],
            &["pause", id],
            &["resume", id],
            &["update", "--pids-limit", "50", id],
            &["kill", id, "KILL"],
            &["delete", id],
        ];
        for words in words {
            if words[0] == "delete" {
                t.await_status(&b, "stopped")?;
            }
            let (done, halted) = disturbed(t, &mut dice, words)?;
            let told = done.exits(if words[0] == "exec" { 3 } else { 0 });
            told.map_err(|trouble| format!("life {life}: {trouble:?}"))?;
            halts += halted;
            verbs += 1;
        }
        t.unchanged_since(&before)?;
    }
    let rate = f64::from(verbs) / begin.elapsed().as_secs_f64();
    eprintln!(
        "SIGNALS stopped-and-continued {verbs} verbs, {halts} processes stopped, {rate:.0} a second, 0 hang, 0 left"
    );
    Ok(())
}

/// Performs a verb; its processes are stopped at some moments, and go on. How many were.
fn disturbed(t: &Test, dice: &mut Dice, words: &[&str]) -> Result<(Done, usize), Trouble> {
    let known: Vec<i32> = descendants().into_iter().map(|process| process.pid).collect();
    let mut command = t.runtime();
    command.args(words);
    let running = t.spawn(command)?;
    let mut halted = 0;
    for _ in 0..2 {
        std::thread::sleep(Duration::from_micros(dice.below(MOMENTS)));
        let new: Vec<_> = descendants().into_iter().filter(|process| !known.contains(&process.pid)).collect();
        let Some(process) = (!new.is_empty()).then(|| dice.one(&new)) else { continue };
        let pid = Pid::from_raw(process.pid);
        if kill(pid, Signal::SIGSTOP).is_ok() {
            halted += 1;
            std::thread::sleep(Duration::from_micros(dice.below(MOMENTS)));
            // It may have been killed meanwhile.
            kill(pid, Signal::SIGCONT).ok();
        }
    }
    Ok((t.finish(running)?, halted))
}

/// `create`, `run`, `start` and `exec`, which get SIGTERM, SIGINT or SIGHUP at some moment.
fn ended(t: &Test, rounds: usize) -> Verdict {
    let (begin, mut dice, mut early) = (Instant::now(), Dice::of(90), 0);
    let before = t.snapshot();
    let b = t.bundle()?.probe("forever");
    b.write()?;
    for round in 0..rounds {
        early += usize::from(ended_once(t, &b, &mut dice, round)?);
        // What it was about to make when the first deletion came.
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        t.unchanged_since(&before).map_err(|trouble| format!("round {round}: {trouble:?}"))?;
    }
    let rate = rounds as f64 / begin.elapsed().as_secs_f64();
    eprintln!(
        "SIGNALS ended-at-random {rounds} verbs, {early} of them ended by it, {rate:.0} a second, 0 left"
    );
    Ok(())
}

/// Whether the signal ended it.
fn ended_once(t: &Test, b: &Bundle, dice: &mut Dice, round: usize) -> Result<bool, Trouble> {
    let (id, dir) = (b.id.as_str(), b.dir.to_string_lossy());
    let words: [&[&str]; 4] = [
        &["create", "--bundle", &dir, id],
        &["run", "--bundle", &dir, id],
        &["start", id],
        &["exec", id, "/probe", "forever"],
    ];
    let words = words[round % 4];
    match words[0] {
        "start" => drop(t.create(b)?),
        "exec" => drop(t.launch(b)?),
        _ => {}
    }
    let mut command = t.runtime();
    command.args(words);
    let running = t.spawn(command)?;
    let pid = Pid::from_raw(running.child.id() as i32);
    std::thread::sleep(Duration::from_micros(dice.below(2 * MOMENTS)));
    let signal = *dice.one(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    kill(pid, signal).ok();
    // A foreground command passes it on, and a first process that has no handler yet takes no notice.
    std::thread::sleep(Duration::from_micros(dice.below(MOMENTS)));
    t.cli(&format!("delete --force {}", b.id))?.ok()?;
    Ok(t.finish(running)?.code != 0)
}
