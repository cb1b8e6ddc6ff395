// SPDX-License-Identifier: Apache-2.0
//! Limits at create and after updates, read back from the kernel; with systemd's driver, also after it has read everything anew.

#![forbid(unsafe_code)]

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::super::plan::{Plan, Step};
use crate::harness::host::Host;

const MIB: i64 = 1 << 20;

/// Limits, and up to three updates.
pub fn parts(host: &Host, systemd: bool) -> BoxedStrategy<Plan> {
    let first = resources(host);
    let updates = proptest::collection::vec(resources(host), 0..4);
    (first, updates, any::<bool>(), any::<bool>())
        .prop_map(move |(first, updates, driver, started)| plan(first, updates, systemd && driver, started))
        .boxed()
}

fn plan(
    first: Vec<(&'static str, Value)>,
    updates: Vec<Vec<(&'static str, Value)>>,
    systemd: bool,
    started: bool,
) -> Plan {
    let mut plan = Plan::default();
    for (pointer, value) in first {
        plan = plan.and(&format!("/linux/resources{pointer}"), value);
    }
    let mut steps: Vec<Step> = vec!["create @".into()];
    if started {
        steps.extend(["start @".into(), ":report".into()]);
    }
    steps.push(":look".into());
    for update in updates.into_iter().filter(|update| !update.is_empty()) {
        let mut edits = Plan::default();
        for (pointer, value) in update {
            edits = edits.and(pointer, value);
        }
        let update = super::super::perform::configuration(json!({}), &edits.config, &|text| text.to_owned());
        steps.extend([Step::Update { update }, ":look".into()]);
    }
    if systemd {
        plan = plan.and("/linux/cgroupsPath", json!("system.slice:corten-test:$ID"));
        plan.globals = vec!["--systemd-cgroup".to_owned()];
        steps.extend([":reload".into(), ":look".into()]);
    }
    steps.extend(["kill @ KILL".into(), ":stopped".into(), "delete @".into()]);
    plan.steps(steps)
}

/// Some limits that this machine has.
fn resources(host: &Host) -> BoxedStrategy<Vec<(&'static str, Value)>> {
    let v2 = host.is_v2();
    let mut all: Vec<(&str, &'static str, Vec<Value>)> = vec![
        ("pids", "/pids/limit", vec![json!(20), json!(100), json!(-1), json!(0), json!(4_194_304)]),
        ("memory", "/memory/limit", vec![json!(64 * MIB), json!(128 * MIB), json!(64 * MIB + 1), json!(-1)]),
        ("memory", "/memory/reservation", vec![json!(32 * MIB), json!(48 * MIB), json!(-1)]),
        ("memory", "/memory/swap", vec![json!(256 * MIB), json!(128 * MIB), json!(-1)]),
        ("cpu", "/cpu/shares", vec![json!(2), json!(1024), json!(100), json!(262_144), json!(512)]),
        ("cpu", "/cpu/quota", vec![json!(50_000), json!(12_345), json!(-1), json!(200_000)]),
        ("cpu", "/cpu/period", vec![json!(100_000), json!(50_000)]),
        ("cpuset", "/cpu/cpus", vec![json!("0"), json!("0-1")]),
        ("cpuset", "/cpu/mems", vec![json!("0")]),
        ("blkio", "/blockIO/weight", vec![json!(10), json!(500), json!(1000)]),
        ("io", "/blockIO/weight", vec![json!(10), json!(500), json!(1000)]),
    ];
    if v2 {
        all.extend([
            ("cpu", "/cpu/idle", vec![json!(0), json!(1)]),
            ("cpu", "/cpu/burst", vec![json!(0), json!(10_000)]),
            ("pids", "/unified/pids.max", vec![json!("77"), json!("max")]),
            ("memory", "/unified/memory.high", vec![json!("50331648"), json!("max")]),
            ("memory", "/unified/memory.low", vec![json!("1048576")]),
            ("cpu", "/unified/cpu.weight", vec![json!("50"), json!("10000")]),
        ]);
    } else {
        all.push(("memory", "/memory/swappiness", vec![json!(0), json!(60), json!(100)]));
        all.push(("memory", "/memory/disableOOMKiller", vec![json!(true), json!(false)]));
    }
    all.retain(|(controller, ..)| host.controllers.contains(*controller));
    // Not every kernel with the io controller has weights, and the top group has no file to tell.
    let groups = || std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let weighs = groups()
        .any(|group| ["io.weight", "io.bfq.weight"].iter().any(|file| group.path().join(file).exists()));
    all.retain(|(controller, ..)| *controller != "io" || weighs);
    let limit = all.into_iter().map(|(_, pointer, values)| {
        let value = select(values).prop_map(move |value| (pointer, value));
        proptest::option::weighted(0.3, value).boxed()
    });
    limit.collect::<Vec<_>>().prop_map(|limits| limits.into_iter().flatten().collect()).boxed()
}
