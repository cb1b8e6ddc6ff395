// SPDX-License-Identifier: Apache-2.0
//! The systemd cgroup driver: units, what systemd believes, what the kernel has, and what is left afterwards.
//!
//! Run under systemd (`lab/uml --systemd`); there with cgroup v2 only, because systemd has no cgroup v1 any more.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::mount::MsFlags;
use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::test::Test;

/// Why crun's containers are elsewhere.
const BELOW: &str = "puts the container into a group `container` below the scope's";
/// What the container's mount of cgroup2 does to the host's.
const REMOUNTS: &str = "takes nsdelegate from the host's cgroup2 with its first container";

const SYSTEMD: &[Need] = &[Need::File("/run/systemd/private"), Need::CgroupV2];
const MEMORY: &[Need] = &[Need::File("/run/systemd/private"), Need::CgroupV2, Need::Controller("memory")];

/// The chapter.
pub fn cases() -> Vec<Case> {
    [units(), limits(), life(), refusals(), trouble(), without()].into_iter().flatten().collect()
}

/// The runtime with the systemd driver, ready for more words.
fn runtime(t: &Test) -> Command {
    let mut command = t.runtime();
    command.arg("--systemd-cgroup");
    command
}

fn act(t: &Test, verb: &str, b: &Bundle) -> Result<Done, Trouble> {
    b.write()?;
    let mut command = runtime(t);
    command.args(verb.split_whitespace()).arg("--bundle").arg(&b.dir).arg(&b.id);
    t.complete(command)
}

fn create(t: &Test, b: &Bundle) -> Verdict {
    act(t, "create", b)?.ok().map(drop)
}

fn on(t: &Test, words: &str) -> Result<Done, Trouble> {
    let mut command = runtime(t);
    command.args(words.split_whitespace());
    t.complete(command)
}

/// A bundle whose unit is `p-ID.scope` in `slice`.
fn bundle(t: &Test, slice: &str) -> Result<(Bundle, String), Trouble> {
    let b = t.bundle()?.probe("forever");
    let path = format!("{slice}:p:{}", b.id);
    let unit = format!("p-{}.scope", b.id);
    Ok((b.set("/linux/cgroupsPath", json!(path)), unit))
}

/// What systemctl says; empty when it fails.
fn systemctl(words: &[&str]) -> String {
    let out = Command::new("systemctl").args(words).output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}

/// A property of a unit, as systemd has it.
fn shown(unit: &str, property: &str) -> String {
    systemctl(&["show", "--value", "--property", property, unit])
}

/// systemd must know nothing of such a unit, nor keep it as failed.
fn gone(t: &Test, unit: &str) -> Verdict {
    t.until(
        || format!("the end of {unit}, which is {:?}", shown(unit, "ActiveState")),
        || Ok((shown(unit, "ActiveState") == "inactive").then_some(())),
    )
}

/// The group of a process, on the host.
fn group_of(pid: i32) -> Result<PathBuf, Trouble> {
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
            "pids-one" => ("does not tell systemd", ""),
            _ => ("", ""),
        };
        let case = case(format!("systemd/limit-{}", limit.name), body).needs(MEMORY);
        case.peer("runc", runc).peer("crun", crun)
    };
    let mut all: Vec<Case> = LIMITS.iter().map(row).collect();
    all.extend([
        case("systemd/limit-of-cpu-that-systemd-rounds", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            create(t, &b.set("/linux/resources/cpu", json!({"quota": 1234, "period": 50_000})))?;
            // 24.68 ms per second: the next whole percent to systemd, exact in the kernel.
            same("CPUQuotaPerSecUSec", shown(&unit, "CPUQuotaPerSecUSec"), "30ms")?;
            reads(&Path::new("/sys/fs/cgroup/ctest.slice").join(unit), "cpu.max", "1234 50000")
        })
        .needs(MEMORY)
        .both("the kernel has what systemd has rounded"),
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
            let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"}]);
            let b = b.set("/linux/resources/devices", rules);
            create(t, &b)?;
            same("DevicePolicy", shown(&unit, "DevicePolicy"), "strict")?;
            let allowed = shown(&unit, "DeviceAllow");
            for entry in ["/dev/char/10:229 r", "/dev/char/1:3 rwm", "char-* m"] {
                check!(allowed.contains(entry), "systemd does not allow {entry}: {allowed}");
            }
            Ok(())
        })
        .needs(SYSTEMD)
        .crun("does not tell systemd"),
        case("systemd/group-seen-without-a-cgroup-namespace", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            let b = b.without_namespace("cgroup").set("/linux/resources/pids", json!({"limit": 66}));
            let b = b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro"]);
            let at = if t.host.name == "runc" { format!("ctest.slice/{unit}/pids.max") } else { "pids.max".into() };
            let op = format!("read /sys/fs/cgroup/{at}");
            let done = act(t, "run", &b.tries([op.as_str()]))?;
            check!(done.ok()?.stdout.contains("66"), "{done}");
            Ok(())
        })
        .needs(MEMORY)
        .crun("shows another group"),
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

fn refused(t: &Test, b: &Bundle, says: &[&str]) -> Verdict {
    let before = t.snapshot();
    let done = act(t, "create", b)?;
    done.refuses(says)?;
    t.unchanged_since(&before)
}

fn refusals() -> Vec<Case> {
    vec![
        case("systemd/paths-that-are-refused", |t| {
            for (path, says) in [
                ("/a/b", "slice:prefix:name"),
                ("a.slice:b", "slice:prefix:name"),
                ("a.slice:b:c:d", "slice:prefix:name"),
                ("a:p:n", "slice"),
                ("a--b.slice:p:n", "slice"),
                ("a.slice/b.slice:p:n", "slice"),
                ("system.slice:p:a/../b", "unit|name"),
            ] {
                refused(t, &t.bundle()?.set("/linux/cgroupsPath", json!(path)), &[says])?;
            }
            Ok(())
        })
        .crun("takes paths of other forms"),
        case("systemd/annotations-that-are-refused", |t| {
            for (name, value) in [
                ("ExecStartPre", "'/bin/true'"),
                ("Slice", "'system.slice'"),
                ("Wants", "['rescue.target']"),
                ("FailureAction", "'reboot'"),
                ("timeoutStopSec", "5"),
                ("ab", "5"),
                ("TimeoutStopUSec", "five"),
                ("TimeoutStopUSec", "'5'"),
            ] {
                let (b, _) = bundle(t, "system.slice")?;
                let name = format!("org.systemd.property.{name}");
                refused(t, &b.set("/annotations", json!({name.as_str(): value})), &[&name])?;
            }
            Ok(())
        })
        .both("hands every property on to systemd (S32)"),
        case("systemd/what-systemd-refuses-is-told", |t| {
            let (b, unit) = bundle(t, "system.slice")?;
            let b = b.set("/annotations", json!({"org.systemd.property.OOMPolicy": "'nonsense'"}));
            refused(t, &b, &[&unit, "OOMPolicy"])?;
            gone(t, &unit)
        })
        .crun("does not name the unit"),
        case("systemd/a-name-that-is-taken", |t| {
            let (first, unit) = bundle(t, "ctest.slice")?;
            create(t, &first)?;
            let second = t.bundle()?.set("/linux/cgroupsPath", first.config["linux"]["cgroupsPath"].clone());
            refused(t, &second, &[&format!("{unit}|not empty")])?;
            same("ActiveState", shown(&unit, "ActiveState"), "active")?;
            t.has_status(&first, "created")
        }),
        case("systemd/failed-create-leaves-no-unit", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            refused(t, &b.args(&["/no/such/program"]), &["no such file"])?;
            gone(t, &unit)
        }),
    ]
    .into_iter()
    .map(|case| case.needs(SYSTEMD))
    .collect()
}

/// Puts something in the place of both sockets of the system's manager.
fn instead_of_systemd(t: &Test, put: impl Fn(&Path) -> Verdict) -> Verdict {
    for path in ["/run/systemd/private", "/run/dbus/system_bus_socket"] {
        if Path::new(path).exists() {
            put(Path::new(path))?;
        }
    }
    // What asks the file system instead of the socket.
    if t.host.name != "corten" && Path::new("/run/systemd/system").exists() {
        t.mount("tmpfs", "tmpfs", Path::new("/run/systemd/system"), MsFlags::empty(), "")?;
    }
    Ok(())
}

/// Lets everybody in, and then says what no message is.
fn babble(listener: &UnixListener, over: &AtomicBool) {
    for mut socket in listener.incoming().flatten() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        socket.write_all(b"OK 00\r\n").ok();
        socket.write_all(&[b'l', 2, 0, 1, 255, 255, 255, 127, 1, 0, 0, 0, 255, 255, 0, 0]).ok();
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn trouble() -> Vec<Case> {
    vec![
        case("systemd/absent", |t| {
            let (b, _) = bundle(t, "ctest.slice")?;
            t.mount("tmpfs", "tmpfs", Path::new("/run/systemd"), MsFlags::empty(), "")?;
            if Path::new("/run/dbus").exists() {
                t.mount("tmpfs", "tmpfs", Path::new("/run/dbus"), MsFlags::empty(), "")?;
            }
            refused(t, &b, &["systemd"])
        })
        .crun("does not say that systemd is meant"),
        case("systemd/hung", |t| {
            let (b, _) = bundle(t, "ctest.slice")?;
            let mute = t.path("mute");
            let listener = UnixListener::bind(&mute)?;
            t.at_end(move || drop(listener));
            instead_of_systemd(t, |path| {
                let mute = mute.to_string_lossy().into_owned();
                t.mount("", &mute, path, MsFlags::MS_BIND, "")
            })?;
            let before = t.snapshot();
            let done = act(t, "create", &b)?;
            done.refuses(&["systemd", "timed out|timeout"])?;
            check!(done.took < Duration::from_secs(15), "it took {:?}", done.took);
            t.unchanged_since(&before)
        })
        .both("waits for ever, or much longer, or does not say for what"),
        case("systemd/babbling", |t| {
            let (b, _) = bundle(t, "ctest.slice")?;
            let path = t.path("babble");
            let listener = UnixListener::bind(&path)?;
            let over = Arc::new(AtomicBool::new(false));
            let (stop, to_wake) = (over.clone(), path.clone());
            let babbler = std::thread::spawn(move || babble(&listener, &over));
            t.at_end(move || {
                stop.store(true, Ordering::Relaxed);
                UnixStream::connect(to_wake).ok();
                babbler.join().ok();
            });
            instead_of_systemd(t, |at| {
                let path = path.to_string_lossy().into_owned();
                t.mount("", &path, at, MsFlags::MS_BIND, "")
            })?;
            refused(t, &b, &["/run/systemd/private", "D-Bus"])
        })
        .needs(&[Need::Runtime("corten")]),
        case("systemd/over-the-bus-alone", |t| {
            if !Path::new("/run/dbus/system_bus_socket").exists() {
                return Err(Trouble::NotRun("no bus daemon is running".into()));
            }
            let (b, unit) = bundle(t, "ctest.slice")?;
            t.mount("", "/dev/null", Path::new("/run/systemd/private"), MsFlags::MS_BIND, "")?;
            create(t, &b)?;
            let group = group_of(t.pid(&b)?)?;
            same("the group", group.clone(), Path::new("/sys/fs/cgroup/ctest.slice").join(unit))?;
            on(t, &format!("delete --force {}", b.id))?.ok()?;
            check!(!group.exists(), "{} is left", group.display());
            Ok(())
        })
        .crun(BELOW),
        case("systemd/user-manager", user_manager)
            .runc("leaves the exec in the caller's group")
            .crun("cannot enter the scope from another slice"),
    ]
    .into_iter()
    .map(|case| case.needs(SYSTEMD))
    .collect()
}

/// Root of a user namespace, the one of `user` (1000), below his own manager.
fn user_manager(t: &Test) -> Verdict {
    let was = shown("user@1000.service", "ActiveState");
    systemctl(&["start", "user@1000.service"]);
    if was != "active" {
        t.at_end(|| drop(systemctl(&["stop", "user@1000.service"])));
    }
    // His runtime directory was mounted after this case got mounts of its own.
    if !Path::new("/proc/1/root/run/user/1000/systemd/private").exists() {
        return Err(Trouble::NotRun("no user manager for user 1000 can be had".into()));
    }
    let (b, unit) = bundle(t, "user.slice")?;
    let b = b.set("/linux/resources", json!({"pids": {"limit": 55}})).set("/root/readonly", json!(true));
    b.write()?;
    let own = Command::new("chown").args(["-R", "1000:1000"]).arg(&b.dir).status()?;
    check!(own.success(), "chown failed");
    let group = format!("/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/{unit}");
    let script = format!(
        "set -e; R='{} --root /run/user/1000/{}'; $R --systemd-cgroup create --bundle {} {id}; cat {group}/pids.max; \
         $R start {id}; $R exec -d --pid-file {pid} {id} /probe forever; cat /proc/$(cat {pid})/cgroup; \
         $R kill {id} KILL; sleep 0.3; $R delete --force {id}; rmdir /run/user/1000/{}; ls -d {group} || echo gone",
        t.host.runtime.display(),
        t.place.mark,
        b.dir.display(),
        t.place.mark,
        id = b.id,
        pid = b.dir.join("pid").display(),
    );
    let mut command = Command::new("nsenter");
    command.args([
        "--mount=/proc/1/ns/mnt",
        "setpriv",
        "--reuid",
        "1000",
        "--regid",
        "1000",
        "--init-groups",
        "env",
        "-i",
    ]);
    command.args(["XDG_RUNTIME_DIR=/run/user/1000", "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus"]);
    command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"]);
    command.args(["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "sh", "-c", &script]);
    let done = t.complete(command)?;
    let lines: Vec<&str> = done.ok()?.stdout.lines().collect();
    check!(lines.first() == Some(&"55"), "pids.max is not 55: {done}");
    check!(lines.get(1).is_some_and(|line| line.ends_with(&unit)), "exec is in another group: {done}");
    check!(lines.last() == Some(&"gone"), "the group is left: {done}");
    Ok(())
}

fn without() -> Vec<Case> {
    let run = |t: &Test, b: &Bundle, verb: &str| {
        b.write()?;
        let mut command = t.runtime();
        command.arg("--cgroup-manager=disabled").arg(verb).arg("--bundle").arg(&b.dir).arg(&b.id);
        t.complete(command)
    };
    let own = || fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    vec![
        case("cgroup/disabled-makes-none", move |t| {
            let b =
                t.bundle()?.set("/linux/resources", json!({})).without_namespace("cgroup").probe("forever");
            run(t, &b, "create")?.ok()?;
            same("its groups", fs::read_to_string(format!("/proc/{}/cgroup", t.pid(&b)?))?, own())?;
            t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
        })
        .runc("has no --cgroup-manager"),
        case("cgroup/disabled-refuses-a-limit", move |t| {
            let b = t.bundle()?.set("/linux/resources", json!({"pids": {"limit": 5}}));
            let before = t.snapshot();
            run(t, &b, "create")?.refuses(&["pids", "cgroup-manager"])?;
            t.unchanged_since(&before)
        })
        .runc("has no --cgroup-manager")
        .crun("forgets the limit"),
    ]
}
