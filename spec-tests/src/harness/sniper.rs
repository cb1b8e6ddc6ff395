// SPDX-License-Identifier: Apache-2.0
//! Kills a server of many threads at a system call, or lets that call fail: all of its threads, and the processes that it clones, are traced meanwhile, and
//! their calls are counted together. (`tracer` does it to a command, whose calls come in the same order every time.)

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::case::Trouble;
use super::tracer::name_of;
use crate::sys::ptrace::{self, Halt};

/// A server that calls nothing for so long has done what it was asked for.
const QUIET: Duration = Duration::from_millis(200);

/// How long threads may take to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of a call that was to fail.
pub struct Shot {
    /// How many calls were seen that can fail.
    pub calls: usize,
    /// The one that did.
    pub hit: Option<i64>,
}

struct Sniper {
    pid: i32,
    exe: PathBuf,
    traced: BTreeSet<i32>,
    calls: usize,
    at: Option<usize>,
    /// What the call fails with; without, the server is killed there.
    errno: Option<Errno>,
    hit: Option<i64>,
    /// The thread whose next stop comes after the call that was left out.
    failing: Option<i32>,
}

/// Traces the server `pid` while it does what `begin` asks of it, and kills it before the call of this number. How many calls were
/// seen.
pub fn kill_at(pid: i32, at: Option<usize>, begin: impl FnOnce()) -> Result<usize, Trouble> {
    shoot(pid, at, None, begin).map(|sniper| sniper.calls)
}

/// The same, but that the call is not made and fails with this errno. Of those that can fail, that is, and somebody looks at the answer.
pub fn fail_at(pid: i32, at: Option<(usize, Errno)>, begin: impl FnOnce()) -> Result<Shot, Trouble> {
    let (at, errno) = at.map_or((None, Errno::EIO), |(at, errno)| (Some(at), errno));
    let Sniper { calls, hit, .. } = shoot(pid, at, Some(errno), begin)?;
    Ok(Shot { calls, hit })
}

fn shoot(pid: i32, at: Option<usize>, errno: Option<Errno>, begin: impl FnOnce()) -> Result<Sniper, Trouble> {
    let exe = fs::read_link(format!("/proc/{pid}/exe"))?;
    let traced = BTreeSet::new();
    let mut sniper = Sniper { pid, exe, traced, calls: 0, at, errno, hit: None, failing: None };
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread: i32 = thread?.file_name().to_string_lossy().parse().unwrap_or(0);
        // One that was idle may end in between.
        if ptrace::seize(thread).and_then(|()| ptrace::interrupt(thread)).is_ok() {
            sniper.traced.insert(thread);
        }
    }
    begin();
    let watched = sniper.watch();
    sniper.leave();
    watched.map(|()| sniper)
}

/// Calls that no kernel refuses, by which threads wait for each other, or by which a thread begins and ends: nobody looks at the answer, or
/// the standard library takes a failure for impossible. And memory: who can map none for himself ends, in Rust as in Go, and what he leaves
/// is what he leaves when he is killed (the cases killed/).
const CANNOT_FAIL: [&str; 28] = [
    "futex",
    "epoll_wait",
    "epoll_pwait",
    "poll",
    "ppoll",
    "sched_yield",
    "sched_getaffinity",
    "mmap",
    "mprotect",
    "mremap",
    "brk",
    "munmap",
    "madvise",
    "rt_sigprocmask",
    "rt_sigaction",
    "rt_sigreturn",
    "sigaltstack",
    "set_robust_list",
    "set_tid_address",
    "getpid",
    "gettid",
    "getuid",
    "geteuid",
    "exit",
    "exit_group",
    "nanosleep",
    "clock_nanosleep",
    "restart_syscall",
];

/// Calls that fail with EAGAIN only while nothing is ready: of them it would be no fault but a lie.
const READY: [i64; 7] = [
    libc::SYS_read,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_accept4,
    libc::SYS_connect,
];

impl Sniper {
    fn watch(&mut self) -> Result<(), Trouble> {
        let mut last = Instant::now();
        // Killed, its threads end one by one, the first as the last of them.
        while self.traced.contains(&self.pid) && last.elapsed() < QUIET {
            match ptrace::next(false)? {
                Some((pid, halt)) => {
                    last = Instant::now();
                    self.halted(pid, halt)?;
                }
                None => std::thread::sleep(Duration::from_micros(50)),
            }
        }
        Ok(())
    }

    fn halted(&mut self, pid: i32, halt: Halt) -> Result<(), Trouble> {
        let mut signal = 0;
        match halt {
            Halt::Ended(_) => {
                self.traced.remove(&pid);
                return Ok(());
            }
            Halt::Before(call) => self.before(pid, call)?,
            Halt::After if self.failing == Some(pid) => {
                self.failing = None;
                let errno = self.errno.unwrap_or(Errno::EIO);
                // It may have been killed meanwhile.
                ptrace::set_errno(pid, errno as i32).ok();
            }
            Halt::Cloned(child) => drop(self.traced.insert(child)),
            // The user's program, a logger's, a helper's.
            Halt::Executed if !self.is_own(pid) => {
                self.traced.remove(&pid);
                ptrace::release(pid).ok();
                return Ok(());
            }
            Halt::Signal(number) => signal = number,
            Halt::Executed | Halt::After | Halt::Other => {}
        }
        self.traced.insert(pid);
        // It may have been killed just now.
        ptrace::go_on(pid, false, signal).ok();
        Ok(())
    }

    fn before(&mut self, pid: i32, call: i64) -> Result<(), Trouble> {
        if self.errno.is_some() && (CANNOT_FAIL.contains(&&*name_of(call)) || wakes(pid, call)) {
            return Ok(());
        }
        self.calls += 1;
        if self.at != Some(self.calls) {
            return Ok(());
        }
        if self.errno.is_none() {
            return Ok(kill(Pid::from_raw(self.pid), Signal::SIGKILL)?);
        }
        // Whoever is told so of what does not block waits for it to become ready, which it is.
        if self.errno == Some(Errno::EAGAIN) && READY.contains(&call) {
            self.errno = Some(Errno::EIO);
        }
        (self.hit, self.failing) = (Some(call), Some(pid));
        // close(2) closes, whatever it answers.
        if call != libc::SYS_close {
            ptrace::skip_call(pid)?;
        }
        Ok(())
    }

    fn is_own(&self, pid: i32) -> bool {
        let exe = fs::read_link(Path::new("/proc").join(pid.to_string()).join("exe")).unwrap_or_default();
        exe == self.exe || exe.to_string_lossy().starts_with("/memfd:")
    }

    /// Nobody is traced any more. Who stands still already is let go as it is; who runs is stopped for it, however long that takes on a busy
    /// machine.
    fn leave(&mut self) {
        self.traced.retain(|pid| ptrace::release(*pid).is_err() && ptrace::interrupt(*pid).is_ok());
        let end = Instant::now() + PATIENCE;
        while !self.traced.is_empty() && Instant::now() < end {
            match ptrace::next(false) {
                Ok(Some((pid, halt))) => {
                    self.traced.remove(&pid);
                    ptrace::release(pid).ok();
                    // It stops by itself, or has done so and was let go.
                    if let Halt::Cloned(child) = halt
                        && ptrace::release(child).is_err()
                    {
                        self.traced.insert(child);
                    }
                }
                _ => std::thread::sleep(Duration::from_micros(100)),
            }
            self.traced.retain(|pid| is_traced(*pid));
        }
    }
}

/// Whether it is still there, and traced.
fn is_traced(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// Whether this is how one thread of the async runtime wakes another: an eventfd, whose write is refused by no kernel but when it is full.
fn wakes(pid: i32, call: i64) -> bool {
    let link = |fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok();
    call == libc::SYS_write
        && ptrace::first_argument(pid)
            .and_then(link)
            .is_some_and(|file| file.to_string_lossy() == "anon_inode:[eventfd]")
}
