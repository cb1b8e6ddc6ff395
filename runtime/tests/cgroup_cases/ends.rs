// SPDX-License-Identifier: Apache-2.0
//! Killing and removing, against the odds.

use std::path::Path;
use std::time::{Duration, Instant};

use corten::cgroup::{Group, Record};

use super::children::{Waiting, role};
use super::hung::Hung;
use super::{Case, Host, read};

/// "In bounded time", on a busy machine too; the waits within are of two seconds. How soon a fork bomb ends is a case of
/// spec-tests, which knows how busy the machine is.
const BOUND: Duration = Duration::from_secs(10);

pub const CASES: &[Case] = &[
    ("killing a process", kill_one),
    ("killing while frozen", kill_frozen),
    ("killing what always forks", kill_comets),
    ("killing a fork bomb", kill_bomb),
    ("killing below, frozen there", kill_below),
    ("removing deep and wide trees", trees),
    ("a vanished group", vanished),
    ("a group made anew by somebody else", somebody_elses),
    ("removing kills what is left", destroy_kills),
    ("removing what is frozen", destroy_frozen),
    ("removing what does not die", destroy_stuck),
    ("uninterruptible sleep", uninterruptible),
];

fn kill_one(host: &Host) {
    let (group, _) = host.group("a", "{}");
    let mut process = Waiting::new("true");
    group.place(process.pid()).unwrap();
    group.kill().unwrap();
    assert!(process.dies_within(BOUND));
    group.destroy().unwrap();
}

fn kill_frozen(host: &Host) {
    let (group, _) = host.group("a", "{}");
    let mut process = Waiting::new("true");
    group.place(process.pid()).unwrap();
    group.freeze(true).unwrap();
    // As `delete --force` after a crash: from the record alone.
    let record: Record = serde_json::from_str(&serde_json::to_string(group.record()).unwrap()).unwrap();
    Group::open(record).kill().unwrap();
    assert!(process.dies_within(BOUND));
    group.destroy().unwrap();
}

/// Runs `group.kill` and `destroy` on a group in which `processes` of a role are at work.
fn kill_roles(host: &Host, json: &str, name: &str, processes: usize) {
    let (group, _) = host.group("a", json);
    let mut children: Vec<Waiting> = (0..processes).map(|_| role(name)).collect();
    for child in &mut children {
        group.place(child.pid()).unwrap();
        child.go();
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(!group.pids().unwrap().is_empty(), "they have died by themselves");
    let start = Instant::now();
    group.kill().unwrap();
    group.destroy().unwrap();
    let took = start.elapsed();
    println!("  kill and destroy took {took:?}");
    assert!(took < BOUND, "{took:?}");
}

fn kill_comets(host: &Host) {
    for _ in 0..5 {
        kill_roles(host, "{}", "comet", 3);
    }
}

fn kill_bomb(host: &Host) {
    if !host.has("pids") {
        return host.not_run("no pids controller to keep the bomb small");
    }
    for limit in [64, 512] {
        kill_roles(host, &format!(r#"{{"pids":{{"limit":{limit}}}}}"#), "bomb", 1);
    }
}

fn kill_below(host: &Host) {
    let (group, _) = host.group("a", "{}");
    let mut process = Waiting::new("true");
    let (dir, file, value) = match host.v2() {
        true => (host.dir("", "a/b"), "cgroup.freeze", "1"),
        false if host.has("freezer") => (host.dir("freezer", "a/b"), "freezer.state", "FROZEN"),
        false => return host.not_run("no freezer"),
    };
    std::fs::create_dir_all(format!("{dir}/c")).unwrap();
    std::fs::write(format!("{dir}/c/cgroup.procs"), process.pid().to_string()).unwrap();
    std::fs::write(format!("{dir}/{file}"), value).unwrap();
    assert_eq!(group.pids().unwrap(), [process.pid()]);
    group.kill().unwrap();
    assert!(process.dies_within(BOUND));
    group.destroy().unwrap();
}

fn trees(host: &Host) {
    let (group, _) = host.group("a", "{}");
    let top = host.dirs("a").remove(0);
    // Deeper than a path may be long and than descriptors may be open.
    let mut dir = rustix::fs::open(&top, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let mut depth = 0;
    for _ in 0..1500 {
        if rustix::fs::mkdirat(&dir, "nested", rustix::fs::Mode::RWXU).is_err() {
            break;
        }
        dir =
            rustix::fs::openat(&dir, "nested", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        depth += 1;
    }
    drop(dir);
    for n in 0..300 {
        std::fs::create_dir(format!("{top}/wide{n}")).unwrap();
    }
    assert!(depth > 20, "{depth}");
    println!("  {depth} levels");
    assert!(group.pids().unwrap().is_empty());
    group.kill().unwrap();
    group.destroy().unwrap();
    assert!(!Path::new(&top).exists());
}

fn vanished(host: &Host) {
    let (group, _) = host.group("a", "{}");
    for dir in host.dirs("a") {
        std::fs::remove_dir(dir).unwrap();
    }
    // Both with the directories still open and anew.
    for group in [&group, &Group::open(group.record().clone())] {
        assert!(group.pids().unwrap().is_empty());
        assert!(!group.is_frozen().unwrap());
        group.kill().unwrap();
        group.destroy().unwrap();
    }
    assert!(group.place(std::process::id().cast_signed()).is_err());
}

fn somebody_elses(host: &Host) {
    let (group, _) = host.group("a", "{}");
    for dir in host.dirs("a") {
        std::fs::remove_dir(&dir).unwrap();
        std::fs::create_dir(&dir).unwrap();
    }
    let mut process = Waiting::new("true");
    let procs = host.dir(if host.v2() { "" } else { "freezer" }, "a") + "/cgroup.procs";
    std::fs::write(&procs, process.pid().to_string()).unwrap();
    for group in [&group, &Group::open(group.record().clone())] {
        group.kill().unwrap();
        group.destroy().unwrap();
        assert!(group.pids().unwrap().is_empty());
    }
    assert!(!process.dies_within(Duration::from_millis(20)));
    assert_eq!(read(&procs), process.pid().to_string());
    drop(process);
    for dir in host.dirs("a") {
        let _ = std::fs::remove_dir(dir);
    }
}

fn destroy_kills(host: &Host) {
    let (group, _) = host.group("a", "{}");
    for dir in host.dirs("a/b/c") {
        std::fs::create_dir_all(dir).unwrap();
    }
    let mut process = Waiting::new("true");
    group.place(process.pid()).unwrap();
    group.destroy().unwrap();
    assert!(process.dies_within(BOUND));
}

fn destroy_frozen(host: &Host) {
    let (group, _) = host.group("a", "{}");
    let mut process = Waiting::new("true");
    group.place(process.pid()).unwrap();
    if group.freeze(true).is_err() {
        return host.not_run("no freezer");
    }
    let start = Instant::now();
    Group::open(group.record().clone()).destroy().unwrap();
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    assert!(process.dies_within(BOUND));
}

/// On v1 a process frozen from above does not die: removing says so in bounded time, and works later.
fn destroy_stuck(host: &Host) {
    if host.v2() || !host.has("freezer") {
        return host.not_run("v2 lets frozen processes die");
    }
    let (group, _) = host.group("a", "{}");
    let process = Waiting::new("true");
    group.place(process.pid()).unwrap();
    let above = host.dir("freezer", "") + "freezer.state";
    std::fs::write(&above, "FROZEN").unwrap();
    let start = Instant::now();
    let error = group.destroy();
    let took = start.elapsed();
    std::fs::write(&above, "THAWED").unwrap();
    let error = error.unwrap_err();
    assert!(
        error.to_string().starts_with("container's cgroup is not empty: 1 process(es) found: rmdir("),
        "{error}"
    );
    assert!(took < BOUND, "{took:?}");
    group.destroy().unwrap();
}

/// Every operation ends in bounded time, and works once the process can die.
fn uninterruptible(host: &Host) {
    let Some(mut hung) = Hung::new(&host.base) else { return host.not_run("no FUSE") };
    let (group, _) = host.group("a", "{}");
    let mut process = Waiting::new(&format!(": < {}/x", hung.path().display()));
    group.place(process.pid()).unwrap();
    process.go();
    hung.take_request();
    let timed = |what: &str, result: corten::Result<()>, start: Instant| {
        println!("  {what} took {:?}", start.elapsed());
        assert!(start.elapsed() < BOUND, "{what}");
        result
    };
    if host.v2() || host.has("freezer") {
        let start = Instant::now();
        let error = timed("freeze", group.freeze(true), start).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ETIMEDOUT), "{error}");
        assert!(!group.is_frozen().unwrap());
    }
    let start = Instant::now();
    timed("kill", group.kill(), start).unwrap();
    let start = Instant::now();
    let error = timed("destroy", group.destroy(), start).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EBUSY), "{error}");
    assert_eq!(group.pids().unwrap(), [process.pid()]);
    hung.release();
    assert!(process.dies_within(BOUND));
    group.destroy().unwrap();
}
