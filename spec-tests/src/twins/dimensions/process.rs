// SPDX-License-Identifier: Apache-2.0
//! `process`: ids, capabilities, limits, scheduling, environment, directory, program.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::super::plan::Plan;
use super::{maybe, one_of, together};

/// Capabilities that native root has everywhere.
const CAPABILITIES: [&str; 10] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Some of what a process may be.
pub fn parts() -> BoxedStrategy<Plan> {
    together(vec![
        user(),
        capabilities(),
        maybe(0.5, "/process/noNewPrivileges", one_of(vec![json!(false), json!(true), Value::Null])),
        maybe(0.3, "/process/rlimits", limits()),
        maybe(0.3, "/process/oomScoreAdj", one_of(vec![json!(0), json!(100), json!(1000)])),
        maybe(0.2, "/process/scheduler", scheduler()),
        maybe(0.2, "/process/ioPriority", io_priority()),
        maybe(0.2, "/process/execCPUAffinity", affinity()),
        maybe(0.5, "/process/env", environment()),
        directory(),
        program(),
    ])
}

fn user() -> BoxedStrategy<Plan> {
    together(vec![
        maybe(0.5, "/process/user/uid", one_of(vec![json!(0), json!(1000), json!(4_000_000), json!(12345)])),
        maybe(0.5, "/process/user/gid", one_of(vec![json!(0), json!(1000), json!(7)])),
        maybe(
            0.4,
            "/process/user/additionalGids",
            one_of(vec![json!([]), json!([5]), json!([5, 1000, 1, 0]), json!([9, 9])]),
        ),
        maybe(0.4, "/process/user/umask", one_of(vec![json!(0), json!(0o27), json!(0o777)])),
    ])
}

/// The object absent, or each of its sets absent, empty or filled. What is asked for is always permitted.
fn capabilities() -> BoxedStrategy<Plan> {
    let set = || proptest::option::of(subsequence(&CAPABILITIES[..], 0..=6));
    let sets = (set(), set(), set(), any::<bool>(), any::<bool>());
    let filled = sets.prop_map(|(bounding, permitted, inheritable, effective, ambient)| {
        let mut all = serde_json::Map::new();
        // A capability that is effective or inheritable but not permitted, or ambient but not both, is no valid container.
        let held = permitted.clone().unwrap_or_default();
        let within =
            |set: &[&'static str]| set.iter().filter(|one| held.contains(one)).copied().collect::<Vec<_>>();
        let inherited = inheritable.map(|set| within(&set));
        if effective {
            all.insert("effective".into(), json!(held));
        }
        if ambient {
            all.insert("ambient".into(), json!(inherited.clone().unwrap_or_default()));
        }
        let bounding = bounding.map(|set| {
            held.iter().chain(set.iter().filter(|one| !held.contains(one))).copied().collect::<Vec<_>>()
        });
        for (name, set) in [("bounding", bounding), ("permitted", permitted), ("inheritable", inherited)] {
            if let Some(set) = set {
                all.insert(name.into(), json!(set));
            }
        }
        Value::from(all)
    });
    maybe(0.5, "/process/capabilities", prop_oneof![1 => Just(Value::Null), 6 => filled])
}

fn limits() -> BoxedStrategy<Value> {
    let limit = (
        select(vec![
            "RLIMIT_NOFILE",
            "RLIMIT_CORE",
            "RLIMIT_NPROC",
            "RLIMIT_STACK",
            "RLIMIT_FSIZE",
            "RLIMIT_RTPRIO",
            "RLIMIT_MEMLOCK",
        ]),
        select(vec![0u64, 64, 1024]),
        0u64..3,
    );
    let one = limit.prop_map(|(name, soft, more)| {
        // So low that nothing runs is another test's.
        let soft = match name {
            "RLIMIT_STACK" => 1 << 20,
            "RLIMIT_NOFILE" => soft.max(64),
            "RLIMIT_FSIZE" => 1 << 24,
            "RLIMIT_NPROC" => 500 + soft,
            "RLIMIT_RTPRIO" | "RLIMIT_MEMLOCK" => 0,
            _ => soft,
        };
        (name, json!({"type": name, "soft": soft, "hard": if name == "RLIMIT_RTPRIO" || name == "RLIMIT_MEMLOCK" { 0 } else { soft + more }}))
    });
    // A type may stand there once only.
    let distinct =
        |list: Vec<(&str, Value)>| list.into_iter().collect::<BTreeMap<_, _>>().into_values().collect();
    proptest::collection::vec(one, 0..4).prop_map(distinct).boxed()
}

fn scheduler() -> BoxedStrategy<Value> {
    one_of(vec![
        json!({"policy": "SCHED_OTHER", "nice": 5}),
        json!({"policy": "SCHED_OTHER"}),
        json!({"policy": "SCHED_BATCH", "nice": 3}),
        json!({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
        json!({"policy": "SCHED_IDLE"}),
        json!({"policy": "SCHED_FIFO", "priority": 10}),
        json!({"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
    ])
}

fn io_priority() -> BoxedStrategy<Value> {
    let class = select(vec!["IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE", "IOPRIO_CLASS_RT"]);
    (class, 0..8).prop_map(|(class, priority)| json!({"class": class, "priority": priority})).boxed()
}

fn affinity() -> BoxedStrategy<Value> {
    one_of(vec![
        json!({"initial": "0"}),
        json!({"final": "0"}),
        json!({"initial": "0", "final": "0-1"}),
        json!({}),
    ])
}

fn environment() -> BoxedStrategy<Value> {
    let one = select(vec![
        "PATH=/bin:/",
        "PATH=",
        "PATH=/",
        "HOME=/somewhere",
        "HOME=",
        "TERM=xterm",
        "A=b",
        "A=c",
        "EMPTY=",
        "SPACE= x y ",
        "LANG=C.UTF-8",
        "=x",
    ]);
    proptest::collection::vec(one, 0..5).prop_map(|list| json!(list)).boxed()
}

fn directory() -> BoxedStrategy<Plan> {
    let cases = vec![
        Plan::set("/process/cwd", json!("/tmp")),
        Plan::set("/process/cwd", json!("/new/deep")).and("/root/readonly", json!(false)),
        Plan::set("/process/cwd", json!("/closed")).thing("dir rootfs/closed 700"),
        Plan::set("/process/cwd", json!("/ln")).thing("link rootfs/ln /etc"),
        Plan::set("/process/cwd", json!("/proc/self")),
        Plan::set("/process/cwd", json!("/tmp/../etc")),
    ];
    proptest::option::weighted(0.3, select(cases)).prop_map(Option::unwrap_or_default).boxed()
}

/// The program by name, looked up in PATH, and programs that are none.
fn program() -> BoxedStrategy<Plan> {
    let cases = vec![
        Plan::set("/process/args/0", json!("probe")),
        Plan::set("/process/args/0", json!("./probe")),
        Plan::set("/process/args/0", json!("../probe")),
        Plan::set("/process/args", json!(["/missing"])),
        Plan::set("/process/args", json!(["missing", "x"])),
        Plan::set("/process/args", json!(["/etc/passwd"])),
        Plan::set("/process/args", json!(["/etc"])),
        Plan::set("/process/args", json!([""])),
        Plan::set("/process/args", json!(["/probe", "exit", "7"])),
        Plan::set("/process/args", json!(["/probe", "die", "SIGKILL"])),
    ];
    proptest::option::weighted(0.15, select(cases)).prop_map(Option::unwrap_or_default).boxed()
}
