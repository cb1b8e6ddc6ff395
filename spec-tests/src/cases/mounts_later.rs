// SPDX-License-Identifier: Apache-2.0
//! `mounts add` and `mounts remove`: what a container that is there has mounted, changed from outside. crun has them as well.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let all = vec![
        case("mounts-later/bind", |t| {
            let b = waiting(t)?;
            t.launch(&b)?;
            bind(t, &b, ["/mnt", "/deep/ro"])
        }),
        // Its root may make no directory in a root file system of the host's.
        case("mounts-later/bind-in-a-user-namespace", |t| {
            let b = waiting(t)?.user_namespace();
            t.launch(&b)?;
            bind(t, &b, ["/tmp", "/etc"])
        }),
        case("mounts-later/bind-without-pivot", |t| {
            let b = waiting(t)?;
            t.try_create("create --no-pivot", &b)?.ok()?;
            t.cli(&format!("start {}", b.id))?.ok()?;
            bind(t, &b, ["/mnt", "/deep/ro"])
        }),
        case("mounts-later/before-start", |t| {
            let b = waiting(t)?;
            t.create(&b)?;
            bind_of(t, "host")?;
            change(t, &b, "add", &json!([host_at(t, "/mnt", &["bind"])]))?.ok()?;
            t.cli(&format!("start {}", b.id))?.ok()?;
            sees(t, &b, "/mnt/file", true)?;
            gone(t, &b)
        }),
        case("mounts-later/tmpfs-with-options", tmpfs),
        case("mounts-later/all-or-none", all_or_none),
        case("mounts-later/targets-stay-inside", escapes),
        case("mounts-later/stopped-gone-and-without-namespace", not_there),
        case("mounts-later/what-is-wrong-is-named", wrong),
    ];
    all.into_iter().map(|case| case.needs(&[Need::Runtime("corten")])).collect()
}

fn waiting(t: &Test) -> Result<Bundle, Trouble> {
    Ok(t.bundle()?.writable().probe("sleep 1000"))
}

fn change(t: &Test, b: &Bundle, action: &str, mounts: &Value) -> Result<Done, Trouble> {
    let file = t.file("mounts.json");
    fs::write(&file, mounts.to_string())?;
    t.cli_words(&["mounts", action, &b.id, &file])
}

/// A directory of the host with a file in it.
fn bind_of(t: &Test, name: &str) -> Verdict {
    fs::create_dir_all(t.path(name))?;
    fs::write(t.path(name).join("file"), "x")?;
    Ok(())
}

fn host_at(t: &Test, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": t.file("host"), "options": options})
}

fn sees(t: &Test, b: &Bundle, path: &str, there: bool) -> Verdict {
    let done = t.exec(b, "", &format!("/probe try stat {path}"))?;
    let line: Value = serde_json::from_str(done.ok()?.stdout.trim())?;
    check!((line["errno"] == "ok") == there, "{path}: {line}");
    Ok(())
}

fn tries(t: &Test, b: &Bundle, op: &str) -> Result<String, Trouble> {
    let done = t.exec(b, "", &format!("/probe try {op}"))?;
    let line: Value = serde_json::from_str(done.ok()?.stdout.trim())?;
    Ok(line["errno"].as_str().unwrap_or_default().to_owned())
}

fn gone(t: &Test, b: &Bundle) -> Verdict {
    t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
}

fn bind(t: &Test, b: &Bundle, [plain, readonly]: [&str; 2]) -> Verdict {
    bind_of(t, "host")?;
    let mounts = json!([host_at(t, plain, &["bind"]), host_at(t, readonly, &["rbind", "ro"])]);
    change(t, b, "add", &mounts)?.ok()?;
    sees(t, b, &format!("{plain}/file"), true)?;
    sees(t, b, &format!("{readonly}/file"), true)?;
    let written = tries(t, b, &format!("mkdir {readonly}/new"))?;
    check!(written == "EROFS", "a directory below a read-only bind gave {written}");
    change(t, b, "remove", &mounts)?.ok()?;
    sees(t, b, &format!("{plain}/file"), false)?;
    sees(t, b, &format!("{readonly}/file"), false)?;
    check!(fs::read_to_string(t.path("host").join("file"))? == "x", "the host's file has changed");
    gone(t, b)
}

fn tmpfs(t: &Test) -> Verdict {
    let b = waiting(t)?;
    t.launch(&b)?;
    let mounts = json!([{"destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "noexec", "mode=700", "size=64k"]}]);
    change(t, &b, "add", &mounts)?.ok()?;
    let done = t.exec(&b, "", "/probe report")?;
    let report: Value = serde_json::from_str(done.ok()?.stdout.trim())?;
    let text = report["mounts"].to_string();
    check!(text.contains("/scratch") && text.contains("size=64k"), "{text}");
    change(t, &b, "remove", &mounts)?.ok()?;
    change(t, &b, "remove", &mounts)?.refuses(&["/scratch", "umount2", "; nothing is mounted"])?;
    gone(t, &b)
}

fn all_or_none(t: &Test) -> Verdict {
    let b = waiting(t)?;
    t.launch(&b)?;
    bind_of(t, "host")?;
    let mounts =
        json!([host_at(t, "/mnt", &["bind"]), {"destination": "/x", "type": "nosuchfs", "source": "x"}]);
    change(t, &b, "add", &mounts)?.refuses(&["mounts.json /1", "fsopen(nosuchfs)"])?;
    sees(t, &b, "/mnt/file", false)?;
    gone(t, &b)
}

/// A destination is a path of the container's, whatever the container makes of it.
fn escapes(t: &Test) -> Verdict {
    let b = waiting(t)?;
    fs::create_dir(t.path("elsewhere"))?;
    std::os::unix::fs::symlink(t.path("elsewhere"), b.rootfs("/link"))?;
    std::os::unix::fs::symlink("/../../../../..", b.rootfs("/up"))?;
    t.launch(&b)?;
    bind_of(t, "host")?;
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts = json!([
        host_at(t, "/link", &["bind"]),
        host_at(t, "/up/mnt", &["bind"]),
        host_at(t, "/../../dots", &["bind"])
    ]);
    change(t, &b, "add", &mounts)?.ok()?;
    check!(!t.path("elsewhere").join("file").exists(), "it is mounted outside");
    for path in ["/mnt/file", "/dots/file", &format!("{}/file", t.file("elsewhere"))] {
        sees(t, &b, path, true)?;
    }
    check!(fs::read_to_string("/proc/self/mountinfo")? == before, "the host's mounts have changed");
    change(t, &b, "remove", &mounts)?.ok()?;
    change(t, &b, "remove", &json!([{"destination": "/"}]))?.refuses(&["root itself"])?;
    let over_proc = json!([{"destination": "/proc/self/attr", "type": "tmpfs", "source": "tmpfs"}]);
    change(t, &b, "add", &over_proc)?.refuses(&["/proc/self/attr"])?;
    gone(t, &b)
}

fn not_there(t: &Test) -> Verdict {
    let mounts = json!([{"destination": "/x", "type": "tmpfs", "source": "tmpfs"}]);
    let b = t.bundle()?.probe("exit 0");
    change(t, &b, "add", &mounts)?.refuses(&["does not exist"])?;
    t.launch(&b)?;
    t.await_status(&b, "stopped")?;
    change(t, &b, "add", &mounts)?.refuses(&["cannot change the mounts of a stopped container"])?;
    change(t, &b, "remove", &mounts)?.refuses(&["stopped container"])?;
    t.cli(&format!("delete {}", b.id))?.ok().map(drop)
}

fn wrong(t: &Test) -> Verdict {
    let b = waiting(t)?;
    t.launch(&b)?;
    for (mounts, says) in [
        (json!({"destination": "/x"}), &["mounts.json", "; the file holds an array"][..]),
        (
            json!([{"destination": "/x", "type": "proc", "source": "proc"}]),
            &["mounts.json /0/type", "not later"],
        ),
        (json!([{"destination": "/x", "type": "cgroup2"}]), &["mounts.json /0/type", "not later"]),
        (
            json!([{"destination": "/x", "source": "/no/such", "options": ["bind"]}]),
            &["mounts.json /0", "no such file"],
        ),
        (
            json!([{"destination": "/x", "type": "tmpfs", "options": ["size=lots"]}]),
            &["/0", "fsconfig(size=lots)"],
        ),
    ] {
        change(t, &b, "add", &mounts)?.refuses(says)?;
    }
    t.cli_words(&["mounts", "add", &b.id, "/no/such"])?.refuses(&["open(/no/such)", "no such file"])?;
    t.cli_words(&["mounts", "swap", &b.id, "/no/such"])?.refuses(&["\"swap\"", "add or remove"])?;
    t.has_status(&b, "running")?;
    gone(t, &b)
}
