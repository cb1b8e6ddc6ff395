// SPDX-License-Identifier: Apache-2.0
//! Device rules in force. Nodes are made in a directory of our own: memory (1:1), null (1:3), zero (1:5), kmsg (1:11).

use std::path::PathBuf;

use corten::cgroup::Group;
use corten::spec::DeviceRule;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::children::Waiting;
use super::{Case, Host};

pub const CASES: &[Case] = &[
    ("the usual rules", usual),
    ("built-in devices can be denied", denied),
    ("everything allowed", everything),
    ("rules are replaced, others' stay", replaced),
    ("the kernel and the model agree on random lists", random_lists),
];

#[path = "../devices/lists.rs"]
#[allow(dead_code, reason = "the unit tests use more")]
mod lists;
#[path = "../devices/model.rs"]
mod model;

const DENY_ALL: &str = r#"{"allow":false,"access":"rwm"}"#;

/// A directory with device nodes; gone when dropped.
struct Nodes(PathBuf);

impl Nodes {
    fn new(host: &Host) -> Nodes {
        let dir = std::env::temp_dir().join(&host.base);
        std::fs::create_dir(&dir).unwrap();
        for (name, minor) in [("null", 3), ("zero", 5), ("kmsg", 11)] {
            mknodat(
                CWD,
                dir.join(name),
                FileType::CharacterDevice,
                Mode::from_raw_mode(0o600),
                makedev(1, minor),
            )
            .unwrap();
        }
        Nodes(dir)
    }

    /// What a process in `group` may do, as `null:rw zero:rw kmsg:r mknod`.
    fn seen_from(&self, group: &Group) -> String {
        let script = format!(
            "cd {}; for d in null zero kmsg; do \
               a=; (: <$d) && a=r; (: >>$d) && a=${{a}}w; (: <>$d) && a=${{a}}+; printf '%s:%s ' $d $a; \
             done; mknod made c 1 11 && echo mknod; rm -f made",
            self.0.display()
        );
        let process = Waiting::new(&script);
        group.place(process.pid()).unwrap();
        process.output().trim().to_owned()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn no_devices(host: &Host) -> bool {
    let none = !host.v2() && !host.has("devices");
    if none {
        host.not_run("no devices controller");
    }
    none
}

fn seen(host: &Host, nodes: &Nodes, rules: &str) -> String {
    let (group, _) = host.group("a", &format!(r#"{{"devices":[{rules}]}}"#));
    let seen = nodes.seen_from(&group);
    group.destroy().unwrap();
    seen
}

fn usual(host: &Host) {
    if no_devices(host) {
        return;
    }
    let nodes = Nodes::new(host);
    for (rules, expected) in [
        ("", "null:rw+ zero:rw+ kmsg: mknod"),
        (DENY_ALL, "null:rw+ zero:rw+ kmsg: mknod"),
        (
            r#"{"allow":false},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}"#,
            "null:rw+ zero:rw+ kmsg:r mknod",
        ),
        (r#"{"allow":true,"type":"c","major":1,"minor":11}"#, "null:rw+ zero:rw+ kmsg:rw+ mknod"),
        (r#"{"allow":true,"type":"c","major":1,"access":"rw"}"#, "null:rw+ zero:rw+ kmsg:rw+ mknod"),
        (r#"{"allow":true,"type":"b","major":1,"minor":11}"#, "null:rw+ zero:rw+ kmsg: mknod"),
        (
            r#"{"allow":true,"type":"c","major":1,"minor":11,"access":"r"},{"allow":true,"type":"c","major":1,"minor":11,"access":"w"}"#,
            "null:rw+ zero:rw+ kmsg:rw+ mknod",
        ),
    ] {
        assert_eq!(seen(host, &nodes, rules), expected, "{rules}");
    }
}

fn denied(host: &Host) {
    if no_devices(host) {
        return;
    }
    let nodes = Nodes::new(host);
    for (rules, v1, v2) in [
        (
            r#"{"allow":false,"type":"c","major":1,"minor":5}"#,
            "null:rw+ zero: kmsg: mknod",
            "null:rw+ zero: kmsg: mknod",
        ),
        (
            r#"{"allow":false,"type":"c","major":1,"minor":5,"access":"w"}"#,
            "null:rw+ zero:r kmsg: mknod",
            "null:rw+ zero:r kmsg: mknod",
        ),
        // v1 cannot except one device from "make any node", and says so nowhere; the node cannot be opened.
        (
            r#"{"allow":false,"type":"c","major":1,"minor":11,"access":"m"}"#,
            "null:rw+ zero:rw+ kmsg: mknod",
            "null:rw+ zero:rw+ kmsg:",
        ),
        (r#"{"allow":false,"access":"m"}"#, "null:rw+ zero:rw+ kmsg:", "null:rw+ zero:rw+ kmsg:"),
        (
            r#"{"allow":false,"type":"c"},{"allow":false,"type":"b"}"#,
            "null: zero: kmsg:",
            "null: zero: kmsg:",
        ),
    ] {
        assert_eq!(seen(host, &nodes, rules), if host.v2() { v2 } else { v1 }, "{rules}");
    }
    if host.v2() {
        let rules = r#"{"allow":true,"type":"c","major":1},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}"#;
        assert_eq!(seen(host, &nodes, rules), "null:rw+ zero:rw+ kmsg:r mknod");
    }
}

fn everything(host: &Host) {
    if no_devices(host) {
        return;
    }
    let nodes = Nodes::new(host);
    assert_eq!(seen(host, &nodes, r#"{"allow":true}"#), "null:rw+ zero:rw+ kmsg:rw+ mknod");
    let rules = r#"{"allow":true},{"allow":false,"type":"c","major":1,"minor":5,"access":"r"}"#;
    assert_eq!(seen(host, &nodes, rules), "null:rw+ zero:w kmsg:rw+ mknod");
}

fn replaced(host: &Host) {
    if no_devices(host) {
        return;
    }
    let nodes = Nodes::new(host);
    let kmsg = r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":11,"access":"rw"}]}"#;
    let (first, _) = host.group("a", "{}");
    assert_eq!(nodes.seen_from(&first), "null:rw+ zero:rw+ kmsg: mknod");
    // The group was there before; the older program of ours gives way to the new one.
    let (second, _) = host.group("a", kmsg);
    assert_eq!(nodes.seen_from(&second), "null:rw+ zero:rw+ kmsg:rw+ mknod");
    let (third, _) = host.group("a", r#"{"devices":[{"allow":true}]}"#);
    assert_eq!(nodes.seen_from(&third), "null:rw+ zero:rw+ kmsg:rw+ mknod");
    if host.v2() {
        use std::os::fd::AsFd;
        let dir = std::fs::File::open(host.dir("", "a")).unwrap();
        assert!(corten::sys::bpf::attached(dir.as_fd()).unwrap().is_empty());
        for _ in 0..3 {
            host.group("a", kmsg);
            assert_eq!(corten::sys::bpf::attached(dir.as_fd()).unwrap().len(), 1);
        }
    }
    third.destroy().unwrap();
}

/// Every device that random lists speak of, with what it is called in the directory of nodes.
fn all_devices() -> impl Iterator<Item = (char, u32, u32, String)> {
    let kinds = ['b', 'c'].into_iter();
    let pairs = |kind| {
        lists::MAJORS.into_iter().flat_map(move |major| lists::MINORS.map(|minor| (kind, major, minor)))
    };
    kinds.flat_map(pairs).map(|(kind, major, minor)| (kind, major, minor, format!("{kind}-{major}-{minor}")))
}

fn make_node(path: &std::path::Path, kind: char, major: u32, minor: u32) -> rustix::io::Result<()> {
    let kind = if kind == 'b' { FileType::BlockDevice } else { FileType::CharacterDevice };
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), makedev(major, minor))
}

/// What a process may do with every device, as text: letters of `mrw+`, `+` for both of r and w at once. access(2) asks the
/// rules (`devcgroup_inode_permission`) and no driver, so that no device is opened.
fn verdicts(dir: &std::path::Path) -> String {
    use rustix::fs::{Access, access};
    let may = |result: rustix::io::Result<()>, what: &str| match result {
        Ok(()) => true,
        Err(rustix::io::Errno::PERM) => false,
        Err(error) => panic!("{what}: {error}"),
    };
    let one = |(kind, major, minor, name): (char, u32, u32, String)| {
        let made = dir.join("made");
        let mut said = String::new();
        if may(make_node(&made, kind, major, minor), "mknod") {
            std::fs::remove_file(&made).unwrap();
            said.push('m');
        }
        for (letter, mode) in
            [('r', Access::READ_OK), ('w', Access::WRITE_OK), ('+', Access::READ_OK | Access::WRITE_OK)]
        {
            if may(access(dir.join(&name), mode), "access") {
                said.push(letter);
            }
        }
        said
    };
    all_devices().map(one).collect::<Vec<_>>().join(",")
}

/// The role of a process that is asked, once for each line, what it may do: by [`random_lists`].
pub fn answer(dir: &str) {
    for _ in std::io::stdin().lines() {
        println!("verdicts {}", verdicts(std::path::Path::new(dir)));
    }
}

fn random_lists(host: &Host) {
    use std::io::{BufRead, BufReader, Write};
    if no_devices(host) {
        return;
    }
    let nodes = Nodes::new(host);
    for (kind, major, minor, name) in all_devices() {
        make_node(&nodes.0.join(name), kind, major, minor).unwrap();
    }
    let (group, _) = host.group("a", "{}");
    let mut process = super::children::role(&format!("devices={}", nodes.0.display()));
    group.place(process.pid()).unwrap();
    process.go();
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let mut random = lists::Random(0x00de_c1de);
    let mut asked = 0;
    for _ in 0..400 {
        let list = lists::random_list(&mut random);
        let rules: Vec<String> = list.iter().map(json).collect();
        // What v1 cannot say it refuses.
        let Ok(plan) = host.try_plan("a", &format!(r#"{{"devices":[{}]}}"#, rules.join(","))) else {
            assert!(!host.v2(), "{list:?}");
            continue;
        };
        Group::open(group.record().clone())
            .apply_devices(&plan.devices)
            .unwrap_or_else(|error| panic!("{error}: {list:?}"));
        process.0.stdin.as_mut().unwrap().write_all(b"again\n").unwrap();
        let line = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|l| l.split_once("verdicts ").map(|(_, v)| v.to_owned()));
        let line = line.unwrap();
        for ((kind, major, minor, _), said) in all_devices().zip(line.split(',')) {
            for (what, letters) in [('m', "m"), ('r', "r"), ('w', "w"), ('+', "rw")] {
                let expected = letters.chars().all(|l| model::model(&list, kind, major, minor, l));
                // On v1 nodes may be made of devices that may not be opened, where it cannot be said otherwise.
                let tolerated = !host.v2() && what == 'm' && said.contains('m');
                assert!(
                    said.contains(what) == expected || tolerated,
                    "{what} of {kind} {major}:{minor} is {expected}, the kernel says {said:?}: {list:?}"
                );
            }
            asked += 4;
        }
    }
    println!("{asked} verdicts of the kernel");
    assert!(asked > 400 * 70, "{asked}");
    drop(process);
    group.destroy().unwrap();
}

fn json(rule: &DeviceRule) -> String {
    let number = |name: &str, n: Option<i64>| n.map_or_else(String::new, |n| format!(r#","{name}":{n}"#));
    format!(
        r#"{{"allow":{},"type":"{}","access":"{}"{}{}}}"#,
        rule.allow,
        rule.kind,
        rule.access,
        number("major", rule.major),
        number("minor", rule.minor)
    )
}
