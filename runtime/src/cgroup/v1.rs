// SPDX-License-Identifier: Apache-2.0
//! The v1 hierarchies (Linux, Documentation/admin-guide/cgroup-v1), one directory in each.

#![forbid(unsafe_code)]

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::decide::{GroupPlan, Line};
use super::dir::{CgroupDir, CgroupLines, END_WAIT, FREEZE_WAIT};
use super::own::Own;
use super::record::GroupDir;
use crate::error::{Error, Result, WithStep};
use crate::sys::ns::unprivileged;

/// How long one freeze may take while processes are being killed: it helps, but does not matter.
const KILL_FREEZE: Duration = Duration::from_millis(100);

/// What a new group needs before processes may join: a cpuset without CPUs or memory nodes takes none, and a new one has
/// none. Every level takes its parent's, but for what `plan` writes into the last.
pub(super) fn prepare(group: &GroupDir, own: &CgroupDir, plan: &GroupPlan) -> Result<()> {
    const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];
    if !group.controllers.iter().any(|c| c == "cpuset") {
        return Ok(());
    }
    let full = group.full();
    let mount = group.mount.trim_end_matches('/');
    let top = open(mount)?;
    let mut inherited = [top.read(FILES[0])?, top.read(FILES[1])?];
    for (slash, _) in full.match_indices('/').filter(|(slash, _)| *slash > mount.len()) {
        let level = open(&full[..slash])?;
        for (file, inherited) in FILES.iter().zip(&mut inherited) {
            inherit(&level, file, inherited)?;
        }
    }
    for (file, inherited) in FILES.iter().zip(&mut inherited) {
        if !plan.writes.iter().any(|write| write.file == *file) {
            inherit(own, file, inherited)?;
        }
    }
    Ok(())
}

/// Gives a level what the one above it has, unless it has its own, which is then what those below it inherit.
fn inherit(level: &CgroupDir, file: &str, inherited: &mut String) -> Result<()> {
    let own = level.read(file)?;
    if own.trim().is_empty() {
        return level.write(file, inherited.trim());
    }
    *inherited = own;
    Ok(())
}

fn open(path: &str) -> Result<CgroupDir> {
    CgroupDir::open(path)?.ok_or_else(|| Error::os(format!("openat2({path})"), Errno::NOENT))
}

/// Writes the device rules. The group is empty, so it does not matter that they are written one by one.
pub(super) fn devices(dir: &Own, lines: &[Line]) -> Result<()> {
    let mut open: Option<CgroupLines<'_>> = None;
    for line in lines {
        // They come in two runs: what a group begins with, and what differs from that.
        let file = match open.take().filter(|open| open.file == line.file) {
            Some(file) => Ok(file),
            None => dir.open_lines(line.file),
        };
        match file.and_then(|file| open.insert(file).write(&line.value)) {
            // The parent has less than the built-in rules: so has the container.
            Err(error) if line.builtin && error.errno() == Some(libc::EPERM) => {}
            // Device rules are the initial user namespace's to write, and so are device nodes to make: inside another
            // one nothing can be opened that was not given.
            Err(error) if error.errno() == Some(libc::EPERM) && unprivileged() => {}
            other => other.step(|| "config.json /linux/resources/devices")?,
        }
    }
    Ok(())
}

/// Whether the processes of a group of the freezer hierarchy are stopped, or about to be.
pub(super) fn is_stopped(dir: &CgroupDir) -> Result<bool> {
    Ok(dir.read("freezer.state")?.trim() != "THAWED")
}

/// Freezes or thaws, and waits for it.
pub(super) fn freeze(dir: &Own, on: bool) -> Result<()> {
    if !on {
        return dir.write("freezer.state", "THAWED");
    }
    let frozen = try_freeze(dir, FREEZE_WAIT);
    if let Ok(true) = frozen {
        return Ok(());
    }
    dir.write("freezer.state", "THAWED")?;
    frozen?;
    Err(Error::os(format!("write({}/freezer.state, FROZEN)", dir.path()), libc::ETIMEDOUT))
}

/// Asks for a freeze until it is complete: a process that is just being made may slip through and hold it at FREEZING,
/// which only asking again cures, and sometimes only a thaw in between. v1 has no event to wait for.
fn try_freeze(dir: &Own, wait: Duration) -> Result<bool> {
    let deadline = Instant::now() + wait;
    for round in 1u32.. {
        dir.write("freezer.state", "FROZEN")?;
        if dir.read("freezer.state")?.trim() == "FROZEN" {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            break;
        }
        if round.is_multiple_of(50) {
            dir.write("freezer.state", "THAWED")?;
            sleep(Duration::from_millis(5));
        }
        sleep(Duration::from_micros(if round < 10 { 50 } else { 1000 }));
    }
    Ok(false)
}

/// SIGKILL for the whole subtree. v1 has no file for it: whoever forks faster than the list is read would get away, so the
/// subtree is frozen meanwhile, where there is a freezer; without one, rounds go on until one brings nobody new. `freezer`
/// tells whether `dir` is on the freezer's hierarchy.
pub(super) fn kill(dir: &Own, freezer: bool) -> Result<()> {
    kill_while_frozen(
        dir,
        |wait| Ok(freezer && try_freeze(dir, wait)?),
        || if freezer { dir.write_all_below("freezer.state", "THAWED") } else { Ok(()) },
    )
}

/// Freezes, kills what is there, thaws (in any case: a frozen process does not die); again, until a round was complete
/// or brought nobody new.
pub(super) fn kill_while_frozen(
    dir: &Own,
    freeze: impl Fn(Duration) -> Result<bool>,
    thaw: impl Fn() -> Result<()>,
) -> Result<()> {
    let deadline = Instant::now() + END_WAIT;
    let mut before = Vec::new();
    loop {
        let frozen = freeze(KILL_FREEZE);
        let killed = dir.signal_all(libc::SIGKILL);
        thaw()?;
        let (killed, complete) = (killed?, frozen?);
        if complete || killed == before {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::os(format!("kill({}/…)", dir.path()), libc::ETIMEDOUT));
        }
        before = killed;
    }
}
