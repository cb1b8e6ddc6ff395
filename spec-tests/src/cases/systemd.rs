// SPDX-License-Identifier: Apache-2.0
//! The systemd cgroup driver: units, what systemd believes, what the kernel has, and what is left afterwards.
//!
//! Refusals and trouble are in `systemd_trouble`, updates in `systemd_updates`. Run under systemd (`lab/uml --systemd`); there with cgroup v2 only, because systemd has no cgroup v1 any more.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::test::Test;

/// Why crun's containers are elsewhere.
pub(super) const BELOW: &str = "puts the container into a group `container` below the scope's";
/// What the container's mount of cgroup2 does to the host's.
pub const REMOUNTS: &str = "at times: takes nsdelegate from the host's cgroup2 with its first container";

pub(super) const SYSTEMD: &[Need] = &[Need::File("/run/systemd/private"), Need::CgroupV2];
pub(super) const MEMORY: &[Need] =
    &[Need::File("/run/systemd/private"), Need::CgroupV2, Need::Controller("memory")];

/// The chapter.
pub fn cases() -> Vec<Case> {
    [units(), limits(), life()].into_iter().flatten().collect()
}

/// The runtime with the systemd driver, ready for more words.
pub(super) fn runtime(t: &Test) -> Command {
    let mut command = t.runtime();
    command.arg("--systemd-cgroup");
    command
}

pub(super) fn act(t: &Test, verb: &str, b: &Bundle) -> Result<Done, Trouble> {
    b.write()?;
    let mut command = runtime(t);
    command.args(verb.split_whitespace()).arg("--bundle").arg(&b.dir).arg(&b.id);
    t.complete(command)
}

pub(super) fn create(t: &Test, b: &Bundle) -> Verdict {
    act(t, "create", b)?.ok().map(drop)
}

pub(super) fn on(t: &Test, words: &str) -> Result<Done, Trouble> {
    let mut command = runtime(t);
    command.args(words.split_whitespace());
    t.complete(command)
}

/// A bundle whose unit is `p-ID.scope` in `slice`.
pub(super) fn bundle(t: &Test, slice: &str) -> Result<(Bundle, String), Trouble> {
    if slice.starts_with("ctest") {
        // systemd takes slices away when it has nothing better to do: on a busy machine never. Not waited for: what is left of
        // the case's containers ends only after this, and until then so does their slice not.
        t.at_end(|| drop(systemctl(&["--no-block", "stop", "ctest-a.slice", "ctest.slice"])));
    }
    let b = t.bundle()?.probe("forever");
    let path = format!("{slice}:p:{}", b.id);
    let unit = format!("p-{}.scope", b.id);
    Ok((b.set("/linux/cgroupsPath", json!(path)), unit))
}

/// What systemctl says; empty when it fails.
pub(super) fn systemctl(words: &[&str]) -> String {
    let out = Command::new("systemctl").args(words).output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}

/// A property of a unit, as systemd has it.
pub(super) fn shown(unit: &str, property: &str) -> String {
    systemctl(&["show", "--value", "--property", property, unit])
}

/// systemd must know nothing of such a unit, nor keep it as failed.
pub(super) fn gone(t: &Test, unit: &str) -> Verdict {
    t.until(
        || format!("the end of {unit}, which is {:?}", shown(unit, "ActiveState")),
        || Ok((shown(unit, "ActiveState") == "inactive").then_some(())),
    )
}

/// The group of a process, on the host.
pub(super) fn group_of(pid: i32) -> Result<PathBuf, Trouble> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.ok_or_else(|| Trouble::Fail(format!("it is in {text:?}")))?;
    Ok(Path::new("/sys/fs/cgroup").join(path))
}

fn reads(dir: &Path, file: &str, want: &str) -> Verdict {
    let got = fs::read_to_string(dir.join(file))?;
    check!(got.trim() == want, "{file} holds {:?}, not {want:?}", got.trim());
    Ok(())
}

fn units() -> Vec<Case> {
    vec![
        case("systemd/scope-in-a-nested-slice", |t| {
            let (b, unit) = bundle(t, "ctest-a.slice")?;
            create(t, &b)?;
            let group = group_of(t.pid(&b)?)?;
            let want = format!("/sys/fs/cgroup/ctest.slice/ctest-a.slice/{unit}");
            same("the group", group.to_string_lossy().into_owned(), want)?;
            for (property, value) in [
                ("ActiveState", "active"),
                ("Slice", "ctest-a.slice"),
                ("Delegate", "yes"),
                ("DefaultDependencies", "no"),
                ("MemoryAccounting", "yes"),
                ("TasksAccounting", "yes"),
                ("IOAccounting", "yes"),
            ] {
                same(property, shown(&unit, property), value)?;
            }
            same(
                "processes in the group",
                fs::read_to_string(group.join("cgroup.procs"))?.lines().count(),
                1,
            )?;
            on(t, &format!("delete --force {}", b.id))?.ok()?;
            check!(!group.exists(), "{} is left", group.display());
            gone(t, &unit)
        })
        .runc(REMOUNTS)
        .crun(BELOW),
        case("systemd/names-by-default", |t| {
            let b = t.bundle()?.remove("/linux/cgroupsPath").probe("forever");
            create(t, &b)?;
            let unit = format!("{}-{}.scope", t.host.name, b.id);
            let group = group_of(t.pid(&b)?)?;
            same("the group", group, PathBuf::from(format!("/sys/fs/cgroup/system.slice/{unit}")))
        })
        .crun(BELOW),
        case("systemd/by-the-name-of-the-manager", |t| {
            let (b, unit) = bundle(t, "system.slice")?;
            b.write()?;
            let create = |manager: &str| {
                let mut command = t.runtime();
                command.arg(format!("--cgroup-manager={manager}")).args(["create", "--bundle"]);
                command.arg(&b.dir).arg(&b.id);
                t.complete(command)
            };
            create("systemd")?.ok()?;
            let want = format!("/sys/fs/cgroup/system.slice/{unit}");
            same("the group", group_of(t.pid(&b)?)?, PathBuf::from(want))?;
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
            create("cgroupfs")?.ok()?;
            let path = b.config["linux"]["cgroupsPath"].as_str().unwrap_or_default();
            check!(group_of(t.pid(&b)?)?.ends_with(path), "it is not in a group of the name {path}");
            Ok(())
        })
        .runc("has no --cgroup-manager")
        .crun(BELOW),
        case("systemd/the-root-slice", |t| {
            let (b, unit) = bundle(t, "-.slice")?;
            create(t, &b)?;
            same("the group", group_of(t.pid(&b)?)?, PathBuf::from(format!("/sys/fs/cgroup/{unit}")))
        })
        .crun(BELOW),
        case("systemd/no-slice-means-system", |t| {
            let (b, unit) = bundle(t, "")?;
            create(t, &b)?;
            let want = format!("/sys/fs/cgroup/system.slice/{unit}");
            same("the group", group_of(t.pid(&b)?)?, PathBuf::from(want))
        })
        .crun("without a slice the scope is made in the root slice"),
        case("systemd/a-unit-that-is-a-slice", |t| {
            let b = t.bundle()?.probe("forever");
            let name = format!("{}.slice", b.id.replace('-', ""));
            let b = b.set("/linux/cgroupsPath", json!(format!("-.slice::{name}")));
            create(t, &b)?;
            same("the group", group_of(t.pid(&b)?)?, PathBuf::from(format!("/sys/fs/cgroup/{name}")))?;
            on(t, &format!("delete --force {}", b.id))?.ok()?;
            gone(t, &name)
        })
        .runc("passes PIDs with a slice, which systemd refuses")
        .crun("makes a scope of that name"),
        case("systemd/properties-by-annotation", |t| {
            let (b, unit) = bundle(t, "system.slice")?;
            let b = b.set(
                "/annotations",
                json!({
                    "org.systemd.property.TimeoutStopSec": "uint64 7",
                    "org.systemd.property.CollectMode": "'inactive-or-failed'",
                    "org.systemd.property.SendSIGHUP": "true",
                    "org.systemd.property.After": "['basic.target']",
                }),
            );
            create(t, &b)?;
            same("TimeoutStopUSec", shown(&unit, "TimeoutStopUSec"), "7s")?;
            same("CollectMode", shown(&unit, "CollectMode"), "inactive-or-failed")?;
            same("SendSIGHUP", shown(&unit, "SendSIGHUP"), "yes")?;
            check!(shown(&unit, "After").contains("basic.target"), "it is after {}", shown(&unit, "After"));
            Ok(())
        }),
    ]
    .into_iter()
    .map(|case| case.needs(SYSTEMD))
    .collect()
}

/// Resources, then properties and files that follow from them.
struct Limit {
    name: &'static str,
    resources: &'static str,
    properties: &'static [(&'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
}

const LIMITS: [Limit; 7] = [
    Limit {
        name: "memory",
        resources: r#"{"memory":{"limit":33554432,"swap":50331648,"reservation":16777216}}"#,
        properties: &[("MemoryMax", "33554432"), ("MemorySwapMax", "16777216"), ("MemoryLow", "16777216")],
        files: &[("memory.max", "33554432"), ("memory.swap.max", "16777216"), ("memory.low", "16777216")],
    },
    Limit {
        name: "cpu",
        resources: r#"{"cpu":{"shares":512,"quota":20000,"period":50000}}"#,
        properties: &[("CPUWeight", "59"), ("CPUQuotaPerSecUSec", "400ms"), ("CPUQuotaPeriodUSec", "50ms")],
        files: &[("cpu.weight", "59"), ("cpu.max", "20000 50000")],
    },
    Limit {
        name: "cpu-idle",
        resources: r#"{"cpu":{"idle":1}}"#,
        properties: &[("CPUWeight", "idle")],
        files: &[("cpu.idle", "1")],
    },
    Limit {
        name: "pids",
        resources: r#"{"pids":{"limit":77}}"#,
        properties: &[("TasksMax", "77")],
        files: &[("pids.max", "77")],
    },
    Limit {
        name: "pids-unlimited",
        resources: r#"{"pids":{"limit":-1}}"#,
        properties: &[("TasksMax", "infinity")],
        files: &[("pids.max", "max")],
    },
    Limit {
        name: "pids-one",
        resources: r#"{"pids":{"limit":1}}"#,
        properties: &[("TasksMax", "1")],
        files: &[("pids.max", "1")],
    },
    Limit {
        name: "unified",
        resources: r#"{"unified":{"memory.high":"41943040","memory.min":"4096","pids.max":"9","cpu.weight":"55","cpu.max":"30000 100000"}}"#,
        properties: &[
            ("MemoryHigh", "41943040"),
            ("MemoryMin", "4096"),
            ("TasksMax", "9"),
            ("CPUWeight", "55"),
            ("CPUQuotaPerSecUSec", "300ms"),
        ],
        files: &[
            ("memory.high", "41943040"),
            ("memory.min", "4096"),
            ("pids.max", "9"),
            ("cpu.weight", "55"),
            ("cpu.max", "30000 100000"),
        ],
    },
];

/// What systemd was told and what the kernel has are the same, also after systemd has read everything anew.
fn holds(t: &Test, limit: &Limit) -> Verdict {
    let (b, unit) = bundle(t, "ctest.slice")?;
    create(t, &b.set("/linux/resources", serde_json::from_str(limit.resources)?))?;
    let group = Path::new("/sys/fs/cgroup/ctest.slice").join(&unit);
    let agree = || {
        limit.properties.iter().try_for_each(|(name, value)| same(name, shown(&unit, name), *value))?;
        limit.files.iter().try_for_each(|(file, value)| reads(&group, file, value))
    };
    agree()?;
    systemctl(&["daemon-reload"]);
    agree()
}

fn limits() -> Vec<Case> {
    let row = |limit: &'static Limit| {
        let body = move |t: &Test| holds(t, limit);
        let (runc, crun) = match limit.name {
            "memory" => ("", "tells systemd memory and swap together as the swap"),
            "cpu-idle" => ("", "does not tell systemd"),
            "unified" => ("", "does not tell systemd of memory.min"),
            "pids-one" => ("at times: does not tell systemd", ""),
            _ => ("", ""),
        };
        let case = case(format!("systemd/limit-{}", limit.name), body).needs(MEMORY);
        case.peer("runc", runc).peer("crun", crun)
    };
    let mut all: Vec<Case> = LIMITS.iter().map(row).collect();
    all.extend([
        case("systemd/limit-of-cpu-that-systemd-rounds", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            create(t, &b.clone().set("/linux/resources/cpu", json!({"quota": 1234, "period": 50_000})))?;
            let group = Path::new("/sys/fs/cgroup/ctest.slice").join(&unit);
            // 24.68 ms per second: the next whole percent to systemd, which writes it when it reads everything anew.
            same("CPUQuotaPerSecUSec", shown(&unit, "CPUQuotaPerSecUSec"), "30ms")?;
            reads(&group, "cpu.max", "1500 50000")?;
            systemctl(&["daemon-reload"]);
            reads(&group, "cpu.max", "1500 50000")?;
            on(t, &format!("update --cpu-quota 12345 --cpu-period 100000 {}", b.id))?.ok()?;
            same("CPUQuotaPerSecUSec", shown(&unit, "CPUQuotaPerSecUSec"), "130ms")?;
            reads(&group, "cpu.max", "13000 100000")?;
            systemctl(&["daemon-reload"]);
            reads(&group, "cpu.max", "13000 100000")
        })
        .needs(MEMORY),
        case("systemd/limit-of-pids-bites", |t| {
            let (b, _) = bundle(t, "ctest.slice")?;
            let b = b.set("/linux/resources/pids", json!({"limit": 10})).tries(["fork-many 50"]);
            let done = act(t, "run", &b)?;
            check!(done.ok()?.stdout.contains("EAGAIN"), "{done}");
            Ok(())
        })
        .needs(MEMORY),
        case("systemd/devices", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            // Of two entries of one name systemd keeps the second's accesses.
            let fuse = |access: &str| json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": access});
            let rules = json!([{"allow": false, "access": "rwm"}, fuse("r"), fuse("w")]);
            create(t, &b.set("/linux/resources/devices", rules))?;
            same("DevicePolicy", shown(&unit, "DevicePolicy"), "strict")?;
            let allowed = shown(&unit, "DeviceAllow");
            for entry in ["/dev/char/10:229 rw", "/dev/char/1:3 rwm", "char-* m"] {
                check!(allowed.contains(entry), "systemd does not allow {entry}: {allowed}");
            }
            Ok(())
        })
        .needs(SYSTEMD)
        .crun("does not tell systemd"),
        case("systemd/devices-whose-nodes-are-refused", |t| {
            let deny = |kind: &str, access: &str| json!({"allow": false, "type": kind, "access": access});
            for rules in [json!([deny("c", "m")]), json!([deny("c", "rm"), deny("b", "m")]), json!([deny("c", "")])] {
                let (b, _) = bundle(t, "ctest.slice")?;
                let b = b.set("/linux/resources/devices", rules).grants(&["MKNOD"]);
                let b = b.tries(["mknod /dev/node c 1 3", "stat /dev/null"]);
                let done = act(t, "run", &b)?;
                t.compare(&done.ok()?.stdout, &[("mknod /dev/node c 1 3", "EPERM"), ("stat /dev/null", "ok")])?;
            }
            Ok(())
        })
        .needs(SYSTEMD)
        .runc("lets nodes be made")
        .crun("at times: lets nodes be made"),
        case("systemd/group-seen-without-a-cgroup-namespace", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            let b = b.without_namespace("cgroup").set("/linux/resources/pids", json!({"limit": 66}));
            let b = b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro"]);
            let op = format!("read /sys/fs/cgroup/ctest.slice/{unit}/pids.max");
            let done = act(t, "run", &b.tries([op.as_str()]))?;
            check!(done.ok()?.stdout.contains("66"), "{done}");
            Ok(())
        })
        .needs(MEMORY)
        .crun("at times: shows another group"),
    ]);
    all
}

fn life() -> Vec<Case> {
    vec![
        case("systemd/exec-is-in-the-same-group", |t| {
            let (b, _) = bundle(t, "ctest.slice")?;
            create(t, &b)?;
            on(t, &format!("start {}", b.id))?.ok()?;
            let file = t.file("pid");
            on(t, &format!("exec --detach --pid-file {file} {} /probe forever", b.id))?.ok()?;
            let pid = fs::read_to_string(&file)?.trim().parse().unwrap_or(0);
            same("the group", group_of(pid)?, group_of(t.pid(&b)?)?)?;
            let ps = on(t, &format!("ps --format json {}", b.id))?;
            check!(ps.ok()?.stdout.contains(&pid.to_string()), "{ps}");
            Ok(())
        }),
        case("systemd/pause-and-resume", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            create(t, &b)?;
            on(t, &format!("start {}", b.id))?.ok()?;
            on(t, &format!("pause {}", b.id))?.ok()?;
            t.has_status(&b, "paused")?;
            reads(&Path::new("/sys/fs/cgroup/ctest.slice").join(&unit), "cgroup.freeze", "1")?;
            on(t, &format!("resume {}", b.id))?.ok()?;
            t.has_status(&b, "running")?;
            on(t, &format!("pause {}", b.id))?.ok()?;
            on(t, &format!("delete --force {}", b.id))?.ok()?;
            gone(t, &unit)
        })
        .crun(BELOW),
        case("systemd/later-verbs-need-no-flag", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            create(t, &b)?;
            t.cli(&format!("start {}", b.id))?.ok()?;
            t.cli(&format!("kill {} KILL", b.id))?.ok()?;
            t.await_status(&b, "stopped")?;
            t.cli(&format!("delete {}", b.id))?.ok()?;
            gone(t, &unit)
        }),
        case("systemd/the-name-is-free-after-delete", |t| {
            let (b, _) = bundle(t, "ctest.slice")?;
            for _ in 0..5 {
                create(t, &b)?;
                on(t, &format!("delete --force {}", b.id))?.ok()?;
            }
            Ok(())
        }),
        case("systemd/nested-groups-go-too", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            create(t, &b)?;
            let group = Path::new("/sys/fs/cgroup/ctest.slice").join(&unit);
            fs::create_dir_all(group.join("a/b"))?;
            on(t, &format!("delete --force {}", b.id))?.ok()?;
            check!(!group.exists(), "{} is left", group.display());
            gone(t, &unit)
        }),
        case("systemd/stopped-by-systemd", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            create(t, &b)?;
            on(t, &format!("start {}", b.id))?.ok()?;
            systemctl(&["kill", "--signal", "KILL", &unit]);
            t.await_status(&b, "stopped")?;
            on(t, &format!("delete {}", b.id))?.ok()?;
            gone(t, &unit)
        }),
        case("systemd/killed-for-memory-leaves-no-failed-unit", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            let b = b.set("/linux/resources/memory", json!({"limit": 16_777_216, "swap": 16_777_216}));
            act(t, "run", &b.clone().tries(["eat 67108864"]))?;
            on(t, &format!("delete --force {}", b.id))?;
            gone(t, &unit)
        })
        .needs(MEMORY),
        case("systemd/a-failed-unit-is-not-in-the-way", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            // It runs out of time, has failed, and stays.
            let made = Command::new("systemd-run")
                .args(["--scope", "--quiet", "--property=RuntimeMaxSec=50ms", "--unit", &unit, "sleep", "20"])
                .output()?;
            let state = shown(&unit, "ActiveState");
            check!(state == "failed", "the unit is {state}: {}", String::from_utf8_lossy(&made.stderr));
            create(t, &b)?;
            on(t, &format!("delete --force {}", b.id))?.ok()?;
            gone(t, &unit)
        }),
    ]
    .into_iter()
    .map(|case| case.needs(SYSTEMD))
    .collect()
}
