// SPDX-License-Identifier: Apache-2.0
//! What `corten plan` and errors say of a step: `mounts[3] (/dev/shm): fsmount(tmpfs)`.

use corten::ask::Create;
use corten::plan::mounts::Attrs;
use corten::program::{Op, Program, Ref, StageOp, Step, compile, explain};
use corten::stage::wire::TARGET_EXISTING;
use serde_json::{Value, json};

use crate::cases::plan;

fn program(change: impl FnOnce(&mut Value)) -> Program {
    compile::create(&plan(&Create::default(), change), 40)
}

/// The words for one step of the stage's alone.
fn sentence(op: StageOp) -> String {
    let step = Step { at: String::new(), op: Op::Stage(op) };
    let program = Program { sources: Vec::new(), steps: vec![step] };
    explain::sentence(&program, &program.steps[0])
}

/// Each mount by its field and its place, each fsmount(2) with the file system that was opened for it.
#[test]
fn errors_name_the_mount_and_its_file_system() {
    let program = program(|_| {});
    let made = program.steps.iter().enumerate().filter_map(|(index, step)| match &step.op {
        Op::Stage(StageOp::FsMount { .. }) => {
            Some((explain::step_name(&program, index), explain::operand(&program, index)))
        }
        _ => None,
    });
    let made: Vec<(String, String)> = made.collect();
    let config: Value = serde_json::from_str(include_str!("../data/plan/default.json")).unwrap();
    let wanted = config["mounts"].as_array().unwrap().iter().enumerate().map(|(number, mount)| {
        let text = |key: &str| mount[key].as_str().unwrap();
        let fstype = if text("type") == "cgroup" { "cgroup2" } else { text("type") };
        (format!("mounts[{number}] ({})", text("destination")), fstype.to_owned())
    });
    assert_eq!(made, wanted.collect::<Vec<_>>());
}

/// A bind's source is opened before its target is looked up: its errors name the target all the same.
#[test]
fn what_comes_before_its_target_names_it_too() {
    let program = program(|c| {
        let bind =
            json!({"destination": "/data", "type": "bind", "source": "/src", "options": ["bind", "ro"]});
        c["mounts"].as_array_mut().unwrap().push(bind);
    });
    let of_bind = |(_, step): &(usize, &Step)| step.at == "/mounts/7";
    let (first, step) = program.steps.iter().enumerate().find(of_bind).unwrap();
    assert!(matches!(step.op, Op::Host(_)), "{step:?}");
    assert_eq!(explain::step_name(&program, first), "mounts[7] (/data)");
    assert_eq!(explain::step_name(&program, program.steps.len()), "container init");
}

/// A flag that is set is not said to be cleared, though the kernel is asked to clear all flags for access times first.
#[test]
fn attributes_are_those_that_change() {
    let change = |attrs, recursive| {
        sentence(StageOp::SetAttr { mount: Ref::Nothing, attrs, propagation: 0, recursive })
    };
    let attrs = Attrs { set: 0x10, clear: 0x70 | 0x2, implied: 0x8 };
    assert_eq!(
        change(attrs, false),
        "make it noatime, not nosuid, not strictatime, without noexec unless locked"
    );
    let attrs = Attrs { set: 0x1, clear: 0, implied: 0 };
    assert_eq!(change(attrs, true), "make it ro (whole tree)");
}

#[test]
fn a_target_is_made_unless_it_is_to_be_there() {
    let target = |flags| sentence(StageOp::Target { slot: 1, path: "/m".into(), flags, like: Ref::Nothing });
    assert_eq!(
        (target(0), target(TARGET_EXISTING)),
        ("find or make the mount point /m".into(), "find /m".into())
    );
}
