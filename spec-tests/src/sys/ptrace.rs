// SPDX-License-Identifier: Apache-2.0
//! ptrace(2): a process and what it clones, stopped before and after each of their system calls, which can be made to fail.
//!
//! Everything here belongs to the calling thread: the kernel lets no other one speak to what it traces.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::check;

/// Why a traced process has stopped, or that it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// Before the system call of this number.
    Before(i64),
    /// After one.
    After,
    /// It has cloned this one, which is traced as well.
    Cloned(i32),
    /// It has executed another program.
    Executed,
    /// A signal that it is to get.
    Signal(i32),
    /// Anything else: it is new, was interrupted, or is stopped with its group.
    Other,
    /// It has ended: the exit code, or 1000 and the signal.
    Ended(i32),
}

/// Makes `command` stop when it is executed, for [`adopt`].
pub fn stop_at_exec(command: &mut Command) {
    // SAFETY: ptrace with plain numbers, between fork and exec.
    unsafe { command.pre_exec(|| check(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) as i32).map(drop)) };
}

/// glibc's libc has the requests as unsigned numbers, musl's as signed ones.
fn request(request: impl Into<i64>, pid: i32, at: usize, data: usize) -> io::Result<i64> {
    // SAFETY: the callers pass numbers, or the address of something of theirs that outlives the call.
    let got = unsafe { libc::ptrace(request.into() as _, pid, at, data) };
    if got == -1 { Err(io::Error::last_os_error()) } else { Ok(got) }
}

const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC;

/// Takes over a child that [`stop_at_exec`] stopped: only what is seized, and not what asked to be traced, can be interrupted.
pub fn adopt(pid: i32) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: numbers, and a status of this frame.
    check(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) })?;
    request(libc::PTRACE_DETACH, pid, 0, libc::SIGSTOP as usize)?;
    seize(pid)?;
    // SAFETY: numbers only.
    check(unsafe { libc::kill(pid, libc::SIGCONT) }).map(drop)
}

/// Traces a process, or a thread, that runs; what it clones as well.
pub fn seize(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, pid, 0, OPTIONS as usize).map(drop)
}

/// It stops soon, wherever it is.
pub fn interrupt(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, pid, 0, 0).map(drop)
}

/// It goes on to its next system call, or with `freely` until something else happens; it gets this signal, 0 for none.
pub fn go_on(pid: i32, freely: bool, signal: i32) -> io::Result<()> {
    let how = if freely { libc::PTRACE_CONT } else { libc::PTRACE_SYSCALL };
    request(how, pid, 0, signal as usize).map(drop)
}

/// It is traced no more.
pub fn release(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_DETACH, pid, 0, 0).map(drop)
}

/// The next that happens to any child or traced process; with `patient` it is waited for. `None` if nothing has happened, or
/// nobody is left.
pub fn next(patient: bool) -> io::Result<Option<(i32, Halt)>> {
    let mut status = 0;
    let flags = libc::__WALL | if patient { 0 } else { libc::WNOHANG };
    // SAFETY: numbers, and a status of this frame.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
    match pid {
        0 => Ok(None),
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            error => Err(error),
        },
        pid => Ok(Some((pid, meaning(pid, status)))),
    }
}

fn meaning(pid: i32, status: i32) -> Halt {
    if libc::WIFEXITED(status) {
        return Halt::Ended(libc::WEXITSTATUS(status));
    }
    if libc::WIFSIGNALED(status) {
        return Halt::Ended(1000 + libc::WTERMSIG(status));
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
            Halt::Cloned(message(pid))
        }
        libc::PTRACE_EVENT_EXEC => Halt::Executed,
        0 if signal == libc::SIGTRAP | 0x80 => match call(pid) {
            Some(number) => Halt::Before(number),
            None => Halt::After,
        },
        0 => Halt::Signal(signal),
        _ => Halt::Other,
    }
}

fn message(pid: i32) -> i32 {
    let mut message: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, pid, 0, (&raw mut message) as usize).map_or(0, |_| message as i32)
}

/// The number of the call that the process stands before, and its arguments; `None` after one. (PTRACE_GET_SYSCALL_INFO, Linux 5.3.)
fn entered(pid: i32) -> Option<(i64, [u64; 6])> {
    const GET_SYSCALL_INFO: i32 = 0x420e;
    const ENTRY: u8 = 1;
    // struct ptrace_syscall_info: op, padding, arch, instruction and stack pointer, then the call's number.
    let mut info = [0u64; 16];
    request(GET_SYSCALL_INFO, pid, size_of_val(&info), info.as_mut_ptr() as usize).ok()?;
    let [head, _, _, number, arguments @ ..] = info;
    (head.to_ne_bytes()[0] == ENTRY).then_some((number as i64, arguments[..6].try_into().ok()?))
}

fn call(pid: i32) -> Option<i64> {
    entered(pid).map(|(number, _)| number)
}

/// The first argument of the call that the process stands before.
pub fn first_argument(pid: i32) -> Option<u64> {
    entered(pid).map(|(_, [first, ..])| first)
}

/// Whether the call that the process stands before wakes those who wait for a futex.
pub fn is_wake(pid: i32) -> bool {
    entered(pid).is_some_and(|(number, [_, operation, ..])| {
        let operation = operation as i32 & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
        number == libc::SYS_futex && operation == libc::FUTEX_WAKE
    })
}

/// The call that the process stands before is not made.
pub fn skip_call(pid: i32) -> io::Result<()> {
    registers::set_call(pid, -1)
}

/// The call that the process stands after has failed with this errno.
pub fn set_errno(pid: i32, errno: i32) -> io::Result<()> {
    registers::set_result(pid, -i64::from(errno))
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use std::io;
    use std::mem::offset_of;

    fn set(pid: i32, offset: usize, value: i64) -> io::Result<()> {
        super::request(libc::PTRACE_POKEUSER, pid, offset, value as usize).map(drop)
    }

    pub fn set_call(pid: i32, number: i64) -> io::Result<()> {
        set(pid, offset_of!(libc::user, regs) + offset_of!(libc::user_regs_struct, orig_rax), number)
    }

    pub fn set_result(pid: i32, value: i64) -> io::Result<()> {
        set(pid, offset_of!(libc::user, regs) + offset_of!(libc::user_regs_struct, rax), value)
    }
}

#[cfg(target_arch = "aarch64")]
mod registers {
    use std::io;

    const NT_PRSTATUS: usize = 1;
    const NT_ARM_SYSTEM_CALL: usize = 0x404;

    fn transfer(how: impl Into<i64>, pid: i32, set: usize, bytes: &mut [u8]) -> io::Result<()> {
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        super::request(how, pid, set, (&raw mut part) as usize).map(drop)
    }

    pub fn set_call(pid: i32, number: i64) -> io::Result<()> {
        transfer(libc::PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &mut (number as i32).to_ne_bytes())
    }

    pub fn set_result(pid: i32, value: i64) -> io::Result<()> {
        // x0 comes first of 31 registers, the stack pointer, the program counter and the flags.
        let mut all = [0; 34 * 8];
        transfer(libc::PTRACE_GETREGSET, pid, NT_PRSTATUS, &mut all)?;
        all[..8].copy_from_slice(&value.to_ne_bytes());
        transfer(libc::PTRACE_SETREGSET, pid, NT_PRSTATUS, &mut all)
    }
}
