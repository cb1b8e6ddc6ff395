// SPDX-License-Identifier: Apache-2.0
//! Kills a server of many threads at a system call: all of its threads, and the processes that it clones, are traced meanwhile, and
//! their calls are counted together. (`tracer` does it to a command, whose calls come in the same order every time.)

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::case::Trouble;
use crate::sys::ptrace::{self, Halt};

/// A server that calls nothing for so long has done what it was asked for.
const QUIET: Duration = Duration::from_millis(200);

struct Sniper {
    pid: i32,
    exe: PathBuf,
    traced: BTreeSet<i32>,
    calls: usize,
    at: Option<usize>,
}

/// Traces the server `pid` while it does what `begin` asks of it, and kills it before the call of this number. How many calls were
/// seen.
pub fn kill_at(pid: i32, at: Option<usize>, begin: impl FnOnce()) -> Result<usize, Trouble> {
    let exe = fs::read_link(format!("/proc/{pid}/exe"))?;
    let mut sniper = Sniper { pid, exe, traced: BTreeSet::new(), calls: 0, at };
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
    watched.map(|()| sniper.calls)
}

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
            Halt::Before(_) => {
                self.calls += 1;
                if self.at == Some(self.calls) {
                    kill(Pid::from_raw(self.pid), Signal::SIGKILL)?;
                }
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

    fn is_own(&self, pid: i32) -> bool {
        let exe = fs::read_link(Path::new("/proc").join(pid.to_string()).join("exe")).unwrap_or_default();
        exe == self.exe || exe.to_string_lossy().starts_with("/memfd:")
    }

    /// Nobody is traced any more.
    fn leave(&mut self) {
        self.traced.retain(|pid| ptrace::interrupt(*pid).is_ok());
        let end = Instant::now() + Duration::from_secs(2);
        while !self.traced.is_empty() && Instant::now() < end {
            match ptrace::next(false) {
                Ok(Some((pid, halt))) => {
                    self.traced.remove(&pid);
                    if let Halt::Cloned(child) = halt {
                        self.traced.insert(child);
                    }
                    ptrace::release(pid).ok();
                }
                _ => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }
}
