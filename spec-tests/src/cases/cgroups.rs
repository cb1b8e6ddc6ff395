// SPDX-License-Identifier: Apache-2.0
//! config-linux.md, "Control groups": paths, limits on v1 and v2, what the container sees.
//! Device rules are in `cgroup_devices`.

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = limits();
    all.extend(places());
    all.extend(enforcement());
    all
}

/// A limit, and the file that must then hold the value: on v1 and on v2.
struct Limit {
    name: &'static str,
    controller: (&'static str, &'static str),
    resources: &'static str,
    v1: (&'static str, &'static str),
    v2: (&'static str, &'static str),
}

const LIMITS: [Limit; 20] = [
    limit(
        "memory",
        "memory",
        r#"{"memory":{"limit":33554432}}"#,
        ("memory.limit_in_bytes", "33554432"),
        ("memory.max", "33554432"),
    ),
    limit("memory-unlimited", "memory", r#"{"memory":{"limit":-1}}"#, ("", ""), ("memory.max", "max")),
    limit(
        "memory-reservation",
        "memory",
        r#"{"memory":{"reservation":16777216}}"#,
        ("memory.soft_limit_in_bytes", "16777216"),
        ("memory.low", "16777216"),
    ),
    limit(
        "memory-swap",
        "memory",
        r#"{"memory":{"limit":33554432,"swap":50331648}}"#,
        ("memory.memsw.limit_in_bytes", "50331648"),
        ("memory.swap.max", "16777216"),
    ),
    // So much of memory and swap together, of which memory may be all: swap is what can be bounded.
    limit(
        "memory-swap-beside-unlimited-memory",
        "memory",
        r#"{"memory":{"limit":-1,"swap":50331648}}"#,
        ("", ""),
        ("memory.swap.max", "50331648"),
    ),
    limit(
        "memory-swappiness",
        "memory",
        r#"{"memory":{"swappiness":10}}"#,
        ("memory.swappiness", "10"),
        ("", ""),
    ),
    limit(
        "memory-without-oom-killer",
        "memory",
        r#"{"memory":{"limit":33554432,"disableOOMKiller":true}}"#,
        ("memory.oom_control", "oom_kill_disable 1*"),
        ("", ""),
    ),
    limit("cpu-shares", "cpu", r#"{"cpu":{"shares":1024}}"#, ("cpu.shares", "1024"), ("cpu.weight", "100")),
    limit("cpu-shares-least", "cpu", r#"{"cpu":{"shares":2}}"#, ("cpu.shares", "2"), ("cpu.weight", "1")),
    limit(
        "cpu-shares-most",
        "cpu",
        r#"{"cpu":{"shares":262144}}"#,
        ("cpu.shares", "262144"),
        ("cpu.weight", "10000"),
    ),
    limit(
        "cpu-quota",
        "cpu",
        r#"{"cpu":{"quota":50000,"period":200000}}"#,
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.max", "50000 200000"),
    ),
    limit(
        "cpu-period",
        "cpu",
        r#"{"cpu":{"quota":50000,"period":200000}}"#,
        ("cpu.cfs_period_us", "200000"),
        ("", ""),
    ),
    limit(
        "cpu-quota-alone",
        "cpu",
        r#"{"cpu":{"quota":30000}}"#,
        ("cpu.cfs_quota_us", "30000"),
        ("cpu.max", "30000 100000"),
    ),
    limit(
        "cpu-burst",
        "cpu",
        r#"{"cpu":{"quota":50000,"period":100000,"burst":20000}}"#,
        ("cpu.cfs_burst_us", "20000"),
        ("cpu.max.burst", "20000"),
    ),
    limit("cpu-idle", "cpu", r#"{"cpu":{"idle":1}}"#, ("cpu.idle", "1"), ("cpu.idle", "1")),
    limit(
        "cpuset-cpus",
        "cpuset",
        r#"{"cpu":{"cpus":"0","mems":"0"}}"#,
        ("cpuset.cpus", "0"),
        ("cpuset.cpus", "0"),
    ),
    limit(
        "cpuset-mems",
        "cpuset",
        r#"{"cpu":{"cpus":"0","mems":"0"}}"#,
        ("cpuset.mems", "0"),
        ("cpuset.mems", "0"),
    ),
    limit("pids", "pids", r#"{"pids":{"limit":77}}"#, ("pids.max", "77"), ("pids.max", "77")),
    limit("pids-unlimited", "pids", r#"{"pids":{"limit":-1}}"#, ("pids.max", "max"), ("pids.max", "max")),
    limit("io-weight", "io", r#"{"blockIO":{"weight":100}}"#, ("", ""), ("io.weight", "default 910")),
];

const fn limit(
    name: &'static str,
    controller: &'static str,
    resources: &'static str,
    v1: (&'static str, &'static str),
    v2: (&'static str, &'static str),
) -> Limit {
    Limit { name, controller: (controller, controller), resources, v1, v2 }
}

/// The container's group in the hierarchy of a controller.
fn group(t: &Test, b: &Bundle, controller: &str) -> PathBuf {
    let base = PathBuf::from("/sys/fs/cgroup");
    if t.host.is_v2() { base.join(&b.id) } else { base.join(controller).join(&b.id) }
}

fn reads_back(t: &Test, limit: &Limit) -> Verdict {
    let (file, want) = if t.host.is_v2() { limit.v2 } else { limit.v1 };
    if file.is_empty() {
        return Err(Trouble::NotRun("not on this version of cgroups".into()));
    }
    let b = t.bundle()?.set("/linux/resources", serde_json::from_str(limit.resources)?).probe("forever");
    let top = t.host.hierarchies();
    let known = top.iter().any(|dir| has_below(dir, file));
    let made = t.bundle_command("create", &b)?;
    let done = t.complete(made)?;
    let path = group(t, &b, limit.controller.0).join(file);
    if done.code != 0 || !path.exists() {
        // A kernel without the file cannot show it; a runtime must then say so or leave it.
        let there =
            if done.code == 0 { path.parent().is_some_and(|dir| dir.join(file).exists()) } else { known };
        check!(!there && done.errors().len() <= 1, "{done}");
        return Err(Trouble::NotRun(format!("the kernel has no {file}")));
    }
    let got = fs::read_to_string(&path)?;
    let fits = |one: &str| match one.strip_suffix('*') {
        Some(start) => got.starts_with(start),
        None => got.trim() == one,
    };
    check!(want.split('|').any(fits), "{file} holds {:?}, not {want:?}", got.trim());
    Ok(())
}

/// True if a group directly below `dir` has the file: the root group lacks most.
fn has_below(dir: &std::path::Path, file: &str) -> bool {
    let below = fs::read_dir(dir).into_iter().flatten().flatten();
    dir.join(file).exists() || below.filter(|e| e.path().is_dir()).any(|e| e.path().join(file).exists())
}

fn limits() -> Vec<Case> {
    let row = |limit: &'static Limit| {
        let controller = limit.controller.0;
        let body = move |t: &Test| reads_back(t, limit);
        let crun = if limit.name == "io-weight" {
            "leaves its cgroup behind when there is no io.weight"
        } else {
            ""
        };
        case(format!("cgroup/{}", limit.name), body).needs(&[Need::Controller(controller)]).peer("crun", crun)
    };
    let mut all: Vec<Case> = LIMITS.iter().map(row).collect();
    all.extend([odd_limits()].into_iter().flatten());
    all
}

fn odd_limits() -> Vec<Case> {
    vec![
        case("cgroup/hugetlb", |t| {
            let limits = json!([{"pageSize": "2MB", "limit": 4_194_304}]);
            let b = t.bundle()?.set("/linux/resources/hugepageLimits", limits);
            t.create(&b)?;
            let file = if t.host.is_v2() { "hugetlb.2MB.max" } else { "hugetlb.2MB.limit_in_bytes" };
            same(file, fs::read_to_string(group(t, &b, "hugetlb").join(file))?.trim(), "4194304")
        })
        .needs(&[Need::Controller("hugetlb"), Need::File("/sys/kernel/mm/hugepages/hugepages-2048kB")]),
        case("cgroup/hugetlb-unknown-size", |t| {
            let b =
                t.bundle()?.set("/linux/resources/hugepageLimits", json!([{"pageSize": "3MB", "limit": 1}]));
            t.run(&b)?.refuses(&["3MB"]).map(drop)
        })
        .needs(&[Need::Controller("hugetlb")])
        .crun("leaves its cgroup behind"),
        case("cgroup/unified", |t| {
            let b = t.bundle()?.set(
                "/linux/resources/unified",
                json!({"cgroup.max.descendants": "17", "cgroup.max.depth": "3"}),
            );
            t.create(&b)?;
            same(
                "descendants",
                fs::read_to_string(group(t, &b, "").join("cgroup.max.descendants"))?.trim(),
                "17",
            )?;
            same("depth", fs::read_to_string(group(t, &b, "").join("cgroup.max.depth"))?.trim(), "3")
        })
        .needs(&[Need::CgroupV2]),
        case("cgroup/unified-unknown-controller", |t| {
            let (before, b) =
                (t.snapshot(), t.bundle()?.set("/linux/resources/unified", json!({"nosuch.max": "1"})));
            t.run(&b)?.refuses(&["nosuch"])?;
            t.unchanged_since(&before)
        })
        .needs(&[Need::CgroupV2])
        .crun("leaves its cgroup behind"),
        case("cgroup/unified-with-slash-is-refused", |t| {
            let b = t.bundle()?.set("/linux/resources/unified", json!({"../cgroup.max.depth": "1"}));
            t.run(&b)?.refuses(&["unified|must be a file name|cgroup.max.depth"]).map(drop)
        })
        .needs(&[Need::CgroupV2])
        .crun("leaves its cgroup behind"),
        case("cgroup/limits-of-absent-controllers", |t| {
            // A limit that cannot be applied must be an error, never silently nothing.
            let b = t.bundle()?.set("/linux/resources", json!({"memory": {"limit": 33_554_432}}));
            let before = t.snapshot();
            t.run(&b)?.refuses(&["memory"])?;
            t.unchanged_since(&before)
        })
        .needs(&[Need::NoController("memory")])
        .crun("leaves its cgroup behind"),
    ]
}

fn places() -> Vec<Case> {
    [paths(), members(), inside()].into_iter().flatten().collect()
}

fn paths() -> Vec<Case> {
    vec![
        case("cgroup/absolute-path", |t| {
            let b = t.bundle()?.probe("report -- forever");
            let r = t.launch(&b)?.report(t)?;
            let lines = r.at("/cgroup").as_array().into_iter().flatten().filter_map(Value::as_str);
            let mine: Vec<_> = lines.filter(|line| line.ends_with(&format!(":/{}", b.id))).collect();
            check!(!mine.is_empty(), "it is in {}", r.at("/cgroup"));
            Ok(())
        }),
        case("cgroup/nested-path", |t| {
            let b = t.bundle()?;
            let deep = format!("/{}/a/b", b.id);
            let b = b.set("/linux/cgroupsPath", json!(deep)).probe("report -- forever");
            let top = b.id.clone();
            let hierarchies = t.host.mounted_hierarchies();
            t.at_end(move || {
                for dir in hierarchies {
                    fs::remove_dir(dir.join(&top).join("a")).ok();
                    fs::remove_dir(dir.join(&top)).ok();
                }
            });
            let r = t.launch(&b)?.report(t)?;
            check!(r.at("/cgroup").to_string().contains(&deep), "it is in {}", r.at("/cgroup"));
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
            for dir in t.host.mounted_hierarchies() {
                check!(!dir.join(&b.id).join("a/b").exists(), "{}{deep} is left", dir.display());
            }
            Ok(())
        }),
        case("cgroup/no-path-means-one-after-the-id", |t| {
            let b = t.bundle()?.remove("/linux/cgroupsPath").probe("report -- forever");
            let r = t.launch(&b)?.report(t)?;
            check!(r.at("/cgroup").to_string().contains(&b.id), "it is in {}", r.at("/cgroup"));
            t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
        }),
        case("cgroup/path-with-dots-stays-below", |t| {
            let b = t.bundle()?;
            let path = format!("/../../../{}", b.id);
            let b = b.set("/linux/cgroupsPath", json!(path));
            let before = t.snapshot();
            let done = t.run(&b)?;
            check!(done.code == 0 || done.errors().len() == 1, "{done}");
            // Out of the group that bears its name, to one beside it.
            let done =
                t.run(&b.clone().set("/linux/cgroupsPath", json!(format!("/{0}/../{0}-beside", b.id))))?;
            check!(done.code == 0 || done.errors().len() == 1, "{done}");
            t.unchanged_since(&before)
        })
        .crun("makes both groups, and leaves one"),
    ]
}

fn members() -> Vec<Case> {
    vec![
        case("cgroup/every-process-is-in-it", |t| {
            let b = t.bundle()?.probe("spawn sleep 100 -- spawn sleep 100 -- print up -- forever");
            t.launch(&b)?.lines(t, 1)?;
            let procs = fs::read_to_string(group(t, &b, "pids").join("cgroup.procs"))?;
            same("processes in the group", procs.lines().count(), 3)
        }),
        case("cgroup/sub-groups-are-removed-too", |t| {
            let before = t.snapshot();
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let group = group(t, &b, "pids");
            fs::create_dir_all(group.join("nested/deep"))?;
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
            t.unchanged_since(&before)
        }),
        case("cgroup/existing-non-empty-group-is-refused", |t| {
            let first = t.bundle()?.probe("forever");
            t.launch(&first)?;
            let second = t.bundle()?.set("/linux/cgroupsPath", json!(format!("/{}", first.id)));
            t.run(&second)?.refuses(&["container's cgroup is not empty|cgroup", "process|not empty"])?;
            t.has_status(&first, "running")
        })
        .crun("uses it"),
        case("cgroup/existing-empty-group-is-used", |t| {
            let b = t.bundle()?;
            for dir in t.host.hierarchies() {
                let group = dir.join(&b.id);
                fs::create_dir(&group)?;
                t.at_end(move || drop(fs::remove_dir(group)));
            }
            t.report(&b)?.is("/pid", 1)
        }),
    ]
}

fn inside() -> Vec<Case> {
    vec![
        case("cgroup/mounted-inside", |t| {
            let r = t.report(&t.bundle()?)?;
            let mount = r.mount("/sys/fs/cgroup")?.has(&["nosuid", "nodev", "noexec"])?;
            if t.host.is_v2() {
                return mount.fstype("cgroup2")?.has(&["ro"]).map(drop);
            }
            mount.fstype("tmpfs")?;
            for controller in t.host.controllers.iter().filter(|name| *name != "unified") {
                r.mount(&format!("/sys/fs/cgroup/{controller}"))?.fstype("cgroup")?.has(&["ro"])?;
            }
            Ok(())
        }),
        case("cgroup/mounted-inside-shows-only-its-own", |t| {
            let b = t.bundle()?.namespace("cgroup", None);
            let dir = if t.host.is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
            let got = t.expect(
                b,
                &[(&format!("read {dir}/cgroup.procs"), "ok"), (&format!("mkdir {dir}/x"), "EROFS")],
            )?;
            same("processes", &got[0], "1")
        }),
        case("cgroup/mounted-writable-on-request", |t| {
            let b = t.bundle()?.namespace("cgroup", None).without_mount("/sys/fs/cgroup");
            let b = b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "rw"]);
            let dir = if t.host.is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
            t.expect(b, &[(&format!("mkdir {dir}/x"), "ok"), (&format!("rmdir {dir}/x"), "ok")]).map(drop)
        }),
        case("cgroup/vanished-before-delete", |t| {
            let before = t.snapshot();
            let b = t.bundle()?.probe("exit 0");
            t.launch(&b)?;
            t.await_status(&b, "stopped")?;
            for dir in t.host.hierarchies() {
                fs::remove_dir(dir.join(&b.id)).ok();
            }
            t.cli(&format!("delete {}", b.id))?.ok()?;
            t.unchanged_since(&before)
        }),
    ]
}

fn enforcement() -> Vec<Case> {
    vec![
        case("cgroup/memory-limit-kills", |t| {
            let limits = json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}});
            let b =
                t.bundle()?.set("/linux/resources", limits).probe("print up -- try eat 64 -- print survived");
            let done = t.run(&b)?;
            same("the exit code", done.code, 137)?;
            done.prints("up").map(drop)
        })
        .needs(&[Need::Controller("memory")]),
        case("cgroup/small-memory-limit-is-enough-to-start", |t| {
            let b = t
                .bundle()?
                .set("/linux/resources", json!({"memory": {"limit": 8_388_608}}))
                .probe("print up");
            t.run(&b)?.ok()?.prints("up").map(drop)
        })
        .needs(&[Need::Controller("memory")]),
        case("cgroup/pids-limit-holds", |t| {
            let b = t.bundle()?.set("/linux/resources", json!({"pids": {"limit": 10}}));
            t.expect(b, &[("fork-many 30", "EAGAIN")]).map(drop)
        })
        .needs(&[Need::Controller("pids")]),
        case("cgroup/pids-limit-is-as-tight-as-it-says", |t| {
            let b = t.bundle()?.set("/linux/resources", json!({"pids": {"limit": 1}})).probe("print alone");
            let done = t.run(&b)?;
            check!(done.code == 0 || done.errors().len() == 1, "{done}");
            Ok(())
        })
        .needs(&[Need::Controller("pids")])
        .runc("at times: its own threads count, and it dies of them"),
    ]
}
