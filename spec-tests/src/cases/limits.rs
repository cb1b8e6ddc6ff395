// SPDX-License-Identifier: Apache-2.0
//! Every limit of config-linux.md, with the value the kernel holds after a create and after an update.
//!
//! Each case writes a line `LIMIT name runtime cgroups file created updated` on stderr: the table of limits in the
//! documents is made of these.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// A limit: what a configuration and an update ask for, and what the kernel's file then holds. An empty file name: there
/// is none on this version of cgroups, and the runtime must refuse. `~` before a value: it may be among others.
struct Limit {
    name: &'static str,
    /// On v1 and on v2.
    controller: (&'static str, &'static str),
    created: &'static str,
    updated: &'static str,
    v1: [&'static str; 3],
    v2: [&'static str; 3],
    /// Why runc and crun differ.
    peers: (&'static str, &'static str),
}

const fn limit(
    name: &'static str,
    controller: &'static str,
    created: &'static str,
    updated: &'static str,
) -> Limit {
    Limit {
        name,
        controller: (controller, controller),
        created,
        updated,
        v1: [""; 3],
        v2: [""; 3],
        peers: ("", ""),
    }
}

impl Limit {
    const fn v1(self, file: &'static str, created: &'static str, updated: &'static str) -> Self {
        Limit { v1: [file, created, updated], ..self }
    }

    const fn v2(self, file: &'static str, created: &'static str, updated: &'static str) -> Self {
        Limit { v2: [file, created, updated], ..self }
    }

    const fn on(self, v1: &'static str, v2: &'static str) -> Self {
        Limit { controller: (v1, v2), ..self }
    }

    const fn runc(self, reason: &'static str) -> Self {
        Limit { peers: (reason, self.peers.1), ..self }
    }

    const fn crun(self, reason: &'static str) -> Self {
        Limit { peers: (self.peers.0, reason), ..self }
    }
}

const LIMITS: [Limit; 25] = [
    limit("memory", "memory", r#"{"memory":{"limit":33554432}}"#, r#"{"memory":{"limit":67108864}}"#)
        .v1("memory.limit_in_bytes", "33554432", "67108864")
        .v2("memory.max", "33554432", "67108864"),
    limit("memory-none", "memory", r#"{"memory":{"limit":33554432}}"#, r#"{"memory":{"limit":-1}}"#)
        .v1("memory.limit_in_bytes", "33554432", "9223372036854771712")
        .v2("memory.max", "33554432", "max"),
    limit(
        "memory-reservation",
        "memory",
        r#"{"memory":{"reservation":16777216}}"#,
        r#"{"memory":{"reservation":8388608}}"#,
    )
    .v1("memory.soft_limit_in_bytes", "16777216", "8388608")
    .v2("memory.low", "16777216", "8388608"),
    limit(
        "memory-swap-grows",
        "memory",
        r#"{"memory":{"limit":33554432,"swap":33554432}}"#,
        r#"{"memory":{"limit":67108864,"swap":134217728}}"#,
    )
    .v1("memory.memsw.limit_in_bytes", "33554432", "134217728")
    .v2("memory.swap.max", "0", "67108864"),
    limit(
        "memory-swap-shrinks",
        "memory",
        r#"{"memory":{"limit":67108864,"swap":134217728}}"#,
        r#"{"memory":{"limit":33554432,"swap":33554432}}"#,
    )
    .v1("memory.memsw.limit_in_bytes", "134217728", "33554432")
    .v2("memory.swap.max", "67108864", "0"),
    limit(
        "memory-swappiness",
        "memory",
        r#"{"memory":{"swappiness":10}}"#,
        r#"{"memory":{"swappiness":20}}"#,
    )
    .v1("memory.swappiness", "10", "20")
    .runc("update does not know it; a11: passes it over on v2")
    .crun("passes it over in an update"),
    limit(
        "memory-without-oom-killer",
        "memory",
        r#"{"memory":{"limit":33554432,"disableOOMKiller":true}}"#,
        r#"{"memory":{"disableOOMKiller":false}}"#,
    )
    .v1("memory.oom_control", "~oom_kill_disable 1", "~oom_kill_disable 0")
    .runc("on v1: update does not know it | in the guest: a11: passes it over")
    .crun("passes it over"),
    limit("cpu-shares", "cpu", r#"{"cpu":{"shares":1024}}"#, r#"{"cpu":{"shares":262144}}"#)
        .v1("cpu.shares", "1024", "262144")
        .v2("cpu.weight", "100", "10000"),
    limit("cpu-quota", "cpu", r#"{"cpu":{"quota":50000,"period":200000}}"#, r#"{"cpu":{"quota":30000}}"#)
        .v1("cpu.cfs_quota_us", "50000", "30000")
        .v2("cpu.max", "50000 200000", "30000 200000")
        .crun("on v2: update forgets the half of cpu.max that it is not told"),
    limit("cpu-period", "cpu", r#"{"cpu":{"quota":50000,"period":200000}}"#, r#"{"cpu":{"period":100000}}"#)
        .v1("cpu.cfs_period_us", "200000", "100000")
        .v2("cpu.max", "50000 200000", "50000 100000")
        .crun("on v2: update forgets the half of cpu.max that it is not told"),
    limit("cpu-no-quota", "cpu", r#"{"cpu":{"quota":50000}}"#, r#"{"cpu":{"quota":-1}}"#)
        .v1("cpu.cfs_quota_us", "50000", "-1")
        .v2("cpu.max", "50000 100000", "max 100000")
        .crun("on v2: update passes it over"),
    limit(
        "cpu-burst",
        "cpu",
        r#"{"cpu":{"quota":50000,"period":100000,"burst":20000}}"#,
        r#"{"cpu":{"quota":90000,"burst":80000}}"#,
    )
    .v1("cpu.cfs_burst_us", "20000", "80000")
    .v2("cpu.max.burst", "20000", "80000"),
    limit(
        "cpu-burst-shrinks",
        "cpu",
        r#"{"cpu":{"quota":50000,"burst":50000}}"#,
        r#"{"cpu":{"quota":20000,"burst":10000}}"#,
    )
    .v1("cpu.cfs_burst_us", "50000", "10000")
    .v2("cpu.max.burst", "50000", "10000")
    .crun("on v2: writes the quota before the burst, which is larger"),
    limit("cpu-idle", "cpu", r#"{"cpu":{"idle":1}}"#, r#"{"cpu":{"idle":0}}"#)
        .v1("cpu.idle", "1", "0")
        .v2("cpu.idle", "1", "0"),
    limit("cpuset-cpus", "cpuset", r#"{"cpu":{"cpus":"0","mems":"0"}}"#, r#"{"cpu":{"cpus":"0-1"}}"#)
        .v1("cpuset.cpus", "0", "0-1")
        .v2("cpuset.cpus", "0", "0-1"),
    limit("cpuset-mems", "cpuset", r#"{"cpu":{"cpus":"0","mems":"0"}}"#, r#"{"cpu":{"mems":"0"}}"#)
        .v1("cpuset.mems", "0", "0")
        .v2("cpuset.mems", "0", "0"),
    limit("pids", "pids", r#"{"pids":{"limit":77}}"#, r#"{"pids":{"limit":88}}"#)
        .v1("pids.max", "77", "88")
        .v2("pids.max", "77", "88"),
    limit("pids-none", "pids", r#"{"pids":{"limit":77}}"#, r#"{"pids":{"limit":-1}}"#)
        .v1("pids.max", "77", "max")
        .v2("pids.max", "77", "max"),
    limit("io-weight", "io", r#"{"blockIO":{"weight":100}}"#, r#"{"blockIO":{"weight":200}}"#)
        .on("blkio", "io")
        .v1("blkio.bfq.weight", "100", "200")
        .v2("io.weight", "default 910", "default 1920")
        .crun("leaves its cgroup behind when there is no io.weight"),
    limit(
        "hugetlb",
        "hugetlb",
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":8388608}]}"#,
    )
    .v1("hugetlb.2MB.limit_in_bytes", "4194304", "8388608")
    .v2("hugetlb.2MB.max", "4194304", "8388608")
    .runc("update does not know it"),
    limit(
        "hugetlb-reserved",
        "hugetlb",
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":8388608}]}"#,
    )
    .v1("hugetlb.2MB.rsvd.limit_in_bytes", "4194304", "8388608")
    .v2("hugetlb.2MB.rsvd.max", "4194304", "8388608")
    .runc("update does not know it")
    .crun("on v2: limits the use, not the reservation"),
    limit(
        "network-class",
        "net_cls",
        r#"{"network":{"classID":1048577}}"#,
        r#"{"network":{"classID":1048578}}"#,
    )
    .v1("net_cls.classid", "1048577", "1048578")
    .runc("update does not know it; a11: passes it over on v2")
    .crun("passes it over on v2"),
    limit(
        "realtime",
        "cpu",
        r#"{"cpu":{"realtimeRuntime":0,"realtimePeriod":500000}}"#,
        r#"{"cpu":{"realtimePeriod":1000000}}"#,
    )
    .v1("cpu.rt_period_us", "500000", "1000000")
    .runc("on v2: passes it over (a11)")
    .crun("passes it over in an update"),
    limit(
        "unified-memory-high",
        "memory",
        r#"{"unified":{"memory.high":"33554432"}}"#,
        r#"{"unified":{"memory.high":"67108864"}}"#,
    )
    .v2("memory.high", "33554432", "67108864"),
    limit(
        "unified-core",
        "",
        r#"{"unified":{"cgroup.max.descendants":"17"}}"#,
        r#"{"unified":{"cgroup.max.descendants":"19"}}"#,
    )
    .v2("cgroup.max.descendants", "17", "19"),
];

/// The chapter.
pub fn cases() -> Vec<Case> {
    let row = |limit: &'static Limit| {
        let case = case(format!("limits/{}", limit.name), move |t: &Test| created_and_updated(t, limit));
        case.peer("runc", limit.peers.0).peer("crun", limit.peers.1)
    };
    let mut all: Vec<Case> = LIMITS.iter().map(row).collect();
    let throttles = case("limits/io-throttles", throttles);
    let throttles = throttles.runc("on v2: its way back writes the zero that io.max refuses");
    all.push(throttles.crun("does not know the zero that takes one away"));
    all
}

/// The container's group in the hierarchy of a controller.
pub fn group(t: &Test, b: &Bundle, controller: &str) -> PathBuf {
    let base = PathBuf::from("/sys/fs/cgroup");
    if t.host.is_v2() { base.join(&b.id) } else { base.join(controller).join(&b.id) }
}

/// `update -r` with this JSON.
pub fn update(t: &Test, b: &Bundle, json: &str) -> Result<crate::harness::done::Done, Trouble> {
    let file = t.path(&format!("update-{}.json", json.len()));
    fs::write(&file, json)?;
    t.cli_words(&["update", "-r", &file.to_string_lossy(), &b.id])
}

fn created_and_updated(t: &Test, limit: &'static Limit) -> Verdict {
    let v2 = t.host.is_v2();
    let controller = if v2 { limit.controller.1 } else { limit.controller.0 };
    let [file, created, updated] = if v2 { limit.v2 } else { limit.v1 };
    if !file.is_empty() && !controller.is_empty() && !t.host.controllers.contains(controller) {
        return Err(Trouble::NotRun(format!("no {controller} controller here")));
    }
    let b = t.bundle()?.set("/linux/resources", serde_json::from_str(limit.created)?).probe("forever");
    if file.is_empty() {
        let done = t.run(&b)?;
        return done.refuses(&["config.json|not|no"]).map(drop);
    }
    if !has_file(t, controller, file)? {
        return Err(Trouble::NotRun(format!("this kernel has no {file}")));
    }
    t.launch(&b)?;
    let path = group(t, &b, controller).join(file);
    let first = holds(&path, created)?;
    update(t, &b, limit.updated)?.ok()?;
    let second = holds(&path, updated)?;
    let version = if v2 { "v2" } else { "v1" };
    eprintln!("LIMIT {} {} {version} {file} {first:?} {second:?}", limit.name, t.host.name);
    Ok(())
}

/// Whether a new group of this kernel has the file.
fn has_file(t: &Test, controller: &str, file: &str) -> Result<bool, Trouble> {
    let base = PathBuf::from("/sys/fs/cgroup");
    let dir = if t.host.is_v2() { base } else { base.join(controller) };
    if t.host.is_v2() && !controller.is_empty() {
        // As the runtime does: a group has the files of what its parent hands down.
        fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))?;
    }
    let dir = dir.join(format!("{}-look", t.place.mark));
    fs::create_dir(&dir)?;
    let there = dir.join(file).exists();
    fs::remove_dir(&dir)?;
    Ok(there)
}

/// The file's content, if it is what it should be.
fn holds(path: &Path, want: &str) -> Result<String, Trouble> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let fits = match want.strip_prefix('~') {
        Some(line) => text.lines().any(|one| one == line),
        None => text.trim() == want,
    };
    check!(fits, "{} holds {:?}, not {want:?}", path.display(), text.trim());
    Ok(want.trim_start_matches('~').to_owned())
}

/// A block device with a request queue of its own: throttles are for these alone.
pub fn block_device() -> Result<(u64, u64), Trouble> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.path()).collect();
    names.sort();
    let numbers = names.iter().filter_map(|path| {
        let text = fs::read_to_string(path.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    numbers.into_iter().next().ok_or_else(|| Trouble::NotRun("no block device here".into()))
}

fn throttles(t: &Test) -> Verdict {
    let controller = if t.host.is_v2() { "io" } else { "blkio" };
    if let Some(why) = t.host.lacks(Need::Controller(controller)) {
        return Err(Trouble::NotRun(why));
    }
    let (major, minor) = block_device()?;
    let rates = |rates: [u64; 4]| -> Value {
        let names = [
            "throttleReadBpsDevice",
            "throttleWriteBpsDevice",
            "throttleReadIOPSDevice",
            "throttleWriteIOPSDevice",
        ];
        let list = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
        let lists: serde_json::Map<String, Value> =
            names.iter().zip(rates).map(|(name, rate)| ((*name).to_owned(), list(rate))).collect();
        json!({ "blockIO": lists })
    };
    let b = t.bundle()?.set("/linux/resources", rates([1_048_576, 2_097_152, 30, 40])).probe("forever");
    t.launch(&b)?;
    for round in 0..2 {
        let want =
            if round == 0 { ["1048576", "2097152", "30", "40"] } else { ["4194304", "max", "max", "50"] };
        if round == 1 {
            update(t, &b, &rates([4_194_304, 0, 0, 50]).to_string())?.ok()?;
        }
        let group = group(t, &b, controller);
        if t.host.is_v2() {
            let [r, w, ri, wi] = want;
            let line = format!("~{major}:{minor} rbps={r} wbps={w} riops={ri} wiops={wi}");
            let held = holds(&group.join("io.max"), &line)?;
            eprintln!("LIMIT io-throttles {} v2 io.max {held:?} round {round}", t.host.name);
            continue;
        }
        for (file, rate) in ["read_bps", "write_bps", "read_iops", "write_iops"].iter().zip(want) {
            let path = group.join(format!("blkio.throttle.{file}_device"));
            let text = fs::read_to_string(&path)?;
            let line = format!("{major}:{minor} {rate}");
            let fits = if rate == "max" { text.trim().is_empty() } else { text.trim() == line };
            check!(fits, "{} holds {text:?}, not {rate}", path.display());
            let file = path.file_name().unwrap_or_default().display();
            eprintln!("LIMIT io-throttles {} v1 {file} {:?} round {round}", t.host.name, text.trim());
        }
    }
    Ok(())
}
