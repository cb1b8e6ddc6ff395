// SPDX-License-Identifier: Apache-2.0
//! `events`: statistics, oom lines, and that it ends.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::limits_bite::kills;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::test::{Running, Test};

const CRUN: &str = "crun#1273: has no events";

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = stats();
    all.extend(followed());
    all.into_iter().map(|case| case.crun(CRUN)).collect()
}

fn stats() -> Vec<Case> {
    vec![
        case("events/stats-have-runcs-form", stats_form),
        case("events/stats-of-memory", |t| {
            let limits = json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}});
            let b = t.bundle()?.set("/linux/resources", limits).probe("forever");
            t.launch(&b)?;
            let memory = data(t, &b)?["memory"].take();
            check!(memory["usage"]["limit"] == 67_108_864, "{memory}");
            check!(memory["usage"]["usage"].as_u64().is_some_and(|n| n > 4096), "{memory}");
            check!(memory["swap"]["limit"] == 67_108_864, "{memory}");
            check!(memory["raw"].as_object().is_some_and(|raw| raw.len() > 10), "{memory}");
            Ok(())
        })
        .needs(&[Need::Controller("memory")]),
        case("events/stats-of-pids", |t| {
            let b = t.bundle()?.set("/linux/resources", json!({"pids": {"limit": 50}}));
            let b = b.probe("spawn sleep 100 -- print up -- forever");
            t.launch(&b)?.lines(t, 1)?;
            same("pids", data(t, &b)?["pids"].to_string().as_str(), r#"{"current":2,"limit":50}"#)
        })
        .needs(&[Need::Controller("pids")]),
        case("events/stats-of-throttling", |t| {
            let limits = json!({"cpu": {"quota": 10_000, "period": 100_000}});
            let b = t.bundle()?.set("/linux/resources", limits).probe("try spin 600 -- forever");
            t.launch(&b)?.lines(t, 1)?;
            let cpu = data(t, &b)?["cpu"].take();
            check!(cpu["throttling"]["throttledPeriods"].as_u64().is_some_and(|n| n > 1), "{cpu}");
            check!(cpu["throttling"]["throttledTime"].as_u64().is_some_and(|n| n > 100_000_000), "{cpu}");
            Ok(())
        })
        .needs(&[Need::Controller("cpu")]),
        case("events/stats-of-pressure", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let psi = data(t, &b)?["cpu"]["psi"].take();
            check!(psi["some"]["total"].is_u64() && psi["full"]["avg300"].is_number(), "{psi}");
            Ok(())
        })
        .needs(&[Need::CgroupV2, Need::File("/proc/pressure/cpu")]),
        case("events/stats-read-each-file-once", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let trace = t.path("trace");
            let mut command = std::process::Command::new("strace");
            command.args(["-f", "-e", "trace=openat", "-o"]).arg(&trace).arg(&t.host.runtime);
            command.arg("--root").arg(&t.place.root).args(["events", "--stats", &b.id]);
            t.complete(command)?.ok()?;
            let text = std::fs::read_to_string(trace)?;
            // Relative to one of the groups' directories: `PID openat(5, "memory.stat", …) = 6`.
            let opened = text.lines().filter_map(|line| line.split_once("openat(")?.1.split_once(", O_"));
            let mut files: Vec<_> = opened.map(|(file, _)| file).filter(|file| !file.contains('/')).collect();
            let all = files.len();
            files.sort_unstable();
            files.dedup();
            check!(files.len() > 3, "only {files:?}");
            same("files that are opened once, of all", files.len(), all)
        })
        .needs(&[Need::Runtime("corten"), Need::File("/usr/bin/strace")]),
        case("events/takes-no-more-memory-with-time", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let mut command = t.runtime();
            command.args(["events", "--interval", "5ms", &b.id]);
            let running = t.spawn(command)?;
            let data = || -> Result<u64, Trouble> {
                let status = std::fs::read_to_string(format!("/proc/{}/status", running.child.id()))?;
                let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
                Ok(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default())
            };
            running.log().lines(t, 20)?;
            let before = data()?;
            running.log().lines(t, 220)?;
            let after = data()?;
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
            t.finish(running)?.ok()?;
            check!(after < before + 256, "{before} KiB of data have become {after} KiB with 200 samples");
            Ok(())
        })
        .runc("at times: its collector lets it grow first"),
        case("events/stats-of-paused", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            data(t, &b).map(drop)
        }),
        case("events/stats-of-stopped", |t| {
            let b = t.bundle()?.probe("exit 0");
            t.launch(&b)?;
            t.await_status(&b, "stopped")?;
            t.cli(&format!("events --stats {}", b.id))?.refuses(&["is not running"])?;
            t.cli(&format!("events {}", b.id))?.refuses(&["is not running"]).map(drop)
        }),
        case("events/bad-words", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            for words in ["--interval 0s", "--interval 5", "--interval soon", "--interval -1s"] {
                let done = t.cli(&format!("events {words} {}", b.id))?;
                check!(done.code == 1, "{words}: {done}");
            }
            t.cli("events --stats nobody-knows-me")?.refuses(&["does not exist"]).map(drop)
        }),
    ]
}

fn data(t: &Test, b: &Bundle) -> Result<Value, Trouble> {
    Ok(t.cli(&format!("events --stats {}", b.id))?.ok()?.json()?["data"].take())
}

fn stats_form(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("try spin 50 -- forever");
    let line: Value = serde_json::from_str(&t.launch(&b)?.lines(t, 1)?[0])?;
    let spun = line["data"].as_u64().ok_or("no milliseconds")? * 1_000_000;
    let done = t.cli(&format!("events --stats {}", b.id))?;
    let text = done.ok()?.stdout.trim_end();
    let start = format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{\"cpu\":{{\"usage\":{{", b.id);
    check!(text.starts_with(&start) && text.lines().count() == 1, "it says {text}");
    // The order of the fields is matched as text in the field.
    let mut rest = text;
    for name in [
        "cpu",
        "throttling",
        "cpuset",
        "memory",
        "pids",
        "blkio",
        "hugetlb",
        "intel_rdt",
        "network_interfaces",
    ] {
        let found = rest.split_once(&format!("\"{name}\":"));
        rest = found.ok_or_else(|| format!("no {name} where it belongs: {text}"))?.1;
    }
    let stats = done.json()?["data"].take();
    let usage = &stats["cpu"]["usage"];
    // In nanoseconds: no less than the process had of it alone, and not a thousand times that.
    let total = usage["total"].as_u64().unwrap_or(0);
    check!(spun <= total && total < spun + 1_000_000_000, "{usage}, spun for {spun}");
    check!(usage["kernel"].is_u64() && usage["user"].is_u64(), "{usage}");
    for counter in ["usage", "swap", "kernel", "kernelTCP"] {
        let counter = &stats["memory"][counter];
        check!(counter["limit"].is_u64() && counter["failcnt"].is_u64(), "{counter}");
    }
    Ok(())
}

/// `events` at work.
fn follow(t: &Test, b: &Bundle, interval: &str) -> Result<Running, Trouble> {
    let mut command = t.runtime();
    command.args(["events", "--interval", interval, &b.id]);
    t.spawn(command)
}

/// Its end must come soon.
fn ends(t: &Test, running: Running) -> Result<String, Trouble> {
    let begin = Instant::now();
    let done = t.finish(running)?;
    within("the end of events", begin.elapsed(), Duration::from_secs(3))?;
    Ok(done.ok()?.stdout.clone())
}

fn ooms(text: &str, b: &Bundle) -> usize {
    let line = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", b.id);
    text.lines().filter(|one| *one == line).count()
}

fn followed() -> Vec<Case> {
    const HANGS: &str =
        "on v1: does not end with the container | on v2 without controllers: watches memory.events";
    vec![
        case("events/every-interval", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let running = follow(t, &b, "100ms")?;
            let lines = running.log().lines(t, 3)?;
            check!(lines.iter().all(|line| line.starts_with("{\"type\":\"stats\"")), "{lines:?}");
            t.cli(&format!("kill {} KILL", b.id))?.ok()?;
            ends(t, running).map(drop)
        })
        .runc(HANGS),
        case("events/end-with-the-container", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let running = follow(t, &b, "1h")?;
            std::thread::sleep(Duration::from_millis(300));
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
            same("what it said", ends(t, running)?.as_str(), "")
        })
        .runc("on v2 without controllers: watches memory.events"),
        case("events/end-though-paused", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            let running = follow(t, &b, "50ms")?;
            running.log().lines(t, 2)?;
            t.cli(&format!("kill {} KILL", b.id))?.ok()?;
            ends(t, running).map(drop)
        })
        .runc(HANGS),
        case("events/oom-once-for-each-kill", |t| {
            let limits = json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}});
            let b = t.bundle()?.writable().set("/linux/resources", limits);
            let eat = "spawn try eat 100";
            let b = b.probe(&format!(
                "wait-for /tmp/go -- {eat} -- sleep 0.3 -- {eat} -- sleep 0.3 -- {eat} -- forever"
            ));
            t.launch(&b)?;
            let running = follow(t, &b, "1h")?;
            std::thread::sleep(Duration::from_millis(500));
            std::fs::write(b.rootfs("/tmp/go"), "")?;
            t.until(|| "three kills".into(), || Ok((kills(t, &b)? == 3).then_some(())))?;
            let log = running.log();
            t.until(
                || format!("three lines, not {:?}", log.text()),
                || Ok((ooms(&log.text(), &b) >= 3).then_some(())),
            )?;
            t.cli(&format!("kill {} KILL", b.id))?.ok()?;
            let said = ends(t, running)?;
            same("oom lines", ooms(&said, &b), 3)?;
            same("lines", said.lines().count(), 3)
        })
        .needs(&[Need::Controller("memory")])
        .runc(HANGS)
        .runc("at times: tells some of them twice"),
        case("events/oom-of-init", |t| {
            let limits = json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}});
            let b = t.bundle()?.writable().set("/linux/resources", limits);
            let b = b.probe("wait-for /tmp/go -- try eat 100 -- forever");
            t.launch(&b)?;
            let running = follow(t, &b, "1h")?;
            std::thread::sleep(Duration::from_millis(500));
            std::fs::write(b.rootfs("/tmp/go"), "")?;
            t.await_status(&b, "stopped")?;
            same("oom lines", ooms(&ends(t, running)?, &b), 1)
        })
        .needs(&[Need::Controller("memory")])
        .runc(HANGS)
        .runc("at times: is gone before it has told"),
    ]
}
