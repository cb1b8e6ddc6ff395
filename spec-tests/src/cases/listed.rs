// SPDX-License-Identifier: Apache-2.0
//! features.md: "The runtime MUST recognize the elements in this array" – what `features` lists is tried, all of it.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, case};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("features/mount-options-are-known", mount_options)
            .needs(&[Need::Kernel("mount_setattr(2)", 5, 12)])
            .runc("a1: lists `defaults`, refuses it for a bind")
            .crun("lists rsync and others that the kernel has no word for"),
        case("features/namespaces-are-known", |t| {
            let mut b = t.bundle()?;
            for kind in listed(t, "/linux/namespaces")? {
                b = match kind.as_str() {
                    "user" => b.user_namespace(),
                    kind => b.without_namespace(kind).namespace(kind, None),
                };
            }
            t.run(&b.probe("exit 0"))?.ok().map(drop)
        })
        .needs(&[Need::File("/proc/self/ns/time")]),
        case("features/capabilities-are-known", |t| {
            let all = listed(t, "/linux/capabilities")?;
            check!(all.len() >= 41, "{} capabilities", all.len());
            let b = t.bundle()?.set("/process/capabilities", json!({"bounding": all}));
            let done = t.run(&b.probe("exit 0"))?;
            // One that this machine does not grant may be told of; one that nobody knows may not be listed.
            done.ok().map(drop)
        }),
        case("features/seccomp-is-known", seccomp)
            .runc("libseccomp takes no architecture of the other byte order")
            .crun("lists no architectures"),
        case("features/memory-policies-are-known", |t| {
            for mode in listed(t, "/linux/memoryPolicy/modes")? {
                let nodes = if matches!(mode.as_str(), "MPOL_DEFAULT" | "MPOL_LOCAL") { "" } else { "0" };
                let b = t.bundle()?.set("/linux/memoryPolicy", json!({"mode": mode, "nodes": nodes}));
                let done = t.run(&b.probe("exit 0"))?;
                // The kernel may lack it; the runtime may not.
                let unknown = done.stderr.contains("invalid memory policy mode");
                check!(!unknown && (done.code == 0 || done.errors().len() == 1), "{mode}: {done}");
            }
            Ok(())
        })
        .needs(&[Need::File("/proc/self/numa_maps")])
        .runc("memoryPolicy came with runc 1.4"),
    ]
}

/// The list at `pointer`; empty ones have nothing to be tried, which is told.
fn listed(t: &Test, pointer: &str) -> Result<Vec<String>, Trouble> {
    let all = t.cli("features")?.ok()?.json()?;
    let list = all.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    check!(!list.is_empty(), "{pointer} lists nothing");
    Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Each option on a tmpfs and on a bind, but for those that need something special.
fn mount_options(t: &Test) -> Result<(), Trouble> {
    fs::create_dir(t.path("src"))?;
    let source = t.file("src");
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let mut b = t.bundle()?.mount("tmpfs", "tmpfs", "/m", &[]);
    for (index, option) in listed(t, "/mountOptions")?.iter().enumerate() {
        let (new, bound) = (format!("/m/{index}n"), format!("/m/{index}b"));
        b = match option.as_str() {
            "bind" | "rbind" => b.mount("bind", &source, &bound, &[option]),
            "idmap" | "ridmap" => {
                let mount = json!({"destination": bound, "type": "bind", "source": source,
                    "options": ["bind", option], "uidMappings": map, "gidMappings": map});
                b.push("/mounts", mount)
            }
            "remount" => {
                b.mount("tmpfs", "tmpfs", &new, &[]).mount("tmpfs", "tmpfs", &new, &["remount", "ro"])
            }
            "tmpcopyup" => b.mount("tmpfs", "tmpfs", &new, &[option]),
            "copy-symlink" | "src-nofollow" | "dest-nofollow" => {
                b.mount("bind", &source, &bound, &["bind", option])
            }
            _ => b.mount("tmpfs", "tmpfs", &new, &[option]).mount("bind", &source, &bound, &["bind", option]),
        };
    }
    t.run(&b.probe("exit 0"))?.ok().map(drop)
}

fn seccomp(t: &Test) -> Result<(), Trouble> {
    let profile = |b: Bundle| {
        let rules = json!([{"names": ["munlockall"], "action": "SCMP_ACT_ERRNO"}]);
        let all = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
        b.set("/linux/seccomp", all).probe("exit 0")
    };
    let archs = listed(t, "/linux/seccomp/archs")?;
    t.run(&profile(t.bundle()?).set("/linux/seccomp/architectures", json!(archs)))?.ok()?;
    let flags = listed(t, "/linux/seccomp/supportedFlags")?;
    let known = listed(t, "/linux/seccomp/knownFlags")?;
    check!(flags.iter().all(|flag| known.contains(flag)), "{flags:?} are not all of {known:?}");
    t.run(&profile(t.bundle()?).set("/linux/seccomp/flags", json!(flags)))?.ok()?;
    for op in listed(t, "/linux/seccomp/operators")? {
        let args = json!([{"index": 0, "value": 1, "valueTwo": 1, "op": op}]);
        t.run(&profile(t.bundle()?).set("/linux/seccomp/syscalls/0/args", args))?.ok()?;
    }
    // One with an agent is tried in `seccomp`.
    let actions = listed(t, "/linux/seccomp/actions")?;
    for action in actions.iter().filter(|action| *action != "SCMP_ACT_NOTIFY") {
        t.run(&profile(t.bundle()?).set("/linux/seccomp/syscalls/0/action", json!(action)))?.ok()?;
    }
    Ok(())
}
