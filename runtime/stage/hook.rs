// SPDX-License-Identifier: Apache-2.0
//! Hooks that run inside: createContainer and startContainer (config.md#posix-platform-hooks). Counterpart:
//! `host/hooks.rs` runs the others and words the failures of both.

use core::ffi::CStr;

use super::sys::{self, Fault, Poll, Result};
use super::wire::{HookRec, Rec, aux, kind};
use super::{Stage, fault};

/// How much of a hook's output is kept for the message.
pub(super) const OUTPUT: usize = 4096;

/// A running hook.
struct Running {
    pid: i32,
    pidfd: i32,
    stdin: i32,
    output: i32,
    kept: [u8; OUTPUT],
    length: usize,
}

impl Stage {
    /// Runs one hook and waits for it; a failure is reported here, with what the hook wrote, and ends the stage.
    #[inline(never)]
    pub(super) fn hook(&self, rec: &Rec) -> Result<()> {
        let hook = self.program.get::<HookRec>(rec.s)?;
        let path = self.text(hook.path)?;
        // A hook that cannot be executed is told by errno here, not by a child's exit status.
        sys::executable(path)?;
        let mut running = self.spawn(&hook, path)?;
        let outcome = running.attend(&State::new(self, &hook)?, u64::from(hook.timeout));
        let output = &running.kept[..running.length];
        if let Err(fault) = outcome {
            self.tell(kind::FAULT, fault, output);
            sys::exit(1);
        }
        Ok(())
    }

    fn spawn(&self, hook: &HookRec, path: &CStr) -> Result<Running> {
        const SIGCHLD: u64 = 17;
        let argv = self.program.pointers(hook.argv)?;
        let env = self.program.pointers(hook.env)?;
        let [stdin, write] = sys::pipe()?;
        let [read, output] = sys::pipe()?;
        let (pid, pidfd) = sys::clone3(0, SIGCHLD)?;
        if pid == 0 {
            sys::umask(self.umask);
            let done = sys::setsid()
                .and_then(|()| sys::dup3(stdin, 0, false))
                .and_then(|()| sys::dup3(output, 1, false))
                .and_then(|()| sys::dup3(output, 2, false))
                .and_then(|()| sys::close_range(3, u32::MAX));
            if done.is_ok() {
                sys::execve(path, argv, env);
            }
            sys::exit(127);
        }
        sys::close(stdin);
        sys::close(output);
        nonblocking(write)?;
        nonblocking(read)?;
        Ok(Running { pid, pidfd, stdin: write, output: read, kept: [0; OUTPUT], length: 0 })
    }
}

fn nonblocking(fd: i32) -> Result<()> {
    const F_SETFL: u32 = 4;
    sys::fcntl(fd, F_SETFL, sys::O_NONBLOCK as usize).map(drop)
}

/// The state for stdin in three parts: text, our pid in our own namespace, text.
struct State {
    parts: [&'static [u8]; 2],
    pid: [u8; 12],
    digits: usize,
}

impl State {
    fn new(stage: &Stage, hook: &HookRec) -> Result<State> {
        let parts = [stage.text(hook.before)?.to_bytes(), stage.text(hook.after)?.to_bytes()];
        let mut reversed = [0; 12];
        let (mut number, mut digits) = (sys::getpid(), 0);
        while digits == 0 || number > 0 {
            reversed[digits] = b'0' + (number % 10) as u8;
            number /= 10;
            digits += 1;
        }
        let mut pid = [0; 12];
        for i in 0..digits {
            pid[i] = reversed[digits - 1 - i];
        }
        Ok(State { parts, pid, digits })
    }

    /// What is left from byte `at` on, up to the end of a part.
    fn rest(&self, at: usize) -> &[u8] {
        let mut from = at;
        for part in [self.parts[0], &self.pid[..self.digits], self.parts[1]] {
            if from < part.len() {
                return &part[from..];
            }
            from -= part.len();
        }
        &[]
    }
}

impl Running {
    /// Feeds and drains the hook until it ends or its time is over.
    fn attend(&mut self, state: &State, timeout: u64) -> Result<()> {
        let deadline = if timeout == 0 { None } else { Some(sys::monotonic()? + timeout) };
        let mut given = 0;
        loop {
            let left = match deadline {
                None => None,
                Some(deadline) => match deadline.saturating_sub(sys::monotonic()?) {
                    0 => return self.expire(),
                    left => Some(left),
                },
            };
            const POLLOUT: i16 = 4;
            let mut fds = [
                Poll { fd: self.pidfd, events: sys::POLLIN, revents: 0 },
                Poll { fd: self.output, events: sys::POLLIN, revents: 0 },
                Poll { fd: self.stdin, events: POLLOUT, revents: 0 },
            ];
            sys::poll(&mut fds, left)?;
            if fds[2].revents != 0 {
                given = self.feed(state, given);
            }
            if fds[1].revents != 0 {
                self.drain();
            }
            if fds[0].revents != 0 {
                return self.ended();
            }
        }
    }

    /// Writes what the pipe takes; closes it at the end, or when the hook does not want it.
    fn feed(&mut self, state: &State, given: usize) -> usize {
        const SIGPIPE: u32 = 13;
        let rest = state.rest(given);
        // A hook that closes stdin must not kill us.
        sys::ignore_signal(SIGPIPE);
        let written = sys::write(self.stdin, rest);
        sys::default_signal(SIGPIPE);
        match written {
            Ok(count) if !state.rest(given + count).is_empty() => given + count,
            Err(Fault { errno: sys::EAGAIN, .. }) => given,
            _ => {
                sys::close(self.stdin);
                self.stdin = -1;
                given
            }
        }
    }

    /// Reads what is there, a pipe's worth at most: whoever writes without end must outlive neither the hook nor its time.
    /// Keeps the first page, discards the rest.
    fn drain(&mut self) {
        const PIPE: usize = 64 * 1024;
        let mut chunk = [0; OUTPUT];
        for _ in 0..PIPE / OUTPUT {
            match sys::read(self.output, &mut chunk) {
                Ok(0) => {
                    sys::close(self.output);
                    self.output = -1;
                    return;
                }
                Ok(count) => {
                    let keep = count.min(OUTPUT - self.length);
                    self.kept[self.length..self.length + keep].copy_from_slice(&chunk[..keep]);
                    self.length += keep;
                }
                Err(_) => return,
            }
        }
    }

    fn expire(&mut self) -> Result<()> {
        sys::kill_group(self.pid);
        let _ = sys::wait4(self.pid);
        self.release();
        Err(fault(0, aux::HOOK_TIMEOUT))
    }

    fn ended(&mut self) -> Result<()> {
        let status = sys::wait4(self.pid)?;
        self.drain();
        self.release();
        match (status & 0x7f, status >> 8 & 0xff) {
            (0, 0) => Ok(()),
            (0, code) => Err(fault(code, aux::HOOK_STATUS)),
            (signal, _) => Err(fault(signal, aux::HOOK_SIGNAL)),
        }
    }

    fn release(&self) {
        for fd in [self.pidfd, self.stdin, self.output] {
            sys::close(fd);
        }
    }
}
