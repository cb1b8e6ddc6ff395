// SPDX-License-Identifier: Apache-2.0
//! Images hold the mounts of a checkpoint, and config.json says what a container may see and write to: it has the last word.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use super::checkpoint::{CRUN, checkpoint, counter, counts_on, launched, try_restore};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// What the checkpoint's container has, and most of these tests' configurations no more.
fn wide(t: &Test, capabilities: &[&str]) -> Result<Bundle, Trouble> {
    fs::create_dir_all(t.path("volume/below"))?;
    // With hooks a container has its masks twice, one over the other.
    let b = counter(t)?
        .set("/hooks", json!({"createRuntime": [{"path": "/bin/true"}]}))
        .grants(capabilities)
        .mount("tmpfs", "tmpfs", "/t", &[])
        .mount("tmpfs", "tmpfs", "/harmless", &[])
        .mount("proc", "proc", "/other", &[])
        .mount("bind", &t.file("volume"), "/v", &["rbind", "rw"]);
    Ok(without_path(without_path(without_path(b, "/proc/keys"), "/sys/firmware"), "/proc/bus"))
}

/// Neither hidden nor read-only.
fn without_path(b: Bundle, path: &str) -> Bundle {
    let lists = ["/linux/maskedPaths", "/linux/readonlyPaths"];
    lists.into_iter().fold(b, |b, list| {
        let kept: Vec<Value> = b
            .config
            .pointer(list)
            .and_then(Value::as_array)
            .map(|paths| paths.iter().filter(|each| **each != path).cloned().collect())
            .unwrap_or_default();
        b.set(list, json!(kept))
    })
}

/// `/t` with other options, or of another kind.
fn other_t(b: Bundle, kind: &str, options: &[&str]) -> Bundle {
    b.without_mount("/t").mount(kind, kind, "/t", options)
}

type Change = fn(Bundle) -> Bundle;

/// Each narrows the configuration in one point, and the words that say so.
const NARROWER: [(Change, &str); 9] = [
    (|b| b.set("/root/readonly", json!(true)), "/root/readonly: the checkpoint's / is not ro"),
    (|b| b.push("/linux/maskedPaths", json!("/proc/keys")), "the checkpoint does not hide /proc/keys"),
    (|b| b.push("/linux/maskedPaths", json!("/sys/firmware")), "the checkpoint does not hide /sys/firmware"),
    (|b| b.push("/linux/readonlyPaths", json!("/proc/bus")), "the checkpoint's /proc/bus is not ro"),
    (|b| other_t(b, "tmpfs", &["nosuid", "ro"]), "the checkpoint's /t is not ro, nosuid"),
    (|b| other_t(b, "tmpfs", &["nodev", "noexec"]), "the checkpoint's /t is not nodev, noexec"),
    (|b| other_t(b, "mqueue", &[]), "the checkpoint has another mount at /t: tmpfs"),
    (|b| b.mount("tmpfs", "tmpfs", "/new", &[]), "the checkpoint has no mount at /new"),
    (
        |b| b.without_mount("/other"),
        "/mounts: the checkpoint has a mount at /other (proc), and config.json has none",
    ),
];

fn refused(t: &Test, b: &Bundle, words: &str) -> Verdict {
    let before = t.snapshot();
    let done = try_restore(t, b, "")?;
    check!(done.code != 0 && done.stderr.contains(words), "{words}: {done}");
    check!(done.stderr.lines().count() == 1, "more than a line: {done}");
    check!(t.cli(&format!("state {}", b.id))?.code != 0, "{words}: a container is left");
    t.unchanged_since(&before)
}

/// Of the chapter `checkpoint`.
pub fn cases() -> Vec<Case> {
    let mut all = vec![
        case("checkpoint/mounts-that-are-wider-are-refused", |t| {
            let b = wide(t, &["KILL"])?;
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            for (change, words) in NARROWER {
                refused(t, &change(b.clone()), words)?;
            }
            // A file system that was empty shows nobody anything.
            let b = b.without_mount("/harmless");
            try_restore(t, &b, "")?.ok()?;
            counts_on(t, &b)
        }),
        // It might have come to them by itself.
        case("checkpoint/mounts-of-one-that-may-mount", |t| {
            let b = wide(t, &["KILL", "SYS_ADMIN"])?;
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            let b = b.push("/linux/maskedPaths", json!("/proc/keys")).without_mount("/other");
            try_restore(t, &b, "")?.ok()?;
            counts_on(t, &b)
        }),
        // CRIU 4.2.1 knows no such flag: without the comparison it would be lost silently.
        case("checkpoint/mount-with-a-flag-that-criu-loses", |t| {
            let b = counter(t)?.grants(&["KILL"]).mount("tmpfs", "tmpfs", "/t", &["nosymfollow"]);
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            refused(t, &b, "the checkpoint's /t is not nosymfollow")
        }),
    ];
    for case in &mut all {
        case.needs.extend([Need::Criu, Need::Busybox, Need::Runtime("corten"), CRUN]);
    }
    all
}
