// SPDX-License-Identifier: Apache-2.0
//! Limits, read back from the kernel.

use corten::Kind;

use super::children::Waiting;
use super::{Case, Host, apply, create, read};

pub const CASES: &[Case] = &[
    ("limits arrive", arrive),
    ("limits in a group that was there before", in_a_used_group),
    ("the default configuration works everywhere", default_spec),
    ("limits limit", limit),
    ("unified", unified),
];

/// Controller on v1 and on v2, resources, then file and content on v1 and on v2 (none: not on this version).
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str)],
);

const ROWS: &[Row] = &[
    (
        "memory",
        "memory",
        r#"{"memory":{"limit":67108864,"reservation":33554432}}"#,
        &[("memory.limit_in_bytes", "67108864"), ("memory.soft_limit_in_bytes", "33554432")],
        &[("memory.max", "67108864"), ("memory.low", "33554432")],
    ),
    (
        "memory",
        "memory",
        r#"{"memory":{"limit":67108864,"swap":134217728}}"#,
        &[("memory.memsw.limit_in_bytes", "134217728")],
        &[("memory.swap.max", "67108864")],
    ),
    (
        "memory",
        "",
        r#"{"memory":{"swappiness":7,"disableOOMKiller":true,"useHierarchy":true}}"#,
        &[("memory.swappiness", "7")],
        &[],
    ),
    ("cpu", "cpu", r#"{"cpu":{"shares":2048}}"#, &[("cpu.shares", "2048")], &[("cpu.weight", "174")]),
    (
        "cpu",
        "cpu",
        r#"{"cpu":{"quota":50000,"period":20000,"burst":10000}}"#,
        &[("cpu.cfs_quota_us", "50000"), ("cpu.cfs_period_us", "20000"), ("cpu.cfs_burst_us", "10000")],
        &[("cpu.max", "50000 20000"), ("cpu.max.burst", "10000")],
    ),
    ("cpu", "cpu", r#"{"cpu":{"idle":1,"shares":512}}"#, &[("cpu.idle", "1")], &[("cpu.idle", "1")]),
    (
        "cpuset",
        "cpuset",
        r#"{"cpu":{"cpus":"0","mems":"0"}}"#,
        &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
        &[("cpuset.cpus", "0")],
    ),
    ("pids", "pids", r#"{"pids":{"limit":17}}"#, &[("pids.max", "17")], &[("pids.max", "17")]),
    ("pids", "pids", r#"{"pids":{"limit":0}}"#, &[("pids.max", "1")], &[("pids.max", "1")]),
    ("pids", "pids", r#"{"pids":{"limit":-1}}"#, &[("pids.max", "max")], &[("pids.max", "max")]),
    (
        "hugetlb",
        "hugetlb",
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
        &[("hugetlb.2MB.limit_in_bytes", "4194304")],
        &[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")],
    ),
    ("net_cls", "", r#"{"network":{"classID":1048577}}"#, &[("net_cls.classid", "1048577")], &[]),
];

fn arrive(host: &Host) {
    for (v1, v2, json, on_v1, on_v2) in ROWS {
        let (controller, files) = if host.v2() { (*v2, *on_v2) } else { (*v1, *on_v1) };
        if controller.is_empty() || !host.has(controller) {
            host.not_run(&format!("{json}: no such controller"));
            continue;
        }
        let plan = host.plan("a", json);
        let (group, _) = create(&plan).unwrap();
        let applied = apply(&group, &plan);
        if let Err(error) = &applied
            && error.kind() == Kind::Unsupported
        {
            host.not_run(&format!("{json}: {error}"));
        } else {
            applied.unwrap();
            for (file, content) in files {
                assert_eq!(read(host.dir(controller, "a") + "/" + file), *content, "{file} after {json}");
            }
        }
        group.destroy().unwrap();
    }
    throttles(host);
}

fn throttles(host: &Host) {
    let controller = if host.v2() { "io" } else { "blkio" };
    let disks = std::fs::read_dir("/sys/dev/block").into_iter().flatten();
    let disk = disks.filter_map(|d| d.ok()?.file_name().into_string().ok()).find(|d| d.ends_with(":0"));
    let (true, Some(disk)) = (host.has(controller), disk) else {
        return host.not_run("throttles: no block devices or no controller");
    };
    let (major, minor) = disk.split_once(':').unwrap();
    let json = format!(
        r#"{{"blockIO":{{"throttleReadBpsDevice":[{{"major":{major},"minor":{minor},"rate":1048576}}],
            "throttleWriteIOPSDevice":[{{"major":{major},"minor":{minor},"rate":77}}]}}}}"#
    );
    let (group, _) = host.group("a", &json);
    let dir = host.dir(controller, "a");
    if host.v2() {
        let line = read(dir + "/io.max");
        assert!(line.contains(&disk) && line.contains("rbps=1048576") && line.contains("wiops=77"), "{line}");
    } else {
        assert_eq!(read(dir.clone() + "/blkio.throttle.read_bps_device"), format!("{disk} 1048576"));
        assert_eq!(read(dir + "/blkio.throttle.write_iops_device"), format!("{disk} 77"));
    }
    group.destroy().unwrap();
}

/// The same group, filled with limits in one direction and then in the other: orders that the kernel refuses.
fn in_a_used_group(host: &Host) {
    let rows: [(&str, &[&str]); 2] = [
        (
            "memory",
            &[
                r#"{"memory":{"limit":67108864,"swap":67108864}}"#,
                r#"{"memory":{"limit":268435456,"swap":536870912}}"#,
                r#"{"memory":{"limit":33554432,"swap":33554432}}"#,
                r#"{"memory":{"limit":-1}}"#,
            ],
        ),
        (
            "cpu",
            &[
                r#"{"cpu":{"quota":50000,"period":100000,"burst":50000}}"#,
                r#"{"cpu":{"quota":900000,"period":1000000,"burst":800000}}"#,
                r#"{"cpu":{"quota":2000,"period":2000,"burst":1000}}"#,
                r#"{"cpu":{"idle":1}}"#,
                r#"{"cpu":{"idle":0,"shares":2000,"quota":-1}}"#,
            ],
        ),
    ];
    for (controller, steps) in rows {
        if !host.has(controller) {
            host.not_run(&format!("no {controller} controller"));
            continue;
        }
        for json in steps {
            host.group("a", json);
        }
        let unlimited = match (host.v2(), controller) {
            (true, "memory") => [("memory.max", "max"), ("memory.swap.max", "max")],
            (false, "memory") => [
                ("memory.limit_in_bytes", "9223372036854771712"),
                ("memory.memsw.limit_in_bytes", "9223372036854771712"),
            ],
            (true, _) => [("cpu.max", "max 2000"), ("cpu.idle", "0")],
            (false, _) => [("cpu.cfs_quota_us", "-1"), ("cpu.shares", "2000")],
        };
        for (file, content) in unlimited {
            let path = host.dir(controller, "a") + "/" + file;
            if std::path::Path::new(&path).exists() {
                assert_eq!(read(path), content, "{file}");
            }
        }
        host.group("a", "{}").0.destroy().unwrap();
    }
}

fn default_spec(host: &Host) {
    let (group, _) = host.group("a", r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    group.destroy().unwrap();
    // What docker adds to it.
    let (group, _) = host.group("b", r#"{"memory":{"disableOOMKiller":false},"blockIO":{"weight":0},"cpu":{"shares":0},"pids":{"limit":-1}}"#);
    group.destroy().unwrap();
}

/// A limit is in force for a process that is placed after it was set.
fn limit(host: &Host) {
    if !host.has("pids") {
        return host.not_run("no pids controller");
    }
    let (group, _) = host.group("a", r#"{"pids":{"limit":3}}"#);
    let process = Waiting::new("sleep 5 & sleep 5 & (sleep 5 & echo third) || echo refused");
    group.place(process.pid()).unwrap();
    let pids = std::thread::spawn(move || process.output());
    std::thread::sleep(std::time::Duration::from_millis(300));
    group.kill().unwrap();
    assert!(!pids.join().unwrap().contains("third"));
    group.destroy().unwrap();
}

fn unified(host: &Host) {
    let json = r#"{"unified":{"cgroup.max.depth":"3","cgroup.max.descendants":"7"}}"#;
    if !host.v2() {
        let error = host.try_plan("a", json).unwrap_err();
        return assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    }
    let (group, _) = host.group("a", json);
    assert_eq!(read(host.dir("", "a") + "/cgroup.max.depth"), "3");
    assert_eq!(read(host.dir("", "a") + "/cgroup.max.descendants"), "7");
    group.destroy().unwrap();
    if host.has("memory") {
        let (group, _) = host.group(
            "a",
            r#"{"memory":{"limit":4194304},"unified":{"memory.max":"8388608","memory.oom.group":"1"}}"#,
        );
        assert_eq!(read(host.dir("", "a") + "/memory.max"), "8388608");
        group.destroy().unwrap();
        let plan = host.plan("a", r#"{"unified":{"memory.nosuch":"1"}}"#);
        let (group, _) = create(&plan).unwrap();
        let error = apply(&group, &plan).unwrap_err();
        assert!(
            error.to_string().starts_with("config.json /linux/resources/unified/memory.nosuch: "),
            "{error}"
        );
        group.destroy().unwrap();
    }
}
