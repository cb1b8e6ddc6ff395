// SPDX-License-Identifier: Apache-2.0
//! A runtime inside a container, as in containers that run containers: its groups are below the container's.

#![forbid(unsafe_code)]

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::test::Test;

/// What a runtime needs, of that a container may have.
const GRANTS: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_ADMIN",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SETFCAP",
    "AUDIT_WRITE",
    "NET_BIND_SERVICE",
];

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("nested/runs-inside", |t| {
            let (inner, before) = (t.bundle()?.probe("report"), t.snapshot());
            let report = inside(t, &inner, "")?.ok()?.json()?;
            same("what the inner one thinks its pid is", &report["pid"], 1)?;
            let groups = report["cgroup"].to_string();
            check!(!groups.contains("/.."), "the inner one is in {groups}");
            t.unchanged_since(&before)
        }),
        case("nested/limits", |t| {
            let inner = limited(t)?;
            // A group with limited children has no processes of its own on v2 (cgroups(7)): who runs containers makes room.
            let first = if t.host.is_v2() { "mkdir $top/own && echo 0 >$top/own/cgroup.procs" } else { "" };
            is_limited(&inside(t, &inner, first)?)
        })
        .needs(&[Need::Controller("pids")]),
        case("nested/limits-beside-processes-are-refused", |t| {
            inside(t, &limited(t)?, "")?
                .refuses(&[
                    "/linux/resources/pids",
                    "cgroup.subtree_control",
                    "processes of its own",
                    "EBUSY",
                ])
                .map(drop)
        })
        .needs(&[Need::CgroupV2, Need::Controller("pids")]),
    ]
    .into_iter()
    // The peers need their libraries inside.
    .map(|case| case.needs(&[Need::Busybox, Need::Runtime("corten")]))
    .collect()
}

/// A container that says its limit of processes.
fn limited(t: &Test) -> Result<Bundle, Trouble> {
    let file = if t.host.is_v2() { "pids.max" } else { "pids/pids.max" };
    let b = t.bundle()?.set("/linux/resources", json!({"pids": {"limit": 33}}));
    let b = b.without_mount("/sys/fs/cgroup").mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro"]);
    Ok(b.namespace("cgroup", None).probe(&format!("try read /sys/fs/cgroup/{file}")))
}

fn is_limited(done: &Done) -> Verdict {
    same("pids.max of the inner one", done.ok()?.json()?["data"].as_str().unwrap_or_default().trim(), "33")
}

/// Runs a bundle by the runtime in a container that may do what that takes, after these words of its shell.
fn inside(t: &Test, inner: &Bundle, first: &str) -> Result<Done, Trouble> {
    inner.write()?;
    let from = t.host.busybox.as_ref().ok_or("no busybox")?;
    let runtime = t.host.runtime.to_string_lossy();
    let dir = inner.dir.to_string_lossy();
    let own = json!({"devices": [{"allow": true, "access": "rwm"}]});
    let script = format!(
        "set -e; top=/sys/fs/cgroup; {} exec /tmp/runtime --root /tmp/state run --bundle {dir} inner",
        if first.is_empty() { String::new() } else { format!("{first};") }
    );
    let b = t
        .bundle()?
        .set("/root/path", json!(from))
        .set("/linux/resources", own)
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
        .set("/process/noNewPrivileges", json!(false))
        .grants(GRANTS)
        .namespace("cgroup", None)
        .without_mount("/sys/fs/cgroup")
        .mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "nodev"])
        .mount("tmpfs", "tmpfs", "/tmp", &["mode=1777"])
        .mount("bind", &runtime, "/tmp/runtime", &["bind", "ro"])
        .mount("bind", &dir, &dir, &["rbind"])
        .args(&["sh", "-c", &script]);
    t.run(&b)
}
