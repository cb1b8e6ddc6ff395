// SPDX-License-Identifier: Apache-2.0
//! What became of the stage: this decides it, for `create`, `run`, `exec` and `start` alike.
//!
//! Three things tell: what comes through its socket, whether its process lives (the pidfd), and what that executes. The
//! socket's end alone says "executed" and "dead" alike, so "started" is never said because nothing was heard:
//!
//! | socket | process | executes, or did | so it |
//! |---|---|---|---|
//! | a fault | | | has failed, and says why |
//! | another message | | | is still working |
//! | ends before a barrier | | | has died: nothing closes it there |
//! | ends at the exec | lives | | has executed |
//! | ends at the exec | has ended | the stage | has died |
//! | ends at the exec | has ended | something else | has executed, and that has ended |
//! | ends at the exec | has been waited for | nobody knows | has died if its filter kills for what was left to do |

#![forbid(unsafe_code)]

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::channel::Incoming;
use super::identity::wait_for_exit;
use crate::cgroup::Group;
use crate::error::{Error, Kind, Result};
use crate::procfs::Stat;
use crate::program::{Op, Program, Ref, StageOp, explain};
use crate::seccomp::{Filter, FilterAnswer, SeccompData, SockFilter};
use crate::stage::wire::{barrier, kind};
use crate::sys::wait::Exit;

/// How long a process that has closed its files may take to be dead.
const DYING: Duration = Duration::from_secs(1);

/// What became of it.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is still working, and says this.
    Working(Incoming),
    /// It has become the user's program.
    Executed,
    /// It has failed, and says why.
    Failed(Incoming),
    /// It has died without a word.
    Died(Exit),
    /// It has ended, and somebody has waited for it: it has died, or executed before.
    Unknown,
}

/// What the stage comes to next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Barrier,
    /// The exec of the user's program.
    Exec,
}

/// What became of the stage. `heard` is what has come through its socket, `None` the socket's end; `pid` is its process, which `pidfd` holds.
/// On the way to a barrier a dead one is reaped: nobody has been told of it yet.
///
/// # Errors
/// Those of poll(2), and of waitid(2).
pub(crate) fn stage_fate(
    heard: Option<Incoming>,
    pid: i32,
    pidfd: BorrowedFd<'_>,
    next: Next,
) -> Result<Fate> {
    match heard {
        Some(said) if said.message.kind == kind::FAULT => Ok(Fate::Failed(said)),
        Some(said) => Ok(Fate::Working(said)),
        None if next == Next::Barrier => match crate::sys::wait::reap(pidfd) {
            Ok(exit) => Ok(Fate::Died(exit)),
            Err(_) => Err(Error::new(Kind::Os, "container init ended early: unknown end")),
        },
        // The usual case, and all that it costs: it lives.
        None if executes(pid) || !wait_for_exit(pidfd, Some(DYING))? => Ok(Fate::Executed),
        // Of another process with that number by now, the state is not that of a zombie, or its name not the stage's.
        None => Ok(Stat::of(pid).map_or(Fate::Unknown, |stat| of_zombie(&stat))),
    }
}

/// Whether the process ends, or has: it has ended on return.
pub(super) fn is_ending(pid: i32, pidfd: BorrowedFd<'_>) -> bool {
    !executes(pid) && wait_for_exit(pidfd, Some(DYING)).unwrap_or(false)
}

/// Whether the process executes anything: one that ends does not.
fn executes(pid: i32) -> bool {
    let exe = rustix::fs::readlink(format!("/proc/{pid}/exe"), Vec::new());
    !matches!(exe, Err(rustix::io::Errno::NOENT))
}

/// proc_pid_stat(5): the state is field 3, the exit code field 52.
fn of_zombie(stat: &Stat) -> Fate {
    if stat.field(3) != Some('Z') {
        return Fate::Unknown;
    }
    match stat.field::<i32>(52) {
        Some(code) if is_stage(stat.name()) => Fate::Died(match code & 0x7f {
            0 => Exit::Code(code >> 8 & 0xff),
            signal => Exit::Signal(signal),
        }),
        _ => Fate::Executed,
    }
}

/// The stage is called after its memfd, before Linux 6.14 after the number of the descriptor.
fn is_stage(name: &str) -> bool {
    name.starts_with("memfd:corten") || !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

impl Fate {
    /// The error, if it has not executed. `steps` are those of its program that it may have been at; `group` had lost so many
    /// processes for want of memory when it was made.
    pub(crate) fn error(
        self,
        program: &Program,
        steps: Range<usize>,
        group: Option<(&Group, u64)>,
    ) -> Option<Error> {
        match self {
            Fate::Executed => None,
            Fate::Working(said) | Fate::Failed(said) => Some(super::word_fault(program, &said)),
            Fate::Died(exit) => Some(match group {
                Some((group, before)) if out_of_memory(exit, group, before) => {
                    // runc's words (compatibility E17).
                    Error::new(Kind::Os, "container init was OOM-killed (memory limit too low?)")
                        .advise("linux.resources.memory.limit is too little to start with")
                }
                _ => death(program, steps, Some(exit)),
            }),
            // Who has waited knows how it ended. We know what it cannot have survived.
            Fate::Unknown => deadly(program, steps.clone(), |answer| answer == FilterAnswer::Kills)
                .map(|_| death(program, steps, None)),
        }
    }
}

/// Whether it was killed for want of memory.
fn out_of_memory(exit: Exit, group: &Group, before: u64) -> bool {
    exit == Exit::Signal(libc::SIGKILL) && group.oom_kills().is_ok_and(|kills| kills > before)
}

/// Words an end at one of these steps: by the call that the filter refuses, if it is loaded and refuses one; else by
/// the first of them.
fn death(program: &Program, steps: Range<usize>, exit: Option<Exit>) -> Error {
    let how = match exit {
        Some(Exit::Signal(libc::SIGSYS)) | None => "killed by SIGSYS".to_owned(),
        Some(Exit::Signal(signal)) => format!("killed by signal {signal}"),
        Some(Exit::Code(code)) => format!("exit status {code}"),
    };
    let refused = |answer: FilterAnswer| match exit {
        // It could not even say so.
        Some(Exit::Code(_)) => answer != FilterAnswer::Passes,
        _ => answer == FilterAnswer::Kills,
    };
    let (index, call) = match deadly(program, steps.clone(), refused) {
        Some((index, number)) if !matches!(exit, Some(Exit::Signal(signal)) if signal != libc::SIGSYS) => (
            Some(index),
            format!(": the seccomp profile refuses {}(2)", super::channel::call_name(number as u32)),
        ),
        _ => (stage_steps(program, steps).next().map(|(index, _)| index), String::new()),
    };
    let step = index.and_then(|index| program.steps.get(index));
    // What it had to say it could not: the exit status is the errno of that.
    let silenced = match exit {
        Some(Exit::Code(errno)) if errno > 0 && call.is_empty() => Some(errno),
        _ => None,
    };
    let doing = step.map_or_else(String::new, |step| format!(" ({})", explain::sentence(program, step)));
    let place = index.map_or_else(String::new, |index| explain::step_name(program, index));
    let early = format!("container init ended early{doing}");
    let error = match silenced {
        Some(errno) => Error::os("write(its socket)", errno).at(early),
        None => Error::new(Kind::Os, format!("{early}: {how}{call}")),
    };
    if place.is_empty() { error } else { error.at(place) }
}

fn stage_steps(program: &Program, steps: Range<usize>) -> impl Iterator<Item = (usize, &StageOp)> {
    let all = program.steps.iter().enumerate().take(steps.end).skip(steps.start);
    all.filter_map(|(index, step)| if let Op::Stage(op) = &step.op { Some((index, op)) } else { None })
}

/// The first of these steps with a call that the filter, loaded by then, answers so; and the call.
fn deadly(program: &Program, steps: Range<usize>, so: impl Fn(FilterAnswer) -> bool) -> Option<(usize, i64)> {
    let (loaded, filter) = stage_steps(program, 0..steps.end).find_map(|(index, op)| match op {
        StageOp::Seccomp { filter, .. } => Some((index, Filter::of_words(filter))),
        _ => None,
    })?;
    let fifo = program.sources.contains(&crate::program::Source::GateFifo);
    stage_steps(program, steps.start.max(loaded + 1)..steps.end).find_map(|(index, op)| {
        calls(op, fifo)
            .iter()
            .find(|number| so(filter.answer(SeccompData::plain(**number))))
            .map(|number| (index, *number))
    })
}

/// What a step that may come after the filter calls.
fn calls(op: &StageOp, fifo: bool) -> &'static [i64] {
    match op {
        StageOp::Capset { .. } => &[libc::SYS_capset],
        StageOp::Barrier { barrier: barrier::LISTENER_NUMBER, .. }
        | StageOp::Barrier { fd: Ref::Nothing, .. } => &[libc::SYS_write, libc::SYS_read],
        StageOp::Barrier { .. } => &[libc::SYS_sendmsg, libc::SYS_read],
        StageOp::Gate if fifo => &[libc::SYS_read],
        StageOp::Gate => &[libc::SYS_close, libc::SYS_accept4, libc::SYS_read],
        StageOp::Hop(_) => &[libc::SYS_clone, libc::SYS_sendmsg, libc::SYS_read],
        StageOp::Setsid => &[libc::SYS_setsid],
        StageOp::ConsoleControl => &[libc::SYS_ioctl],
        StageOp::CloseFd(_) => &[libc::SYS_close],
        StageOp::Rlimits { .. } => &[libc::SYS_prlimit64],
        StageOp::Hook { .. } => &[
            libc::SYS_pipe2,
            libc::SYS_clone,
            libc::SYS_close,
            libc::SYS_fcntl,
            libc::SYS_rt_sigaction,
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_waitid,
        ],
        StageOp::Exec { .. } => &[libc::SYS_execve],
        _ => &[],
    }
}

impl Filter {
    /// A filter as a program has it.
    fn of_words(words: &[u64]) -> Filter {
        let insns = words.iter().map(|word| {
            let [c0, c1, jt, jf, k @ ..] = word.to_ne_bytes();
            SockFilter { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes(k) }
        });
        Filter { insns: insns.collect(), flags: 0, listener: None, unknown: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::stage::wire::Message;

    #[test]
    fn told_by_socket_process_and_what_it_executes() {
        let message = |kind| Message { kind, ..Default::default() }.bytes();
        let heard = |kind| Incoming::of(&message(kind), None).ok();
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id() as i32;
        let held = rustix::process::Pid::from_raw(pid).unwrap();
        let pidfd = rustix::process::pidfd_open(held, rustix::process::PidfdFlags::empty()).unwrap();
        let fate = |heard, next| stage_fate(heard, pid, pidfd.as_fd(), next).unwrap();
        assert!(matches!(fate(heard(kind::FAULT), Next::Barrier), Fate::Failed(_)));
        assert!(matches!(fate(heard(kind::REACHED), Next::Barrier), Fate::Working(_)));
        assert!(matches!(fate(heard(kind::FAULT), Next::Exec), Fate::Failed(_)));
        assert!(matches!(fate(None, Next::Exec), Fate::Executed), "it lives");
        drop(child.stdin.take());
        assert!(wait_for_exit(pidfd.as_fd(), None).unwrap());
        assert!(matches!(fate(None, Next::Exec), Fate::Executed), "its zombie is not called as the stage");
        assert!(matches!(fate(None, Next::Barrier), Fate::Died(Exit::Code(0))));
        assert!(matches!(fate(None, Next::Exec), Fate::Unknown), "it was waited for");
        assert!(stage_fate(None, pid, pidfd.as_fd(), Next::Barrier).is_err());
        assert!(child.wait().is_err(), "it was reaped");
    }

    #[test]
    fn zombies_of_the_stage_only() {
        let stat = |name: &str, state: &str, code: i32| {
            let between = "1 ".repeat(48);
            of_zombie(&Stat::from(format!("7 ({name}) {state} {between}{code}\n")))
        };
        assert!(matches!(stat("memfd:corten-st", "Z", 9), Fate::Died(Exit::Signal(9))));
        assert!(matches!(stat("5", "Z", 31), Fate::Died(Exit::Signal(31))));
        assert!(matches!(stat("5", "Z", 0x100), Fate::Died(Exit::Code(1))));
        assert!(matches!(stat("memfd:corten-st", "S", 9), Fate::Unknown));
        for (name, code) in [("sh", 9), ("a) Z 5", 9), ("", 9)] {
            assert!(matches!(stat(name, "Z", code), Fate::Executed), "{name} {code}");
        }
        assert!(matches!(of_zombie(&Stat::from(String::new())), Fate::Unknown));
    }
}
