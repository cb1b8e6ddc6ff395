// SPDX-License-Identifier: Apache-2.0
//! config.json → Plan → Program → bytes and words. The first byte chooses host and flags.

use corten::ask::Create;
use corten::facts::Facts;
use corten::plan::Plan;
use corten::program::{Op, StageOp, compile, encode::encode};
use corten::spec::{self, Spec};
use serde_json::Value;

use crate::mutate::Shape;
use crate::targets::Target;
use crate::{cases, holds, hosts};

pub const TARGET: Target = Target { name: "config", shape: Shape::Json, seeds, run, short: 1500 };

const LAST_CAP: u32 = 40;

fn circumstances(choice: u8) -> (Facts, Create) {
    let facts = match choice % 4 {
        0 => hosts::v2(),
        1 => hosts::v1(),
        2 => hosts::nested(),
        _ => hosts::user(),
    };
    let bit = |n: u8| (choice / 4) >> n & 1 == 1;
    let fds = u32::from(bit(1));
    (facts, Create { no_pivot: bit(0), listen_fds: fds, preserve_fds: fds, run: bit(2), ..Create::default() })
}

fn run(input: &[u8]) -> bool {
    let Some((choice, json)) = input.split_first() else { return false };
    let (facts, ask) = circumstances(*choice);
    let spec = match spec::read::<Spec>("config.json", json) {
        Ok(spec) => spec,
        Err(error) => {
            holds::configuration_error("config.json", &error);
            return false;
        }
    };
    let make = || -> corten::Result<Plan> {
        let mut plan = hosts::plan_for(&spec, &facts, &ask)?;
        plan.ask.run = ask.run && plan.process.is_some();
        Ok(plan)
    };
    let plan = match make() {
        Ok(plan) => plan,
        Err(error) => {
            holds::configuration_error("config.json /", &error);
            return false;
        }
    };
    holds::plan(&plan);
    let program = compile::create(&plan, LAST_CAP);
    holds::program(&program);
    plan.cgroup.explain().iter().for_each(|(field, words)| holds::one_line(&format!("{field} {words}")));
    if let Some(process) = &plan.process {
        let exec = compile::exec(&cases::entry(&plan, cases::way_in(*choice & 1 == 0)), process);
        holds::program(&exec);
        let made_here =
            |op: &Op| matches!(op, Op::Stage(StageOp::Pivot | StageOp::Mknod { .. } | StageOp::Mask { .. }));
        assert!(!exec.steps.iter().any(|step| made_here(&step.op)), "an exec that makes a root");
    }
    // The same inputs, the same plan: what the stage gets is all of it that matters. One plan at a time: memory is measured.
    drop(plan);
    let again = compile::create(&make().unwrap(), LAST_CAP);
    let fds: Vec<i32> = (0..program.sources.len() as i32).map(|n| 10 + n).collect();
    assert!(
        program.steps == again.steps && program.sources == again.sources,
        "planned twice, different each time"
    );
    assert_eq!(encode(&program, &fds, &[], 3).bytes, encode(&again, &fds, &[], 3).bytes);
    true
}

const GOLDEN: [&str; 7] = [
    include_str!("../../data/plan/default.json"),
    include_str!("../../data/plan/containerd.json"),
    include_str!("../../data/plan/docker.json"),
    include_str!("../../data/plan/odd.json"),
    include_str!("../../data/plan/podman.json"),
    include_str!("../../data/plan/rootless.json"),
    include_str!("../../data/plan/userns.json"),
];

/// The golden configurations, on every host, and what is refused.
fn seeds() -> Vec<Vec<u8>> {
    let with = |choice: u8, json: &Value| [&[choice][..], json.to_string().as_bytes()].concat();
    let golden: Vec<Value> = GOLDEN.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let mut seeds: Vec<Vec<u8>> =
        golden.iter().zip([0, 1, 2, 4, 8, 15, 22]).map(|(json, n)| with(n, json)).collect();
    for row in include_str!("../../data/plan/refused.jsonl").lines().filter(|line| line.starts_with('[')) {
        let row: Value = serde_json::from_str(row).unwrap();
        let mut config = golden[0].clone();
        for (pointer, value) in row[0].as_object().into_iter().flatten() {
            put(&mut config, pointer, value);
        }
        seeds.push(with(0, &config));
    }
    seeds
}

/// Sets the value at a pointer, with what is missing above it; `-` appends.
fn put(config: &mut Value, pointer: &str, value: &Value) {
    let mut at = config;
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if let Value::Array(list) = at {
            let index = part.parse().unwrap_or(list.len());
            list.resize(list.len().max(index + 1), Value::Null);
            at = &mut list[index];
            continue;
        }
        if !at.is_object() {
            *at = Value::Object(serde_json::Map::new());
        }
        at = at.as_object_mut().unwrap().entry(part).or_insert(Value::Null);
    }
    *at = value.clone();
}
