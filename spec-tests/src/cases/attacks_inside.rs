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
use crate::harness::bundle::Bundle;
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
        case("attack/S01-program-that-leads-to-itself", leads_to_itself),
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
fn refused(t: &Test, b: &Bundle, field: &str) -> Verdict {
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
                let b = if admin { b.grants(&["SYS_ADMIN"]) } else { b };
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

/// What the hostile loader ends with.
const LOADED: i32 = 77;

/// A program that ends at once with [`LOADED`], or one that has this loader.
fn program(loader: Option<&str>) -> Vec<u8> {
    const BASE: u64 = 0x7000_0000;
    // exit(77), and where an ELF file says for which machine it is (elf(5)).
    #[cfg(target_arch = "x86_64")]
    let (machine, code) = (62u16, [0xb8u8, 60, 0, 0, 0, 0xbf, 77, 0, 0, 0, 0x0f, 0x05]);
    #[cfg(target_arch = "aarch64")]
    let (machine, code) =
        (183u16, [0xa0u8, 0x09, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]);
    let base = if loader.is_some() { BASE } else { 2 * BASE };
    let (mut headers, mut content) = (Vec::new(), code.to_vec());
    let count = 1 + u64::from(loader.is_some());
    let begin = 64 + 56 * count;
    let mut header = |kind: u32, at: u64, size: u64| {
        headers.extend(kind.to_le_bytes());
        headers.extend(5u32.to_le_bytes());
        [at, base + at, base + at, size, size, 0x1000]
            .iter()
            .for_each(|field| headers.extend(field.to_le_bytes()));
    };
    if let Some(loader) = loader {
        header(3, begin + code.len() as u64, loader.len() as u64 + 1);
        content.extend(loader.bytes().chain([0]));
    }
    header(1, 0, begin + content.len() as u64);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2u16.to_le_bytes(), machine.to_le_bytes()].concat());
    file.extend(1u32.to_le_bytes());
    [base + begin, 64, 0].iter().for_each(|field| file.extend(field.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    [64u16, 56, count as u16, 0, 0, 0].iter().for_each(|field| file.extend(field.to_le_bytes()));
    [file, headers, content].concat()
}

/// CVE-2019-5736, with what an image can make of the program: a link, a script's interpreter, and a loader of its own for what that leads
/// to. Whatever runs then ends, and has changed nothing; the loader does not run.
fn leads_to_itself(t: &Test) -> Verdict {
    const LOADERS: [&str; 4] = [
        "lib64/ld-linux-x86-64.so.2",
        "lib/ld-musl-x86_64.so.1",
        "lib/ld-linux-aarch64.so.1",
        "lib/ld-musl-aarch64.so.1",
    ];
    let mut b = t.bundle()?.link("probe-link", "/proc/self/exe")?;
    let scripts = [("script", "#!/proc/self/exe\n"), ("dynamic", ""), ("nested", "#!/script\n")];
    for (name, text) in scripts.into_iter().chain(LOADERS.map(|name| (name, ""))) {
        b = b.file(name, text)?;
        let content = match name {
            "dynamic" => program(Some("/lib/ld-musl-x86_64.so.1")),
            _ if text.is_empty() => program(None),
            _ => text.into(),
        };
        fs::write(b.rootfs(name), content)?;
        fs::set_permissions(b.rootfs(name), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    same("the control, which has such a loader", t.run(&b.clone().args(&["/dynamic"]))?.code, LOADED)?;
    let own = fs::read(&t.host.runtime)?;
    let forever = b.clone().probe("forever");
    t.launch(&forever)?;
    for program in ["/probe-link", "/script", "/nested", "/proc/self/exe"] {
        let run = Bundle { id: format!("{}-run", b.id), ..b.clone() }.args(&[program, "print", "loaded"]);
        for done in [t.run(&run)?, t.exec(&forever, "", &format!("{program} print loaded"))?] {
            check!(done.code != LOADED && done.code != 0, "{program}: {done}");
            check!(!done.stdout.contains("loaded"), "{program}: {done}");
        }
    }
    check!(own == fs::read(&t.host.runtime)?, "the runtime's file has been changed");
    Ok(())
}
