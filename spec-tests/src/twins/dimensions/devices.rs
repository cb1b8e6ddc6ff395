// SPDX-License-Identifier: Apache-2.0
//! Device rules, loaded into the real kernel, whose verdict is asked for some 80 pairs of a device and an access; and nodes.

#![forbid(unsafe_code)]

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::super::plan::Plan;
use super::together;

/// What is asked for: type, major, minor. None of them does anything when it is opened.
const ASKED: [(&str, u32, u32); 20] = [
    ("c", 1, 3),
    ("c", 1, 5),
    ("c", 1, 7),
    ("c", 1, 8),
    ("c", 1, 9),
    ("c", 1, 11),
    ("c", 5, 0),
    ("c", 5, 2),
    ("c", 10, 200),
    ("c", 10, 229),
    ("c", 136, 0),
    ("c", 136, 7),
    ("c", 240, 5),
    ("c", 254, 0),
    ("b", 1, 3),
    ("b", 7, 0),
    ("b", 8, 0),
    ("b", 8, 1),
    ("b", 240, 5),
    ("b", 253, 0),
];

/// A list of rules, and nodes beside the default ones.
pub fn parts() -> BoxedStrategy<Plan> {
    let capabilities = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
    let asks = Plan::set("/process/capabilities/bounding", capabilities.clone())
        .and("/process/capabilities/permitted", capabilities.clone())
        .and("/process/capabilities/effective", capabilities)
        .and("/process/user/uid", json!(0))
        .and("/root/readonly", json!(false));
    let asks = ASKED.iter().fold(asks, |plan, (kind, major, minor)| {
        plan.thing(format!("node rootfs/nodes/{kind}{major}-{minor} {kind} {major} {minor}"))
            .tries([format!("device {kind} {major} {minor}")])
    });
    together(vec![Just(asks).boxed(), rules(), nodes()])
}

fn rules() -> BoxedStrategy<Plan> {
    let access = subsequence(vec!["r", "w", "m"], 1..=3).prop_map(|letters| letters.concat());
    let number = || prop_oneof![2 => Just(None), 1 => Just(Some(-1i64)), 6 => select(vec![Some(1i64), Some(5), Some(8), Some(10), Some(136)])];
    let minor = prop_oneof![2 => Just(None), 1 => Just(Some(-1i64)), 6 => select(vec![Some(0i64), Some(1), Some(3), Some(5), Some(200)])];
    let kind = select(vec![Some("c"), Some("c"), Some("b"), Some("a"), None]);
    let rule = (any::<bool>(), kind, number(), minor, access.prop_map(Some));
    let rule = rule.prop_map(|(allow, kind, major, minor, access)| {
        let mut rule = Map::from_iter([("allow".to_owned(), json!(allow))]);
        // A rule for all types is a rule for all devices and accesses.
        let (major, minor, access) =
            if matches!(kind, Some("a") | None) { (None, None, None) } else { (major, minor, access) };
        kind.map(|kind| rule.insert("type".into(), json!(kind)));
        major.map(|major| rule.insert("major".into(), json!(major)));
        minor.map(|minor| rule.insert("minor".into(), json!(minor)));
        access.map(|access| rule.insert("access".into(), json!(access)));
        Value::from(rule)
    });
    let first = select(vec![
        vec![json!({"allow": false, "access": "rwm"})],
        vec![json!({"allow": false, "access": "rwm"}), json!({"allow": true, "type": "c", "access": "rwm"})],
        vec![json!({"allow": false, "access": "rwm"}), json!({"allow": true, "type": "b", "access": "m"})],
        vec![json!({"allow": true, "access": "rwm"})],
        vec![],
    ]);
    let list = (first, proptest::collection::vec(rule, 0..6));
    list.prop_map(|(first, more)| {
        let all: Vec<Value> = first.into_iter().chain(more).collect();
        Plan::set("/linux/resources/devices", json!(all))
    })
    .boxed()
}

fn nodes() -> BoxedStrategy<Plan> {
    let place = select(vec!["/dev/one", "/dev/deep/two", "/dev/null", "/tmp/three", "/dev/fuse"]);
    let kind = select(vec![("c", 1, 3), ("c", 10, 229), ("b", 7, 0), ("p", 0, 0), ("u", 1, 5)]);
    let node = (
        place,
        kind,
        proptest::option::of(select(vec![0o600, 0o666, 0o20_640])),
        proptest::option::of(select(vec![0, 1000])),
    );
    let node = node.prop_map(|(place, (kind, major, minor), mode, owner)| {
        let mut node = json!({"path": place, "type": kind});
        if kind != "p" {
            (node["major"], node["minor"]) = (json!(major), json!(minor));
        }
        if let Some(mode) = mode {
            node["fileMode"] = json!(mode & 0o777);
        }
        if let Some(owner) = owner {
            (node["uid"], node["gid"]) = (json!(owner), json!(owner));
        }
        Plan::set("/linux/devices/-", node).tries([format!("stat {place}")])
    });
    proptest::collection::vec(node, 0..3).prop_map(Plan::join).boxed()
}
