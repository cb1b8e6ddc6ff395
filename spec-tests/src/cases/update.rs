// SPDX-License-Identifier: Apache-2.0
//! `update`: flags, files, what is remembered, and that it is all or nothing.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use super::limits::{group, update};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = FLAGS
        .iter()
        .map(|flag| {
            let case = case(format!("update/{}", flag.0.replace(' ', "=")), move |t: &Test| by_flag(t, flag));
            case.peer("runc", flag.4).peer("crun", flag.5)
        })
        .collect();
    all.extend([wholes(), refused()].into_iter().flatten());
    all
}

/// Flags, controller, file and value on v1, on v2; why runc, why crun differs.
type Flag = (
    &'static str,
    &'static str,
    (&'static str, &'static str),
    (&'static str, &'static str),
    &'static str,
    &'static str,
);

const UNITS: &str = "knows no units: a limit of some bytes";

const IDLE: &str = "knows neither --cpu-burst nor --cpu-idle";

const FLAGS: [Flag; 18] = [
    ("--memory 32m", "memory", ("memory.limit_in_bytes", "33554432"), ("memory.max", "33554432"), "", UNITS),
    (
        "--memory 33554432",
        "memory",
        ("memory.limit_in_bytes", "33554432"),
        ("memory.max", "33554432"),
        "",
        "",
    ),
    (
        "-memory=0.25g",
        "memory",
        ("memory.limit_in_bytes", "268435456"),
        ("memory.max", "268435456"),
        "",
        UNITS,
    ),
    (
        "--memory -1",
        "memory",
        ("memory.limit_in_bytes", "9223372036854771712"),
        ("memory.max", "max"),
        "",
        "",
    ),
    (
        "--memory-reservation 16m",
        "memory",
        ("memory.soft_limit_in_bytes", "16777216"),
        ("memory.low", "16777216"),
        "",
        UNITS,
    ),
    (
        "--memory 32m --memory-swap 48m",
        "memory",
        ("memory.memsw.limit_in_bytes", "50331648"),
        ("memory.swap.max", "16777216"),
        "",
        UNITS,
    ),
    (
        "--memory 32m --memory-swap -1",
        "memory",
        ("memory.memsw.limit_in_bytes", "9223372036854771712"),
        ("memory.swap.max", "max"),
        "",
        "",
    ),
    ("--cpu-share 512", "cpu", ("cpu.shares", "512"), ("cpu.weight", "59"), "", ""),
    ("--cpu-quota 20000", "cpu", ("cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 100000"), "", ""),
    ("--cpu-period 50000", "cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "max 50000"), "", ""),
    (
        "--cpu-quota 20000 --cpu-burst 10000",
        "cpu",
        ("cpu.cfs_burst_us", "10000"),
        ("cpu.max.burst", "10000"),
        "",
        IDLE,
    ),
    ("--cpu-idle 1", "cpu", ("cpu.idle", "1"), ("cpu.idle", "1"), "", IDLE),
    (
        "--cpu-rt-period 500000",
        "cpu",
        ("cpu.rt_period_us", "500000"),
        ("", ""),
        "on v2: passes it over (a11)",
        "on v1: passes it over",
    ),
    ("--cpuset-cpus 0", "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0"), "", ""),
    ("--cpuset-mems 0", "cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0"), "", ""),
    ("--pids-limit 55", "pids", ("pids.max", "55"), ("pids.max", "55"), "", ""),
    ("--pids-limit -1", "pids", ("pids.max", "max"), ("pids.max", "max"), "", ""),
    ("--blkio-weight 300", "io", ("blkio.bfq.weight", "300"), ("io.weight", "default 2930"), "", ""),
];

fn by_flag(t: &Test, flag: &'static Flag) -> Verdict {
    let (words, controller, v1, v2, ..) = flag;
    let (file, want) = if t.host.is_v2() { *v2 } else { *v1 };
    let controller = if t.host.is_v2() || *controller != "io" { controller } else { "blkio" };
    if let Some(why) = t.host.lacks(Need::Controller(controller)) {
        return Err(Trouble::NotRun(why));
    }
    let b = t.bundle()?.set("/linux/resources", json!({})).probe("print up -- forever");
    // It is there: memory that is short during execve(2) can end a User Mode Linux kernel.
    t.launch(&b)?.lines(t, 1)?;
    let path = group(t, &b, controller).join(file);
    if file.is_empty() {
        let done = t.cli(&format!("update {words} {}", b.id))?;
        return done.refuses(&["resources|realtime"]).map(drop);
    }
    if !path.exists() {
        return Err(Trouble::NotRun(format!("this kernel has no {file}")));
    }
    t.cli(&format!("update {words} {}", b.id))?.ok()?;
    same(file, fs::read_to_string(path)?.trim(), want)
}

/// A limit that this machine has, as an update, its file and the value; then the same with another value.
fn some_limit(t: &Test) -> Result<[(&'static str, &'static str, &'static str, &'static str); 2], Trouble> {
    let v2 = t.host.is_v2();
    if t.host.controllers.contains("pids") {
        return Ok([
            (r#"{"pids":{"limit":77}}"#, "pids", "pids.max", "77"),
            (r#"{"pids":{"limit":99}}"#, "pids", "pids.max", "99"),
        ]);
    }
    if v2 {
        return Ok([
            (r#"{"unified":{"cgroup.max.depth":"7"}}"#, "", "cgroup.max.depth", "7"),
            (r#"{"unified":{"cgroup.max.depth":"9"}}"#, "", "cgroup.max.depth", "9"),
        ]);
    }
    Err(Trouble::NotRun("neither the pids controller nor cgroup v2".into()))
}

fn value(t: &Test, b: &Bundle, controller: &str, file: &str) -> Result<String, Trouble> {
    Ok(fs::read_to_string(group(t, b, controller).join(file))?.trim().to_owned())
}

fn wholes() -> Vec<Case> {
    vec![
        case("update/from-stdin", |t| {
            let [(json, controller, file, want), _] = some_limit(t)?;
            let b = t.bundle()?.set("/linux/resources", json!({})).probe("forever");
            t.launch(&b)?;
            let mut command = t.runtime();
            command.args(["update", "--resources=-", &b.id]);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut running = t.spawn_as_it_is(command, t.path("out").join("stdin"))?;
            let mut stdin = running.child.stdin.take().ok_or("no stdin")?;
            stdin.write_all(json.as_bytes())?;
            drop(stdin);
            t.finish(running)?.ok()?;
            same(file, value(t, &b, controller, file)?.as_str(), want)
        }),
        case("update/of-created-and-paused", |t| {
            let [first, second] = some_limit(t)?;
            let b = t.bundle()?.set("/linux/resources", json!({})).probe("forever");
            t.create(&b)?;
            update(t, &b, first.0)?.ok()?;
            same(first.2, value(t, &b, first.1, first.2)?.as_str(), first.3)?;
            t.cli(&format!("start {}", b.id))?.ok()?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            update(t, &b, second.0)?.ok()?;
            t.has_status(&b, "paused")?;
            same(second.2, value(t, &b, second.1, second.2)?.as_str(), second.3)
        }),
        case("update/what-is-not-given-stays", |t| {
            let limits = json!({"pids": {"limit": 50}, "cpu": {"quota": 40_000, "period": 80_000}});
            let b = t.bundle()?.set("/linux/resources", limits).probe("forever");
            t.launch(&b)?;
            t.cli(&format!("update --cpu-quota 20000 {}", b.id))?.ok()?;
            t.cli(&format!("update --cpu-period 50000 {}", b.id))?.ok()?;
            t.cli(&format!("update {}", b.id))?.ok()?;
            same("pids.max", value(t, &b, "pids", "pids.max")?.as_str(), "50")?;
            if t.host.is_v2() {
                return same("cpu.max", value(t, &b, "cpu", "cpu.max")?.as_str(), "20000 50000");
            }
            same("quota", value(t, &b, "cpu", "cpu.cfs_quota_us")?.as_str(), "20000")?;
            same("period", value(t, &b, "cpu", "cpu.cfs_period_us")?.as_str(), "50000")
        })
        .needs(&[Need::Controller("cpu"), Need::Controller("pids")])
        .crun("U9: remembers nothing"),
        case("update/swap-follows-memory", |t| {
            let limits = json!({"memory": {"limit": 33_554_432, "swap": 67_108_864}});
            let b = t.bundle()?.set("/linux/resources", limits).probe("forever");
            t.launch(&b)?;
            t.cli(&format!("update --memory 50331648 {}", b.id))?.ok()?;
            if t.host.is_v2() {
                return same(
                    "memory.swap.max",
                    value(t, &b, "memory", "memory.swap.max")?.as_str(),
                    "16777216",
                );
            }
            same("memory+swap", value(t, &b, "memory", "memory.memsw.limit_in_bytes")?.as_str(), "67108864")
        })
        .needs(&[Need::Controller("memory")])
        .crun("U9: remembers nothing"),
        case("update/swap-beside-unlimited-memory", |t| {
            let limits = json!({"memory": {"limit": 33_554_432, "swap": 67_108_864}});
            let b = t.bundle()?.set("/linux/resources", limits).probe("forever");
            t.launch(&b)?;
            update(t, &b, r#"{"memory":{"limit":-1,"swap":50331648}}"#)?.ok()?;
            same("memory.swap.max", value(t, &b, "memory", "memory.swap.max")?.as_str(), "50331648")?;
            // Nobody speaks of memory any more, which stays unlimited.
            update(t, &b, r#"{"memory":{"swap":16777216}}"#)?.ok()?;
            same("memory.swap.max", value(t, &b, "memory", "memory.swap.max")?.as_str(), "16777216")
        })
        .needs(&[Need::CgroupV2, Need::Controller("memory")])
        .crun("U9: remembers nothing"),
        case("update/a-limits-name-is-later-than-unified", |t| {
            let b = t.bundle()?.set("/linux/resources/unified", json!({"pids.max": "77"})).probe("forever");
            t.launch(&b)?;
            update(t, &b, r#"{"pids":{"limit":20}}"#)?.ok()?;
            same("pids.max", value(t, &b, "pids", "pids.max")?.as_str(), "20")?;
            update(t, &b, r#"{"pids":{"limit":30},"unified":{"pids.max":"40"}}"#)?.ok()?;
            same("pids.max", value(t, &b, "pids", "pids.max")?.as_str(), "40")
        })
        .needs(&[Need::CgroupV2, Need::Controller("pids")]),
        case("update/idle-takes-no-weight", |t| {
            let b = t.bundle()?.set("/linux/resources", json!({"cpu": {"shares": 2}})).probe("forever");
            t.launch(&b)?;
            t.cli(&format!("update --cpu-idle 1 {}", b.id))?.ok()?;
            same("cpu.idle", value(t, &b, "cpu", "cpu.idle")?.as_str(), "1")?;
            t.cli(&format!("update --cpu-idle 0 --cpu-share 262144 {}", b.id))?.ok()?;
            let (file, want) =
                if t.host.is_v2() { ("cpu.weight", "10000") } else { ("cpu.shares", "262144") };
            same(file, value(t, &b, "cpu", file)?.as_str(), want)
        })
        .needs(&[Need::Controller("cpu"), Need::Kernel("cpu.idle", 5, 15)])
        .runc("on v1: writes the shares while the group is idle")
        .crun(IDLE),
        case("update/bad-value-changes-nothing", |t| {
            let limits = json!({"pids": {"limit": 50}, "memory": {"limit": 67_108_864}});
            let b = t.bundle()?.set("/linux/resources", limits).probe("forever");
            t.launch(&b)?;
            // The second is for the kernel to refuse, when the first has been written already.
            let asks = [
                r#"{"pids":{"limit":60},"cpu":{"quota":3}}"#,
                r#"{"memory":{"limit":134217728},"pids":{"limit":60},"cpu":{"cpus":"4000"}}"#,
            ];
            for ask in asks {
                let done = update(t, &b, ask)?;
                check!(done.code == 1 && done.errors().len() == 1, "{done}");
                same("pids.max", value(t, &b, "pids", "pids.max")?.as_str(), "50")?;
                let file = if t.host.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
                same(file, value(t, &b, "memory", file)?.as_str(), "67108864")?;
            }
            t.cli(&format!("update --pids-limit 61 {}", b.id))?.ok()?;
            same("pids.max", value(t, &b, "pids", "pids.max")?.as_str(), "61")
        })
        .needs(&[Need::Controller("memory"), Need::Controller("pids"), Need::Controller("cpu")])
        .runc("on v2: stops half way")
        .crun("stops half way"),
    ]
}

fn refused() -> Vec<Case> {
    vec![
        case("update/below-the-usage-on-request-only", |t| {
            let b = t
                .bundle()?
                .set("/linux/resources", json!({"memory": {"limit": 67_108_864}}))
                .probe("forever");
            t.launch(&b)?;
            let ask = r#"{"memory":{"limit":4096,"checkBeforeUpdate":true}}"#;
            update(t, &b, ask)?.refuses(&["rejecting memory limit 4096|unable to set memory limit|busy"])?;
            let file = if t.host.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
            same(file, value(t, &b, "memory", file)?.as_str(), "67108864")?;
            t.has_status(&b, "running")
        })
        .needs(&[Need::Controller("memory")])
        .crun("says it otherwise"),
        case("update/of-stopped", |t| {
            let b = t.bundle()?.probe("exit 0");
            t.launch(&b)?;
            t.await_status(&b, "stopped")?;
            t.cli(&format!("update --pids-limit 5 {}", b.id))?.refuses(&["not running"]).map(drop)
        })
        .crun("says it otherwise"),
        case("update/unknown-id", |t| {
            t.cli("update --pids-limit 5 nobody-knows-me")?
                .refuses(&["does not exist|no such file"])
                .map(drop)
        }),
        case("update/bad-words", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            for words in [
                "--memory 5x",
                "--memory -2",
                "--pids-limit five",
                "--cpu-share -1",
                "--cpu-quota 0x10",
                "--memory 1.2.3m",
                "--blkio-weight 70000",
                "-r /no/such/file",
            ] {
                let done = t.cli(&format!("update {words} {}", b.id))?;
                check!(done.code == 1 && done.errors().len() == 1, "{words}: {done}");
            }
            for json in ["", "[]", r#"{"memory":{"limit":"5"}}"#, r#"{"memory":"#, r#"{"pids":5}"#] {
                let done = update(t, &b, json)?;
                check!(done.code == 1 && done.errors().len() == 1, "{json}: {done}");
            }
            t.has_status(&b, "running")
        })
        .crun("takes some of them"),
        case("update/rdt-is-not-passed-over", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            t.cli(&format!("update --l3-cache-schema L3:0=f {}", b.id))?.refuses(&["rdt|l3|resctrl"])?;
            t.cli(&format!("update --mem-bw-schema MB:0=20 {}", b.id))?
                .refuses(&["rdt|mem|resctrl"])
                .map(drop)
        })
        .crun("passes it over"),
        case("update/limits-without-controller", |t| {
            let b = t.bundle()?.set("/linux/resources", json!({})).probe("forever");
            t.launch(&b)?;
            let done = t.cli(&format!("update --memory 32m {}", b.id))?;
            done.refuses(&["memory"])?;
            // It is not the configuration's.
            check!(!done.stderr.contains("config.json"), "{done}");
            Ok(())
        })
        .needs(&[Need::NoController("memory")]),
    ]
}
