// SPDX-License-Identifier: Apache-2.0
//! A stage that ends without a word: killed for want of memory, by the container's own filter, or by anybody.
//!
//! The socket's end says "executed" and "dead" alike. A living process has executed; of a dead one, its zombie still
//! tells the name it died under and how; and what a filter kills for, it kills for every time. Never "started" because
//! nothing was heard.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::identity::wait_for_exit;
use crate::cgroup::Group;
use crate::error::{Error, Kind, Result};
use crate::procfs::Stat;
use crate::program::{Op, Program, Ref, StageOp, explain};
use crate::seccomp::{Filter, FilterAnswer, SeccompData, SockFilter};
use crate::stage::wire::barrier;
use crate::sys::wait::Exit;

/// How long a process that has closed its files may take to be dead.
const DYING: Duration = Duration::from_secs(1);

/// What is known of a process whose socket has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has become the user's program.
    Executed,
    /// It has ended before.
    AsStage(Exit),
    /// It has ended and somebody has waited for it, so that it may have been either.
    Unknown,
}

/// What became of process `pid`, which has closed its socket.
///
/// # Errors
/// Those of poll(2).
pub fn end(pid: i32, pidfd: BorrowedFd<'_>) -> Result<End> {
    // The usual case, and all that it costs: the process lives, so it has executed.
    if !matches!(rustix::fs::readlink(format!("/proc/{pid}/exe"), Vec::new()), Err(rustix::io::Errno::NOENT))
    {
        return Ok(End::Executed);
    }
    if !wait_for_exit(pidfd, Some(DYING))? {
        return Ok(End::Executed);
    }
    // Of another process with that number by now, the state is not that of a zombie, or its name not the stage's.
    Ok(Stat::of(pid).map_or(End::Unknown, |stat| ended(&stat)))
}

/// proc_pid_stat(5): the state is field 3, the exit code field 52.
fn ended(stat: &Stat) -> End {
    if stat.field(3) != Some('Z') {
        return End::Unknown;
    }
    match stat.field::<i32>(52) {
        Some(code) if is_stage(stat.name()) => End::AsStage(match code & 0x7f {
            0 => Exit::Code(code >> 8 & 0xff),
            signal => Exit::Signal(signal),
        }),
        _ => End::Executed,
    }
}

/// The stage is called after its memfd, before Linux 6.14 after the number of the descriptor.
fn is_stage(name: &str) -> bool {
    name.starts_with("memfd:corten") || !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The error for what ended so, or without a word after step `from` of its program, if that is one. `group` had lost
/// `before` for want of memory when the process was made.
pub fn judge(end: End, program: &Program, from: usize, group: Option<(&Group, u64)>) -> Option<Error> {
    let steps = from..program.steps.len();
    match end {
        End::Executed => None,
        End::AsStage(exit) => Some(match group {
            Some((group, before)) if out_of_memory(exit, group, before) => killed_for_memory(),
            _ => word(program, steps, Some(exit)),
        }),
        // Who has waited knows how it ended. We know what it cannot have survived.
        End::Unknown => deadly(program, steps, |answer| answer == FilterAnswer::Kills)
            .map(|_| word(program, from..program.steps.len(), None)),
    }
}

/// Whether it was killed for want of memory.
pub fn out_of_memory(exit: Exit, group: &Group, before: u64) -> bool {
    exit == Exit::Signal(libc::SIGKILL) && group.oom_kills().is_ok_and(|kills| kills > before)
}

/// The error for it, in runc's words (compatibility E17).
pub fn killed_for_memory() -> Error {
    Error::new(Kind::Os, "container init was OOM-killed (memory limit too low?)")
}

/// Words an end at one of these steps: by the call that the filter refuses, if it is loaded and refuses one; else by
/// the first of them.
pub fn word(program: &Program, steps: Range<usize>, exit: Option<Exit>) -> Error {
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
    let doing = step.map_or_else(String::new, |step| format!(" ({})", explain::sentence(program, step)));
    let place = index.map_or_else(String::new, |index| explain::place(program, index));
    let error = Error::new(Kind::Os, format!("container init ended early{doing}: {how}{call}"));
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
    use super::*;

    #[test]
    fn zombies_of_the_stage_only() {
        let stat = |name: &str, state: &str, code: i32| {
            let between = "1 ".repeat(48);
            ended(&Stat::from(format!("7 ({name}) {state} {between}{code}\n")))
        };
        assert_eq!(stat("memfd:corten-st", "Z", 9), End::AsStage(Exit::Signal(9)));
        assert_eq!(stat("5", "Z", 31), End::AsStage(Exit::Signal(31)));
        assert_eq!(stat("5", "Z", 0x100), End::AsStage(Exit::Code(1)));
        assert_eq!(stat("memfd:corten-st", "S", 9), End::Unknown);
        for (name, code) in [("sh", 9), ("a) Z 5", 9), ("", 9)] {
            assert_eq!(stat(name, "Z", code), End::Executed, "{name} {code}");
        }
        assert_eq!(ended(&Stat::from(String::new())), End::Unknown);
    }
}
