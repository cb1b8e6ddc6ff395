// SPDX-License-Identifier: Apache-2.0
//! Root file systems that are more than a mount(2): a file as a block device, and file systems that a program mounts.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::errors::fails;
use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::task::{Io, Task};
use crate::shim::ttrpc::{INVALID_ARGUMENT, UNKNOWN};
use crate::shim::wire::Message;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("layers/loop-option", loop_option),
        case("layers/loop-of-nothing", loop_of_nothing),
        case("layers/fuse-by-its-helper", fuse),
        case("layers/fuse-helper-fails", fuse_fails),
        case("layers/propagation-options", propagation).runc("2.1 hands them to the file system"),
    ]
}

/// An ext4 image of the shared root file system.
fn image(d: &Daemon) -> Result<String, Trouble> {
    let path = d.t.path("image");
    fs::File::create(&path)?.set_len(96 << 20)?;
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-d"]).arg(&d.rootfs).arg(&path);
    let made = command.output().map_err(|error| Trouble::NotRun(format!("no mke2fs: {error}")))?;
    check!(made.status.success(), "mke2fs: {}", String::from_utf8_lossy(&made.stderr));
    if !Path::new("/dev/loop-control").exists() {
        return Err(Trouble::NotRun("no loop devices".into()));
    }
    Ok(path.to_string_lossy().into_owned())
}

/// Loop devices over a file of ours.
fn loops(path: &str) -> usize {
    let blocks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let backing = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("loop/backing_file")).ok();
    blocks.filter_map(backing).filter(|backing| backing.trim() == path).count()
}

/// The blockfile and erofs snapshotters ask for this.
fn loop_option(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let image = image(&d)?;
    for (round, access) in ["ro", "rw"].into_iter().enumerate() {
        let b = d.bundle("exit 6")?;
        b.write()?;
        let task = Task::new(d.shim(&b)?, &b.id);
        let mount = Message::new().text(1, "ext4").text(2, &image).text(4, "loop").text(4, access);
        task.shim.call("Create", &task.create_request(&b, &Io::null(), &[mount], &d.options()))?;
        same("loop devices", loops(&image), 1)?;
        task.start("")?;
        same(&format!("the status of round {round}"), task.exit("")?.status, 6)?;
        d.end(&b, &task)?;
        t.until(|| "the loop device's end".into(), || Ok((loops(&image) == 0).then_some(())))?;
    }
    d.finish()
}

fn loop_of_nothing(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("exit 6")?;
    b.write()?;
    let task = Task::new(d.shim(&b)?, &b.id);
    let mount = Message::new().text(1, "ext4").text(2, "/no/such/image").text(4, "loop");
    let created = task.shim.call("Create", &task.create_request(&b, &Io::null(), &[mount], &d.options()));
    fails("Create", created, &[UNKNOWN, INVALID_ARGUMENT], "/no/such/image")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// Puts a helper of ours, which does `last`, before all others.
pub(super) fn helper(d: &Daemon, last: &str) -> Result<String, Trouble> {
    let (dir, log) = (d.t.path("helpers"), d.t.file("helper-arguments"));
    fs::create_dir(&dir)?;
    for name in ["mount.fuse", "mount.fuse3"] {
        let script = format!("#!/bin/sh\necho \"${{0##*/}} $*\" >>{log}\n{last}\n");
        fs::write(dir.join(name), script)?;
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755))?;
    }
    let runc = d.t.host.runc.as_deref().and_then(Path::parent).unwrap_or(Path::new("/usr/local/bin"));
    let path = format!("{}:{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.display(), runc.display());
    d.environment.borrow_mut().push(("PATH".into(), path));
    Ok(log)
}

/// `fuse3.KIND` is mounted by `mount.fuse3 SOURCE TARGET -o OPTION … -t KIND`. Its server stays a child of the shim's and
/// must not keep anything waiting.
fn fuse(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let log = helper(&d, "sleep 3 & exec mount --bind \"$1\" \"$2\"")?;
    let source = d.rootfs.to_string_lossy().into_owned();
    for (kind, program) in [("fuse.some-overlayfs", "mount.fuse"), ("fuse3.some-overlayfs", "mount.fuse3")] {
        fs::write(&log, "")?;
        let b = d.bundle("exit 6")?;
        b.write()?;
        let task = Task::new(d.shim(&b)?, &b.id);
        let mount = Message::new().text(1, kind).text(2, &source).text(4, "lowerdir=/a:/b").text(4, "ro");
        task.shim.call("Create", &task.create_request(&b, &Io::null(), &[mount], &d.options()))?;
        let target = b.dir.join("rootfs");
        let told =
            format!("{program} {source} {} -o lowerdir=/a:/b -o ro -t some-overlayfs\n", target.display());
        same("the helper's arguments", &fs::read_to_string(&log)?, &told)?;
        task.start("")?;
        same("the status", task.exit("")?.status, 6)?;
        d.end(&b, &task)?;
    }
    t.until(
        || "the end of the helpers' servers".into(),
        || {
            t.reap();
            Ok(crate::harness::hostdiff::descendants().is_empty().then_some(()))
        },
    )?;
    d.finish()
}

fn fuse_fails(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    helper(&d, "echo no such luck >&2; exit 3")?;
    let b = d.bundle("exit 6")?;
    b.write()?;
    let task = Task::new(d.shim(&b)?, &b.id);
    let mount = Message::new().text(1, "fuse3.x").text(2, "none");
    let created = task.shim.call("Create", &task.create_request(&b, &Io::null(), &[mount], &d.options()));
    fails("Create", created, &[UNKNOWN, INVALID_ARGUMENT], "no such luck")?;
    same("events", d.events.story(&b.id), Vec::<String>::new())?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// They are no options of the file system.
fn propagation(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("exit 6")?;
    b.write()?;
    let task = Task::new(d.shim(&b)?, &b.id);
    let lower = format!("lowerdir={}:{}", d.rootfs.display(), t.path("out").display());
    let mount = Message::new().text(1, "overlay").text(2, "overlay").text(4, &lower).text(4, "rprivate");
    task.shim.call("Create", &task.create_request(&b, &Io::null(), &[mount], &d.options()))?;
    task.start("")?;
    same("the status", task.exit("")?.status, 6)?;
    d.end(&b, &task)?;
    d.finish()
}
