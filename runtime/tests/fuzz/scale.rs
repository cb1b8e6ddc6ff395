// SPDX-License-Identifier: Apache-2.0
//! Ten thousand of everything, and that eight times as much takes some eight times as long: no list is compared with itself
//! or with another, entry by entry.

use serde_json::{Map, Value, json};

use crate::hosts;
use crate::large::{list, measure};

/// How many entries, and how many times as many.
const FEW: usize = 1250;
const TIMES: usize = 8;
/// More than this many times the time is more than proportion and noise: comparing all with all takes some 50 times as long.
const MOST: f64 = 24.0;

#[test]
fn ten_thousand_of_everything() {
    let mut wrong = Vec::new();
    for (what, make) in CASES {
        // Only control groups are decided in two ways.
        let both = make(1)["linux"]["resources"].is_object();
        let hosts = if both { vec![hosts::v2(), hosts::v1()] } else { vec![hosts::v2()] };
        let take = |n| measure(what, &config(&make(n)), &hosts);
        let few = take(FEW).min(take(FEW));
        let many = take(FEW * TIMES);
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        println!("{what}: {ratio:.0} times as long");
        if ratio > MOST {
            wrong.push(format!("{what}: {few:?}, then {many:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The default configuration with these members in its objects.
fn config(more: &Value) -> Value {
    let mut config: Value = serde_json::from_str(include_str!("../data/plan/default.json")).unwrap();
    for (key, value) in more.as_object().unwrap() {
        match (config.get_mut(key), value) {
            (Some(Value::Object(object)), Value::Object(more)) => object.extend(more.clone()),
            _ => config[key] = value.clone(),
        }
    }
    config
}

type Make = fn(usize) -> Value;

const CASES: &[(&str, Make)] = &[
    ("mounts", |n| json!({"mounts": mounts(n, &["nosuid", "size=1"])})),
    ("mounts remounted late", |n| json!({"mounts": mounts(n, &["ro"])})),
    ("binds", |n| json!({"mounts": list(n, |n| bind(&format!("/m{n}"), n))})),
    ("binds on one place", |n| json!({"mounts": list(n, |n| bind("/m", n))})),
    ("mapped mounts", |n| {
        let mapping = |n| json!([{"containerID": 0, "hostID": n, "size": 1}]);
        let mapped = |n| json!({"destination": "/m", "source": "/s", "options": ["bind"], "uidMappings": mapping(n), "gidMappings": mapping(n)});
        json!({"mounts": list(n, mapped)})
    }),
    ("masked paths in kernel's mounts", |n| {
        let kernels = |n| json!({"destination": format!("/m{n}"), "type": (["sysfs", "proc"][n % 2])});
        json!({"mounts": list(n, kernels), "linux": {"maskedPaths": paths(n, "/x")}})
    }),
    ("options", |n| options("tmpfs", list(10 * n, |_| json!("sync")))),
    ("data", |n| options("overlay", list(n, |n| json!(format!("x{n}"))))),
    ("devices", |n| json!({"linux": {"devices": devices(n)}})),
    ("devices and mounts", |n| json!({"mounts": mounts(n, &[]), "linux": {"devices": devices(n)}})),
    (
        "masked paths and mounts",
        |n| json!({"mounts": mounts(n, &[]), "linux": {"maskedPaths": paths(n, "")}}),
    ),
    (
        "read-only paths and mounts",
        |n| json!({"mounts": mounts(n, &[]), "linux": {"readonlyPaths": paths(n, "")}}),
    ),
    ("mappings", |n| in_userns(n, 0)),
    ("groups", |n| process("user", json!({"additionalGids": list(5 * n, |n| json!(n))}))),
    ("groups that are mapped", |n| in_userns(340, n)),
    ("namespaces", |n| json!({"linux": {"namespaces": list(n, |_| json!({"type": "mount"}))}})),
    ("limits", |n| {
        process("rlimits", list(n, |n| json!({"type": format!("RLIMIT_{n}"), "hard": 1, "soft": 1})))
    }),
    ("capabilities", |n| {
        process("capabilities", json!({"bounding": list(n, |n| json!(format!("CAP_{n}")))}))
    }),
    ("environment", |n| process("env", list(n, |n| json!(format!("V{n}=x"))))),
    ("hooks", |n| {
        let hooks = |_| list(n, |_| json!({"path": "/x", "env": ["A=b"]}));
        json!({"hooks": {"createRuntime": hooks(0), "startContainer": hooks(1), "poststop": hooks(2)}})
    }),
    (
        "hooks that are told annotations",
        |n| json!({"annotations": map(n, &json!("1")), "hooks": {"startContainer": list(n, |_| json!({"path": "/x"}))}}),
    ),
    ("sysctl", |n| json!({"linux": {"sysctl": map(n, &json!("1"))}})),
    ("annotations", |n| json!({"annotations": map(n, &json!("1"))})),
    ("network devices", |n| json!({"linux": {"netDevices": map(n, &json!({}))}})),
    ("schemata", |n| json!({"linux": {"intelRdt": {"schemata": list(n, |n| json!(format!("L3:{n}=f")))}}})),
    ("2048 device rules", |n| resources("devices", rules(n.min(2048)))),
    ("device rules", |n| resources("devices", rules(n))),
    ("throttles", |n| {
        let rates = list(n, |n| json!({"major": 8, "minor": n, "rate": 1}));
        resources("blockIO", json!({"throttleReadBpsDevice": rates}))
    }),
    ("huge pages", |n| {
        resources("hugepageLimits", list(n, |n| json!({"pageSize": format!("{n}MB"), "limit": 1})))
    }),
    ("unified", |n| resources("unified", map(n, &json!("1")))),
    ("rdma", |n| resources("rdma", map(n, &json!({"hcaHandles": 1})))),
];

fn map(n: usize, value: &Value) -> Value {
    (0..n).map(|n| (format!("net.x{n}"), value.clone())).collect::<Map<_, _>>().into()
}

fn mounts(n: usize, options: &[&str]) -> Value {
    list(n, |n| json!({"destination": format!("/m{n}"), "type": "tmpfs", "options": options}))
}

fn bind(target: &str, n: usize) -> Value {
    json!({"destination": target, "source": format!("/s{n}"), "options": ["rbind", "ro"]})
}

fn options(kind: &str, options: Value) -> Value {
    json!({"mounts": [{"destination": "/m", "type": kind, "options": options}]})
}

fn devices(n: usize) -> Value {
    list(n, |n| json!({"path": format!("/m{n}/d{n}"), "type": "c", "major": 1, "minor": n}))
}

fn paths(n: usize, below: &str) -> Value {
    list(n, |n| json!(format!("/m{n}{below}")))
}

fn process(field: &str, value: Value) -> Value {
    json!({"process": {field: value}})
}

fn resources(field: &str, value: Value) -> Value {
    json!({"linux": {"resources": {field: value}}})
}

/// So many mappings, and so many groups.
fn in_userns(mappings: usize, groups: usize) -> Value {
    let mappings = list(mappings, |n| json!({"containerID": n, "hostID": n, "size": 1}));
    json!({"process": {"user": {"additionalGids": list(groups, |n| json!(n % 340))}},
        "linux": {"namespaces": [{"type": "user"}, {"type": "mount"}, {"type": "uts"}], "uidMappings": mappings, "gidMappings": mappings}})
}

fn rules(n: usize) -> Value {
    list(n, |n| json!({"allow": n % 2 == 0, "type": "c", "major": n, "access": "r"}))
}
