// SPDX-License-Identifier: Apache-2.0
//! Device rules in force. Nodes are made in a directory of our own: memory (1:1), null (1:3), zero (1:5), kmsg (1:11).

use std::path::PathBuf;

use corten::cgroup::Group;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::children::Waiting;
use super::{Case, Host};

pub const CASES: &[Case] = &[
    ("the usual rules", usual),
    ("built-in devices can be denied", denied),
    ("everything allowed", everything),
    ("rules are replaced, others' stay", replaced),
];

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
