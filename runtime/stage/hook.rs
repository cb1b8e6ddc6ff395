// SPDX-License-Identifier: Apache-2.0
//! Hooks that run inside: createContainer and startContainer (config.md#posix-platform-hooks). Counterpart:
//! `host/hooks.rs` runs the others and words the failures of both.

use core::ffi::CStr;

use super::sys::{self, Poll, Result};
use super::wire::{self, HookRec, Rec, aux};
use super::{Stage, fault, trace};

/// How much of a hook's output is kept for the message.
pub(super) const OUTPUT: usize = 4096;

struct Running {
    pid: i32,
    pidfd: i32,
    /// It leads a session, and so a process group, of its own.
    leads: bool,
    /// It ends with the hook's exec; an errno comes before that if there is none.
    exec: i32,
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
        let mut running = self.spawn(&hook, path)?;
        let state = State::new(self, &hook)?;
        let outcome = match hook.avoid & wire::AVOID_PPOLL {
            0 => running.attend(&state, u64::from(hook.timeout)),
            _ => running.follow(&state),
        };
        let output = &running.kept[..running.length];
        if let Err(fault) = outcome {
            self.fail(fault, output);
        }
        Ok(())
    }

    /// Starts the hook. For startContainer hooks a filter may be at work: the calls are those that the peers make under it, too,
    /// and what it kills for is avoided.
    fn spawn(&self, hook: &HookRec, path: &CStr) -> Result<Running> {
        const SIGCHLD: u64 = 17;
        let argv = self.program.pointers(hook.argv)?;
        let leads = hook.avoid & wire::AVOID_SETSID == 0;
        let [stdin, write] = sys::pipe()?;
        let [read, output] = sys::pipe()?;
        let [exec, executed] = sys::pipe()?;
        let (pid, pidfd) = sys::clone(SIGCHLD)?;
        if pid == 0 {
            trace::end();
            let done = self
                .hook_session(leads)
                .and_then(|()| sys::dup3(stdin, 0, false))
                .and_then(|()| sys::dup3(output, 1, false))
                .and_then(|()| sys::dup3(output, 2, false))
                .and_then(|()| self.keep_from_hook(executed));
            // In this copy of the program: the environment may be the array that the exec is to take, and other hooks.
            let fault = match done.and_then(|()| self.program.pointers(hook.env)) {
                Ok(env) => sys::execve(path, argv, env),
                Err(fault) => fault,
            };
            let words = [fault.errno.to_ne_bytes(), fault.aux.to_ne_bytes()];
            let _ = sys::write(executed, words.as_flattened());
            sys::exit(127);
        }
        for fd in [stdin, output, executed] {
            sys::close(fd);
        }
        Ok(Running { pid, pidfd, leads, exec, stdin: write, output: read, kept: [0; OUTPUT], length: 0 })
    }

    /// In the hook: a session, and the caller's umask where the process's own is not set yet.
    fn hook_session(&self, leads: bool) -> Result<()> {
        if self.kept.is_none() {
            sys::umask(self.umask);
        }
        match if leads { sys::setsid() } else { Ok(()) } {
            Err(fault) if fault.is_filtered() => Ok(()),
            other => other,
        }
    }

    /// In the hook: nothing of ours stays open. Once CLOSE has been here, only what the user's program keeps must be closed: the
    /// rest goes with the exec.
    fn keep_from_hook(&self, executed: i32) -> Result<()> {
        match self.kept {
            Some(first) => {
                (3..first).for_each(sys::close);
                Ok(())
            }
            None if executed > 3 => sys::close_range(3, executed as u32 - 1)
                .and_then(|()| sys::close_range(executed as u32 + 1, u32::MAX)),
            None => sys::close_range(executed as u32 + 1, u32::MAX),
        }
    }
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
        let (mut number, mut digits) = (stage.pid.unwrap_or_else(sys::getpid), 0);
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
    /// Waits for the hook's exec. One that cannot be executed is told by errno, not by a child's exit status.
    fn executed(&mut self) -> Result<()> {
        let mut words = [0; 8];
        let length = sys::read(self.exec, &mut words)?;
        sys::close(self.exec);
        self.exec = -1;
        let [errno, aux] = [[0, 1, 2, 3], [4, 5, 6, 7]].map(|at: [usize; 4]| at.map(|i| words[i]));
        match length {
            8 => {
                let _ = sys::reap(self.pid, self.pidfd);
                self.release();
                Err(fault(i32::from_ne_bytes(errno), u32::from_ne_bytes(aux)))
            }
            _ => Ok(()),
        }
    }

    /// Feeds and drains the hook until it ends or its time is over.
    fn attend(&mut self, state: &State, timeout: u64) -> Result<()> {
        let mut left = (timeout != 0).then_some(sys::Time::of_millis(timeout));
        let mut given = 0;
        loop {
            const POLLOUT: i16 = 4;
            let mut fds = [
                Poll { fd: self.pidfd, events: sys::POLLIN, revents: 0 },
                Poll { fd: self.output, events: sys::POLLIN, revents: 0 },
                Poll { fd: self.stdin, events: POLLOUT, revents: 0 },
                Poll { fd: self.exec, events: sys::POLLIN, revents: 0 },
            ];
            if sys::poll(&mut fds, left.as_mut())? == 0 {
                return self.expire();
            }
            if fds[3].revents != 0 {
                self.executed()?;
            }
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

    /// The same without poll, which the filter refuses, and so without a time.
    fn follow(&mut self, state: &State) -> Result<()> {
        self.executed()?;
        let mut given = 0;
        while self.stdin >= 0 {
            given = self.feed(state, given);
        }
        while self.output >= 0 {
            self.drain();
        }
        self.ended()
    }

    /// Writes what the pipe takes without waiting (pipe(7): one that is ready takes PIPE_BUF); closes it at the end, or when the
    /// hook does not want it.
    fn feed(&mut self, state: &State, given: usize) -> usize {
        const SIGPIPE: u32 = 13;
        const PIPE_BUF: usize = 4096;
        let rest = state.rest(given);
        // A hook that closes stdin must not kill us.
        sys::ignore_signal(SIGPIPE);
        let written = sys::write(self.stdin, &rest[..rest.len().min(PIPE_BUF)]);
        sys::default_signal(SIGPIPE);
        match written {
            Ok(count) if !state.rest(given + count).is_empty() => given + count,
            _ => {
                sys::close(self.stdin);
                self.stdin = -1;
                given
            }
        }
    }

    /// Reads once; keeps the first page, discards the rest.
    fn drain(&mut self) {
        let mut chunk = [0; OUTPUT];
        match sys::read(self.output, &mut chunk) {
            Ok(count) if count > 0 => {
                let keep = count.min(OUTPUT - self.length);
                self.kept[self.length..self.length + keep].copy_from_slice(&chunk[..keep]);
                self.length += keep;
            }
            _ => {
                sys::close(self.output);
                self.output = -1;
            }
        }
    }

    /// Reads what is there, a pipe's worth at most: whoever still writes must not outlive the hook.
    fn drain_rest(&mut self) {
        const PIPE: usize = 64 * 1024;
        for _ in 0..PIPE / OUTPUT {
            let mut fds = [Poll { fd: self.output, events: sys::POLLIN, revents: 0 }];
            match sys::poll(&mut fds, Some(&mut sys::Time::of_millis(0))) {
                Ok(1) => self.drain(),
                _ => return,
            }
        }
    }

    fn expire(&mut self) -> Result<()> {
        sys::pidfd_kill(self.pidfd);
        if self.leads {
            sys::kill_group(self.pid);
        }
        let _ = sys::reap(self.pid, self.pidfd);
        self.release();
        Err(fault(0, aux::HOOK_TIMEOUT))
    }

    fn ended(&mut self) -> Result<()> {
        let ended = sys::reap(self.pid, self.pidfd)?;
        if self.output >= 0 {
            self.drain_rest();
        }
        self.release();
        match ended {
            sys::Ended::Code(0) => Ok(()),
            sys::Ended::Code(code) => Err(fault(code, aux::HOOK_STATUS)),
            sys::Ended::Signal(signal) => Err(fault(signal, aux::HOOK_SIGNAL)),
        }
    }

    fn release(&self) {
        for fd in [self.pidfd, self.exec, self.stdin, self.output].into_iter().filter(|fd| *fd >= 0) {
            sys::close(fd);
        }
    }
}
