// SPDX-License-Identifier: Apache-2.0
//! Decisions as data: what was, what is asked for, what is written.

use super::*;
use crate::cgroup::DevicePlan;
use crate::cgroup::Version;
use crate::cgroup::record::GroupDir;

fn record(version: Version) -> Record {
    let group = |mount: &str, controllers: &[&str]| GroupDir {
        mount: mount.into(),
        path: "/x".into(),
        controllers: controllers.iter().map(|&c| c.to_owned()).collect(),
        ..GroupDir::default()
    };
    let groups = match version {
        Version::V2 => vec![group("/sys/fs/cgroup", &[])],
        _ => vec![
            group("/cpu", &["cpu", "cpuacct"]),
            group("/memory", &["memory"]),
            group("/devices", &["devices"]),
            group("/pids", &["pids"]),
            group("/blkio", &["blkio"]),
        ],
    };
    Record { version, id: "x".into(), groups, ..Record::default() }
}

fn read(json: &str) -> Resources {
    crate::spec::read("test", json.as_bytes()).unwrap()
}

fn changed(version: Version, before: &str, ask: &str) -> Result<Change> {
    change(&record(version), &read(before), &read(ask))
}

fn written(version: Version, before: &str, ask: &str) -> Vec<String> {
    let change = changed(version, before, ask).unwrap();
    change.plan.writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect()
}

#[test]
fn a_limit_by_its_name_is_later_than_unified() {
    let before = r#"{"cpu":{"shares":2},"unified":{"pids.max":"77","cpu.weight":"50","memory.high":"8192"}}"#;
    let left = |ask: &str| {
        let unified = changed(Version::V2, before, ask).unwrap().resources.unified;
        unified.into_iter().map(|(file, value)| format!("{file}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(left(r#"{"pids":{"limit":20}}"#), ["cpu.weight=50", "memory.high=8192"]);
    assert_eq!(written(Version::V2, before, r#"{"pids":{"limit":20}}"#), ["pids.max=20"]);
    // The update does not speak of the weight.
    assert_eq!(left(r#"{"cpu":{"period":5000}}"#), ["cpu.weight=50", "memory.high=8192", "pids.max=77"]);
    assert_eq!(left(r#"{"cpu":{"shares":1024}}"#), ["memory.high=8192", "pids.max=77"]);
    // In one update unified wins, as in a configuration.
    let both = r#"{"pids":{"limit":20},"unified":{"pids.max":"30"}}"#;
    assert_eq!(left(both), ["cpu.weight=50", "memory.high=8192", "pids.max=30"]);
}

#[test]
fn what_systemd_may_write_in_its_own_way_is_kept() {
    let unit = crate::cgroup::record::UnitRecord { name: "x.scope".into(), ..Default::default() };
    let record = Record { unit: Some(unit), ..record(Version::V2) };
    let kept = |before: &str, ask: &str| {
        let change = change(&record, &read(before), &read(ask)).unwrap();
        change.kept.iter().map(|w| format!("{}={}", w.file, w.value)).collect::<Vec<_>>()
    };
    let before = r#"{"cpu":{"quota":-1,"period":50000},"pids":{"limit":5}}"#;
    assert_eq!(kept(before, r#"{"cpu":{"period":50000,"shares":512}}"#), ["cpu.max=max 50000", "pids.max=5"]);
    // A file that is written is not kept, but for the lines of other devices.
    assert_eq!(kept(before, r#"{"cpu":{"quota":20000}}"#), ["pids.max=5"]);
    let rate = |kind: &str, minor: u32| {
        format!(r#"{{"blockIO":{{"throttle{kind}BpsDevice":[{{"major":8,"minor":{minor},"rate":9}}]}}}}"#)
    };
    assert_eq!(kept(&rate("Read", 0), &rate("Write", 0)), [""; 0]);
    assert_eq!(kept(&rate("Read", 0), &rate("Write", 1)), ["io.max=8:0 rbps=9"]);
    assert!(changed(Version::V2, before, r#"{"cpu":{"shares":512}}"#).unwrap().kept.is_empty());
}

#[test]
fn only_what_differs_or_is_named_is_written() {
    use Version::{V1, V2};
    for (version, before, ask, writes) in [
        (V2, r#"{"memory":{"limit":8192},"pids":{"limit":7}}"#, "{}", &[][..]),
        // Named, though nothing of it is new.
        (V2, r#"{"pids":{"limit":7}}"#, r#"{"pids":{"limit":7}}"#, &["pids.max=7"]),
        // The swap that is left of memory+swap.
        (
            V2,
            r#"{"memory":{"limit":8192,"swap":16384}}"#,
            r#"{"memory":{"limit":12288}}"#,
            &["memory.max=12288", "memory.swap.max=4096"],
        ),
        (
            V1,
            r#"{"memory":{"limit":8192,"swap":16384}}"#,
            r#"{"memory":{"limit":12288}}"#,
            &["memory.limit_in_bytes=12288"],
        ),
        (
            V1,
            r#"{"memory":{"limit":8192,"swap":16384}}"#,
            r#"{"memory":{"limit":-1}}"#,
            &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"],
        ),
        (
            V2,
            r#"{"cpu":{"quota":5000,"period":50000}}"#,
            r#"{"cpu":{"period":20000}}"#,
            &["cpu.max=5000 20000"],
        ),
        (V2, r#"{"cpu":{"quota":5000,"period":50000}}"#, r#"{"cpu":{"quota":-1}}"#, &["cpu.max=max 50000"]),
        // The weight counts again once the group is idle no more.
        (V2, r#"{"cpu":{"shares":2,"idle":1}}"#, r#"{"cpu":{"idle":0}}"#, &["cpu.idle=0", "cpu.weight=1"]),
        (
            V2,
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}]}}"#,
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":16,"rate":6}]}}"#,
            &["io.max=8:16 rbps=6"],
        ),
    ] {
        assert_eq!(written(version, before, ask), writes, "{before} + {ask}");
    }
}

#[test]
fn errors_name_what_was_asked_for() {
    for (before, ask, says) in [
        ("{}", r#"{"memory":{"swap":8192}}"#, "resources /memory/swap: unable to set swap limit without"),
        (
            r#"{"memory":{"limit":8192,"swap":8192}}"#,
            r#"{"memory":{"limit":12288}}"#,
            "resources /memory/swap: memory+swap limit should be >= memory limit",
        ),
        ("{}", r#"{"cpu":{"quota":3}}"#, "resources /cpu/quota: "),
        ("{}", r#"{"devices":[{"allow":true,"type":"z"}]}"#, "resources /devices/0: "),
    ] {
        let error = changed(Version::V2, before, ask).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
    }
}

#[test]
fn weights_of_idle_groups_are_warned_about() {
    let warned = |before: &str, ask: &str| changed(Version::V2, before, ask).unwrap().plan.warnings;
    let words = warned("{}", r#"{"cpu":{"idle":1,"shares":5}}"#);
    assert!(words[0].1.contains("unable to apply both"), "{words:?}");
    assert_eq!(warned(r#"{"cpu":{"shares":5}}"#, r#"{"cpu":{"idle":1}}"#), []);
}

#[test]
fn usage_is_compared_on_request_only() {
    let check = |ask: &str| changed(Version::V2, r#"{"memory":{"limit":8192}}"#, ask).unwrap().check;
    assert_eq!(check(r#"{"memory":{"limit":4096}}"#), None);
    let both = Check { memory: Some(4096), memory_and_swap: None };
    assert_eq!(check(r#"{"memory":{"limit":4096,"checkBeforeUpdate":true}}"#), Some(both));
    assert_eq!(check(r#"{"memory":{"limit":-1,"checkBeforeUpdate":true}}"#), None);
}

#[test]
fn device_rules_change_only_when_their_meaning_does() {
    let deny = r#"{"devices":[{"allow":false,"access":"rwm"}]}"#;
    let fuse = r#"{"devices":[{"allow":false,"access":"rwm"},
        {"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#;
    for version in [Version::V1, Version::V2] {
        assert!(!changed(version, deny, "{}").unwrap().devices);
        assert!(!changed(version, "{}", deny).unwrap().devices);
        assert!(changed(version, deny, fuse).unwrap().devices);
    }
    let change = changed(Version::V1, deny, fuse).unwrap();
    let (DevicePlan::Lines(old), DevicePlan::Lines(new)) =
        (change.before.unwrap().devices, change.plan.devices)
    else {
        panic!("no lines")
    };
    let lines = |old: &[Line], new: &[Line]| {
        transition(old, new).iter().map(|l| format!("{} {}", l.file, l.value)).collect::<Vec<_>>()
    };
    assert_eq!(lines(&old, &new), ["devices.allow c 10:229 rw"]);
    assert_eq!(lines(&new, &old), ["devices.deny c 10:229 rw"]);
    assert_eq!(lines(&new, &new), Vec::<String>::new());
    let all = [Line { file: "devices.allow", value: "a".into(), builtin: false }];
    assert_eq!(lines(&old, &all), ["devices.allow a"]);
    assert_eq!(lines(&all, &old).len(), old.len());
}

#[test]
fn what_was_there_is_brought_back() {
    for (file, before, written, lines) in [
        ("memory.max", "max\n", "4096", "max"),
        ("cpu.max", "max 100000\n", "5000 100000", "max 100000"),
        ("cpu.max", "max 100000\n", "max 5000", "max 100000"),
        ("cpuset.cpus", "\n", "0", "\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", "1", "0"),
        ("io.max", "", "8:0 rbps=1", "8:0 rbps=max wbps=max riops=max wiops=max"),
        (
            "io.max",
            "8:0 rbps=5 wbps=max riops=max wiops=max\n8:16 rbps=1 wbps=max riops=max wiops=max\n",
            "8:0 rbps=1",
            "8:0 rbps=5 wbps=max riops=max wiops=max",
        ),
        ("io.weight", "default 100\n8:0 20\n", "50", "default 100"),
        ("io.weight", "default 100\n8:0 20\n", "8:0 50", "8:0 20"),
        ("io.bfq.weight", "default 100\n", "8:0 50", "8:0 default"),
        ("blkio.throttle.read_bps_device", "", "8:0 5", "8:0 0"),
        ("net_prio.ifpriomap", "lo 0\neth0 3\n", "eth0 5", "eth0 3"),
        (
            "rdma.max",
            "mlx hca_handle=max hca_object=max\n",
            "mlx hca_handle=2",
            "mlx hca_handle=max hca_object=max",
        ),
    ] {
        assert_eq!(restoring(file, before, written), [lines], "{file} {written}");
    }
}
