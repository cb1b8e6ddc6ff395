// SPDX-License-Identifier: Apache-2.0
//! Runs a command of the runtime under ptrace(2), and lets a fault happen at one of its system calls, or of those processes that it
//! clones: until they execute a program that is not the runtime's own (the user's, a hook's, a helper's), which is then let go.
//!
//! A point is a process, in the order of their births (the first is the command itself), and the number of its system call.

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::case::Trouble;
use super::done::Done;
use super::test::Test;
use crate::sys::ptrace::{self, Halt};

/// Where a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// 0 is the command, others are what it has cloned.
    pub process: usize,
    /// Its system calls before this one.
    pub call: usize,
}

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed instead.
    Kill,
    /// The call is not made, and fails with this errno.
    Errno(Errno),
}

/// What came of a command.
pub struct Traced {
    pub done: Done,
    /// The numbers of the system calls of each process, up to the fault.
    pub calls: Vec<Vec<i64>>,
    /// The call at the point, if that was reached.
    pub hit: Option<i64>,
    /// It had to be killed: it would not have ended in time.
    pub hung: bool,
}

/// The name of a system call.
pub fn name_of(call: i64) -> String {
    syscalls::Sysno::new(call as usize).map_or_else(|| call.to_string(), |known| known.name().to_owned())
}

struct Process {
    pid: i32,
    calls: Vec<i64>,
    /// Whether it is traced still.
    ours: bool,
    /// Its next stop comes after a call that was left out.
    failing: bool,
}

struct Tracer<'l> {
    runtime: PathBuf,
    processes: Vec<Process>,
    fault: Option<(Point, Fault)>,
    hit: Option<i64>,
    /// What the command ended with.
    code: Option<i32>,
    /// Is shown who stands before which call.
    look: &'l mut dyn FnMut(i32, i64),
}

/// Runs `command` to its end, with a fault if one is given. After `patience` it is killed.
pub fn trace(
    t: &Test,
    command: Command,
    fault: Option<(Point, Fault)>,
    patience: Duration,
) -> Result<Traced, Trouble> {
    traced(t, command, fault, patience, &mut |_, _| {})
}

/// The same undisturbed; before each call, `look` is told the process and the call's number, while that process stands still.
pub fn watch(
    t: &Test,
    command: Command,
    patience: Duration,
    mut look: impl FnMut(i32, i64),
) -> Result<Traced, Trouble> {
    traced(t, command, None, patience, &mut look)
}

fn traced(
    t: &Test,
    mut command: Command,
    fault: Option<(Point, Fault)>,
    patience: Duration,
    look: &mut dyn FnMut(i32, i64),
) -> Result<Traced, Trouble> {
    ptrace::stop_at_exec(&mut command);
    let running = t.spawn(command)?;
    let first = running.child.id() as i32;
    ptrace::adopt(first)?;
    let watch = Watch::over(first, patience);
    let mut tracer =
        Tracer { runtime: t.host.runtime.clone(), processes: Vec::new(), fault, hit: None, code: None, look };
    tracer.meet(first);
    let followed = tracer.follow();
    let hung = watch.end();
    tracer.let_all_go();
    followed?;
    let code = tracer.code.ok_or("the traced command was lost")?;
    let calls = tracer.processes.into_iter().map(|process| process.calls).collect();
    Ok(Traced { done: t.done(&running, code), calls, hit: tracer.hit, hung })
}

impl Tracer<'_> {
    fn meet(&mut self, pid: i32) -> usize {
        // A number may come again.
        if let Some(known) = self.processes.iter().position(|process| process.pid == pid && process.ours) {
            return known;
        }
        self.processes.push(Process { pid, calls: Vec::new(), ours: true, failing: false });
        self.processes.len() - 1
    }

    /// Until the command has ended.
    fn follow(&mut self) -> Result<(), Trouble> {
        while self.code.is_none() {
            let (pid, halt) = ptrace::next(true)?.ok_or("nobody is left to be traced")?;
            self.halted(pid, halt)?;
        }
        Ok(())
    }

    fn halted(&mut self, pid: i32, halt: Halt) -> Result<(), Trouble> {
        if let Halt::Ended(code) = halt {
            let known = self.processes.iter_mut().position(|process| process.pid == pid && process.ours);
            if let Some(index) = known {
                self.processes[index].ours = false;
                self.code = if index == 0 { Some(code) } else { self.code };
            }
            return Ok(());
        }
        let index = self.meet(pid);
        let mut signal = 0;
        match halt {
            Halt::Before(call) => self.before(index, call)?,
            Halt::After => self.after(index)?,
            Halt::Cloned(child) => drop(self.meet(child)),
            Halt::Executed if index > 0 && !self.is_own(pid) => {
                self.processes[index].ours = false;
                return gone_is_fine(ptrace::release(pid));
            }
            Halt::Signal(number) => signal = number,
            Halt::Executed | Halt::Other | Halt::Ended(_) => {}
        }
        // After the fault they are only watched.
        let freely = self.hit.is_some() && !self.processes[index].failing;
        gone_is_fine(ptrace::go_on(pid, freely, signal))
    }

    fn before(&mut self, index: usize, call: i64) -> Result<(), Trouble> {
        (self.look)(self.processes[index].pid, call);
        let process = &mut self.processes[index];
        let here = Point { process: index, call: process.calls.len() };
        match self.fault {
            Some((point, fault)) if point == here && self.hit.is_none() => {
                self.hit = Some(call);
                match fault {
                    Fault::Kill => kill(Pid::from_raw(process.pid), Signal::SIGKILL)?,
                    Fault::Errno(_) => {
                        process.failing = true;
                        // close(2) closes, whatever it answers. And no kernel refuses to wake whoever waits for a word of one's own
                        // memory (futex_wake in kernel/futex/waitwake.c: EFAULT and EINVAL only): nobody looks at that answer, and who
                        // was not woken would wait for ever.
                        if call != libc::SYS_close && !ptrace::is_wake(process.pid) {
                            gone_is_fine(ptrace::skip_call(process.pid))?;
                        }
                    }
                }
            }
            _ if self.hit.is_some() => {}
            _ => process.calls.push(call),
        }
        Ok(())
    }

    fn after(&mut self, index: usize) -> Result<(), Trouble> {
        let process = &mut self.processes[index];
        if std::mem::take(&mut process.failing)
            && let Some((_, Fault::Errno(errno))) = self.fault
        {
            gone_is_fine(ptrace::set_errno(process.pid, errno as i32))?;
        }
        Ok(())
    }

    /// Whether what it executes is the runtime, or in no file.
    fn is_own(&self, pid: i32) -> bool {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        exe == self.runtime || exe.to_string_lossy().starts_with("/memfd:")
    }

    /// Nobody is traced any more. Who was frozen, or hangs in the kernel, cannot be let go: what ends it later ends that.
    fn let_all_go(&mut self) {
        for process in self.processes.iter().filter(|process| process.ours) {
            ptrace::interrupt(process.pid).ok();
        }
        let end = Instant::now() + Duration::from_secs(1);
        while self.processes.iter().any(|process| process.ours) && Instant::now() < end {
            let Ok(Some((pid, halt))) = ptrace::next(false) else {
                std::thread::sleep(Duration::from_micros(100));
                continue;
            };
            if let Halt::Cloned(child) = halt {
                self.meet(child);
            }
            if !matches!(halt, Halt::Ended(_)) {
                ptrace::release(pid).ok();
            }
            self.processes.iter_mut().filter(|process| process.pid == pid).for_each(|p| p.ours = false);
        }
    }
}

/// Whoever is traced may be killed at any time.
fn gone_is_fine(outcome: std::io::Result<()>) -> Result<(), Trouble> {
    match outcome {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// Kills a process that takes too long.
struct Watch {
    stop: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
    struck: Arc<AtomicBool>,
}

impl Watch {
    fn over(pid: i32, patience: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let struck = Arc::new(AtomicBool::new(false));
        let strikes = struck.clone();
        let thread = std::thread::spawn(move || {
            if stopped.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                strikes.store(true, Ordering::Relaxed);
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        });
        Self { stop, thread, struck }
    }

    /// Whether it was killed.
    fn end(self) -> bool {
        self.stop.send(()).ok();
        self.thread.join().ok();
        self.struck.load(Ordering::Relaxed)
    }
}
