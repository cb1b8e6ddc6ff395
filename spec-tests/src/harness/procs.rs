// SPDX-License-Identifier: Apache-2.0
//! What /proc tells of a process: is it alive, what does it hold, what has it used.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;

use crate::harness::case::Trouble;
use crate::harness::hostdiff::all_processes;

/// Neither gone nor a zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, tail)| !tail.starts_with(['Z', 'X']))
}

/// A process's memory in KiB, and its other possessions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    pub rss: i64,
    pub pss: i64,
    pub dirty: i64,
    /// Of no file: a program that was written a moment ago is dirty itself.
    pub anonymous: i64,
    pub threads: i64,
    pub fds: i64,
    pub zombies: i64,
}

/// Reads it.
pub fn usage(pid: i32) -> Result<Usage, Trouble> {
    let rollup = table(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?);
    let status = table(&fs::read_to_string(format!("/proc/{pid}/status"))?);
    let number = |table: &BTreeMap<String, i64>, name: &str| table.get(name).copied().unwrap_or(0);
    let zombies = all_processes().into_iter().filter(|p| p.parent == pid && p.zombie).count();
    Ok(Usage {
        rss: number(&rollup, "Rss"),
        pss: number(&rollup, "Pss"),
        dirty: number(&rollup, "Private_Dirty"),
        anonymous: number(&rollup, "Anonymous"),
        threads: number(&status, "Threads"),
        fds: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as i64,
        zombies: zombies as i64,
    })
}

fn table(text: &str) -> BTreeMap<String, i64> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Processor time in milliseconds that the process, its threads and its awaited children have used.
pub fn cpu(pid: i32) -> Result<f64, Trouble> {
    Ok(times(pid)?.iter().sum())
}

/// The same of the process and its threads, and of its awaited children (proc_pid_stat(5), fields 14 to 17; a hundred to the second).
pub fn times(pid: i32) -> Result<[f64; 2], Trouble> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let tail = stat.rsplit_once(") ").map_or("", |(_, tail)| tail);
    let ticks: Vec<f64> = tail.split(' ').skip(11).take(4).filter_map(|word| word.parse().ok()).collect();
    let [user, system, user_below, system_below] = ticks[..] else {
        return Err(format!("/proc/{pid}/stat has too few fields").into());
    };
    Ok([user + system, user_below + system_below].map(|ticks| ticks * 10.0))
}

/// The largest resident size so far, in KiB.
pub fn peak(pid: i32) -> Result<i64, Trouble> {
    let status = table(&fs::read_to_string(format!("/proc/{pid}/status"))?);
    Ok(status.get("VmHWM").copied().unwrap_or(0))
}

/// A copy of the descriptor with which a process listens on the socket of this path.
pub fn listener_of(pid: i32, path: &str) -> Result<OwnedFd, Trouble> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix"))?;
    // Num RefCount Protocol Flags Type St Inode Path; the flag is __SO_ACCEPTCON.
    let inode = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let inode = inode.filter(|words| words.last() == Some(&path) && words.get(3) == Some(&"00010000"));
    let inode = inode.filter_map(|words| words.get(6).map(|inode| format!("socket:[{inode}]"))).next();
    let inode = inode.ok_or_else(|| format!("nobody listens at {path}"))?;
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let mut fds = fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == &*inode));
    let fd = fds.next().and_then(|fd| fd.file_name().to_string_lossy().parse().ok());
    let fd = fd.ok_or_else(|| format!("process {pid} does not listen at {path}"))?;
    Ok(crate::sys::descriptor_of(pid, fd)?)
}
