// SPDX-License-Identifier: Apache-2.0
//! config.md, process: apparmorProfile, selinuxLabel; config-linux.md: mountLabel. Each shown by what it forbids.
//!
//! The profiles are lab/lsm/apparmor, the labels those of lab/lsm/selinux.cil, which `lab/uml --lsm` loads. Without
//! such a guest these cases are not run; that the fields are refused where there is no module is in `bad_input`.

#![forbid(unsafe_code)]

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::report::Report;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let apparmor = apparmor().into_iter().map(|case| case.needs(&[Need::AppArmor]));
    let selinux = [process_labels(), object_labels(), exec_labels()].into_iter().flatten();
    apparmor.chain(selinux.map(|case| case.needs(&[Need::SeLinux]))).collect()
}

/// Both may make `free`, each may not make one of the others.
const BY_PROFILE: [&str; 5] = [
    "mkdir /tmp/denied",
    "mkdir /tmp/denied-exec",
    "create /tmp/free",
    "create /tmp/denied/x",
    "create /tmp/denied-exec/x",
];

fn profiled(t: &Test, profile: &str) -> Result<Bundle, Trouble> {
    let b = t.bundle()?.mount("tmpfs", "tmpfs", "/tmp", &["mode=1777"]);
    Ok(if profile.is_empty() { b } else { b.set("/process/apparmorProfile", json!(profile)) })
}

/// What each of [`BY_PROFILE`] must give under a profile.
fn table(profile: &str) -> Vec<(&'static str, &'static str)> {
    let (first, second) = match profile {
        "corten-test" => ("EACCES", "ok"),
        "corten-test-exec" => ("ok", "EACCES"),
        _ => ("ok", "ok"),
    };
    BY_PROFILE.into_iter().zip(["ok", "ok", "ok", first, second]).collect()
}

fn apparmor() -> Vec<Case> {
    let enforced = |(name, change): (&'static str, fn(Bundle) -> Bundle)| {
        case(format!("lsm/apparmor-profile-is-enforced{name}"), move |t: &Test| {
            for profile in ["corten-test", "corten-test-exec", ""] {
                let b = change(profiled(t, profile)?);
                let want =
                    if profile.is_empty() { "unconfined".to_owned() } else { format!("{profile} (enforce)") };
                t.report(&b)?.is("/apparmor", want)?;
                t.expect(change(profiled(t, profile)?), &table(profile))?;
            }
            Ok(())
        })
    };
    let mut all: Vec<Case> = [
        ("", (|b| b) as fn(Bundle) -> Bundle),
        ("-with-new-privileges", |b| b.set("/process/noNewPrivileges", json!(false))),
        ("-without-capabilities", |b| b.grants(&[]).set("/process/user", json!({"uid": 1000, "gid": 1000}))),
        ("-in-a-user-namespace", Bundle::user_namespace),
    ]
    .into_iter()
    .map(enforced)
    .collect();
    all.extend([
        case("lsm/apparmor-profile-that-is-not-loaded", |t| {
            let b = profiled(t, "no-such-profile")?;
            t.run(&b)?.refuses(&["apparmor", "no such file|ENOENT|no-such-profile"])?;
            t.try_create("create", &b)?.refuses(&["apparmor"]).map(drop)
        }),
        case("lsm/apparmor-profile-does-not-hold-hooks", |t| {
            let b = profiled(t, "corten-test")?;
            let note = t.path("note");
            let hook = json!([{"path": std::env::current_exe()?, "args": ["probe", "report-to", note]}]);
            t.report(&b.set("/hooks/createRuntime", hook))?;
            Report::read(&std::fs::read_to_string(note)?)?.is("/apparmor", "unconfined")
        }),
        case("lsm/apparmor-profile-of-exec", |t| {
            let b = profiled(t, "corten-test")?.probe("forever");
            t.launch(&b)?;
            let tries = BY_PROFILE.map(|op| format!("try {op}")).join(" -- ");
            for (options, profile) in
                [("", "corten-test"), ("--apparmor corten-test-exec", "corten-test-exec")]
            {
                let done = t.exec(&b, options, &format!("/probe {tries}"))?;
                t.compare(&done.ok()?.stdout, &table(profile))?;
                for left in ["rmdir /tmp/denied", "rmdir /tmp/denied-exec", "unlink /tmp/free"] {
                    t.exec(
                        &b,
                        "--apparmor corten-test-exec",
                        &format!("/probe try unlink /tmp/denied/x -- try {left}"),
                    )?;
                    t.exec(
                        &b,
                        "--apparmor corten-test",
                        &format!("/probe try unlink /tmp/denied-exec/x -- try {left}"),
                    )?;
                }
            }
            Ok(())
        }),
        case("lsm/apparmor-profile-of-exec-that-is-not-loaded", |t| {
            let b = profiled(t, "corten-test")?.probe("forever");
            t.launch(&b)?;
            t.exec(&b, "--apparmor no-such-profile", "/probe exit 0")?
                .exits(255)?
                .complains(&["apparmor"])
                .map(drop)
        })
        .crun("exits with 1, not 255"),
    ]);
    all
}

const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const OTHER: &str = "system_u:system_r:container_exec_t:s0:c1,c2";
const OBJECT: &str = "system_u:object_r:container_file_t:s0:c1,c2";

fn labelled(t: &Test) -> Result<Bundle, Trouble> {
    let b = t.bundle()?.writable().mount("tmpfs", "tmpfs", "/tmp", &[]);
    Ok(b.set("/process/selinuxLabel", json!(PROCESS)).set("/linux/mountLabel", json!(OBJECT)))
}

/// The root is the host's and may not be written to, the tmpfs may.
const BY_LABEL: [(&str, &str); 3] =
    [("create /x", "EACCES"), ("create /tmp/x", "ok"), ("unlink /tmp/x", "ok")];

fn process_labels() -> Vec<Case> {
    let enforced = |(name, change): (&'static str, fn(Bundle) -> Bundle)| {
        case(format!("lsm/selinux-label-is-enforced{name}"), move |t: &Test| {
            t.report(&change(labelled(t)?))?.is("/attr", PROCESS)?;
            t.expect(change(labelled(t)?), &BY_LABEL).map(drop)
        })
    };
    let mut all: Vec<Case> = [
        ("", (|b| b) as fn(Bundle) -> Bundle),
        ("-with-new-privileges", |b| b.set("/process/noNewPrivileges", json!(false))),
        ("-without-capabilities", |b| b.grants(&[])),
        ("-in-a-user-namespace", Bundle::user_namespace),
    ]
    .into_iter()
    .map(enforced)
    .collect();
    all.extend([
        case("lsm/selinux-no-label-no-limits", |t| {
            let b = t.bundle()?.writable();
            t.report(&b)?.is("/attr", "system_u:system_r:host_t:s0")?;
            t.expect(t.bundle()?.writable(), &[("create /x", "ok")]).map(drop)
        }),
        case("lsm/selinux-label-that-the-policy-lacks", |t| {
            let b = labelled(t)?.set("/process/selinuxLabel", json!("system_u:system_r:nobody_t:s0"));
            t.run(&b)?
                .refuses(&["selinuxLabel|attr/exec|attr/keycreate", "invalid argument|EINVAL"])
                .map(drop)
        }),
        case("lsm/selinux-label-of-the-keyring", |t| {
            let b = labelled(t)?;
            let r = t.report(&b)?;
            check!(r.text("/keyring").contains(&b.id), "no keyring of its own: {}", r.text("/keyring"));
            r.is("/keyring_label", PROCESS)
        }),
    ]);
    all
}

fn object_labels() -> Vec<Case> {
    vec![
        case("lsm/mount-label", |t| {
            let b = labelled(t)?;
            for dest in ["/tmp", "/dev", "/dev/shm", "/dev/pts", "/dev/mqueue"] {
                let b = b.clone();
                let got = t.expect(fresh(t, b)?, &[(&format!("label {dest}"), "ok")])?;
                same(dest, &got[0], OBJECT)?;
            }
            Ok(())
        }),
        case("lsm/mount-label-leaves-what-the-kernel-labels", |t| {
            let b = labelled(t)?.namespace("cgroup", None).without_mount("/sys/fs/cgroup");
            let b = b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"]);
            for dest in ["/proc", "/sys", "/sys/fs/cgroup"] {
                let got = t.expect(fresh(t, b.clone())?, &[(&format!("label {dest}"), "ok")])?;
                same(dest, &got[0], "system_u:object_r:host_file_t:s0")?;
            }
            Ok(())
        }),
        case("lsm/mount-label-of-masked-directories", |t| {
            let b = labelled(t)?.dir("secret", 0o755)?.set("/linux/maskedPaths", json!(["/secret"]));
            same("label", &t.expect(b, &[("label /secret", "ok")])?[0], OBJECT)
        })
        .crun("covers them with a directory of its own, without the label"),
        case("lsm/mount-label-that-the-policy-lacks", |t| {
            let b = labelled(t)?.set("/linux/mountLabel", json!("system_u:object_r:nobody_t:s0"));
            t.run(&b)?.refuses(&["mounts|mount", "invalid argument|EINVAL"]).map(drop)
        }),
    ]
}

/// The same configuration in a bundle of its own.
fn fresh(t: &Test, b: Bundle) -> Result<Bundle, Trouble> {
    let mut new = t.bundle()?;
    let group = new.config["linux"]["cgroupsPath"].clone();
    new.config = b.config;
    Ok(new.set("/linux/cgroupsPath", group))
}

fn exec_labels() -> Vec<Case> {
    vec![
        case("lsm/selinux-label-of-exec", |t| {
            let b = labelled(t)?.probe("forever");
            t.launch(&b)?;
            exec_has(t, &b, "", PROCESS)?;
            exec_has(t, &b, &format!("--process-label {OTHER}"), OTHER)
        }),
        case("lsm/selinux-label-of-a-process-file", |t| {
            let b = labelled(t)?.probe("forever");
            t.launch(&b)?;
            let mut process = b.config["process"].clone();
            process["selinuxLabel"] = json!(OTHER);
            process["args"] = json!(["/probe", "report"]);
            std::fs::write(t.path("process.json"), process.to_string())?;
            let done = t.cli(&format!("exec --process {} {}", t.file("process.json"), b.id))?;
            Report::read(&done.ok()?.stdout)?.is("/attr", OTHER)
        }),
        case("lsm/selinux-label-of-exec-that-the-policy-lacks", |t| {
            let b = labelled(t)?.probe("forever");
            t.launch(&b)?;
            let done = t.exec(&b, "--process-label system_u:system_r:nobody_t:s0", "/probe exit 0")?;
            done.exits(255)?.complains(&["selinux|label|attr", "invalid argument|EINVAL"]).map(drop)
        })
        .crun("exits with 1, not 255"),
    ]
}

fn exec_has(t: &Test, b: &Bundle, options: &str, label: &str) -> Verdict {
    let done = t.exec(b, options, "/probe report -- try create /x")?;
    let (report, tried) = done.ok()?.stdout.trim_end().split_once('\n').unwrap_or_default();
    Report::read(report)?.is("/attr", label)?;
    t.compare(tried, &BY_LABEL[..1]).map(drop)
}
