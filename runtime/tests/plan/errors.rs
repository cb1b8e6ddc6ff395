// SPDX-License-Identifier: Apache-2.0
//! Everything that is refused: the default configuration with a change, the pointer that the message must name, the
//! words it must have. The rows are data: `tests/data/plan/refused.jsonl`.

#![forbid(unsafe_code)]

use corten::ask::Create;
use corten::error::Kind;
use corten::facts::Facts;
use corten::facts::Permitted;
use corten::spec::{self, Spec};
use serde_json::{Map, Value, json};

use crate::hosts;

/// The default configuration with `value` at `pointer`; `-` appends to an array, missing objects are made.
pub fn with(pointer: &str, value: Value) -> Value {
    let mut config: Value = serde_json::from_str(include_str!("../data/plan/default.json")).unwrap();
    put(&mut config, pointer, value);
    config
}

/// What is not permitted is passed over, whatever it says.
const PERMITTED: &str = "run.oci.pidfd_receiver\nrun.oci.seccomp_bpf_data";

/// Sets one value.
pub fn put(config: &mut Value, pointer: &str, value: Value) {
    let mut place = config;
    for part in pointer.split('/').skip(1) {
        if part == "-" {
            let list = place.as_array_mut().unwrap();
            list.push(Value::Null);
            place = list.last_mut().unwrap();
        } else if let Value::Array(list) = place {
            place = &mut list[part.parse::<usize>().unwrap()];
        } else {
            if place.is_null() {
                *place = json!({});
            }
            place = place.as_object_mut().unwrap().entry(part.replace("~1", "/")).or_insert(Value::Null);
        }
    }
    *place = value;
}

pub fn read(config: &Value) -> Spec {
    spec::read("config.json", config.to_string().as_bytes()).unwrap()
}

#[test]
fn every_row_is_refused_at_its_pointer() {
    let rows = include_str!("../data/plan/refused.jsonl").lines().filter(|line| !line.starts_with('#'));
    let host = Facts { permitted: Permitted::of(PERMITTED, true), ..hosts::v2() };
    let mut count = 0;
    for row in rows {
        let (changes, at, words): (Map<String, Value>, String, String) = serde_json::from_str(row).unwrap();
        let mut config = with("/annotations", Value::Null);
        for (pointer, value) in changes {
            put(&mut config, &pointer, value);
        }
        let Err(error) = hosts::plan(&read(&config), &host) else { panic!("accepted: {row}") };
        let text = error.to_string();
        assert!(text.starts_with(&format!("config.json {at}: ")), "not at {at}: {text:?}");
        assert!(text.contains(&words), "lacks {words:?}: {text:?}");
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(matches!(error.kind(), Kind::Invalid | Kind::Unsupported), "{row}");
        count += 1;
    }
    assert!(count > 150, "{count} rows");
}

#[test]
fn private_propagation_needs_pivot_root() {
    let private = read(&with("/linux/rootfsPropagation", json!("rprivate")));
    hosts::plan(&private, &hosts::v2()).unwrap();
    let ask = Create { no_pivot: true, ..Create::default() };
    let error = hosts::plan_for(&private, &hosts::v2(), &ask).unwrap_err().to_string();
    assert!(error.contains("not safe without pivot_root"), "{error}");
}

/// Rows that are too long for the table.
#[test]
fn too_many() {
    let mapping: Vec<Value> =
        (0..341).map(|n| json!({"containerID": n, "hostID": 1000 + n, "size": 1})).collect();
    let mut config = with("/linux/namespaces/-", json!({"type": "user"}));
    put(&mut config, "/linux/uidMappings", json!(mapping));
    put(&mut config, "/linux/gidMappings", json!(mapping[..340]));
    let error = hosts::plan(&read(&config), &hosts::v2()).unwrap_err().to_string();
    assert_eq!(error, "config.json /linux/uidMappings: 341 lines are more than the kernel's 340");
    put(&mut config, "/linux/uidMappings", json!(mapping[..340]));
    hosts::plan(&read(&config), &hosts::v2()).unwrap();

    let config = with("/process/user/additionalGids", json!(vec![1; 65_537]));
    let error = hosts::plan(&read(&config), &hosts::v2()).unwrap_err().to_string();
    assert!(error.starts_with("config.json /process/user/additionalGids: 65537 groups"), "{error}");
}
