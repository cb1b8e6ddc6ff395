// SPDX-License-Identifier: Apache-2.0
//! config-linux.md, "Allowed Device list": which devices a container may open and make.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, case};

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = devices();
    all.extend(whole_types());
    all
}

/// Rules that settle all devices of a type leave nothing for those before them to say.
fn whole_types() -> Vec<Case> {
    let rule = |allow: bool, kind: &str, access: &str| -> Value {
        match kind {
            "a" => json!({"allow": allow, "access": access}),
            kind => json!({"allow": allow, "type": kind, "access": access}),
        }
    };
    let row = |name: &str, rules: Vec<Value>, table: &'static [(&str, &str)]| {
        case(format!("cgroup-devices/whole-type-{name}"), move |t| {
            t.expect(nodes(t.bundle()?).set("/linux/resources/devices", json!(rules)), table).map(drop)
        })
    };
    // kmsg, and a disk of a number for experiments, which is not there (ENXIO).
    const MAKE: [(&str, &str); 2] = [("mknod /dev/kmsg c 1 11", "ok"), ("mknod /dev/disk b 60 7", "ok")];
    vec![
        row(
            "allowed-c",
            vec![rule(false, "a", "rwm"), rule(true, "c", "rwm")],
            &[
                MAKE[0],
                MAKE[1],
                ("open /dev/kmsg", "ok"),
                ("open /dev/disk", "EPERM"),
                ("write /dev/null x", "ok"),
            ],
        ),
        row(
            "allowed-b",
            vec![rule(false, "a", "rwm"), rule(true, "b", "rwm")],
            &[
                MAKE[0],
                MAKE[1],
                ("open /dev/kmsg", "EPERM"),
                ("open /dev/disk", "ENXIO"),
                ("write /dev/null x", "ok"),
            ],
        ),
        row(
            "allowed-both",
            vec![rule(false, "a", "rwm"), rule(true, "b", "rwm"), rule(true, "c", "rwm")],
            &[MAKE[0], MAKE[1], ("open /dev/kmsg", "ok"), ("open /dev/disk", "ENXIO")],
        ),
        row(
            "denied-b",
            vec![rule(true, "a", "rwm"), rule(false, "b", "rwm")],
            &[MAKE[0], ("mknod /dev/disk b 60 7", "EPERM"), ("open /dev/kmsg", "ok")],
        )
        .both("a8: its own rules come last"),
        row(
            "denied-b-for-opening",
            vec![rule(true, "a", "rwm"), rule(false, "b", "rw")],
            &[MAKE[0], MAKE[1], ("open /dev/kmsg", "ok"), ("open /dev/disk", "EPERM")],
        ),
    ]
}

fn nodes(b: Bundle) -> Bundle {
    let b = b.grants(&["MKNOD", "SYS_ADMIN", "SYSLOG"]).writable().without_mount("/dev");
    b.mount("tmpfs", "tmpfs", "/dev", &["mode=755"])
}

fn devices() -> Vec<Case> {
    vec![
        case("cgroup-devices/default-ones-only", |t| {
            let table = [
                ("mknod /dev/a c 1 3", "ok"),
                ("write /dev/a x", "ok"),
                ("mknod /dev/b c 1 1", "ok|EPERM"),
                ("open /dev/b", "EPERM|ENOENT"),
                ("mknod /dev/c b 7 0", "ok|EPERM"),
                ("open /dev/c", "EPERM|ENOENT"),
                ("mknod /dev/d c 10 229", "ok|EPERM"),
                ("open /dev/d", "EPERM|ENOENT"),
            ];
            t.expect(nodes(t.bundle()?), &table).map(drop)
        }),
        case("cgroup-devices/not-the-hosts-console", |t| {
            let table = [("mknod /dev/e c 5 1", "ok"), ("open /dev/e", "EPERM")];
            t.expect(nodes(t.bundle()?), &table).map(drop)
        })
        .crun("has it among its own rules"),
        case("cgroup-devices/allowed-by-rule", |t| {
            let b = nodes(t.bundle()?);
            let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"});
            let b = b.push("/linux/resources/devices", rule);
            t.expect(b, &[("mknod /dev/kmsg c 1 11", "ok"), ("open /dev/kmsg", "ok")]).map(drop)
        }),
        case("cgroup-devices/access-by-kind", |t| {
            let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rm"});
            let b = nodes(t.bundle()?).push("/linux/resources/devices", rule);
            let table =
                [("mknod /dev/kmsg c 1 11", "ok"), ("open /dev/kmsg", "ok"), ("write /dev/kmsg x", "EPERM")];
            t.expect(b, &table).map(drop)
        }),
        case("cgroup-devices/last-rule-wins", |t| {
            let rule =
                |allow: bool| json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": "rw"});
            let b = nodes(t.bundle()?);
            let b =
                b.push("/linux/resources/devices", rule(true)).push("/linux/resources/devices", rule(false));
            t.expect(b, &[("mknod /dev/kmsg c 1 11", "ok"), ("open /dev/kmsg", "EPERM")]).map(drop)
        }),
        case("cgroup-devices/wildcard-minor", |t| {
            let rule = json!({"allow": true, "type": "c", "major": 1, "access": "rwm"});
            let b = nodes(t.bundle()?).push("/linux/resources/devices", rule);
            t.expect(b, &[("mknod /dev/kmsg c 1 11", "ok"), ("open /dev/kmsg", "ok")]).map(drop)
        }),
        case("cgroup-devices/default-one-denied", |t| {
            let rule = json!({"allow": false, "type": "c", "major": 1, "minor": 9, "access": "rwm"});
            let b = t.bundle()?.push("/linux/resources/devices", rule);
            // The rules are for the container: its node is there all the same.
            let table =
                [("stat /dev/urandom", "ok"), ("open /dev/urandom", "EPERM"), ("open /dev/random", "ok")];
            t.expect(b, &table).map(drop)
        })
        .both("a8: its own rules come last"),
        case("cgroup-devices/nodes-may-not-be-made", |t| {
            let rule = json!({"allow": false, "type": "c", "access": "m"});
            let b = nodes(t.bundle()?).push("/linux/resources/devices", rule);
            t.expect(b, &[("write /dev/null x", "ok"), ("mknod /dev/a c 1 3", "EPERM")]).map(drop)
        })
        .both("a8: its own rules come last"),
        case("cgroup-devices/rule-without-access-is-for-all", |t| {
            let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11});
            let b = nodes(t.bundle()?).push("/linux/resources/devices", rule);
            t.expect(b, &[("mknod /dev/kmsg c 1 11", "ok"), ("open /dev/kmsg", "ok")]).map(drop)
        })
        .runc("a16: refuses it")
        .crun("takes it for none"),
        case("cgroup-devices/allow-all", |t| {
            let b =
                nodes(t.bundle()?).set("/linux/resources/devices", json!([{"allow": true, "access": "rwm"}]));
            t.expect(b, &[("mknod /dev/kmsg c 1 11", "ok"), ("open /dev/kmsg", "ok")]).map(drop)
        }),
        case("cgroup-devices/also-for-exec", |t| {
            let b = nodes(t.bundle()?).probe("forever");
            t.launch(&b)?;
            let done = t.exec(&b, "", "/probe try mknod /dev/kmsg c 1 11 -- try open /dev/kmsg")?;
            let table = [("mknod /dev/kmsg c 1 11", "ok|EPERM"), ("open /dev/kmsg", "EPERM|ENOENT")];
            t.compare(&done.ok()?.stdout, &table).map(drop)
        }),
    ]
}
