// SPDX-License-Identifier: Apache-2.0
//! Limits and annotations as data: what systemd is told for each.

use super::*;
use crate::ask::Manager;
use crate::cgroup::{Hierarchies, decide_groups};

const V2: &str = "47 46 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n";
const V1: &str = "\
1 0 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
2 0 0:2 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
3 0 0:3 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
4 0 0:4 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
6 0 0:6 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
9 0 0:9 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
10 0 0:10 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
";
const V1_OWN: &str = "10:cpuset:/\n9:pids:/\n6:blkio:/\n4:name=systemd:/\n3:devices:/\n2:memory:/\n1:cpu:/\n";

/// `Name=value` of what the limits are to systemd, devices aside.
fn properties_of(h: &Hierarchies, json: &str) -> Vec<String> {
    let resources = crate::spec::read("resources", json.as_bytes()).unwrap();
    let plan = decide_groups(h, Manager::Systemd, "id", None, Some(&resources)).unwrap();
    let limits = plan.unit.unwrap().limits.into_iter().filter(|p| !p.name.starts_with("Device"));
    limits.map(|p| format!("{}={}", p.name, words(&p.value))).collect()
}

fn words(value: &Value) -> String {
    match value {
        Value::U64(u64::MAX) => "infinity".into(),
        Value::U64(n) => n.to_string(),
        Value::Byte(n) => n.to_string(),
        Value::Text(text) => text.clone(),
        Value::Array(_, items) | Value::Tuple(items) => items.iter().map(words).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}

#[test]
fn quotas_are_written_as_systemd_keeps_them() {
    let hosts = [Hierarchies::parse(V2, "0::/\n"), Hierarchies::parse(V1, V1_OWN)];
    for (json, v2, v1) in [
        (r#"{"cpu":{"quota":12345,"period":100000}}"#, "13000 100000", "13000"),
        (r#"{"cpu":{"quota":1234}}"#, "2000", "2000"),
        (r#"{"cpu":{"quota":12345,"period":50000}}"#, "12500 50000", "12500"),
        (r#"{"cpu":{"quota":50000,"period":100000}}"#, "50000 100000", "50000"),
        // Its steps do not divide every period.
        (r#"{"cpu":{"quota":10001,"period":33333}}"#, "10333 33333", "10333"),
        (r#"{"cpu":{"quota":-1,"period":50000}}"#, "max 50000", "-1"),
    ] {
        let resources = crate::spec::read("resources", json.as_bytes()).unwrap();
        for (h, file, want) in [(&hosts[0], "cpu.max", v2), (&hosts[1], "cpu.cfs_quota_us", v1)] {
            let values = |manager| {
                let plan = decide_groups(h, manager, "id", None, Some(&resources)).unwrap();
                plan.writes.iter().filter(|w| w.file == file).map(|w| w.value.clone()).collect::<Vec<_>>()
            };
            assert_eq!(values(Manager::Systemd), [want], "{file} of {json}");
            let exact = resources.cpu.as_ref().and_then(|cpu| cpu.quota).unwrap();
            assert!(exact < 0 || values(Manager::Cgroupfs)[0].starts_with(&exact.to_string()), "{json}");
        }
    }
    let h = &hosts[0];
    let resources = crate::spec::read("resources", br#"{"unified":{"cpu.max":"12345 100000"}}"#).unwrap();
    let plan = decide_groups(h, Manager::Systemd, "id", None, Some(&resources)).unwrap();
    assert_eq!(plan.writes[0].value, "13000 100000");
}

#[test]
fn limits_on_v2() {
    let h = Hierarchies::parse(V2, "0::/\n");
    for (json, want) in [
        (r#"{"memory":{"limit":33554432}}"#, &["MemoryMax=33554432"][..]),
        (r#"{"memory":{"limit":-1}}"#, &["MemoryMax=infinity", "MemorySwapMax=infinity"]),
        (r#"{"memory":{"limit":20,"swap":30}}"#, &["MemoryMax=20", "MemorySwapMax=10"]),
        (r#"{"memory":{"reservation":7}}"#, &["MemoryLow=7"]),
        (r#"{"cpu":{"shares":1024}}"#, &["CPUWeight=100"]),
        (r#"{"cpu":{"idle":1,"shares":1024}}"#, &["CPUWeight=0"]),
        (
            r#"{"cpu":{"quota":50000,"period":100000}}"#,
            &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=500000"],
        ),
        // 1234/100000 of a CPU is 12340 us per second, which systemd can only have as 20000.
        (r#"{"cpu":{"quota":1234}}"#, &["CPUQuotaPerSecUSec=20000"]),
        (
            r#"{"cpu":{"quota":-1,"period":50000}}"#,
            &["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=infinity"],
        ),
        (r#"{"cpu":{"period":50000}}"#, &["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=infinity"]),
        (r#"{"cpu":{"cpus":"0-2,9","mems":"0"}}"#, &["AllowedCPUs=7 2", "AllowedMemoryNodes=1"]),
        (r#"{"pids":{"limit":77}}"#, &["TasksMax=77"]),
        (r#"{"pids":{"limit":-1}}"#, &["TasksMax=infinity"]),
        (r#"{"pids":{"limit":0}}"#, &["TasksMax=1"]),
        (r#"{"blockIO":{"weight":500}}"#, &["IOWeight=4950"]),
        (
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":10}]}}"#,
            &["IODeviceWeight=/dev/block/8:0 1"],
        ),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":6}]}}"#,
            &["IOReadBandwidthMax=/dev/block/8:0 5", "IOWriteIOPSMax=/dev/block/8:1 6"],
        ),
        (
            r#"{"unified":{"memory.high":"9","memory.max":"max","memory.min":"1","memory.oom.group":"1","pids.max":"5"}}"#,
            &["MemoryHigh=9", "MemoryMax=infinity", "MemoryMin=1", "OOMPolicy=kill", "TasksMax=5"],
        ),
        (
            r#"{"unified":{"cpu.max":"max 50000"}}"#,
            &["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=infinity"],
        ),
        (r#"{"unified":{"cpu.idle":"1","cpu.weight":"50"}}"#, &["CPUWeight=0"]),
        (r#"{"unified":{"cpuset.cpus":" 1 "}}"#, &["AllowedCPUs=2"]),
        (
            r#"{"unified":{"io.max":"8:0 rbps=1 wbps=max riops=3"}}"#,
            &[
                "IOReadBandwidthMax=/dev/block/8:0 1",
                "IOWriteBandwidthMax=/dev/block/8:0 infinity",
                "IOReadIOPSMax=/dev/block/8:0 3",
            ],
        ),
        (r#"{"unified":{"io.weight":"default 70"}}"#, &["IOWeight=70"]),
        // What systemd has no word for, or cannot read, is the kernel's alone.
        (r#"{"unified":{"hugetlb.2MB.max":"0","cpuset.cpus":"0-9:2/4","memory.high":"1G"}}"#, &[]),
        (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}],"cpu":{"burst":5}}"#, &[]),
    ] {
        assert_eq!(properties_of(&h, json), want, "{json}");
    }
}

#[test]
fn limits_on_v1() {
    let h = Hierarchies::parse(V1, V1_OWN);
    for (json, want) in [
        (r#"{"memory":{"limit":20}}"#, &["MemoryLimit=20"][..]),
        (
            r#"{"cpu":{"shares":2,"quota":5000,"period":10000}}"#,
            &["CPUShares=2", "CPUQuotaPeriodUSec=10000", "CPUQuotaPerSecUSec=500000"],
        ),
        (r#"{"blockIO":{"weight":500}}"#, &["BlockIOWeight=500"]),
        (r#"{"pids":{"limit":5},"cpu":{"cpus":"1"}}"#, &["AllowedCPUs=2", "TasksMax=5"]),
    ] {
        assert_eq!(properties_of(&h, json), want, "{json}");
    }
    let plan = decide_groups(&h, Manager::Systemd, "id", Some("a-b.slice:p:n"), None).unwrap();
    assert!(plan.record.groups.iter().all(|group| group.path == "/a.slice/a-b.slice/p-n.scope"));
    assert!(plan.unit.unwrap().base.iter().any(|p| p.name == "BlockIOAccounting"));
}

#[test]
fn device_rules() {
    let policy = |json: &str| {
        let rules: Vec<crate::spec::DeviceRule> = serde_json::from_str(json).unwrap();
        devices(&Policy::of(&rules).unwrap()).into_iter().map(|p| words(&p.value)).collect::<Vec<_>>()
    };
    let some = policy(
        r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":7,"minor":1,"access":"r"},
        {"allow":true,"type":"c","major":9,"access":"rw"}]"#,
    );
    assert_eq!((some[0].as_str(), some[1].as_str()), ("strict", ""));
    for entry in
        ["/dev/block/7:1 r", "char-9 rw", "/dev/char/1:3 rwm", "char-136 rwm", "char-* m", "block-* m"]
    {
        assert!(some[2].contains(entry), "{entry} is not in {}", some[2]);
    }
    assert_eq!(policy(r#"[{"allow":true,"access":"rwm"}]"#), ["auto", ""]);
    // Our own nodes are made under systemd's rules.
    let no_nodes =
        policy(r#"[{"allow":false,"type":"c","access":"m"},{"allow":false,"type":"b","access":""}]"#);
    for entry in ["char-* m", "block-* m"] {
        assert!(no_nodes[2].contains(entry), "{entry} is not in {}", no_nodes[2]);
    }
    // systemd keeps the last entry of a name.
    let twice = policy(
        r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","minor":1,"access":"w"},
        {"allow":true,"type":"c","major":10,"minor":229,"access":"r"},
        {"allow":true,"type":"c","major":10,"minor":229,"access":"w"}]"#,
    );
    for (name, entry) in [("block-* ", "block-* wm"), ("char/10:229 ", "/dev/char/10:229 rw")] {
        assert_eq!(twice[2].matches(name).count(), 1, "{}", twice[2]);
        assert!(twice[2].contains(entry), "{entry} is not in {}", twice[2]);
    }
}

#[test]
fn annotations_that_are_taken() {
    for (name, text, full, value) in [
        ("TimeoutStopUSec", "uint64 123456789", "TimeoutStopUSec", Value::U64(123_456_789)),
        ("TimeoutStopSec", "uint64 5", "TimeoutStopUSec", Value::U64(5_000_000)),
        ("TimeoutStopSec", "1.5", "TimeoutStopUSec", Value::U64(1_500_000)),
        ("RuntimeMaxSec", "7", "RuntimeMaxUSec", Value::U64(7_000_000)),
        ("CollectMode", "'inactive-or-failed'", "CollectMode", Value::text("inactive-or-failed")),
        ("DefaultDependencies", "true", "DefaultDependencies", Value::Bool(true)),
        ("After", "['a.service']", "After", Value::texts(&["a.service"])),
        ("KillSignal", "15", "KillSignal", Value::I32(15)),
        ("MemoryHigh", "5", "MemoryHigh", Value::U64(5)),
    ] {
        let property = of_annotation(name, text).unwrap();
        assert_eq!((property.name, &property.value), (full, &value), "{name} {text}");
    }
}

/// S32: what could have systemd do something for the writer of an annotation, and what is no name or value.
#[test]
fn annotations_that_are_refused() {
    for name in [
        "ExecStartPre",
        "ExecStop",
        "Slice",
        "PIDs",
        "Delegate",
        "User",
        "Wants",
        "Requires",
        "BindsTo",
        "Conflicts",
        "OnFailure",
        "OnSuccess",
        "FailureAction",
        "JobTimeoutAction",
        "SuccessAction",
        "Upholds",
        "PropagatesStopTo",
        "DeviceAllow",
        "DevicePolicy",
        "BPFProgram",
        "IPIngressFilterPath",
        "AddRef",
        "RequiresMountsFor",
        "timeoutstopusec",
        "Sec",
        "USec",
    ] {
        assert!(of_annotation(name, "'x'").unwrap_err().contains("may not be set"), "{name}");
    }
    for name in ["", "a", "ab", "Time out", "A1B", "Tim\u{e9}out"] {
        assert!(of_annotation(name, "'x'").unwrap_err().contains("no name of a property"), "{name}");
    }
    for (name, text, words) in [
        ("TimeoutStopUSec", "'5'", "of type t, not s"),
        ("TimeoutStopSec", "'5'", "no number of seconds"),
        ("TimeoutStopSec", "-5", "no number of seconds"),
        ("TimeoutStopSec", "uint64 18446744073709551615", "no number of seconds"),
        ("TimeoutStopSec", "", "a value is missing"),
        ("CollectMode", "inactive", "texts are quoted"),
        ("After", "[1]", "of type as, not ai"),
    ] {
        let why = of_annotation(name, text).unwrap_err();
        assert!(why.contains(words), "{name} {text}: {why}");
    }
}
