// SPDX-License-Identifier: Apache-2.0
//! Decisions as data: configuration in, paths, writes and warnings out.

use super::*;

const V2: &str = "47 46 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n";
const V1: &str = "\
1 0 0:1 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
2 0 0:2 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
3 0 0:3 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
4 0 0:4 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
5 0 0:5 / /sys/fs/cgroup/elogind rw - cgroup cgroup rw,name=elogind
6 0 0:6 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
7 0 0:7 / /sys/fs/cgroup/net rw - cgroup cgroup rw,net_cls,net_prio
8 0 0:8 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb
9 0 0:9 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
10 0 0:10 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
11 0 0:11 / /sys/fs/cgroup/rdma rw - cgroup cgroup rw,rdma
";
const V1_OWN: &str = "11:rdma:/\n10:cpuset:/\n9:pids:/\n8:hugetlb:/\n7:net_cls,net_prio:/\n6:blkio:/\n5:name=elogind:/\n\
                      4:name=systemd:/\n3:devices:/\n2:memory:/own\n1:cpu,cpuacct:/\n0::/\n";

fn v2(own: &str) -> Hierarchies {
    Hierarchies::parse(V2, &format!("0::{own}\n"))
}

fn v1() -> Hierarchies {
    Hierarchies::parse(V1, V1_OWN)
}

fn resources(json: &str) -> Resources {
    crate::spec::read("resources", json.as_bytes()).unwrap()
}

fn plan(h: &Hierarchies, json: &str) -> Result<GroupPlan> {
    decide_groups(h, Manager::Cgroupfs, "id", None, Some(&resources(json)))
}

/// `file=value` of what a new group gets.
fn written(h: &Hierarchies, json: &str) -> Vec<String> {
    let plan = plan(h, json).unwrap();
    plan.writes.iter().filter(|w| !w.kernel_default).map(|w| format!("{}={}", w.file, w.value)).collect()
}

fn refused(h: &Hierarchies, json: &str) -> String {
    plan(h, json).unwrap_err().to_string()
}

/// Which manager a container with this record was made with.
fn manager_of(record: &Record) -> Manager {
    match (record.version, &record.unit) {
        (_, Some(_)) => Manager::Systemd,
        (Version::None, None) => Manager::Disabled,
        _ => Manager::Cgroupfs,
    }
}

#[test]
fn paths_on_v2() {
    for (own, path, full) in [
        ("/", Some("/a/b"), "/sys/fs/cgroup/a/b"),
        ("/x/y", Some("/a//b/."), "/sys/fs/cgroup/a/b"),
        ("/x/y", Some("a/b"), "/sys/fs/cgroup/x/a/b"),
        ("/x", Some("a"), "/sys/fs/cgroup/a"),
        ("/", Some("a"), "/sys/fs/cgroup/a"),
        ("/x/y", None, "/sys/fs/cgroup/x/id"),
        ("/x/y", Some(""), "/sys/fs/cgroup/x/id"),
        ("/", Some("system.slice:corten:id"), "/sys/fs/cgroup/system.slice:corten:id"),
    ] {
        let plan = decide_groups(&v2(own), Manager::Cgroupfs, "id", path, None).unwrap();
        assert_eq!(plan.record.v2_path().as_deref(), Some(full), "{own} {path:?}");
    }
}

#[test]
fn paths_on_v1() {
    let paths = |path| {
        let plan = decide_groups(&v1(), Manager::Cgroupfs, "id", path, None).unwrap();
        plan.record.groups.iter().map(GroupDir::full).collect::<Vec<_>>()
    };
    let absolute = paths(Some("/a"));
    assert_eq!(absolute.len(), 10, "every controller, systemd's, not elogind's");
    assert_eq!(absolute[0], "/sys/fs/cgroup/cpu,cpuacct/a");
    assert!(paths(None).contains(&"/sys/fs/cgroup/memory/own/id".to_owned()));
    assert!(paths(Some("p/c")).contains(&"/sys/fs/cgroup/pids/p/c".to_owned()));
}

#[test]
fn hybrid_hosts_have_a_group_on_v2_too() {
    let unified = "12 0 0:12 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let h = Hierarchies::parse(&format!("{V1}{unified}"), &V1_OWN.replace("0::/\n", "0::/mine\n"));
    for (path, full) in [(Some("/a"), "/sys/fs/cgroup/unified/a"), (None, "/sys/fs/cgroup/unified/mine/id")] {
        let record = decide_groups(&h, Manager::Cgroupfs, "id", path, None).unwrap().record;
        assert_eq!((record.version, record.groups.len()), (Version::V1, 11));
        assert_eq!(record.groups.last().unwrap().full(), full);
        assert_eq!((record.v1_views().len(), record.v2_path()), (10, None));
        assert!(record.fault().is_none());
    }
}

#[test]
fn paths_that_are_refused() {
    let long = "x".repeat(256);
    for path in ["..", "/a/../b", "a/..", "/", "//.", "a\0b", "a\nb", &long] {
        let error = decide_groups(&v2("/"), Manager::Cgroupfs, "id", Some(path), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().starts_with("config.json /linux/cgroupsPath: "), "{error}");
    }
}

#[test]
fn managers() {
    let decided =
        |manager, path, json: &str| decide_groups(&v2("/"), manager, "id", path, Some(&resources(json)));
    let plan = decided(Manager::Disabled, Some("/a"), r#"{"devices":[{"allow":false}]}"#).unwrap();
    assert_eq!((plan.record.version, plan.record.groups.len(), plan.writes.len()), (Version::None, 0, 0));
    assert_eq!((plan.devices, manager_of(&plan.record)), (DevicePlan::None, Manager::Disabled));
    let error = decided(Manager::Disabled, None, r#"{"pids":{"limit":3}}"#).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (
            Kind::Unsupported,
            "config.json /linux/resources/pids/limit: a limit needs a control group, and --cgroup-manager=disabled makes \
             none"
        )
    );
    let plan = decided(Manager::Systemd, None, "{}").unwrap();
    assert_eq!(plan.record.v2_path().unwrap(), "/sys/fs/cgroup/system.slice/corten-id.scope");
    assert_eq!(
        (manager_of(&plan.record), &plan.record.unit.unwrap()),
        (Manager::Systemd, &plan.unit.unwrap().record)
    );
    let nothing = decide_groups(&Hierarchies::default(), Manager::Systemd, "id", None, None).unwrap_err();
    assert!(nothing.to_string().contains("no cgroups are mounted"), "{nothing}");
    let plan = decided(Manager::Cgroupfs, None, "{}").unwrap();
    assert_eq!((manager_of(&plan.record), plan.unit), (Manager::Cgroupfs, None));
}

/// Nodes that the rules refuse can only be made before the rules are there (decisions/0038).
#[test]
fn when_device_rules_come() {
    let rules = |h: &Hierarchies, json: &str| plan(h, json).unwrap().device_rules;
    let usual = r#"{"devices":[{"allow":false}]}"#;
    assert_eq!((rules(&v1(), usual), rules(&v2("/"), usual)), (RulesFrom::Birth, RulesFrom::Meanwhile));
    let no_nodes = r#"{"devices":[{"allow":false,"type":"c","access":"m"}]}"#;
    assert_eq!((rules(&v1(), no_nodes), rules(&v2("/"), no_nodes)), (RulesFrom::Nodes, RulesFrom::Nodes));
}

/// A unit's annotations are its own: `delete` reads in the record whether systemd keeps one that failed.
#[test]
fn annotations_of_a_unit() {
    let asked = |manager, value: &str| {
        let mut plan = decide_groups(&v2("/"), manager, "id", None, None).unwrap();
        let annotations = [("org.systemd.property.CollectMode".to_owned(), Some(value.to_owned()))];
        plan.annotate(&annotations.into()).map(|()| plan)
    };
    let keeps = |value: &str| {
        let plan = asked(Manager::Systemd, value).unwrap();
        assert_eq!(plan.record.unit.as_ref(), plan.unit.as_ref().map(|unit| &unit.record));
        plan.record.unit.unwrap().keeps_failed
    };
    assert!(keeps("'inactive'") && !keeps("'inactive-or-failed'"));
    assert!(asked(Manager::Systemd, "no value").is_err());
    assert_eq!(
        asked(Manager::Cgroupfs, "no value").unwrap().record.unit,
        None,
        "without a unit it means nothing"
    );
}

#[test]
fn without_cgroups_only_nothing_can_be_asked() {
    let none = Hierarchies::default();
    assert!(
        decide_groups(&none, Manager::Cgroupfs, "id", Some("/a"), None).unwrap().record.groups.is_empty()
    );
    assert!(refused(&none, r#"{"devices":[{"allow":false}]}"#).contains("no cgroups are mounted"));
}

#[test]
fn memory() {
    let json = r#"{"memory":{"limit":100,"swap":300,"reservation":50,"kernel":1,"kernelTCP":1,
                   "disableOOMKiller":false,"checkBeforeUpdate":true}}"#;
    assert_eq!(written(&v2("/"), json), ["memory.max=100", "memory.swap.max=200", "memory.low=50"]);
    assert_eq!(
        written(&v1(), json),
        ["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=300", "memory.soft_limit_in_bytes=50"]
    );
    assert_eq!(plan(&v1(), json).unwrap().warnings.len(), 2);
    for h in [v1(), v2("/")] {
        assert!(written(&h, r#"{"memory":{"limit":-1,"swap":0}}"#).is_empty());
        assert!(written(&h, r#"{"memory":{"limit":0,"swap":-1}}"#).is_empty());
        assert!(
            refused(&h, r#"{"memory":{"limit":100,"swap":99}}"#)
                .contains("/linux/resources/memory/swap: memory+swap")
        );
        assert!(refused(&h, r#"{"memory":{"limit":-2}}"#).contains("/linux/resources/memory/limit"));
    }
    // Unlimited memory takes memory+swap along, in a group that was there before.
    let plan = plan(&v1(), r#"{"memory":{"limit":-1}}"#).unwrap();
    assert_eq!(
        plan.writes.iter().map(|w| (w.file.as_str(), w.value.as_str(), w.kernel_default)).collect::<Vec<_>>(),
        [("memory.limit_in_bytes", "-1", true), ("memory.memsw.limit_in_bytes", "-1", true)]
    );
}

#[test]
fn cpu() {
    let json =
        r#"{"cpu":{"shares":2048,"quota":50000,"period":200000,"burst":1000,"cpus":"0-1","mems":"0"}}"#;
    assert_eq!(
        written(&v2("/"), json),
        ["cpu.weight=174", "cpu.max=50000 200000", "cpu.max.burst=1000", "cpuset.cpus=0-1", "cpuset.mems=0"]
    );
    assert_eq!(
        written(&v1(), json),
        [
            "cpu.shares=2048",
            "cpu.cfs_period_us=200000",
            "cpu.cfs_quota_us=50000",
            "cpu.cfs_burst_us=1000",
            "cpuset.cpus=0-1",
            "cpuset.mems=0"
        ]
    );
    for (json, v2_file) in [
        (r#"{"cpu":{"quota":-1,"period":100000,"shares":1024,"idle":0,"burst":0}}"#, &[][..]),
        (r#"{"cpu":{"quota":50000}}"#, &["cpu.max=50000"]),
        (r#"{"cpu":{"period":50000}}"#, &["cpu.max=max 50000"]),
        (r#"{"cpu":{"quota":-5,"period":50000}}"#, &["cpu.max=max 50000"]),
        (r#"{"cpu":{"idle":1,"shares":5}}"#, &["cpu.idle=1"]),
        (r#"{"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":null,"realtimePeriod":0}}"#, &[]),
    ] {
        assert_eq!(written(&v2("/"), json), v2_file, "{json}");
    }
    for json in [
        r#"{"quota":999}"#,
        r#"{"period":10}"#,
        r#"{"period":10,"quota":5000}"#,
        r#"{"idle":2}"#,
        r#"{"quota":5000,"burst":6000}"#,
        r#"{"cpus":"0\n1"}"#,
    ] {
        for h in [v1(), v2("/")] {
            let error = plan(&h, &format!(r#"{{"cpu":{json}}}"#)).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
        }
    }
    assert_eq!(
        written(&v1(), r#"{"cpu":{"realtimeRuntime":5,"realtimePeriod":9}}"#),
        ["cpu.rt_period_us=9", "cpu.rt_runtime_us=5"]
    );
}

#[test]
fn pids_and_lists() {
    for (limit, value) in [(-1, None), (-7, None), (0, Some("pids.max=1")), (5, Some("pids.max=5"))] {
        for h in [v1(), v2("/")] {
            let written = written(&h, &format!(r#"{{"pids":{{"limit":{limit}}}}}"#));
            assert_eq!(written.first().map(String::as_str), value);
        }
    }
    // All there is is what a new group has.
    let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":18446744073709551614},
                                     {"pageSize":"1GB","limit":18446744073709551615}],
                   "rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":4},"none":{}}}"#;
    assert_eq!(
        written(&v2("/"), json),
        [
            "hugetlb.2MB.max=18446744073709551614",
            "hugetlb.2MB.rsvd.max=18446744073709551614",
            "rdma.max=mlx5_1 hca_handle=3 hca_object=4"
        ]
    );
    for size in ["", "MB", "02MB", "2mb", "2MiB", "../2MB", "2MB/x"] {
        let error =
            refused(&v2("/"), &format!(r#"{{"hugepageLimits":[{{"pageSize":"{size}","limit":1}}]}}"#));
        assert!(error.contains("/linux/resources/hugepageLimits/0: invalid pagesize"), "{error}");
    }
    let json = r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#;
    assert_eq!(written(&v1(), json), ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]);
}

#[test]
fn block_io() {
    let json = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":100}],
                   "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000},{"major":8,"minor":16,"rate":0}],
                   "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":7}]}}"#;
    let plan_v2 = plan(&v2("/"), json).unwrap();
    let or: Vec<_> = plan_v2.writes.iter().filter_map(|w| w.or.clone()).collect();
    assert_eq!(or, [("io.weight", "4950".to_owned()), ("io.weight", "8:0 910".to_owned())]);
    assert_eq!(
        written(&v2("/"), json),
        ["io.bfq.weight=500", "io.bfq.weight=8:0 100", "io.max=8:0 rbps=1000", "io.max=8:0 wiops=7"]
    );
    assert_eq!(
        written(&v1(), json),
        [
            "blkio.bfq.weight=500",
            "blkio.bfq.weight_device=8:0 100",
            "blkio.throttle.read_bps_device=8:0 1000",
            "blkio.throttle.write_iops_device=8:0 7"
        ]
    );
    assert!(refused(&v2("/"), r#"{"blockIO":{"weight":5}}"#).contains("10 to 1000"));
    assert!(
        refused(&v1(), r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":1}]}}"#)
            .contains("/throttleReadBpsDevice/0")
    );
}

#[test]
fn what_v2_does_not_have_is_refused() {
    for (json, at) in [
        (r#"{"memory":{"swappiness":10}}"#, "/memory/swappiness"),
        (r#"{"memory":{"disableOOMKiller":true}}"#, "/memory/disableOOMKiller"),
        (r#"{"memory":{"useHierarchy":false}}"#, "/memory/useHierarchy"),
        (r#"{"cpu":{"realtimeRuntime":5}}"#, "/cpu/realtimeRuntime"),
        (r#"{"cpu":{"realtimePeriod":5}}"#, "/cpu/realtimePeriod"),
        (r#"{"blockIO":{"leafWeight":5}}"#, "/blockIO/leafWeight"),
        (r#"{"blockIO":{"weightDevice":[{"leafWeight":5}]}}"#, "/blockIO/weightDevice/0/leafWeight"),
        (r#"{"network":{"classID":5}}"#, "/network/classID"),
        (r#"{"network":{"priorities":[{"name":"lo","priority":1}]}}"#, "/network/priorities"),
    ] {
        let error = plan(&v2("/"), json).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.to_string().starts_with(&format!("config.json /linux/resources{at}")), "{error}");
    }
    assert!(
        written(
            &v2("/"),
            r#"{"memory":{"disableOOMKiller":false,"useHierarchy":true},"network":{"classID":0}}"#
        )
        .is_empty()
    );
}

#[test]
fn a_controller_that_is_not_mounted() {
    let h = Hierarchies::parse(&V1.replace("pids", "x"), &V1_OWN.replace("pids", "y"));
    let error = refused(&h, r#"{"pids":{"limit":5}}"#);
    assert!(error.starts_with("config.json /linux/resources/pids/limit: cannot set pids limit: container could not join or create cgroup"), "{error}");
    assert!(written(&h, r#"{"pids":{"limit":-1}}"#).is_empty());
}

#[test]
fn unified() {
    let json = r#"{"memory":{"limit":5},"unified":{"io.max":"8:0 rbps=1\n8:16 rbps=2","memory.high":"7"}}"#;
    assert_eq!(
        written(&v2("/"), json),
        ["memory.max=5", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.high=7"]
    );
    assert!(refused(&v1(), json).contains("unified resources need cgroup v2"));
    for (key, words) in [
        ("a/memory.max", "no slashes"),
        ("../x.y", "no slashes"),
        ("memory", "CONTROLLER.PARAMETER"),
        (".", "CONTROLLER.PARAMETER"),
        ("..", "CONTROLLER.PARAMETER"),
        ("cgroup.kill", "is no limit"),
        ("cgroup.procs", "is no limit"),
    ] {
        let error = refused(&v2("/"), &format!(r#"{{"unified":{{"{key}":"1"}}}}"#));
        assert!(error.contains(words), "{error}");
    }
}

/// Every limit of the specification's schema (config-linux.json, `resources`) has a row, and every row a limit.
#[test]
fn the_table_is_complete() {
    let full = r#"{"memory":{"limit":4,"swap":4,"reservation":1,"kernel":1,"kernelTCP":1,"swappiness":1,
        "disableOOMKiller":true,"useHierarchy":true,"checkBeforeUpdate":true},
        "cpu":{"shares":1,"quota":1,"period":1,"burst":1,"realtimeRuntime":1,"realtimePeriod":1,"cpus":"0","mems":"0","idle":1},
        "pids":{"limit":1},
        "blockIO":{"weight":10,"leafWeight":10,"weightDevice":[{"weight":10,"leafWeight":10}],
        "throttleReadBpsDevice":[{}],"throttleWriteBpsDevice":[{}],"throttleReadIOPSDevice":[{}],"throttleWriteIOPSDevice":[{}]},
        "hugepageLimits":[{}],"network":{"classID":1,"priorities":[{}]},"rdma":{"x":{}},"unified":{"a.b":"c"}}"#;
    let resources = resources(full);
    for limit in LIMITS {
        let items = (limit.items)(&resources);
        assert_eq!(items.len(), 1, "{}", limit.at);
        let at = items[0].at.clone().unwrap_or_else(|| limit.at.to_owned());
        let pattern: Vec<&str> = limit.at.split('/').collect();
        let parts: Vec<&str> = at.split('/').collect();
        assert_eq!(pattern.len(), parts.len(), "{at}");
        assert!(pattern.iter().zip(&parts).all(|(p, a)| p == a || *p == "*"), "{at} is {}", limit.at);
        assert!((limit.items)(&Resources::default()).is_empty());
    }
    // The leaves of the document above, by its own structure.
    let document: serde_json::Value = serde_json::from_str(full).unwrap();
    let mut leaves = Vec::new();
    for (group, value) in document.as_object().unwrap() {
        match value {
            serde_json::Value::Object(fields) if !matches!(group.as_str(), "rdma" | "unified") => {
                for (field, value) in fields {
                    let at = format!("/{group}/{field}");
                    match value {
                        serde_json::Value::Array(_) if field == "weightDevice" => {
                            leaves.extend([format!("{at}/*/weight"), format!("{at}/*/leafWeight")]);
                        }
                        serde_json::Value::Array(_) => leaves.push(format!("{at}/*")),
                        _ => leaves.push(at),
                    }
                }
            }
            _ => leaves.push(format!("/{group}/*")),
        }
    }
    leaves.sort();
    let mut rows: Vec<_> = LIMITS.iter().map(|limit| limit.at.to_owned()).collect();
    rows.sort();
    assert_eq!(rows, leaves);
}

#[test]
fn explains_every_write() {
    let json =
        r#"{"memory":{"limit":-1},"pids":{"limit":5},"blockIO":{"weight":500},"devices":[{"allow":false}]}"#;
    let plan_v2 = plan(&v2("/"), json).unwrap();
    let steps = [plan_v2.explain(), plan_v2.explain_devices()].concat();
    let text: Vec<String> = steps.iter().map(|(at, step)| format!("{at}: {step}")).collect();
    let starts = [
        "/linux/cgroupsPath: make the cgroup /sys/fs/cgroup/id",
        "/linux/resources/pids/limit: enable pids in the groups above",
        "/linux/resources/blockIO/weight: enable io in the groups above",
        "/linux/resources/memory/limit: write \"max\" to memory.max, if the group was there before",
        "/linux/resources/memory/swap: write \"max\" to memory.swap.max, if the group was there before",
        "/linux/resources/pids/limit: write \"5\" to pids.max",
        "/linux/resources/blockIO/weight: write \"500\" to io.bfq.weight, or else \"4950\" to io.weight",
        "/linux/resources/devices: attach an eBPF program of ",
    ];
    assert_eq!(text.len(), starts.len());
    for (text, start) in text.iter().zip(starts) {
        assert!(text.starts_with(start), "{text}");
    }
    assert!(
        plan(&v1(), json)
            .unwrap()
            .explain_devices()
            .iter()
            .any(|(_, s)| s == "write \"c 1:3 rwm\" to devices.allow")
    );
}
