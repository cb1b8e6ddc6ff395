// SPDX-License-Identifier: Apache-2.0
//! config-linux.md, "Memory policy", as /proc/self/numa_maps shows it.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use crate::check;
use crate::harness::case::{Case, Verdict, case};
use crate::harness::host::Need;
use crate::harness::test::Test;

const RUNC: &str = "memoryPolicy came with runc 1.4";

/// The chapter.
pub fn cases() -> Vec<Case> {
    let needs = [Need::File("/proc/self/numa_maps")];
    let all = policies().into_iter().chain(refusals());
    let mut all: Vec<Case> = all.map(|case| case.needs(&needs)).collect();
    // What changes nothing holds without the feature.
    let same = ["mempolicy/default", "mempolicy/nothing-asked"];
    for case in all.iter_mut().filter(|case| !same.contains(&case.name.as_str())) {
        case.differs("runc", RUNC);
    }
    all
}

/// The policy of the first mapping: `bind=static:0`.
fn policy(maps: &Value) -> String {
    let first = maps.as_str().unwrap_or_default().lines().next().unwrap_or_default();
    first.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn holds(t: &Test, asked: Value, starts: &str, contains: &str) -> Verdict {
    let b = t.bundle()?.set("/linux/memoryPolicy", asked.clone());
    let got = policy(&t.expect(b, &[("read /proc/self/numa_maps", "ok")])?[0]);
    check!(got.starts_with(starts) && got.contains(contains), "{asked} gave {got}");
    Ok(())
}

fn policies() -> Vec<Case> {
    vec![
        case("mempolicy/interleave", |t| {
            holds(t, json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), "interleave:0", "")
        }),
        case("mempolicy/bind-static", |t| {
            let asked = json!({"mode": "MPOL_BIND", "nodes": "0-0", "flags": ["MPOL_F_STATIC_NODES"]});
            holds(t, asked, "bind", "static")
        }),
        case("mempolicy/local", |t| holds(t, json!({"mode": "MPOL_LOCAL"}), "local", "")),
        case("mempolicy/default", |t| holds(t, json!({"mode": "MPOL_DEFAULT"}), "default", "")),
        case("mempolicy/preferred-without-nodes", |t| {
            holds(t, json!({"mode": "MPOL_PREFERRED", "nodes": ""}), "local", "")
        }),
        case("mempolicy/nothing-asked", |t| holds(t, json!({}), "default", "")).crun("wants a mode"),
        case("mempolicy/exec-has-it", |t| {
            let asked = json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]});
            let b = t.bundle()?.set("/linux/memoryPolicy", asked).probe("forever");
            t.launch(&b)?;
            let done = t.exec(&b, "", "/probe try read /proc/self/numa_maps")?;
            let got = policy(&done.ok()?.json()?["data"]);
            check!(got.starts_with("prefer") && got.contains("relative"), "exec has {got}");
            Ok(())
        })
        .crun("sets it for the first process alone"),
        case("mempolicy/as-an-ordinary-user", |t| {
            let b = t.bundle()?.set("/process/user", json!({"uid": 1000, "gid": 1000}));
            let b = b.set("/process/noNewPrivileges", json!(true));
            let b = b.set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0"}));
            let got = policy(&t.expect(b, &[("read /proc/self/numa_maps", "ok")])?[0]);
            check!(got == "bind:0", "it is {got}");
            Ok(())
        }),
    ]
}

fn refusals() -> Vec<Case> {
    let rows: [(&str, Value, &[&str]); 8] = [
        (
            "mode-unknown",
            json!({"mode": "INTERLEAVE", "nodes": "0"}),
            &["invalid memory policy", "/linux/memoryPolicy/mode"],
        ),
        ("mode-absent", json!({"nodes": "0"}), &["invalid memory policy mode"]),
        (
            "flag-unknown",
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING", "x"]}),
            &["invalid memory policy flag", "flags/1"],
        ),
        (
            "default-with-nodes",
            json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}),
            &["mode requires 0 nodes but got 8"],
        ),
        ("bind-without-nodes", json!({"mode": "MPOL_BIND"}), &["node", "/linux/memoryPolicy/nodes"]),
        (
            "nodes-that-do-not-read",
            json!({"mode": "MPOL_BIND", "nodes": "0,x"}),
            &["invalid memory policy node", "x"],
        ),
        (
            "a-node-too-large",
            json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}),
            &["invalid memory policy node"],
        ),
        (
            "flags-that-contradict",
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
            &["set_mempolicy", "invalid argument"],
        ),
    ];
    let row = |(name, asked, says): (&str, Value, &'static [&'static str])| {
        case(format!("mempolicy/{name}"), move |t| {
            let before = t.snapshot();
            t.run(&t.bundle()?.set("/linux/memoryPolicy", asked.clone()))?.refuses(says)?;
            t.unchanged_since(&before)
        })
        .peer("crun", if name == "flags-that-contradict" { "" } else { "other words" })
    };
    rows.into_iter().map(row).collect()
}
