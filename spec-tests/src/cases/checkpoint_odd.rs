// SPDX-License-Identifier: Apache-2.0
//! Checkpoints and restores as engines and new users meet them.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::checkpoint::{
    CRUN, FREEZER, checkpoint, counter, counts_on, launched, lines, restore, shell, try_checkpoint,
};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// Pauses it until its shell waits in vfork(2) for a child that has not come further either.
fn paused_in_a_vfork(t: &Test, b: &Bundle) -> Verdict {
    let init = t.pid(b)?;
    let in_vfork = |pid: &str| {
        // Its number on x86-64.
        fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|text| text.starts_with("58 "))
    };
    for _ in 0..500 {
        t.cli(&format!("pause {}", b.id))?.ok()?;
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
        if in_vfork(&init.to_string()) && children.split_whitespace().all(in_vfork) {
            return Ok(());
        }
        t.cli(&format!("resume {}", b.id))?.ok()?;
    }
    Err(Trouble::NotRun("it was never paused in a vfork(2)".to_owned()))
}

/// A hierarchy of v1 beside v2, in whose root the container is: the name of a controller in it, and where it is mounted now.
fn other_hierarchy(t: &Test) -> Result<std::path::PathBuf, Trouble> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let table = fs::read_to_string("/proc/self/cgroup")?;
    let mut names = table.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let Some((name, _)) = names.find(|(name, group)| !name.is_empty() && *group == "/") else {
        return Err(Trouble::NotRun("no hierarchy of v1 in whose root the harness is".to_owned()));
    };
    let dir = t.path("hierarchy");
    fs::create_dir(&dir)?;
    mount(Some("cgroup"), &dir, Some("cgroup"), MsFlags::empty(), Some(name))?;
    let at = dir.clone();
    t.at_end(move || {
        umount2(&at, MntFlags::MNT_DETACH).ok();
    });
    Ok(dir)
}

/// It would be gone, and could not be restored.
fn refused_by_an_old_one(t: &Test, b: Bundle, field: &str) -> Verdict {
    t.launch(&b)?;
    try_checkpoint(t, &b, "")?.refuses(&[field, "does not carry it: install"])?;
    t.has_status(&b, "running")
}

/// Of the chapter `checkpoint`.
pub fn cases() -> Vec<Case> {
    let mut all = vec![
        // Docker's is below /var/run.
        case("checkpoint/state-root-through-a-link", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            let before = lines(&b);
            let link = t.path("linked");
            symlink(&t.place.root, &link)?;
            let restore =
                format!("--root {} restore --detach --image-path {}", link.display(), t.file("images"));
            t.try_create(&restore, &b)?.ok()?;
            t.has_status(&b, "running")?;
            t.until(|| "a container that counts".to_owned(), || Ok((lines(&b) > before + 2).then_some(())))
        }),
        // Unless it is told otherwise, CRIU dumps all groups below the container's own, also where that is everybody's.
        case("checkpoint/groups-of-others-are-not-made-again", |t| {
            let group = other_hierarchy(t)?.join(format!("{}-other", t.place.mark));
            let b = counter(t)?;
            launched(t, &b)?;
            fs::create_dir(&group)?;
            let dumped = checkpoint(t, &b, "");
            fs::remove_dir(&group)?;
            dumped?;
            restore(t, &b)?;
            let there = group.exists();
            fs::remove_dir(&group).ok();
            check!(!there, "somebody else's group is there again");
            counts_on(t, &b)
        })
        .runc("makes it again")
        .needs(&[Need::CgroupV2]),
        // As the CRI has it. On a hybrid host the tasks came into a group of v2 that was called as the old one's.
        case("checkpoint/under-another-name", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            let old = b.config["linux"]["cgroupsPath"].as_str().unwrap_or_default().to_owned();
            let mut other = b.set("/linux/cgroupsPath", json!(format!("{old}-other")));
            other.id.push_str("-other");
            restore(t, &other)?;
            let groups = fs::read_to_string(format!("/proc/{}/cgroup", t.pid(&other)?))?;
            let stale = groups.lines().find(|line| line.ends_with(old.as_str()));
            check!(!old.is_empty() && stale.is_none(), "a group of the old container's: {stale:?}");
            counts_on(t, &other)
        }),
        case("checkpoint/no-new-privileges-that-criu-loses", |t| {
            let b = counter(t)?.set("/process/noNewPrivileges", json!(true));
            refused_by_an_old_one(t, b, "/process/noNewPrivileges: CRIU")
        })
        .needs(&[Need::CriuBefore(3, 19), Need::Runtime("corten")]),
        case("checkpoint/read-only-root-that-criu-loses", |t| {
            let b = shell(t, "while :; do sleep 0.02; done")?.set("/root/readonly", json!(true));
            refused_by_an_old_one(t, b, "/root/readonly: CRIU")
        })
        .needs(&[Need::CriuBefore(3, 18), Need::Runtime("corten")]),
        // A process that only the first one has holds more memory than any of the second one.
        case("checkpoint/again-into-the-same-directory", |t| {
            let large = "(v=$(dd if=/dev/zero bs=1M count=2 2>/dev/null | tr '\\0' x); echo 1 >/count
                while [ ! -e /go ]; do sleep 0.02; done)";
            let b = shell(t, &format!("{large}; echo 2 >>/count; while :; do sleep 0.02; done"))?;
            t.launch(&b)?;
            t.until(|| "the large process".to_owned(), || Ok((lines(&b) >= 1).then_some(())))?;
            checkpoint(t, &b, "--leave-running")?;
            fs::write(b.rootfs("go"), "")?;
            t.until(|| "its end".to_owned(), || Ok((lines(&b) >= 2).then_some(())))?;
            checkpoint(t, &b, "")?;
            restore(t, &b)
        }),
        case("checkpoint/read-only-root-without-tmp", |t| {
            let b = shell(t, "while :; do sleep 0.02; done")?.set("/root/readonly", json!(true));
            fs::remove_dir(b.rootfs("tmp"))?;
            t.launch(&b)?;
            checkpoint(t, &b, "")?;
            restore(t, &b)?;
            let done = t.exec(&b, "", "/bin/mkdir /x")?;
            check!(
                done.code != 0 && done.stderr.contains("Read-only"),
                "the root is not read-only: {done:?}"
            );
            Ok(())
        })
        .runc("CRIU makes no directory in a read-only root")
        .needs(&[Need::CriuFrom(3, 18)]),
        case("checkpoint/paused-in-a-vfork", |t| {
            let b = shell(t, "while :; do /bin/busybox true; done")?;
            t.launch(&b)?;
            paused_in_a_vfork(t, &b)?;
            checkpoint(t, &b, "--leave-running")?;
            t.has_status(&b, "paused")
        })
        .runc("at times: CRIU waits ten seconds in vain"),
        case("checkpoint/fails-while-paused", |t| {
            // More than CRIU takes of a file without a name.
            let b = shell(
                t,
                "dd if=/dev/zero of=/x bs=1M count=3; exec 3</x; rm /x; echo 1 >/count; sleep 1000",
            )?;
            t.launch(&b)?;
            t.until(|| "the file".to_owned(), || Ok((lines(&b) > 0).then_some(())))?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            check!(try_checkpoint(t, &b, "--leave-running")?.code != 0, "it succeeds");
            t.has_status(&b, "paused")
        }),
    ];
    for case in &mut all {
        case.needs.extend([Need::Criu, Need::Busybox, CRUN]);
        case.differs("runc", FREEZER);
    }
    all
}
