// SPDX-License-Identifier: Apache-2.0
//! CLOCK_REALTIME jumps, hours back and forth, to 1970 and beyond 2038 and 2106, while the runtime does all that it has limits of time for
//! (R29 of docs/reliability.md): nothing hangs, nothing is given up too early, and no time that is told is none.
//!
//! Only where the clock is nobody else's. A process that keeps the right time sets the clock when the case ends, however it ends.

#![forbid(unsafe_code)]

use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::test::Test;

/// Lives of a container while the clock jumps, and with `--long`.
const LIVES: usize = 3;
const MANY: usize = 100;
/// How long a verb may take that waits for nothing, and one that waits for a hook of [`HOOK`] seconds.
const LONGEST: Duration = Duration::from_secs(5);
const HOOK: f64 = 0.3;
/// Between two jumps.
const PAUSE: Duration = Duration::from_millis(7);
const HOUR: i64 = 3600;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("clocks/jump-through-a-life", |t| jumping(t, life)),
        case("clocks/jump-while-a-hook-has-its-time", |t| jumping(t, hooks)),
        case("clocks/jump-during-events", |t| jumping(t, events)),
    ]
    .into_iter()
    .map(|case| case.needs(&[Need::OwnClock, Need::Capability(25)]).takes(300.0))
    .collect()
}

/// Lets the clock jump until it is dropped.
struct Jumps {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Jumps {
    fn begin() -> Result<Self, Trouble> {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (stop.clone(), count.clone());
        let right = ClockId::CLOCK_REALTIME.now()?.tv_sec();
        let up = ClockId::CLOCK_BOOTTIME.now()?.tv_sec();
        // The kernel takes no time before it was started, seen from 1970.
        let places = [
            right - 3 * HOUR,
            right + 5 * HOUR,
            up + HOUR,
            right - 2,
            (1 << 31) + HOUR,
            right + 1,
            (1 << 32) + HOUR,
            right,
        ];
        let thread = std::thread::spawn(move || {
            for place in places.into_iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(place, 0)).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(PAUSE);
            }
        });
        Ok(Self { stop, count, thread: Some(thread) })
    }
}

impl Drop for Jumps {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn jumping(t: &Test, what: impl Fn(&Test) -> Verdict) -> Verdict {
    let mut keeper = Command::new(std::env::current_exe()?);
    keeper.args(["probe", "keep-clock"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut keeper = keeper.spawn()?;
    let held: Option<ChildStdin> = keeper.stdin.take();
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut keeper.stdout.take().ok_or("no output")?, &mut ready)?;
    let ahead = |clock: ClockId| -> Result<i64, Trouble> {
        Ok(clock.now()?.tv_sec() - ClockId::CLOCK_BOOTTIME.now()?.tv_sec())
    };
    let before = ahead(ClockId::CLOCK_REALTIME)?;
    let jumps = Jumps::begin()?;
    let verdict = what(t);
    let count = jumps.count.clone();
    drop(jumps);
    drop(held);
    check!(keeper.wait()?.success(), "the clock could not be set right");
    let off = ahead(ClockId::CLOCK_REALTIME)? - before;
    check!(off.abs() <= 1, "the clock is {off} seconds off");
    eprintln!("CLOCK {} jumps, set right", count.load(Ordering::Relaxed));
    verdict
}

/// A command that must work, and quickly.
fn quick(t: &Test, words: &str) -> Result<Done, Trouble> {
    let done = t.cli(words)?;
    done.ok()?;
    within(&format!("`{words}`"), done.took, LONGEST)?;
    Ok(done)
}

/// A time of RFC 3339 with a year of four digits, which is none before 1970.
fn is_a_time(value: &Value) -> Verdict {
    let text = value.as_str().unwrap_or_default();
    let year: i64 = text.get(..4).and_then(|year| year.parse().ok()).unwrap_or(0);
    check!((1970..=2200).contains(&year) && text.get(4..5) == Some("-"), "{value} is no time");
    Ok(())
}

fn life(t: &Test) -> Verdict {
    for _ in 0..if t.host.long { MANY } else { LIVES } {
        let b = t.bundle()?.probe("forever");
        let made = t.try_create("create", &b)?;
        within("`create`", made.ok()?.took, LONGEST)?;
        let id = &b.id;
        quick(t, &format!("start {id}"))?;
        let state = quick(t, &format!("state {id}"))?.json()?;
        same("the status", state["status"].as_str(), Some("running"))?;
        is_a_time(&state["created"])?;
        let all = quick(t, "list --format json")?.json()?;
        is_a_time(&all[0]["created"])?;
        let done = t.exec(&b, "", "/probe exit 6")?;
        same("the exec's code", done.code, 6)?;
        within("`exec`", done.took, LONGEST)?;
        quick(t, &format!("events --stats {id}"))?;
        quick(t, &format!("pause {id}"))?;
        quick(t, &format!("resume {id}"))?;
        quick(t, &format!("update --pids-limit 77 {id}"))?;
        quick(t, &format!("kill {id} TERM"))?;
        t.await_status(&b, "stopped")?;
        quick(t, &format!("delete {id}"))?;
        // One that does not end by itself is killed and waited for.
        t.launch(&b)?;
        quick(t, &format!("delete --force {id}"))?;
        same("the code of `run`", t.run(&b.clone().probe("exit 7"))?.code, 7)?;
        t.reap();
    }
    Ok(())
}

fn with_hook(b: Bundle, words: &str, timeout: u32) -> Result<Bundle, Trouble> {
    let args: Vec<&str> = ["probe"].into_iter().chain(words.split(' ')).collect();
    let hook = json!({"path": std::env::current_exe()?, "args": args, "timeout": timeout});
    Ok(b.push("/hooks/createRuntime", hook))
}

/// A hook's time is over neither early nor late.
fn hooks(t: &Test) -> Verdict {
    for _ in 0..if t.host.long { MANY / 10 } else { 1 } {
        let b = with_hook(t.bundle()?.probe("exit 0"), &format!("sleep {HOOK}"), 30)?;
        let done = t.run(&b)?;
        within("a hook with time enough", done.ok()?.took, LONGEST)?;
        let b = with_hook(t.bundle()?.probe("exit 0"), "sleep 60", 1)?;
        let done = t.run(&b)?;
        check!(done.code != 0, "a hook that hangs is waited for: {done}");
        check!(done.took >= Duration::from_secs(1), "its time was over after {:?}", done.took);
        within("a hook that hangs", done.took, LONGEST)?;
    }
    Ok(())
}

/// One line a second, whatever the clock says.
fn events(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever");
    t.launch(&b)?;
    let begin = std::time::Instant::now();
    let mut command = t.runtime();
    command.args(["events", "--interval", "1s", &b.id]);
    let running = t.spawn(command)?;
    let log = running.log();
    let lines = log.lines(t, 3)?;
    let took = begin.elapsed();
    check!(took >= Duration::from_secs(1), "three lines, one a second, after {took:?}");
    within("three lines, one a second,", took, Duration::from_secs(4) + LONGEST)?;
    for line in lines {
        let event: Value = serde_json::from_str(&line)?;
        same("the event", event["type"].as_str(), Some("stats"))?;
        let usage = event["data"]["cpu"]["usage"]["total"].as_i64();
        check!(usage.is_none_or(|usage| usage >= 0), "{line}");
    }
    quick(t, &format!("kill {} KILL", b.id))?;
    t.await_status(&b, "stopped")?;
    same("the code of `events`", t.finish(running)?.code, 0)?;
    quick(t, &format!("delete {}", b.id)).map(drop)
}
