// SPDX-License-Identifier: Apache-2.0
//! A shim that goes on as another program again and again while it is at work: execs side by side, output that is counted,
//! requests whose answers are timed. What clients see of it is reported, not judged by seconds.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::upgrade::{command, stays};
use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::procs::{self, Usage};
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::fifo::{open_reader, read_some};
use crate::shim::task::{Io, Task};

const NEVER: &str = "is never replaced";

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("upgrade/under-load", |t| under_load(t, 5)).runc(NEVER).takes(120.0),
        case("upgrade/under-load-200", |t| under_load(t, 200)).runc(NEVER).needs(&[Need::Long]).takes(900.0),
        case("upgrade/idle-memory", idle_memory).runc(NEVER).takes(60.0),
    ]
}

/// What a thread does until it is told to stop.
type Work = std::thread::JoinHandle<Result<Vec<Duration>, String>>;

fn repeat(stop: &Arc<AtomicBool>, mut work: impl FnMut(usize) -> Verdict + Send + 'static) -> Work {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut took = Vec::new();
        for n in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let begin = Instant::now();
            work(n).map_err(|trouble| format!("{trouble:?}"))?;
            took.push(begin.elapsed());
        }
        Ok(took)
    })
}

fn finished(work: Work, what: &str) -> Result<Vec<Duration>, Trouble> {
    let took = work.join().map_err(|_| format!("{what}: a thread panicked"))?;
    Ok(took.map_err(|trouble| format!("{what}: {trouble}"))?)
}

fn under_load(t: &Test, times: usize) -> Verdict {
    let d = Daemon::new(t)?;
    // Numbers without end into a FIFO that is read.
    let b = d.bundle("flood 1000000000000")?;
    let stdout = crate::shim::fifo::make(t, "stdout")?;
    let mut reader = open_reader(&stdout)?;
    let task = d.create(&b, &Io { stdout, ..Io::default() })?;
    task.start("")?;
    let wait = task.wait("");
    let stop: Arc<AtomicBool> = Arc::default();
    let states = task.clone();
    let states = repeat(&stop, move |_| {
        states.state("")?;
        Ok(())
    });
    let execs: Vec<_> = (0..2)
        .map(|lane| {
            let task: Task = task.clone();
            repeat(&stop, move |n| {
                let status = n as u64 % 100;
                let words = ["/probe", "exit", &status.to_string()];
                let exit = task.execute(&format!("x{lane}-{n}"), &words, &Io::null())?;
                same("an exec's status", exit.status, status)
            })
        })
        .collect();
    let mut at = 0u64;
    let mut rest = Vec::new();
    let numbers = repeat(&stop, move |_| {
        let mut block = vec![0; 65536];
        let Some(count) = read_some(&mut reader, &mut block) else { return Ok(()) };
        check!(count > 0, "the output has ended");
        rest.extend_from_slice(&block[..count]);
        let whole = rest.len() / 8 * 8;
        for eight in rest[..whole].chunks_exact(8) {
            check!(eight == at.to_le_bytes(), "byte {} of the output is wrong", at * 8);
            at += 1;
        }
        rest.drain(..whole);
        Ok(())
    });
    let mut told = Vec::new();
    for n in 0..times {
        let called = command(&t.host.runtime, &[&b.id])?;
        let text = called.text();
        check!(called.code == Some(0), "upgrade {n} ended with {:?}: {text}", called.code);
        let pause =
            text.rsplit("paused for ").next().and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        told.push(pause.parse::<f64>().map_err(|_| format!("no pause in {text:?}"))?);
    }
    stays(&task.shim)?;
    stop.store(true, Ordering::SeqCst);
    let mut states = finished(states, "State")?;
    let mut ran = 0;
    for work in execs {
        ran += finished(work, "execs")?.len();
    }
    finished(numbers, "output")?;
    check!(ran > 0 && wait.is_open(), "{ran} execs ran; the Wait is open: {}", wait.is_open());
    states.sort();
    told.sort_by(f64::total_cmp);
    eprintln!(
        "{times} upgrades beside {ran} execs and {} States: the shim says it paused for {:.1} ms (median; at most {:.1}); State took {:?} (median; at most {:?})",
        states.len(),
        told[told.len() / 2],
        told[told.len() - 1],
        states[states.len() / 2],
        states[states.len() - 1],
    );
    d.end(&b, &task)?;
    d.finish()
}

/// The next program has no more, and no more open, than the first.
fn idle_memory(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let settle = || std::thread::sleep(Duration::from_millis(900));
    settle();
    let before = procs::usage(task.shim.pid)?;
    for _ in 0..3 {
        super::upgrade::upgrade(&d, &task)?;
    }
    settle();
    let after = procs::usage(task.shim.pid)?;
    let figures = |usage: Usage| format!("{} KiB resident, {} of it its own", usage.rss, usage.anonymous);
    eprintln!("idle: {}; after three upgrades: {}", figures(before), figures(after));
    // The connection for events is made anew with the next one.
    check!(after.fds <= before.fds, "{before:?} has become {after:?}");
    // What is resident of the program's file comes in windows of 64 KiB, an accident of its layout (decision 0030).
    check!(
        after.anonymous <= before.anonymous + 48 && after.rss <= before.rss + 256,
        "{before:?} has become {after:?}"
    );
    d.end(&b, &task)?;
    d.finish()
}
