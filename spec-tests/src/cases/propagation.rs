// SPDX-License-Identifier: Apache-2.0
//! Propagation of mounts and of the root file system (config.md, "Mounts"; config-linux.md, "Rootfs Mount Propagation").

#![forbid(unsafe_code)]

use std::fs;

use nix::mount::MsFlags;
use serde_json::json;

use super::mounts::mount_tmpfs;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = propagation();
    for value in ["slave", "rslave"] {
        all.push(
            case(format!("mounts/of-the-host-reach-a-{value}-root"), move |t: &Test| {
                let b = t.bundle()?.set("/linux/rootfsPropagation", json!(value)).dir("late", 0o755)?;
                host_mount_reaches_root(t, &b)
            })
            .runc("cuts the root off before 1.4")
            .crun("leaves it private"),
        );
        all.push(
            case(format!("mounts/of-the-host-reach-a-{value}-root-in-a-user-namespace"), move |t: &Test| {
                let b = t.bundle()?.user_namespace().set("/linux/rootfsPropagation", json!(value));
                host_mount_reaches_root(t, &b.dir("late", 0o755)?)
            })
            .runc("cuts the root off before 1.4")
            .crun("leaves it private"),
        );
    }
    all
}

/// A mount made on the host, in the rootfs, after the start.
fn host_mount_reaches_root(t: &Test, b: &Bundle) -> Verdict {
    let b = b.clone().probe("wait-for /late/inner -- print seen");
    let log = t.launch(&b)?;
    let late = b.rootfs("late");
    t.mount("tmpfs", "tmpfs", &late, MsFlags::empty(), "")?;
    fs::write(late.join("inner"), "")?;
    same("it", log.lines(t, 1)?, vec!["seen"])
}

fn propagation() -> Vec<Case> {
    type Row = (&'static str, &'static [&'static str], &'static str);
    const MOUNT: [Row; 6] = [
        ("rprivate", &[], ""),
        ("private", &[], ""),
        ("rshared", &["shared"], "leaves it private"),
        ("rslave", &["master"], "leaves it private"),
        ("slave", &["master"], "leaves it private"),
        ("unbindable", &["unbindable"], "leaves it private"),
    ];
    // A slave of nobody is private: the runtimes cut the root file system off before they say what it is.
    const ROOT: [Row; 5] = [
        ("", &[], ""),
        ("private", &[], ""),
        ("rslave", &[], ""),
        ("slave", &[], ""),
        ("unbindable", &["unbindable"], ""),
    ];
    let mount = |(option, want, crun): &'static Row| {
        case(format!("mounts/propagation-{option}"), move |t: &Test| {
            fs::create_dir(t.path("src"))?;
            mount_tmpfs(t, "src", MsFlags::empty())?;
            let r = t.report(&t.bundle()?.mount("bind", &t.file("src"), "/m", &["rbind", option]))?;
            r.mount("/m")?.propagates(want)
        })
        .peer("crun", crun)
    };
    let root = |(value, want, _): &'static Row| {
        let name = if value.is_empty() { "default" } else { value };
        case(format!("mounts/rootfs-propagation-{name}"), move |t: &Test| {
            let mut b = t.bundle()?;
            if !value.is_empty() {
                b = b.set("/linux/rootfsPropagation", json!(value));
            }
            let r = t.report(&b)?;
            let plain = r.mount("/")?.propagates(want);
            if value.contains("slave") {
                plain.or_else(|_| r.mount("/")?.propagates(&["master"]))
            } else {
                plain
            }
        })
    };
    let mut all: Vec<Case> = MOUNT.iter().map(mount).chain(ROOT.iter().map(root)).collect();
    all.push(case("mounts/rootfs-propagation-shared", |t| {
        let b = t.bundle()?.set("/linux/rootfsPropagation", json!("shared"));
        t.report(&b)?.mount("/")?.propagates(&["shared"])
    }));
    all.push(
        case("mounts/of-the-host-reach-a-slave", |t| host_mount_reaches_slave(t, ""))
            .crun("leaves it private"),
    );
    all.push(case("mounts/of-the-host-reach-a-slave-below-a-private-root", |t| {
        host_mount_reaches_slave(t, "private")
    }));
    all.push(case("mounts/made-inside-do-not-reach-the-host", |t| {
        let b = t.bundle()?.writable().grants(&["SYS_ADMIN"]).set("/process/noNewPrivileges", json!(false));
        let b = b.mount("tmpfs", "tmpfs", "/m", &["rw"]);
        let before = t.snapshot();
        let log = t.launch(&tries_then_waits(b, "mount tmpfs /tmp"))?;
        check!(log.lines(t, 1)?[0].contains("\"ok\""), "mounting failed: {}", log.text());
        let now = t.snapshot();
        let mounts: Vec<_> =
            before.differences(&now).into_iter().filter(|line| line.contains("mount")).collect();
        same("new mounts of the host", mounts, Vec::<String>::new())
    }));
    all
}

fn tries_then_waits(b: Bundle, op: &str) -> Bundle {
    b.probe(&format!("try {op} -- forever"))
}

/// A mount made on the host after the start is seen inside through a slave, and only there.
fn host_mount_reaches_slave(t: &Test, root: &str) -> Verdict {
    fs::create_dir(t.path("src"))?;
    mount_tmpfs(t, "src", MsFlags::empty())?;
    fs::create_dir(t.path("src/late"))?;
    let b = t.bundle()?.mount("bind", &t.file("src"), "/m", &["rbind", "rslave"]).writable();
    let mut b = b.probe("wait-for /m/late/inner -- print seen");
    if !root.is_empty() {
        b = b.set("/linux/rootfsPropagation", json!(root));
    }
    let log = t.launch(&b)?;
    mount_tmpfs(t, "src/late", MsFlags::empty())?;
    fs::write(t.path("src/late/inner"), "")?;
    same("it", log.lines(t, 1)?, vec!["seen"])
}
