// SPDX-License-Identifier: Apache-2.0
//! Containers without a mount namespace of their own: they are in the runtime's (config-linux.md, "Namespaces"), and what
//! is mounted for them goes with `delete`.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::mount::MsFlags;
use serde_json::json;

use super::crash::at_every_moment;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::report::Report;
use crate::harness::test::Test;

const LEAVES: &str = "leaves its mounts behind";
const RUNC: &str = "leaves its mounts behind, and takes the host's out of their peer groups";
const RUNC_AT_TIMES: &str =
    "at times: leaves its mounts behind, and takes the host's out of their peer groups";

/// The chapter.
pub fn cases() -> Vec<Case> {
    [life(), inside(), refused()].into_iter().flatten().collect()
}

/// The default configuration in the runtime's mount namespace.
fn bundle(t: &Test) -> Result<Bundle, Trouble> {
    let b = t.bundle()?.without_namespace("mount");
    Ok(b.remove("/linux/maskedPaths").remove("/linux/readonlyPaths"))
}

fn life() -> Vec<Case> {
    vec![
        case("mounts/in-the-runtimes-namespace", |t| {
            let before = t.snapshot();
            let b = bundle(t)?.probe("report -- forever");
            let log = t.launch(&b)?;
            let r: Report = log.report(t)?;
            r.mount("/proc")?.fstype("proc")?;
            r.mount("/dev/shm")?.fstype("tmpfs")?;
            let own = fs::metadata("/proc/self/ns/mnt")?.ino();
            same("the mount namespace", fs::metadata(format!("/proc/{}/ns/mnt", t.pid(&b)?))?.ino(), own)?;
            // It is there for the host, too: in its place, and in no other.
            let table = fs::read_to_string("/proc/self/mountinfo")?;
            let proc = b.rootfs("proc").to_string_lossy().into_owned();
            same("mounts of /proc on the host", table.matches(&format!(" {proc} ")).count(), 1)?;
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
            t.unchanged_since(&before)
        })
        .runc(RUNC)
        .crun(LEAVES),
        case("mounts/in-the-runtimes-namespace-after-a-run", |t| {
            let before = t.snapshot();
            t.report(&bundle(t)?)?.mount("/dev")?.fstype("tmpfs")?;
            t.unchanged_since(&before)
        })
        .runc(RUNC)
        .crun(LEAVES),
        case("mounts/in-the-runtimes-namespace-go-with-a-failed-create", |t| {
            let before = t.snapshot();
            let b = bundle(t)?.args(&["/not/there"]);
            t.run(&b)?.refuses(&["no such file or directory"])?;
            t.unchanged_since(&before)
        })
        .runc(RUNC)
        .crun(LEAVES),
        case("crash/create-killed-without-a-mount-namespace", |t| {
            let begin = |t: &Test, b: &Bundle| t.spawn(t.bundle_command("create", b)?);
            at_every_moment(t, bundle, begin, |_, _| Ok(()))
        })
        // Where the kill comes before the mounts, nothing is left.
        .runc(RUNC_AT_TIMES)
        .crun(LEAVES),
        case("crash/delete-killed-without-a-mount-namespace", |t| {
            let begin = |t: &Test, b: &Bundle| {
                let mut command = t.runtime();
                command.args(["delete", "--force", &b.id]);
                t.spawn(command)
            };
            at_every_moment(t, bundle, begin, |t, b| t.launch(b).map(drop))
        })
        .runc(RUNC)
        .crun(LEAVES),
        case("mounts/of-others-in-the-rootfs-are-not-the-containers", |t| {
            let b = bundle(t)?.probe("forever").dir("mine", 0o755)?;
            fs::create_dir(t.path("theirs"))?;
            t.mount("tmpfs", "tmpfs", &t.path("theirs"), MsFlags::empty(), "")?;
            t.launch(&b)?;
            // Over the container's own: `delete` may not take it away, and says so.
            let (from, at) = (t.path("theirs"), b.rootfs(""));
            nix::mount::mount(Some(&from), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            let done = t.cli(&format!("delete --force {}", b.id))?;
            nix::mount::umount2(&at, nix::mount::MntFlags::MNT_DETACH)?;
            done.refuses(&["something else is mounted over", "rootfs"])?;
            t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
        })
        .both("leave their mounts behind"),
    ]
}

fn inside() -> Vec<Case> {
    vec![
        case("mounts/in-the-runtimes-namespace-root-is-read-only", |t| {
            let b = bundle(t)?.set("/root/readonly", json!(true));
            let at = b.dir.clone();
            t.expect(b, &[("create /x", "EROFS"), ("create /dev/shm/x", "ok")])?;
            Ok(fs::write(at.join("rootfs/still-the-hosts"), "")?)
        })
        .runc(RUNC)
        .crun(LEAVES),
        case("mounts/in-the-runtimes-namespace-binds-and-flags", |t| {
            fs::create_dir(t.path("src"))?;
            fs::write(t.path("src/file"), "of the host")?;
            let b = bundle(t)?.mount("bind", &t.file("src"), "/b", &["bind", "ro", "nosuid"]);
            let got = t.expect(b, &[("read /b/file", "ok"), ("create /b/x", "EROFS")])?;
            same("the file", &got[0], "of the host")
        })
        .runc(RUNC)
        .crun(LEAVES),
        case("mounts/in-the-runtimes-namespace-of-the-host-stay-shared", |t| {
            let shared = || Ok::<_, Trouble>(fs::read_to_string("/proc/self/mountinfo")?.matches(" shared:").count());
            let before = shared()?;
            t.launch(&bundle(t)?.probe("forever"))?;
            check!(shared()? >= before, "{} shared mounts, {before} before", shared()?);
            Ok(())
        })
        .runc(RUNC)
        .crun(LEAVES),
        case("exec/in-the-runtimes-mount-namespace", |t| {
            let b = bundle(t)?.probe("forever");
            t.launch(&b)?;
            let r = Report::read(&t.exec(&b, "", "/probe report")?.ok()?.stdout)?;
            r.mount("/proc")?.fstype("proc").map(drop)
        })
        .runc(RUNC)
        .crun(LEAVES),
        case("hooks/without-a-mount-namespace", |t| {
            let b = bundle(t)?;
            let touch = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("test -e {}/proc/version && touch {}", b.rootfs("").display(), t.file(name))], "env": ["PATH=/bin:/usr/bin"]}]);
            let hooked = b.clone().set("/hooks/createRuntime", touch("runtime")).set("/hooks/createContainer", touch("container"));
            t.run(&hooked.probe("exit 0"))?.ok()?;
            check!(t.path("runtime").exists() && t.path("container").exists(), "a hook did not see /proc in the rootfs");
            Ok(())
        })
        .runc(RUNC)
        .crun(LEAVES),
    ]
}

fn refused() -> Vec<Case> {
    let masks = |field: &'static str| {
        case(format!("bad/{field}-without-a-mount-namespace"), move |t: &Test| -> Verdict {
            let b = bundle(t)?.set(&format!("/linux/{field}"), json!(["/proc/kcore"]));
            t.run(&b)?.refuses(&["unable to restrict sys entries without a private MNT namespace"]).map(drop)
        })
        .crun("does it, on the host")
    };
    vec![
        masks("maskedPaths"),
        masks("readonlyPaths"),
        case("bad/mounts-without-a-mount-namespace-in-a-user-namespace", |t| {
            t.run(&bundle(t)?.user_namespace())?.refuses(&["mount"]).map(drop)
        }),
    ]
}
