// SPDX-License-Identifier: Apache-2.0
//! The unified hierarchy (Linux, Documentation/admin-guide/cgroup-v2.rst).

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::decide::{GroupPlan, missing};
use super::devices::Policy;
use super::dir::{CgroupDir, FREEZE_WAIT, gone};
use super::own::Own;
use super::v1::kill_while_frozen;
use crate::error::{Context, Error, Result, WithStep};
use crate::sys::bpf::{self, Insn};
use crate::sys::ns::unprivileged;

/// Controllers that are wanted for their figures even without a limit (`events --stats`, containerd's and docker's
/// own reading of memory.current): enabled where that is possible, passed over where not.
const ACCOUNTING: [&str; 4] = ["memory", "pids", "cpu", "io"];

/// Sees to it that the group has the controllers that `plan` needs, from the top down.
pub(super) fn enable(plan: &GroupPlan, dir: &CgroupDir) -> Result<()> {
    let needs = plan.needs();
    let here = dir.read("cgroup.controllers")?;
    let mut wanted: Vec<&str> = ACCOUNTING.iter().copied().chain(needs.iter().map(|(c, _)| *c)).collect();
    wanted.retain(|controller| !lists(&here, controller));
    if wanted.is_empty() {
        return Ok(());
    }
    let refused = enable_above(plan, &mut wanted)?;
    let lacking = needs.iter().any(|(c, _)| !lists(&here, c));
    let here = if lacking { dir.read("cgroup.controllers")? } else { here };
    for (controller, write) in needs {
        if lists(&here, controller) {
            continue;
        }
        return match refused.into_iter().find(|(c, _)| *c == controller) {
            Some((_, error)) => Err(error.at(format!("config.json {}", write.at))),
            None => Err(missing(write, "it is not in cgroup.controllers of the groups above")),
        };
    }
    Ok(())
}

/// Enables `wanted` in every group from the mount's root to the parent; answers what was refused.
fn enable_above<'a>(plan: &GroupPlan, wanted: &mut Vec<&'a str>) -> Result<Vec<(&'a str, Error)>> {
    let mut refused = Vec::new();
    let Some(group) = plan.record.groups.first() else { return Ok(refused) };
    let (mount, full) = (group.mount.trim_end_matches('/'), group.full());
    let mut end = mount.len();
    while end < full.len() && !wanted.is_empty() {
        let Some(level) = CgroupDir::open(if end == 0 { "/" } else { &full[..end] })? else { break };
        let available = level.read("cgroup.controllers")?;
        wanted.retain(|controller| lists(&available, controller));
        if wanted.is_empty() {
            break;
        }
        let enabled = level.read("cgroup.subtree_control")?;
        let missing: Vec<&str> = wanted.iter().copied().filter(|c| !lists(&enabled, c)).collect();
        if !missing.is_empty() && is_inhabited(&level)? {
            let text = "a group with processes of its own has no limited children (cgroups(7))";
            let error = || Error::os(format!("{}/cgroup.subtree_control: {text}", level.path()), Errno::BUSY);
            refused.extend(missing.into_iter().map(|controller| (controller, error())));
        } else {
            // One at a time: one that is refused takes the others of its write with it.
            for controller in missing {
                if let Err(error) = level.write("cgroup.subtree_control", &format!("+{controller}")) {
                    refused.push((controller, error));
                }
            }
        }
        end += 1 + full[end + 1..].find('/').unwrap_or(full.len() - end - 1);
    }
    Ok(refused)
}

/// Whether there are processes in a group that may not have any once it has controllers for its children: the root may. The
/// kernel refuses some controllers then; the others it takes, and would let no process into the children.
fn is_inhabited(dir: &CgroupDir) -> Result<bool> {
    match dir.read("cgroup.type").and_then(|_| dir.read("cgroup.procs")) {
        Ok(processes) => Ok(!processes.is_empty()),
        // A threaded one does not tell.
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn lists(text: &str, name: &str) -> bool {
    text.split_ascii_whitespace().any(|word| word == name)
}

/// Whether a flag of cgroup.events is up.
pub(super) fn says(events: &str, flag: &str) -> bool {
    events.lines().any(|line| line.strip_prefix(flag) == Some(" 1"))
}

/// Waits for a flag of cgroup.events; whether it came. A group that is gone has neither processes nor wishes.
pub(super) fn wait(dir: &CgroupDir, flag: &str, up: bool, deadline: Instant) -> Result<bool> {
    wait_on(dir, &dir.open_file("cgroup.events")?, flag, up, deadline)
}

fn wait_on(dir: &CgroupDir, events: &OwnedFd, flag: &str, up: bool, deadline: Instant) -> Result<bool> {
    let call = |what: &str| format!("{what}({}/cgroup.events)", dir.path());
    loop {
        let mut bytes = [0; 256];
        let n = match rustix::io::pread(events, &mut bytes, 0) {
            Ok(n) => n,
            Err(Errno::NODEV) => return Ok(true),
            Err(errno) => return Err(Error::os(call("pread"), errno)),
        };
        if says(&String::from_utf8_lossy(&bytes[..n]), flag) == up {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os(call("poll"), errno)),
        }
    }
}

/// Freezes or thaws, and waits for it (cgroup.freeze, Linux 5.2).
///
/// A group is frozen when all its processes are, and one in uninterruptible sleep (a file system that does not answer) keeps it
/// from being so: then the freeze is taken back, lest it come about later, when nobody expects it.
pub(super) fn freeze(dir: &Own, on: bool) -> Result<()> {
    // A thaw is done by the time it is written, unless a group above is frozen, which waiting does not change.
    if !on {
        return dir.write("cgroup.freeze", "0");
    }
    // Before anything is frozen: this may fail.
    let events = dir.open_file("cgroup.events")?;
    dir.write("cgroup.freeze", "1")?;
    let frozen = wait_on(dir, &events, "frozen", true, Instant::now() + FREEZE_WAIT);
    if let Ok(true) = frozen {
        return Ok(());
    }
    dir.write("cgroup.freeze", "0")?;
    frozen?;
    Err(Error::os(format!("poll({}/cgroup.events, frozen)", dir.path()), libc::ETIMEDOUT))
}

/// SIGKILL for the whole subtree. From Linux 5.14 on the kernel does it, and no fork gets away.
pub(super) fn kill(dir: &Own) -> Result<()> {
    match dir.write("cgroup.kill", "1") {
        // Before Linux 5.14, and in a threaded group. To be removed with the baseline's move to 5.14.
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => kill_while_frozen(
            dir,
            |wait| {
                dir.write("cgroup.freeze", "1")?;
                self::wait(dir, "frozen", true, Instant::now() + wait)
            },
            || dir.write("cgroup.freeze", "0"),
        ),
        Err(error) if gone(&error) => Ok(()),
        other => other,
    }
}

/// Puts the device program on the group, in the place of an older one of ours, if it is not `fresh`. Programs of others stay:
/// all must agree to an access, so a second one never allows more.
pub(super) fn devices(dir: &Own, fresh: bool, policy: &Policy, insns: &[Insn]) -> Result<()> {
    match attach(dir, fresh, policy, insns) {
        // bpf(2) is for the initial user namespace, and so are device nodes: inside another one nothing can be
        // opened that was not given.
        Err(error) if error.errno() == Some(libc::EPERM) && unprivileged() => Ok(()),
        other => other.step(|| "config.json /linux/resources/devices"),
    }
}

fn attach(dir: &CgroupDir, fresh: bool, policy: &Policy, insns: &[Insn]) -> Result<()> {
    let path = dir.path();
    let mut old: Vec<OwnedFd> = Vec::new();
    if !fresh {
        for id in bpf::attached(dir.as_fd()).call(|| format!("bpf(PROG_QUERY, {path})"))? {
            old.extend(bpf::open_if_ours(id).call(|| format!("bpf(PROG_GET_FD_BY_ID, {id})"))?);
        }
    }
    let mut old = old.into_iter();
    if !policy.allows_everything() {
        let program = bpf::load_device_program(insns)
            .call(|| format!("bpf(PROG_LOAD, CGROUP_DEVICE, {} instructions)", insns.len()))?;
        let instead = old.next();
        bpf::attach(dir.as_fd(), program.as_fd(), instead.as_ref().map(AsFd::as_fd))
            .call(|| format!("bpf(PROG_ATTACH, {path})"))?;
    }
    old.try_for_each(|program| bpf::detach(dir.as_fd(), program.as_fd()))
        .call(|| format!("bpf(PROG_DETACH, {path})"))
}
