// SPDX-License-Identifier: Apache-2.0
//! Every value of three golden configurations replaced by every nasty one: the plan is made or refused with a
//! pointer, it never panics, and it never lets a NUL byte or 4294967295 through to the kernel.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use corten::ask::Create;
use corten::error::Kind;
use corten::plan::mounts::{MountSource, MountStep};
use corten::spec::{self, Spec};
use serde_json::{Value, json};

use crate::{hosts, show};

fn nasty() -> Vec<Value> {
    vec![
        Value::Null,
        json!(""),
        json!("/"),
        json!("a"),
        json!("/.."),
        json!("../../x"),
        json!("\0"),
        json!("/a\0b"),
        json!("a\nb"),
        json!({"a\n/b": {}, "c\0": "1"}),
        json!(["a\nb", "CAP_\n"]),
        json!("%s%n\u{202e}é"),
        json!("x".repeat(5000)),
        json!(0),
        json!(1),
        json!(-1),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(true),
        json!([]),
        json!({}),
    ]
}

/// Pointers of every value below.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, v)| pointers(v, &format!("{at}/{n}"), all))
        }
        Value::Object(map) => map.iter().for_each(|(k, v)| {
            pointers(v, &format!("{at}/{}", k.replace('~', "~0").replace('/', "~1")), all);
        }),
        _ => {}
    }
}

#[test]
fn nasty_values_everywhere() {
    let (mut made, mut refused) = (0, 0);
    for name in ["docker", "userns", "odd"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/plan/{name}.json"));
        let good: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut all = Vec::new();
        pointers(&good, "", &mut all);
        for pointer in all.iter().skip(1) {
            for value in nasty() {
                let mut config = good.clone();
                *config.pointer_mut(pointer).unwrap() = value.clone();
                let Ok(spec) = spec::read::<Spec>("config.json", config.to_string().as_bytes()) else {
                    continue;
                };
                match try_one(&spec, &value) {
                    Ok(()) => made += 1,
                    Err(text) => {
                        refused += 1;
                        assert!(text.starts_with("config.json /"), "{name} {pointer} = {value}: {text}");
                    }
                }
            }
        }
    }
    assert!(made > 1000 && refused > 1000, "{made} made, {refused} refused: the test tests nothing");
}

fn try_one(spec: &Spec, value: &Value) -> Result<(), String> {
    let ask = Create { no_pivot: true, listen_fds: 1, ..Create::default() };
    let plan = hosts::plan_for(spec, &hosts::v1(), &ask).map_err(|error| {
        assert!(matches!(error.kind(), Kind::Invalid | Kind::Unsupported), "{error}");
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
        error.to_string()
    })?;
    assert!(!plan.warnings.iter().any(|line| line.contains(char::is_control)), "{:?}", plan.warnings);
    if value.to_string().contains("\\u0000") {
        // Without the annotations, which no kernel sees.
        let mut plan = plan.clone();
        plan.annotations.clear();
        assert!(!format!("{plan:?}").contains("\\0"), "a NUL byte came through: {}", show::plan(&plan));
    }
    if let Some(process) = &plan.process {
        assert!(process.uid != u32::MAX && process.gid != u32::MAX && !process.gids.contains(&u32::MAX));
        assert!(process.cwd.starts_with('/') && !process.args.is_empty() && !process.candidates.is_empty());
    }
    for step in &plan.mounts {
        let (MountStep::Mount(corten::plan::mounts::Mount { target, .. })
        | MountStep::Symlink { path: target, .. }
        | MountStep::Remount { target, .. }) = step;
        assert!(
            target.starts_with('/') && !target.split('/').any(|part| part == ".." || part == "."),
            "{target}"
        );
        if let MountStep::Mount(mount) = step {
            if let MountSource::Bind { path, .. } = &mount.source {
                assert!(path.is_absolute(), "{path:?}");
            }
            assert!(
                !target.starts_with("/proc") || mount.in_proc || !target[5..].starts_with('/'),
                "{target}"
            );
        }
    }
    Ok(())
}
