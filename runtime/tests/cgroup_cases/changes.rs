// SPDX-License-Identifier: Apache-2.0
//! Updates, done and taken back; figures; the watch for a want of memory.

use corten::Kind;
use corten::cgroup::{Change, Group, change};
use corten::spec::Resources;

use super::{Case, Host, read};

pub const CASES: &[Case] = &[
    ("an update is taken back", taken_back),
    ("an update that fails half way leaves nothing", half_way),
    ("an update without its controller is refused", without_controller),
    ("figures", figures),
    ("a watch on a group without memory", watch),
];

fn resources(json: &str) -> Resources {
    corten::spec::read("resources", json.as_bytes()).unwrap()
}

fn changed(group: &Group, before: &str, ask: &str) -> Change {
    change(group.record(), &resources(before), &resources(ask)).unwrap()
}

/// A limit that is to be had here: before, asked for, beyond the kernel's patience; controller and file.
fn some(host: &Host) -> Option<[&'static str; 5]> {
    if host.v2() {
        return Some([
            r#"{"unified":{"cgroup.max.depth":"7"}}"#,
            r#"{"unified":{"cgroup.max.depth":"9"}}"#,
            r#"{"unified":{"cgroup.max.depth":"9","cgroup.max.descendants":"nonsense"}}"#,
            "",
            "cgroup.max.depth",
        ]);
    }
    host.has("pids").then_some([
        r#"{"pids":{"limit":7}}"#,
        r#"{"pids":{"limit":9}}"#,
        r#"{"pids":{"limit":9},"cpu":{"cpus":"4000"}}"#,
        "pids",
        "pids.max",
    ])
}

fn taken_back(host: &Host) {
    let Some([before, ask, _, controller, file]) = some(host) else {
        return host.not_run("no limit to be had");
    };
    let (group, _placement) = host.group("a", before);
    let file = format!("{}/{file}", host.dir(controller, "a"));
    let change = changed(&group, before, ask);
    let undo = group.update(&change).unwrap();
    assert_eq!(read(&file), "9");
    undo.restore().unwrap();
    assert_eq!(read(&file), "7");
    group.destroy().unwrap();
}

fn half_way(host: &Host) {
    let Some([before, _, ask, controller, file]) = some(host) else {
        return host.not_run("no limit to be had");
    };
    if !host.v2() && !host.has("cpuset") {
        return host.not_run("no cpuset");
    }
    let (group, _placement) = host.group("a", before);
    let error = group.update(&changed(&group, before, ask)).unwrap_err();
    assert_eq!(error.kind(), Kind::Os, "{error}");
    assert!(error.to_string().starts_with("resources /"), "{error}");
    assert_eq!(read(format!("{}/{file}", host.dir(controller, "a"))), "7");
    group.destroy().unwrap();
}

fn without_controller(host: &Host) {
    if !host.v2() || host.has("memory") {
        return host.not_run("there is a memory controller");
    }
    let (group, _placement) = host.group("a", "{}");
    let ask = r#"{"unified":{"cgroup.max.depth":"9"},"memory":{"limit":33554432}}"#;
    let error = group.update(&changed(&group, "{}", ask)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert_eq!(read(format!("{}/cgroup.max.depth", host.dir("", "a"))), "max");
    group.destroy().unwrap();
}

fn figures(host: &Host) {
    let (group, _placement) = host.group("a", "{}");
    let stats = group.stats().unwrap();
    if host.v2() || host.has("cpu") {
        assert!(stats.cpu.is_some());
    }
    assert_eq!(stats.pids.is_some(), host.has("pids"));
    assert_eq!(stats.memory.is_some(), host.has("memory"));
    if let Some(memory) = &stats.memory {
        assert!(memory.usage.limit > 1 << 60 && memory.stat.len() > 10, "{memory:?}");
    }
    group.destroy().unwrap();
    let error = group.stats().unwrap_err();
    assert!(matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)), "{error}");
}

fn watch(host: &Host) {
    let (group, _placement) = host.group("a", "{}");
    match group.oom_watch() {
        Ok(mut watch) => {
            assert!(host.has("memory"));
            assert_eq!(watch.news().unwrap(), corten::cgroup::oom::News::default());
            group.destroy().unwrap();
            assert!(watch.news().unwrap().gone);
        }
        Err(error) => {
            assert_eq!((error.kind(), host.has("memory")), (Kind::Unsupported, false), "{error}");
            group.destroy().unwrap();
        }
    }
    assert_eq!(group.oom_kills().unwrap(), 0);
}
