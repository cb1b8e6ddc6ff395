// SPDX-License-Identifier: Apache-2.0
//! What a container sees of the control groups, and what of them is its own (config-linux.md, "Cgroup ownership";
//! cgroup_namespaces(7)).

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;

const UNIFIED: &[Need] = &[Need::CgroupV2];
const CRUN: &str = "gives the group away in every user namespace";
const MOUNT: &[&str] = &["nosuid", "noexec", "nodev"];

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = ownership();
    all.extend(views());
    all
}

/// A container whose cgroup mount has these options besides the usual ones, in a user namespace.
fn delegated(t: &Test, options: &[&str]) -> Result<Bundle, Trouble> {
    let options: Vec<&str> = MOUNT.iter().chain(options).copied().collect();
    let b = t.bundle()?.user_namespace().namespace("cgroup", None).without_mount("/sys/fs/cgroup");
    Ok(b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &options))
}

fn ownership() -> Vec<Case> {
    vec![
        case("cgroup/is-the-containers-in-a-user-namespace", |t| {
            let b = delegated(t, &["rw"])?
                .probe("try mkdir /sys/fs/cgroup/mine -- try rmdir /sys/fs/cgroup/mine -- forever");
            let log = t.launch(&b)?;
            // Its own group is gone again then, and is not among the files.
            let line = log.lines(t, 2)?.join("");
            check!(line.matches("\"ok\"").count() == 2, "making a group of its own: {line}");
            let dir = group(t, &b)?;
            let owner = |file: &str| Ok::<_, Trouble>(fs::metadata(dir.join(file))?.uid());
            same("owner of the directory", owner(".")?, 100_000)?;
            let delegate = fs::read_to_string("/sys/kernel/cgroup/delegate")?;
            for entry in fs::read_dir(&dir)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                let want = if delegate.split_whitespace().any(|file| file == name) { 100_000 } else { 0 };
                same(&format!("owner of {name}"), owner(&name)?, want)?;
            }
            Ok(())
        })
        .needs(UNIFIED)
        .runc("with systemd's driver only"),
        case("cgroup/is-its-users-in-a-user-namespace", |t| {
            let b = delegated(t, &["rw"])?.set("/process/user/uid", json!(7)).probe("forever");
            t.launch(&b)?;
            same("owner of the directory", fs::metadata(group(t, &b)?)?.uid(), 100_007)
        })
        .needs(UNIFIED)
        .runc("with systemd's driver only")
        .crun("gives it to root of the user namespace"),
        stays("cgroup/stays-the-hosts-if-mounted-read-only", CRUN, |t| delegated(t, &["ro"])),
        stays("cgroup/stays-the-hosts-without-a-mount", CRUN, |t| {
            Ok(delegated(t, &["rw"])?.without_mount("/sys/fs/cgroup"))
        }),
        stays("cgroup/stays-the-hosts-without-a-cgroup-namespace", CRUN, |t| {
            Ok(delegated(t, &["rw"])?.without_namespace("cgroup"))
        }),
        stays("cgroup/stays-the-hosts-without-a-user-namespace", "", |t| {
            let b = t.bundle()?.namespace("cgroup", None).without_mount("/sys/fs/cgroup");
            Ok(b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["rw"]))
        }),
    ]
}

fn stays(
    name: &'static str,
    crun: &'static str,
    bundle: impl Fn(&Test) -> Result<Bundle, Trouble> + Send + Sync + 'static,
) -> Case {
    let body = move |t: &Test| {
        let b = bundle(t)?.probe("forever");
        t.launch(&b)?;
        same("owner of the directory", fs::metadata(group(t, &b)?)?.uid(), 0)
    };
    case(name, body).needs(UNIFIED).crun(crun)
}

/// The container's group on the unified hierarchy, as its process says.
fn group(t: &Test, b: &Bundle) -> Result<PathBuf, Trouble> {
    let table = fs::read_to_string(format!("/proc/{}/cgroup", t.pid(b)?))?;
    let own = table.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(PathBuf::from("/sys/fs/cgroup").join(own.ok_or("no unified hierarchy")?))
}

fn views() -> Vec<Case> {
    vec![
        case("cgroup/whole-without-a-cgroup-namespace", |t| {
            let b = view(t, &["ro"])?;
            let made = format!("mkdir /sys/fs/cgroup/{}-x", b.id);
            let got = t.expect(b, &[("list /sys/fs/cgroup", "ok"), (&made, "EROFS")])?;
            as_the_host(&got[0])
        })
        .needs(UNIFIED),
        case("cgroup/whole-and-writable-without-a-cgroup-namespace", |t| {
            let b = view(t, &["rw"])?.grants(&["DAC_OVERRIDE"]);
            let (make, remove) =
                (format!("mkdir /sys/fs/cgroup/{}-x", b.id), format!("rmdir /sys/fs/cgroup/{}-x", b.id));
            let got = t.expect(b, &[("list /sys/fs/cgroup", "ok"), (&make, "ok"), (&remove, "ok")])?;
            as_the_host(&got[0])
        })
        .needs(UNIFIED),
        case("cgroup/whole-in-a-user-namespace", |t| {
            let b = delegated(t, &["rw"])?.without_namespace("cgroup");
            let made = format!("mkdir /sys/fs/cgroup/{}-x", b.id);
            let got = t.expect(b, &[("list /sys/fs/cgroup", "ok"), (&made, "EACCES")])?;
            as_the_host(&got[0])
        })
        .needs(UNIFIED),
    ]
}

/// Without a cgroup namespace.
fn view(t: &Test, options: &[&str]) -> Result<Bundle, Trouble> {
    let options: Vec<&str> = MOUNT.iter().chain(options).copied().collect();
    let b = t.bundle()?.without_namespace("cgroup").without_mount("/sys/fs/cgroup");
    Ok(b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &options))
}

/// What was listed is the host's hierarchy: its root has files that no other group has, and the same groups.
fn as_the_host(listed: &serde_json::Value) -> Verdict {
    let listed: Vec<&str> =
        listed.as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
    // Others' groups come and go; the container's own is in one that bears the mark of the tests, or is one.
    let host: Vec<String> = fs::read_dir("/sys/fs/cgroup")?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.starts_with("cgroup."))
        .collect();
    for name in &host {
        check!(listed.contains(&name.as_str()), "{name} is not in {listed:?}");
    }
    check!(!listed.contains(&"cgroup.type"), "it is not the root: {listed:?}");
    Ok(())
}
