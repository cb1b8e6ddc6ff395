// SPDX-License-Identifier: Apache-2.0
//! Nothing is left of something: of the disk below the state root, the log or the pid file (R03, R04), of descriptors, of processes.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::CLEARING;
use super::scenes::rich;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::test::Test;
use crate::sys;

pub fn cases() -> Vec<Case> {
    let all = vec![
        case("faults/full-state-root", |t| {
            small_roots(t, (1..=16).map(|pages| format!("mode=755,size={}k,nr_inodes=100", 4 * pages)))
        }),
        case("faults/state-root-without-inodes", |t| {
            small_roots(t, (1..=10).map(|inodes| format!("mode=755,size=1m,nr_inodes={inodes}")))
        }),
        case("faults/no-byte-free", no_byte_free),
        case("faults/read-only-state-root", read_only_root),
        case("faults/full-log-and-pid-file", full_log),
        case("faults/no-more-memory", no_more_memory),
        case("faults/few-descriptors", few_descriptors).takes(200.0),
        case("faults/few-processes", few_processes).needs(&[Need::Controller("pids")]).takes(100.0),
    ];
    all.into_iter().map(|case| case.needs(&[Need::Runtime("corten")])).collect()
}

fn root(t: &Test) -> Result<PathBuf, Trouble> {
    let root = t.place.root.clone();
    fs::create_dir_all(&root)?;
    Ok(root)
}

/// A command that may fail: with one line of error that says what is scarce.
fn works_or_says(done: &Done, errnos: &[&str]) -> Result<bool, Trouble> {
    if done.code == 0 {
        return Ok(true);
    }
    let lines = done.errors();
    check!(lines.len() == 1 && (done.code < 128 || done.code == 255), "{done}");
    check!(errnos.iter().any(|errno| lines[0].contains(errno)), "says none of {errnos:?}: {done}");
    Ok(false)
}

/// An `update` that the host can do.
fn update(t: &Test) -> &'static str {
    if t.host.controllers.contains("cpu") { "update --cpu-share 512" } else { "update" }
}

/// A whole life on a state root of each of these sizes: what fails leaves nothing, and what was made can be ended.
fn small_roots(t: &Test, sizes: impl Iterator<Item = String>) -> Verdict {
    let (root, b) = (root(t)?, t.bundle()?.probe("forever"));
    let before = t.snapshot();
    let mut made = 0;
    for size in sizes {
        mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))?;
        let ended = life(t, &b, &root);
        let left = fs::read_dir(&root)?.count();
        nix::mount::umount(&root)?;
        let at = |text: String| Trouble::Fail(format!("{size}: {text}"));
        made += usize::from(ended.map_err(|trouble| at(format!("{trouble:?}")))?);
        check!(left == 0, "{size}: {left} entries are left in the state root");
        t.unchanged_since(&before)?;
    }
    check!(made > 0, "none was large enough");
    Ok(())
}

/// Whether it could be created.
fn life(t: &Test, b: &Bundle, root: &Path) -> Result<bool, Trouble> {
    if !works_or_says(&t.try_create("create", b)?, &["ENOSPC"])? {
        check!(fs::read_dir(root)?.next().is_none(), "a failed create left something in the state root");
        return Ok(false);
    }
    t.cli(&format!("start {}", b.id))?.ok()?;
    works_or_says(&t.exec(b, "", "/probe exit 0")?, &["ENOSPC"])?;
    works_or_says(&t.cli(&format!("{} {}", update(t), b.id))?, &["ENOSPC"])?;
    t.has_status(b, "running")?;
    let deleted = t.cli(&format!("delete --force {}", b.id))?;
    within("delete", deleted.ok()?.took, CLEARING)?;
    Ok(true)
}

/// Every verb on a container whose state root has no byte and no inode free.
fn no_byte_free(t: &Test) -> Verdict {
    let (root, b) = (root(t)?, t.bundle()?.probe("forever"));
    let before = t.snapshot();
    for last in ["start", "delete --force", update(t), "pause", "exec"] {
        mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), Some("mode=755,size=64k,nr_inodes=40"))?;
        t.create(&b)?;
        for n in 0..40 {
            if fs::write(root.join(format!(".fill-{n}")), [b'x'; 65536]).is_err() && n > 2 {
                break;
            }
        }
        let state = fs::read(root.join(&b.id).join("state.json"))?;
        let words =
            if last == "exec" { format!("exec {} /probe exit 0", b.id) } else { format!("{last} {}", b.id) };
        if last != "delete --force" {
            t.cli(&format!("start {}", b.id))?.ok()?;
            works_or_says(&t.cli(&words)?, &["ENOSPC", "already running"])?;
            check!(fs::read(root.join(&b.id).join("state.json"))? == state, "{last} lost the state");
            t.state(&b)?;
        }
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        check!(!root.join(&b.id).exists(), "{last}: the state is left");
        nix::mount::umount(&root)?;
        t.unchanged_since(&before)?;
    }
    Ok(())
}

/// The state root becomes read-only under a container: each verb works or says so, the state stays, and later all goes.
fn read_only_root(t: &Test) -> Verdict {
    let (root, b) = (root(t)?, t.bundle()?.probe("forever"));
    let before = t.snapshot();
    t.mount("tmpfs", "tmpfs", &root, MsFlags::empty(), "mode=755,size=1m")?;
    t.launch(&b)?;
    let remount = |flags| mount(None::<&str>, &root, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>);
    remount(MsFlags::MS_RDONLY)?;
    t.has_status(&b, "running")?;
    let update = format!("{} ID", update(t));
    for words in ["exec ID /probe exit 0", &update, "pause ID", "resume ID", "kill ID KILL", "delete ID"] {
        works_or_says(&t.cli(&words.replace("ID", &b.id))?, &["EROFS", "not stopped"])?;
    }
    t.state(&b)?;
    works_or_says(&t.cli(&format!("delete --force {}", b.id))?, &["EROFS"])?;
    remount(MsFlags::empty())?;
    t.cli(&format!("delete --force {}", b.id))?.ok()?;
    nix::mount::umount(&root)?;
    t.unchanged_since(&before)
}

/// Log and pid file on a full disk: the first is no reason to fail, the second is one, and nothing is left.
fn full_log(t: &Test) -> Verdict {
    let (full, b) = (t.path("full"), t.bundle()?.probe("forever"));
    fs::create_dir(&full)?;
    t.mount("tmpfs", "tmpfs", &full, MsFlags::empty(), "size=4k,nr_inodes=3")?;
    fs::write(full.join("log"), "")?;
    fs::write(full.join("fill"), [b'x'; 8192]).ok();
    let before = t.snapshot();
    let mut command = t.runtime();
    command.arg("--log").arg(full.join("log")).args(["create", "--bundle"]).arg(&b.dir).arg(&b.id);
    b.write()?;
    if works_or_says(&t.complete(command)?, &["ENOSPC"])? {
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
    }
    t.unchanged_since(&before)?;
    let pid_file = format!("create --pid-file {}", full.join("pid").display());
    check!(
        !works_or_says(&t.try_create(&pid_file, &b)?, &["ENOSPC"])?,
        "a pid file was written on a full disk"
    );
    t.unchanged_since(&before)
}

/// The kernel has no more memory for a verb than what its program begins with: that is enough for most containers. For one with a
/// configuration of half a megabyte it is not, and each verb that reads that says so in one line, with its own code: it is not aborted.
fn no_more_memory(t: &Test) -> Verdict {
    let before = t.snapshot();
    let large = json!({"org.example.large": "x".repeat(512 << 10)});
    let limited = |mut command: Command, errnos: &[&str]| {
        sys::without_memory(&mut command, 64 << 10);
        let done = t.complete(command)?;
        works_or_says(&done, errnos).map(|worked| (worked, done))
    };
    // One with a user namespace takes a thread, whose stack cannot be had: the C library says EAGAIN.
    for (b, errno) in [
        (t.bundle()?, ""),
        (rich(t)?, "clone(thread): resource temporarily unavailable (EAGAIN)"),
        (t.bundle()?.set("/annotations", large), "mmap(for "),
    ] {
        let (b, is_large) = (b.probe("forever"), errno.starts_with("mmap"));
        let (made, create) = limited(t.bundle_command("create", &b)?, &[errno])?;
        check!(made == errno.is_empty(), "{create}");
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        t.unchanged_since(&before)?;
        t.launch(&b)?;
        for (words, code) in
            [("exec ID /probe exit 0", 255), ("pause ID", 1), ("resume ID", 1), ("delete --force ID", 1)]
        {
            let mut command = t.runtime();
            command.args(words.replace("ID", &b.id).split_whitespace());
            let (worked, done) = limited(command, &["ENOMEM"])?;
            check!(worked || is_large && done.code == code, "{done}; expected exit code {code}");
        }
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        t.unchanged_since(&before)?;
    }
    Ok(())
}

/// Every verb, with a number of descriptors from 3 up to enough.
fn few_descriptors(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever").remove("/process/rlimits");
    let before = t.snapshot();
    let limited = |mut command: std::process::Command, most| {
        sys::with_open_files(&mut command, most);
        let done = t.complete(command)?;
        works_or_says(&done, &["EMFILE", "EINVAL", "RLIMIT_NOFILE"])
            .map_err(|trouble| Trouble::Fail(format!("{most} files: {trouble:?}")))
    };
    let update = format!("{} ID", update(t));
    let mut worked = 0;
    for most in (3..36).chain([40, 48, 64, 128]) {
        if limited(t.bundle_command("create", &b)?, most)? {
            worked += 1;
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
        }
        t.unchanged_since(&before).map_err(|trouble| Trouble::Fail(format!("{most} files: {trouble:?}")))?;
        t.create(&b)?;
        for words in [
            "start ID",
            "exec ID /probe exit 0",
            &update,
            "pause ID",
            "resume ID",
            "state ID",
            "kill ID KILL",
            "delete --force ID",
        ] {
            let mut command = t.runtime();
            command.args(words.replace("ID", &b.id).split_whitespace());
            // What the later ones are for has to be so.
            let needed = words.starts_with("start") || words.starts_with("pause");
            if !limited(command, most)? && needed {
                t.cli(&words.replace("ID", &b.id)).map(drop)?;
            }
        }
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        t.unchanged_since(&before).map_err(|trouble| Trouble::Fail(format!("{most} files: {trouble:?}")))?;
    }
    check!(worked > 0, "none was enough");
    Ok(())
}

/// The caller's group has room for so many processes only.
fn few_processes(t: &Test) -> Verdict {
    let dir = if t.host.is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let dir = Path::new(dir).join(format!("{}-caller", t.place.mark));
    fs::create_dir(&dir)?;
    let gone = dir.clone();
    t.at_end(move || drop(fs::remove_dir(gone)));
    if !dir.join("pids.max").exists() {
        return Err(Trouble::NotRun("the root group does not hand on the pids controller".into()));
    }
    let b = t.bundle()?.probe("forever");
    let before = t.snapshot();
    let limited = |mut command: std::process::Command, most: u32| {
        fs::write(dir.join("pids.max"), most.to_string())?;
        let procs = fs::OpenOptions::new().write(true).open(dir.join("cgroup.procs"))?;
        sys::in_group(&mut command, procs.into());
        let done = t.complete(command)?;
        works_or_says(&done, &["EAGAIN"])
            .map_err(|trouble| Trouble::Fail(format!("{most} processes: {trouble:?}")))
    };
    let mut worked = 0;
    for most in 1..8 {
        if limited(t.bundle_command("create", &b)?, most)? {
            worked += 1;
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
        }
        t.unchanged_since(&before)?;
        t.launch(&b)?;
        for words in ["exec ID /probe exit 0", "pause ID", "resume ID", "kill ID KILL", "delete --force ID"] {
            let mut command = t.runtime();
            command.args(words.replace("ID", &b.id).split_whitespace());
            limited(command, most)?;
        }
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        t.unchanged_since(&before)?;
    }
    check!(worked > 0, "none was enough");
    Ok(())
}
