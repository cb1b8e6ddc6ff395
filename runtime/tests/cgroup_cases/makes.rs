// SPDX-License-Identifier: Apache-2.0
//! Making groups, putting processes in, finding them again.

use std::path::Path;

use corten::Kind;
use corten::ask::Manager;
use corten::cgroup::{Group, Made, Record, WayIn, decide_groups};

use super::children::{Waiting, born_in, reap};
use super::{Case, Host, apply, create, read};

pub const CASES: &[Case] = &[
    ("a group is made and goes", made_and_gone),
    ("a used group is refused", used),
    ("a frozen group is refused", frozen),
    ("a failure leaves nothing", failure),
    ("a failure leaves what was found", found),
    ("a boot's inodes are not another's", other_boot),
    ("birth in the group", birth),
    ("placing and listing", placing),
    ("further processes", exec),
    ("freezing", freezing),
    ("disabled", disabled),
    ("in a user namespace", user_namespace),
];

fn made_and_gone(host: &Host) {
    let (group, _) = host.group("a/b", "{}");
    assert_eq!(group.record().version.way_in() == WayIn::Born, host.v2());
    assert_eq!(group.record().groups.len(), host.dirs("a/b").len());
    assert!(group.record().groups.iter().all(|g| g.inode.is_some()));
    for dir in host.dirs("a/b") {
        assert!(Path::new(&dir).is_dir(), "{dir}");
    }
    if !host.v2() && host.has("cpuset") {
        assert!(!read(host.dir("cpuset", "a/b") + "/cpuset.mems").is_empty());
    }
    let again = Group::open(group.record().clone());
    again.destroy().unwrap();
    again.destroy().unwrap();
    assert!(group.pids().unwrap().is_empty() && !group.is_frozen().unwrap());
    group.kill().unwrap();
    group.destroy().unwrap();
    for dir in host.dirs("a/b") {
        assert!(!Path::new(&dir).exists(), "{dir}");
        std::fs::remove_dir(Path::new(&dir).parent().unwrap()).unwrap();
    }
}

fn used(host: &Host) {
    let (group, _) = host.group("a", "{}");
    let process = Waiting::new("true");
    group.place(process.pid()).unwrap();
    for name in ["a", "a/below"] {
        let error = create(&host.plan(name, "{}")).err();
        let expected = (name == "a").then_some("container's cgroup is not empty: 1 process(es) found");
        assert_eq!(error.is_some(), expected.is_some());
        assert!(error.iter().all(|e| e.to_string().ends_with(expected.unwrap())), "{error:?}");
    }
    // Without its mark and inode the group counts as somebody else's: nothing happens to it, nor is it told of.
    let mut stranger = host.plan("a", "{}").record;
    stranger.mark = "another one".into();
    let stranger = Group::open(stranger);
    stranger.kill().unwrap();
    stranger.destroy().unwrap();
    stranger.give_back().unwrap();
    stranger.signal(libc::SIGKILL).unwrap();
    assert!(stranger.pids().unwrap().is_empty() && stranger.freeze(true).is_err());
    assert_eq!(group.pids().unwrap(), [process.pid()]);
    // After a crash in `create` the mark is what tells that it is ours.
    Group::open(host.plan("a", "{}").record).destroy().unwrap();
    assert!(group.pids().unwrap().is_empty());
}

fn frozen(host: &Host) {
    if !host.v2() && !host.has("freezer") {
        return host.not_run("no freezer");
    }
    let (group, _) = host.group("a", "{}");
    group.freeze(true).unwrap();
    let error = create(&host.plan("a", "{}")).unwrap_err();
    assert!(error.to_string().ends_with("container's cgroup unexpectedly frozen"), "{error}");
    group.freeze(false).unwrap();
    // Empty and thawed, it may be used: by the same container, and by no other.
    let mut other = host.plan("a", "{}");
    other.record.mark = "another one".into();
    let error = create(&other).unwrap_err().to_string();
    assert!(error.ends_with("belongs to another container, which was not deleted"), "{error}");
    let (second, _) = host.group("a", "{}");
    second.destroy().unwrap();
}

fn failure(host: &Host) {
    // No kernel has this controller, so v2 finds out after the directories are made; v1 refuses at once.
    let error = match host.v2() {
        true => create(&host.plan("x/y/z", r#"{"unified":{"nosuch.max":"1"}}"#)).unwrap_err(),
        false => host.try_plan("x/y/z", r#"{"rdma":{"mlx":{"hcaHandles":1}}}"#).unwrap_err(),
    };
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.to_string().contains("controller is not available"), "{error}");
    for dir in host.dirs("") {
        assert!(!Path::new(&dir).exists(), "{dir}");
    }
    if host.v2() && !host.has("memory") {
        let error = create(&host.plan("x", r#"{"memory":{"limit":4096}}"#)).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("config.json /linux/resources/memory/limit: "), "{text}");
        assert!(text.contains("memory controller is not available for memory.max"), "{text}");
    }
}

/// Found groups: a create that fails gives them back, with nothing in them; one that does not has them.
fn found(host: &Host) {
    host.dirs("a").iter().for_each(|dir| std::fs::create_dir_all(dir).unwrap());
    let mut notes = Vec::new();
    let plan = host.plan("a", "{}");
    let mut made = Made::default();
    let made_group = Group::create(&plan, &mut made, &mut |record| {
        notes.push(record.clone());
        Ok(())
    });
    let (group, _) = made_group.unwrap();
    assert!(notes[0].groups.iter().all(|group| group.found && group.inode.is_none()));
    // Had the runtime died right then: it is not claimed yet, and not ours to remove.
    Group::open(Record { mark: "another one".into(), ..notes[0].clone() }).destroy().unwrap();
    let process = Waiting::new("true");
    group.place(process.pid()).unwrap();
    group.give_back().unwrap();
    made.undo().unwrap();
    for dir in host.dirs("a") {
        assert!(Path::new(&dir).is_dir() && read(dir.clone() + "/cgroup.procs").is_empty(), "{dir}");
    }
    // It bears no mark any more: the next one may have it.
    let mut other = host.plan("a", "{}");
    other.record.mark = "another one".into();
    let (group, _) = create(&other).unwrap();
    group.destroy().unwrap();
    assert!(host.dirs("a").iter().all(|dir| !Path::new(dir).exists()));
}

/// Inodes begin anew with every boot: after one, the group of that number is somebody else's.
fn other_boot(host: &Host) {
    let (group, _) = host.group("a", "{}");
    let mut process = Waiting::new("true");
    group.place(process.pid()).unwrap();
    let of_boot = |boot: &str| Record { mark: String::new(), boot: boot.into(), ..group.record().clone() };
    let other = Group::open(of_boot("another one"));
    other.kill().unwrap();
    other.destroy().unwrap();
    assert!(!process.dies_within(std::time::Duration::from_millis(20)));
    Group::open(of_boot(corten::procfs::boot_id().unwrap())).kill().unwrap();
    assert!(process.dies_within(std::time::Duration::from_secs(10)));
    group.destroy().unwrap();
}

fn birth(host: &Host) {
    let (group, placement) = host.group("a", "{}");
    let Some(dir) = placement.at_birth().filter(|_| host.v2()) else {
        host.not_run("v1");
        return group.destroy().unwrap();
    };
    let pid = born_in(dir).unwrap();
    assert_eq!(group.pids().unwrap(), [pid]);
    assert!(read(format!("/proc/{pid}/cgroup")).ends_with(&format!("0::/{}/a", host.base)));
    reap(pid);
    group.destroy().unwrap();
}

fn placing(host: &Host) {
    let (group, placement) = host.group("a", "{}");
    let (one, two, three) = (Waiting::new("true"), Waiting::new("true"), Waiting::new("true"));
    group.place(one.pid()).unwrap();
    placement.place(two.pid()).unwrap();
    for dir in host.dirs("a/b") {
        std::fs::create_dir(&dir).unwrap();
        if dir.contains("cpuset") {
            continue; // it would want CPUs first
        }
        std::fs::write(dir + "/cgroup.procs", three.pid().to_string()).unwrap();
    }
    let mut all = [one.pid(), two.pid(), three.pid()];
    all.sort_unstable();
    assert_eq!(group.pids().unwrap(), all);
    for pid in [one.pid(), two.pid()] {
        let groups = read(format!("/proc/{pid}/cgroup"));
        assert_eq!(groups.matches(&format!("/{}/a", host.base)).count(), host.dirs("a").len(), "{groups}");
    }
    let error = group.place(i32::MAX).unwrap_err();
    assert!(error.to_string().starts_with("error adding pid 2147483647 to cgroups: write("), "{error}");
    group.destroy().unwrap();
}

fn exec(host: &Host) {
    let (group, _) = host.group("a", "{}");
    for dir in host.dirs("a/sub") {
        std::fs::create_dir(&dir).unwrap();
    }
    if !host.v2() && host.has("cpuset") {
        let dir = host.dir("cpuset", "a");
        for file in ["cpuset.cpus", "cpuset.mems"] {
            std::fs::write(format!("{dir}/sub/{file}"), read(format!("{dir}/{file}"))).unwrap();
        }
    }
    let process = Waiting::new("true");
    let within = |end: &str| {
        let groups = read(format!("/proc/{}/cgroup", process.pid()));
        groups.lines().filter(|line| line.ends_with(&format!("/{}/{end}", host.base))).count()
    };
    let all = host.dirs("a").len();
    for (subs, end) in [(&[][..], "a"), (&["sub"], "a/sub"), (&["/"], "a"), (&["/sub/"], "a/sub")] {
        group.exec_placement(subs).unwrap().place(process.pid()).unwrap();
        assert_eq!(within(end), all, "{subs:?}");
    }
    let beside = |pid| group.exec_placement(&[]).unwrap().or_beside(pid).beside_init().unwrap();
    match beside(process.pid()) {
        Some(placement) => {
            placement.place(process.pid()).unwrap();
            // Only the unified hierarchy has groups that take no process.
            assert_eq!(within("a/sub"), if host.v2() { all } else { 1 });
            assert!(beside(1).is_none());
        }
        None => host.not_run("no unified hierarchy"),
    }
    if !host.v2() && host.has("pids") && host.has("name=systemd") {
        group.exec_placement(&["pids:/"]).unwrap().place(process.pid()).unwrap();
        assert_eq!(within("a"), all);
        group.exec_placement(&["pids,systemd:sub"]).unwrap().place(process.pid()).unwrap();
        assert_eq!((within("a"), within("a/sub")), (all - 2, 2));
    }
    for (subs, words) in [
        (&[".."][..], "bad sub cgroup path"),
        (&["sub/../../x"], "bad sub cgroup path"),
        (&["whaaat:/"], "unknown controller whaaat"),
    ] {
        let error = group.exec_placement(subs).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = group.exec_placement(&["nonexistent"]).unwrap_err().to_string();
    let words =
        (error.find(" adding pid "), error.find(" to cgroups"), error.find("/nonexistent: no such file"));
    assert!(matches!(words, (Some(a), Some(b), Some(c)) if a < b && b < c), "{error}");
    group.destroy().unwrap();
}

fn freezing(host: &Host) {
    if !host.v2() && !host.has("freezer") {
        return host.not_run("no freezer");
    }
    let (group, _) = host.group("a", "{}");
    let mut process = Waiting::new("exit 0");
    group.place(process.pid()).unwrap();
    group.freeze(true).unwrap();
    assert!(group.is_frozen().unwrap());
    process.go();
    assert!(!process.dies_within(std::time::Duration::from_millis(50)), "it ran while frozen");
    group.freeze(true).unwrap();
    group.freeze(false).unwrap();
    assert!(!group.is_frozen().unwrap());
    assert!(process.dies_within(std::time::Duration::from_secs(10)));
    group.destroy().unwrap();
    assert_eq!(group.freeze(true).unwrap_err().kind(), Kind::Os);
    assert!(!Group::open(group.record().clone()).is_frozen().unwrap());
}

fn disabled(host: &Host) {
    let plan =
        decide_groups(&host.h, Manager::Disabled, "id", Some(&format!("/{}/a", host.base)), None).unwrap();
    let (group, placement) = create(&plan).unwrap();
    apply(&group, &plan).unwrap();
    assert!(placement.at_birth().is_none());
    placement.place(1).unwrap();
    group.place(1).unwrap();
    group.kill().unwrap();
    assert!(group.pids().unwrap().is_empty() && !group.is_frozen().unwrap());
    assert_eq!(group.freeze(true).unwrap_err().kind(), Kind::Unsupported);
    group.destroy().unwrap();
}

/// bpf(2) and trusted attributes are refused there; neither is needed.
fn user_namespace(host: &Host) {
    if !host.v2() {
        return host.not_run("v1");
    }
    let path = format!("/{}/a", host.base);
    let mut command = std::process::Command::new("unshare");
    command.args(["-U", "-r"]).arg(std::env::current_exe().unwrap()).args(["--exact", "role", "--nocapture"]);
    let output = command.env("CORTEN_TEST_ROLE", format!("lifecycle={path}")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A group's life, from its record as after a crash.
pub fn lifecycle(path: &str) {
    let h = corten::cgroup::Hierarchies::probe().unwrap();
    let mut plan = decide_groups(&h, Manager::Cgroupfs, "id", Some(path), None).unwrap();
    "a test's".clone_into(&mut plan.record.mark);
    let (group, _) = create(&plan).unwrap();
    apply(&group, &plan).unwrap();
    let process = Waiting::new("true");
    group.place(process.pid()).unwrap();
    Group::open(plan.record).destroy().unwrap();
    assert!(group.pids().unwrap().is_empty());
}
