// SPDX-License-Identifier: Apache-2.0
//! The process of `exec`, and what the process's finer rules come to.

#![forbid(unsafe_code)]

use corten::ask::{Create, Overlay};
use corten::plan::caps::{self, Caps};
use corten::plan::process::{self, Process, ProcessContext};
use corten::plan::sysctl;
use corten::spec;
use serde_json::{Value, json};

use crate::errors::{put, read, with};
use crate::hosts;

/// The process of the default configuration with changes, and the warnings.
fn planned(changes: &[(&str, Value)]) -> (Process, Vec<String>) {
    let mut config = with("/ociVersion", json!("1.3.0"));
    for (pointer, value) in changes {
        put(&mut config, pointer, value.clone());
    }
    let plan = hosts::plan(&read(&config), &hosts::v2()).unwrap();
    (plan.process.unwrap(), plan.warnings)
}

#[test]
fn a_container_without_a_process() {
    let plan = hosts::plan(&read(&with("/process", Value::Null)), &hosts::v2()).unwrap();
    assert_eq!(plan.process, None);
}

/// The caller's terminal tells the size where config.json does not, and only there.
#[test]
fn a_terminal_without_a_size_takes_the_callers() {
    let of = |terminal: bool, size: Value| {
        let changes = [("/process/terminal", json!(terminal)), ("/process/consoleSize", size)];
        let (mut process, _) = planned(&changes);
        process.size_of(Some((24, 80)));
        process.terminal
    };
    assert_eq!(of(true, Value::Null), Some(Some((24, 80))));
    assert_eq!(of(true, json!({"height": 40, "width": 100})), Some(Some((40, 100))));
    assert_eq!(of(false, Value::Null), None);
}

#[test]
fn environment_keeps_the_last_of_duplicates_at_its_place() {
    for (env, want, home) in [
        (json!(["A=1", "B=2", "A=3"]), vec!["B=2", "A=3"], true),
        (json!(["HOME=/x", "A=", "B=a\nb=c"]), vec!["HOME=/x", "A=", "B=a\nb=c"], false),
        (json!(["HOME=/x", "HOME="]), vec![], true),
        (json!(["HOME=", "HOME=/y"]), vec!["HOME=/y"], false),
        (json!([]), vec![], true),
    ] {
        let (process, _) = planned(&[("/process/env", env)]);
        assert_eq!((process.env, process.needs_home), (want.iter().map(|s| s.to_string()).collect(), home));
    }
}

#[test]
fn a_hundred_thousand_variables_are_no_trouble() {
    let env: Vec<String> = (0..100_000).map(|n| format!("V{}={n}", n % 50_000)).collect();
    let start = std::time::Instant::now();
    let (process, _) = planned(&[("/process/env", json!(env))]);
    assert_eq!(process.env.len(), 50_000);
    assert_eq!(process.env[0], "V0=50000");
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn candidates_follow_the_path() {
    for (args, env, want) in [
        (json!(["sh"]), json!(["PATH=/a:/b/"]), vec!["/a/sh", "/b//sh"]),
        (json!(["sh"]), json!(["PATH=/old", "PATH=:x"]), vec!["./sh", "x/sh"]),
        (json!(["./sh"]), json!(["PATH=/a"]), vec!["./sh"]),
        (json!(["/bin/sh"]), json!(["PATH="]), vec!["/bin/sh"]),
        (json!(["a/b"]), json!([]), vec!["a/b"]),
        (
            json!(["sh"]),
            json!([]),
            vec![
                "/usr/local/sbin/sh",
                "/usr/local/bin/sh",
                "/usr/sbin/sh",
                "/usr/bin/sh",
                "/sbin/sh",
                "/bin/sh",
            ],
        ),
    ] {
        let (process, _) = planned(&[("/process/args", args), ("/process/env", env)]);
        assert_eq!(process.candidates, want);
    }
}

#[test]
fn socket_activation() {
    let spec = read(&with("/process/env", json!(["LISTEN_FDS=9", "A=1"])));
    let ask = Create { listen_fds: 2, preserve_fds: 1, ..Create::default() };
    let plan = hosts::plan_for(&spec, &hosts::v2(), &ask).unwrap();
    assert_eq!(plan.process.unwrap().env, ["A=1", "LISTEN_FDS=2", "LISTEN_PID=1"]);
    assert_eq!((plan.ask.keep_fds, plan.ask.listen_fds), (3, 2));
}

#[test]
fn capabilities() {
    let (process, warnings) = planned(&[
        ("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_MOON", "cap_chown", "CAP_MOON"])),
        ("/process/capabilities/inheritable", json!(["CAP_KILL"])),
        ("/process/capabilities/ambient", json!(["CAP_KILL", "CAP_AUDIT_WRITE"])),
    ]);
    assert_eq!(process.caps.bounding, 1 << 5);
    assert_eq!(process.caps.ambient, 1 << 5);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let ignored = "ignoring unknown or unavailable capabilities: CAP_MOON, cap_chown";
    assert_eq!(warnings[0], format!("config.json /process/capabilities: {ignored}"));
    assert!(warnings[1].starts_with("can't raise ambient capability CAP_AUDIT_WRITE: "), "{warnings:?}");

    let (process, warnings) = planned(&[("/process/capabilities", Value::Null)]);
    assert_eq!((process.caps, warnings.len()), (Caps::default(), 0));

    // A kernel that knows fewer.
    let spec = read(&with("/process/capabilities/bounding", json!(["CAP_CHECKPOINT_RESTORE", "CAP_KILL"])));
    let old = corten::facts::Facts { last_cap: 37, ..hosts::v2() };
    let plan = hosts::plan(&spec, &old).unwrap();
    assert!(plan.warnings[0].contains("CAP_CHECKPOINT_RESTORE"), "{:?}", plan.warnings);
    assert_eq!(plan.process.unwrap().caps.bounding, 1 << 5);
}

/// Sets are what was asked for and nothing else, in every combination (S25): inheritable and ambient stay empty
/// unless named; ambient is cut to what the kernel takes.
#[test]
fn capability_sets_are_exactly_the_asked_ones() {
    let pick =
        |bits: u64| (0..4).filter(move |n| bits & (1 << n) != 0).map(|n| caps::names(1 << (n * 5)).remove(0));
    let mask = |bits: u64| (0..4).filter(|n| bits & (1 << n) != 0).fold(0, |mask, n| mask | 1_u64 << (n * 5));
    for seed in 0..16 * 16 * 16 {
        let (bounding, permitted, inheritable) = (seed & 15, (seed >> 4) & 15, (seed >> 8) & 15);
        let (effective, ambient) = (permitted & !(seed & 5), ((seed * 7) >> 2) & 15);
        let set = |bits| json!(pick(bits).collect::<Vec<_>>());
        let sets: spec::Capabilities = serde_json::from_value(json!({
            "bounding": set(bounding), "permitted": set(permitted), "inheritable": set(inheritable),
            "effective": set(effective), "ambient": set(ambient),
        }))
        .unwrap();
        let mut warnings = Vec::new();
        let caps = caps::decide_capabilities(Some(&sets), "", &hosts::v2(), &mut warnings).unwrap();
        let kept = ambient & permitted & inheritable;
        let want = Caps {
            bounding: mask(bounding),
            effective: mask(effective),
            permitted: mask(permitted),
            inheritable: mask(inheritable),
            ambient: mask(kept),
        };
        assert_eq!(caps, want, "{seed:#x}");
        assert_eq!(warnings.len() as u32, (ambient & !kept).count_ones(), "{warnings:?}");
    }
}

/// Every name of the `caps` crate reads as the bit that is printed by that name.
#[test]
fn capability_names_go_both_ways() {
    let all: Vec<String> = (0..=40).map(|n| caps::names(1 << n).remove(0)).collect();
    let (process, warnings) = planned(&[("/process/capabilities/bounding", json!(all))]);
    assert_eq!((process.caps.bounding, warnings.len()), ((1 << 41) - 1, 0));
    assert_eq!(caps::names(1 << 63), ["CAP_63"]);
}

#[test]
fn small_fields() {
    let (process, warnings) = planned(&[
        (
            "/process/user",
            json!({"uid": 4_294_967_294_u32, "gid": 7, "additionalGids": [9, 9], "umask": 0o1077}),
        ),
        ("/process/cwd", json!("/a/./b//../c")),
        ("/process/oomScoreAdj", json!(-1000)),
        ("/process/consoleSize", json!({"height": 40, "width": 100})),
        ("/process/apparmorProfile", json!("")),
        ("/process/selinuxLabel", json!("a:b:c")),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO", "priority": 9, "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"]}),
        ),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0})),
        ("/process/execCPUAffinity", json!({"initial": "", "final": "0-1, 4"})),
        ("/linux/personality", json!({"domain": "LINUX32"})),
    ]);
    assert_eq!((process.uid, process.gid, process.gids), (4_294_967_294, 7, vec![9, 9]));
    assert_eq!((process.umask, process.cwd.as_str()), (0o077, "/a/c"));
    assert_eq!((process.oom_score_adj, process.terminal), (Some(-1000), Some(Some((40, 100)))));
    assert_eq!((process.apparmor, process.selinux.unwrap().value), (None, "a:b:c".to_owned()));
    let scheduler = process.scheduler.unwrap();
    assert_eq!(
        (scheduler.value.attr.policy, scheduler.value.attr.priority, scheduler.value.attr.flags),
        (1, 9, 5)
    );
    assert_eq!((process.io_priority.unwrap().value, process.personality.unwrap().value), (3 << 13, 8));
    let affinity = process.affinity.unwrap().value;
    assert_eq!((affinity.initial, affinity.last.unwrap().0), (None, vec![0b1_0011]));
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn what_is_only_warned_about() {
    let mut config = with("/ociVersion", json!("1.9.0-dev"));
    put(
        &mut config,
        "/mounts/-",
        json!({"destination": "data", "source": "vol", "options": ["bind", "noexce", "ro"]}),
    );
    let plan = hosts::plan(&read(&config), &hosts::v2()).unwrap();
    assert_eq!(
        plan.warnings,
        [
            "config.json /ociVersion: \"1.9.0-dev\" is newer than 1.3",
            "config.json /mounts/7/destination: relative path \"data\" is taken as below /",
            "config.json /mounts/7/options/1: \"noexce\" means nothing to a bind mount",
        ]
    );
}

#[test]
fn joined_namespaces_that_must_not_be_the_hosts() {
    let mut config = with("/linux/namespaces/1/path", json!("/run/netns/x"));
    put(
        &mut config,
        "/linux/sysctl",
        json!({"net.core.somaxconn": "1", "net.ipv4.x": "2", "kernel.shmmax": "3"}),
    );
    let plan = hosts::plan(&read(&config), &hosts::v2()).unwrap();
    let foreign = sysctl::foreign(&plan.sysctl, &plan.namespaces);
    assert_eq!(foreign.len(), 1);
    assert_eq!(
        (foreign[0].0.path.as_str(), foreign[0].1),
        ("/run/netns/x", "/linux/sysctl/net.core.somaxconn")
    );
}

#[test]
fn overlay_of_exec() {
    let spec = read(&with("/process/env", json!(["A=1"])));
    let base = spec.process.clone().unwrap();
    let plain = process::overlay(base.clone(), &Overlay::default());
    assert_eq!(plain, spec::Process { terminal: false, ..base.clone() });

    let over = Overlay {
        args: vec!["ls".into(), "-l".into()],
        env: vec!["A=2".into()],
        cwd: Some("/tmp".into()),
        user: Some((5, None)),
        additional_gids: vec![8],
        terminal: true,
        caps: vec!["CAP_NET_RAW".into()],
        no_new_privileges: false,
        apparmor: Some("p".into()),
        process_label: Some("l".into()),
    };
    let laid = process::overlay(base, &over);
    let facts = hosts::v2();
    let setgroups = corten::plan::ids::Setgroups::Allowed;
    let context = ProcessContext { facts: &facts, ids: None, setgroups, spec: &spec, listen_fds: 0 };
    let mut warnings = Vec::new();
    let process = process::decide_process_object(&laid, "/process", &context, &mut warnings).unwrap();
    assert_eq!((process.args.join(" "), process.env.join(" ")), ("ls -l".to_owned(), "A=2".to_owned()));
    assert_eq!((process.cwd.as_str(), process.uid, process.gid, process.gids), ("/tmp", 5, 0, vec![8]));
    let (raw, three) = (1 << 13, 1 << 5 | 1 << 10 | 1 << 29);
    let want =
        Caps { bounding: three | raw, effective: three | raw, permitted: three | raw, ..Caps::default() };
    assert_eq!((process.caps, warnings.len()), (want, 0));
    assert!(process.no_new_privileges, "the configuration's stays");
    assert_eq!(
        (process.apparmor.unwrap().value, process.selinux.unwrap().value),
        ("p".to_owned(), "l".to_owned())
    );

    let bare = spec::Process { args: vec!["x".into()], cwd: "/".into(), ..spec::Process::default() };
    let laid = process::overlay(bare, &Overlay { caps: vec!["CAP_KILL".into()], ..Overlay::default() });
    let process = process::decide_process_object(&laid, "", &context, &mut warnings).unwrap();
    assert_eq!((process.caps.effective, process.caps.inheritable, process.caps.ambient), (1 << 5, 0, 0));
}

/// A process file of its own has pointers of its own.
#[test]
fn pointers_of_a_process_file() {
    let (facts, spec) = (hosts::v2(), read(&with("/hooks", Value::Null)));
    let setgroups = corten::plan::ids::Setgroups::Allowed;
    let context = ProcessContext { facts: &facts, ids: None, setgroups, spec: &spec, listen_fds: 0 };
    let error =
        process::decide_process_object(&spec::Process::default(), "", &context, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains(" /args: args must not be empty"), "{error}");
}
