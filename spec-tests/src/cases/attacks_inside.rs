// SPDX-License-Identifier: Apache-2.0
//! Attacks by what runs inside, or by a configuration with odd values: on the runtime's program, on what is written in procfs, on
//! identities. The names S01 … are those of the list of advisories in docs/SECURITY.md.
//!
//! `spec-tests/attack` runs them once more on a runtime that lacks what keeps each from succeeding.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use serde_json::{Value, json};

use crate::check;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let both = "keeps no sealed copy";
    vec![
        case("attack/S01-exe-is-held-until-nobody-runs-it", exe_is_held).both(both),
        case("attack/S02-what-runs-is-no-file-of-the-host", |t| {
            let b = t.bundle()?;
            t.create(&b)?;
            let found = fs::metadata(format!("/proc/{}/exe", t.pid(&b)?))?;
            let own = fs::metadata(&t.host.runtime)?;
            check!((found.dev(), found.ino()) != (own.dev(), own.ino()), "it is the runtime's own program");
            // What is mounted anywhere shares its page cache with the host.
            let number =
                format!("{}:{}", nix::sys::stat::major(found.dev()), nix::sys::stat::minor(found.dev()));
            let table = fs::read_to_string("/proc/self/mountinfo")?;
            let mounted = table.lines().find(|line| line.split(' ').nth(2) == Some(&number));
            check!(mounted.is_none(), "it lies on {mounted:?}");
            Ok(())
        })
        .crun(both),
        case("attack/S18-sysctl-in-an-image-with-a-proc-of-its-own", |t| {
            // The image's /proc is a directory with files: what is written there is not written to the kernel.
            let name = "proc/sys/net/ipv4/ip_forward";
            let b = t.bundle()?.writable().without_mount("/proc").remove("/linux/maskedPaths");
            let b = b.remove("/linux/readonlyPaths").file(name, "bait")?;
            let b = b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})).probe("exit 0");
            t.run(&b)?.ok()?;
            same("the image's file", fs::read_to_string(b.rootfs(name))?.as_str(), "bait")
        })
        .runc("wants a procfs there"),
        case("attack/S27-the-last-id", |t| {
            let last = json!(u32::MAX);
            for user in [
                json!({"uid": last, "gid": 0}),
                json!({"uid": 1, "gid": last}),
                json!({"uid": 1, "gid": 1, "additionalGids": [1, last]}),
            ] {
                let done = t.run(&t.bundle()?.set("/process/user", user.clone()).probe("report"))?;
                check!(done.code != 0 && done.errors().len() == 1, "{user} is taken: {done}");
            }
            Ok(())
        })
        .crun("takes it, and stays what it was"),
        case("attack/S29-no-new-privileges-with-and-without-a-filter", privileges_and_filter),
        case("attack/S33-more-mappings-than-anybody-needs", |t| {
            let one = |number: u32| json!({"containerID": number, "hostID": 100_000 + number, "size": 1});
            let many: Vec<Value> = (0..100_000).map(one).collect();
            let b = t.bundle()?.user_namespace().set("/linux/uidMappings", json!(many));
            refused(t, &b.probe("exit 0"), "uidMappings")
        })
        .both("says what the kernel says, and leaves a group (crun)"),
        case("attack/S33-paths-of-a-megabyte", |t| {
            let long = format!("/{}", "x/".repeat(1 << 19));
            let b = t.bundle()?.mount("tmpfs", "tmpfs", &long, &[]).probe("exit 0");
            refused(t, &b, "mounts")?;
            refused(t, &t.bundle()?.push("/linux/maskedPaths", json!(long)).probe("exit 0"), "maskedPaths")?;
            refused(t, &t.bundle()?.set("/process/cwd", json!(long)).probe("exit 0"), "cwd")
        })
        .both("some of these are taken"),
        case("attack/S36-no-hierarchy-can-be-mounted-inside", |t| {
            let b = t.bundle()?.without_namespace("cgroup").namespace("cgroup", None);
            let table = [
                ("mkdir /dev/h", "ok"),
                ("mount cgroup /dev/h", "EPERM"),
                ("write /sys/fs/cgroup/memory/release_agent x", "ENOENT|EACCES|EROFS|EPERM"),
                ("write /sys/fs/cgroup/release_agent x", "ENOENT|EACCES|EROFS|EPERM"),
            ];
            t.expect(b, &table).map(drop)
        }),
    ]
}

/// Ends with one line that names the field, and within the memory of a test.
fn refused(t: &Test, b: &crate::harness::bundle::Bundle, field: &str) -> Verdict {
    let before = t.snapshot();
    let done = t.run(b)?;
    check!(done.code != 0, "{field}: it is taken");
    let errors = done.errors();
    check!(
        errors.len() == 1 && errors[0].contains(field),
        "{field}: {}",
        &format!("{done}").chars().take(600).collect::<String>()
    );
    t.unchanged_since(&before)
}

/// CVE-2019-5736: while the runtime's program waits, the container opens it; once nothing executes it any more, it may be opened for writing,
/// as far as it is itself concerned. What was sealed stays what it is.
fn exe_is_held(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever");
    t.create(&b)?;
    let pid = t.pid(&b)?;
    let held = File::open(format!("/proc/{pid}/exe"))?;
    let size = held.metadata()?.len();
    t.cli(&format!("start {}", b.id))?.ok()?;
    t.until(
        || "the user's program".into(),
        || Ok((fs::metadata(format!("/proc/{pid}/exe"))?.ino() != held.metadata()?.ino()).then_some(())),
    )?;
    let seals = SealFlag::from_bits_truncate(fcntl(&held, FcntlArg::F_GET_SEALS)?);
    let wanted =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    check!(seals.contains(wanted), "it is sealed by {seals:?} alone");
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    if let Ok(open) = fs::OpenOptions::new().write(true).open(path) {
        check!(open.write_at(b"#!/bin/evil\n", 0).is_err(), "it could be written to");
        check!(open.set_len(0).is_err(), "it could be cut short");
    }
    same("its size", held.metadata()?.len(), size)
}

/// All twelve start, and are what was asked for.
fn privileges_and_filter(t: &Test) -> Verdict {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]});
    for asked in [None, Some(false), Some(true)] {
        for filter in [false, true] {
            for admin in [false, true] {
                let b = t.bundle()?.remove("/process/noNewPrivileges");
                let b =
                    asked.map_or(b.clone(), |asked| b.clone().set("/process/noNewPrivileges", json!(asked)));
                let b = if filter {
                    b.set("/linux/seccomp", profile.clone())
                } else {
                    b.remove("/linux/seccomp")
                };
                let b = if admin { b.grants(&["CAP_SYS_ADMIN"]) } else { b };
                let what = format!("noNewPrivileges {asked:?}, filter {filter}, CAP_SYS_ADMIN {admin}");
                let report = t.report(&b).map_err(|trouble| format!("{what}: {trouble:?}"))?;
                let nnp = report.at("/no_new_privs").clone();
                check!(nnp == json!(if asked == Some(true) { "1" } else { "0" }), "{what}: NoNewPrivs {nnp}");
                let mode = report.at("/seccomp").clone();
                check!(mode == json!(if filter { "2" } else { "0" }), "{what}: Seccomp {mode}");
            }
        }
    }
    Ok(())
}
