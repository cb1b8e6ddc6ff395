// SPDX-License-Identifier: Apache-2.0
//! Limits that hold: not only what a file says, but what the container cannot do.

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::limits::{group, update};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::report::Report;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let pids = [Need::Controller("pids")];
    let memory = [Need::Controller("memory")];
    let cpu = [Need::Controller("cpu")];
    vec![
        case("bite/memory-kill-is-counted", memory_kill_is_counted).needs(&memory),
        case("bite/memory-after-update", memory_after_update).needs(&memory),
        case("bite/memory-kill-at-start-says-so", memory_kill_at_start)
            .needs(&memory)
            .runc("says EOF")
            .crun("says less"),
        case("bite/pids-fork-is-refused", |t| {
            let b = t.bundle()?.set("/linux/resources/pids", json!({"limit": 10}));
            let b = b.probe("print up -- wait-for /tmp/go -- try fork-many 30 -- forever");
            pids_refused(t, b, None)
        })
        .needs(&pids),
        case("bite/pids-after-update", |t| {
            let b = t.bundle()?.set("/linux/resources/pids", json!({"limit": 1000}));
            let b = b.probe("print up -- wait-for /tmp/go -- try fork-many 30 -- forever");
            pids_refused(t, b, Some(r#"{"pids":{"limit":10}}"#))
        })
        .needs(&pids),
        case("bite/cpu-is-throttled", |t| {
            cpu_throttled(t, json!({"cpu": {"quota": 10_000, "period": 100_000}}), None)
        })
        .needs(&cpu),
        case("bite/cpu-after-update", |t| {
            let ask = r#"{"cpu":{"quota":10000,"period":100000}}"#;
            cpu_throttled(t, json!({"cpu": {"quota": 100_000, "period": 100_000}}), Some(ask))
        })
        .needs(&cpu),
        case("bite/cpus-are-the-groups", cpus).needs(&[Need::Controller("cpuset")]),
        case("bite/io-is-throttled", |t| io_throttled(t, false)),
        case("bite/io-after-update", |t| io_throttled(t, true)),
        case("bite/devices-after-update", devices_after_update).runc("B4: update leaves devices alone"),
    ]
}

/// Whichever way a process has come into its group.
fn cpus(t: &Test) -> Verdict {
    let all = std::thread::available_parallelism()?.get();
    if all == 1 {
        return Err(Trouble::NotRun("one CPU is all".into()));
    }
    let one = (all - 1).to_string();
    let b = t.bundle()?.set("/linux/resources", json!({"cpu": {"cpus": one, "mems": "0"}}));
    let b = b.probe("report -- forever");
    t.launch(&b)?.report(t)?.is("/affinity", one.as_str())?;
    Report::read(&t.exec(&b, "", "/probe report")?.ok()?.stdout)?.is("/affinity", one.as_str())
}

/// The `oom_kill` line of the container's group.
pub fn kills(t: &Test, b: &Bundle) -> Result<u64, Trouble> {
    let file = if t.host.is_v2() { "memory.events" } else { "memory.oom_control" };
    let text = fs::read_to_string(group(t, b, "memory").join(file))?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

fn memory_kill_is_counted(t: &Test) -> Verdict {
    let limits = json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}});
    let b = t.bundle()?.set("/linux/resources", limits);
    let b = b.probe("print up -- spawn try eat 100 -- forever");
    let log = t.launch(&b)?;
    log.lines(t, 1)?;
    t.until(|| "the kill".into(), || Ok((kills(t, &b)? == 1).then_some(())))?;
    t.has_status(&b, "running")
}

fn memory_after_update(t: &Test) -> Verdict {
    let limits = json!({"memory": {"limit": 268_435_456, "swap": 268_435_456}});
    let b = t.bundle()?.writable().set("/linux/resources", limits);
    let eats = "spawn try eat 100 ++ put /tmp/done x";
    let b = b.probe(&format!(
        "{eats} -- wait-for /tmp/done -- print first -- wait-for /tmp/go -- {eats} -- forever"
    ));
    let log = t.launch(&b)?;
    log.lines(t, 2)?;
    same("kills before the update", kills(t, &b)?, 0)?;
    update(t, &b, r#"{"memory":{"limit":33554432,"swap":33554432}}"#)?.ok()?;
    fs::write(b.rootfs("/tmp/go"), "")?;
    t.until(|| "the kill".into(), || Ok((kills(t, &b)? == 1).then_some(())))
}

/// Not even the way to the user's program fits.
fn memory_kill_at_start(t: &Test) -> Verdict {
    let limits = json!({"memory": {"limit": 4096, "swap": 4096}});
    let b = t.bundle()?.set("/linux/resources", limits);
    let before = t.snapshot();
    let done = t.run(&b)?;
    // The kernel may refuse so small a limit, or kill what does not fit.
    done.refuses(&["OOM-killed|memory"])?;
    if !done.stderr.contains("OOM-killed") {
        return Err(Trouble::NotRun(format!("the kernel did not kill: {}", done.stderr.trim())));
    }
    t.unchanged_since(&before)
}

fn pids_refused(t: &Test, b: Bundle, ask: Option<&str>) -> Verdict {
    let log = t.launch(&b.clone().writable())?;
    log.lines(t, 1)?;
    if let Some(ask) = ask {
        update(t, &b, ask)?.ok()?;
    }
    fs::write(b.rootfs("/tmp/go"), "")?;
    let line: Value = serde_json::from_str(&log.lines(t, 2)?[1])?;
    check!(line["errno"] == "EAGAIN", "it could fork: {line}");
    let events = fs::read_to_string(group(t, &b, "pids").join("pids.events"))?;
    check!(!events.contains("max 0"), "pids.events says {events:?}");
    Ok(())
}

/// A tenth of a processor for more than a second: far less than the whole, and counted.
fn cpu_throttled(t: &Test, limits: Value, ask: Option<&str>) -> Verdict {
    let b = t.bundle()?.writable().set("/linux/resources", limits);
    let b = b.probe("print up -- wait-for /tmp/go -- try spin 1500 -- forever");
    let log = t.launch(&b)?;
    log.lines(t, 1)?;
    if let Some(ask) = ask {
        update(t, &b, ask)?.ok()?;
    }
    fs::write(b.rootfs("/tmp/go"), "")?;
    let line: Value = serde_json::from_str(&log.lines(t, 2)?[1])?;
    let used = line["data"].as_i64().unwrap_or(i64::MAX);
    check!(used < 750, "a tenth of a processor was {used} ms of 1500");
    let stat = fs::read_to_string(group(t, &b, "cpu").join("cpu.stat"))?;
    let throttled = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
    let throttled: u64 = throttled.and_then(|count| count.parse().ok()).unwrap_or(0);
    check!(throttled > 3, "throttled {throttled} times");
    Ok(())
}

/// A loop device over a file in memory, for as long as the case lasts.
fn loop_device(t: &Test) -> Result<(String, u64, u64), Trouble> {
    let not_here = |what: &str| Trouble::NotRun(format!("no loop device to be had ({what})"));
    let dir = t.path("disk");
    fs::create_dir(&dir)?;
    t.mount("tmpfs", "tmpfs", &dir, nix::mount::MsFlags::empty(), "size=32m")?;
    let image = dir.join("image");
    fs::File::create(&image)?.set_len(16 << 20)?;
    let out = Command::new("losetup").args(["--find", "--show"]).arg(&image).output();
    let out = out.map_err(|error| not_here(&format!("losetup: {error}")))?;
    let device = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    if device.is_empty() {
        return Err(not_here(String::from_utf8_lossy(&out.stderr).trim()));
    }
    let name = device.clone();
    t.at_end(move || drop(Command::new("losetup").args(["--detach", &name]).status()));
    let sys = PathBuf::from("/sys/block").join(device.trim_start_matches("/dev/")).join("dev");
    let text = fs::read_to_string(&sys)?;
    let numbers = text.trim().split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let (major, minor) = numbers.ok_or_else(|| not_here("no numbers"))?;
    Ok((device, major, minor))
}

/// Three MiB at one MiB a second.
fn io_throttled(t: &Test, by_update: bool) -> Verdict {
    let controller = if t.host.is_v2() { "io" } else { "blkio" };
    if let Some(why) = t.host.lacks(Need::Controller(controller)) {
        return Err(Trouble::NotRun(why));
    }
    let (_, major, minor) = loop_device(t)?;
    let rate =
        json!({"blockIO": {"throttleWriteBpsDevice": [{"major": major, "minor": minor, "rate": 1_048_576}]}});
    let limits = if by_update { json!({}) } else { rate.clone() };
    let b = t.bundle()?.writable().set("/linux/resources", limits);
    let rule = json!({"allow": true, "type": "b", "major": major, "minor": minor, "access": "rwm"});
    let b = b.push("/linux/resources/devices", json!({"allow": false, "access": "rwm"}));
    let b = b.push("/linux/resources/devices", rule);
    let node = json!({"path": "/dev/disk", "type": "b", "major": major, "minor": minor, "fileMode": 0o600});
    let b = b.push("/linux/devices", node);
    let b = b.probe("print up -- wait-for /tmp/go -- try write-device /dev/disk 3072 -- forever");
    let log = t.launch(&b)?;
    log.lines(t, 1)?;
    if by_update {
        update(t, &b, &rate.to_string())?.ok()?;
    }
    fs::write(b.rootfs("/tmp/go"), "")?;
    let line: Value = serde_json::from_str(&log.lines(t, 2)?[1])?;
    check!(line["errno"] == "ok", "the write failed: {line}");
    let took = line["data"].as_i64().unwrap_or(0);
    check!((2000..8000).contains(&took), "3 MiB at 1 MiB/s took {took} ms");
    Ok(())
}

fn devices_after_update(t: &Test) -> Verdict {
    let b = t.bundle()?.grants(&["MKNOD", "SYSLOG"]).writable().without_mount("/dev").probe("forever");
    let b = b.mount("tmpfs", "tmpfs", "/dev", &["mode=755"]);
    let deny = json!({"allow": false, "access": "rwm"});
    let kmsg = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"});
    let b = b.set("/linux/resources/devices", json!([deny]));
    t.launch(&b)?;
    let opens = |want: &str| {
        let done = t.exec(&b, "", "/probe try open /dev/kmsg -- try open /dev/null")?;
        t.compare(&done.ok()?.stdout, &[("open /dev/kmsg", want), ("open /dev/null", "ok")]).map(drop)
    };
    t.exec(&b, "--cap CAP_MKNOD", "/probe try mknod /dev/kmsg c 1 11")?.ok()?;
    opens("EPERM")?;
    update(t, &b, &json!({"devices": [deny, kmsg]}).to_string())?.ok()?;
    opens("ok")?;
    // What does not mention devices leaves them.
    update(t, &b, r#"{"devices":[]}"#)?.ok()?;
    opens("ok")?;
    update(t, &b, &json!({"devices": [deny]}).to_string())?.ok()?;
    opens("EPERM")
}
