// SPDX-License-Identifier: Apache-2.0
//! Staying with a process until it ends (compatibility G22, T1): one thread, one poll(2) over signals, the pidfd and,
//! with a terminal, the three descriptors of its relay.

use std::os::fd::{AsFd, BorrowedFd};

use corten::error::{Context, WithStep};
use corten::host::Launched;
use corten::sys::tty;
use corten::verbs::{self, Exit};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::command::Outcome;
use super::console::{ConsoleRelay, Ready};
use super::failure::Failure;

/// The right to attend one process. Made before the launch, so that no signal is lost in between.
pub struct Foreground {
    signals: SignalFd,
}

impl Foreground {
    /// Blocks every signal and, if asked, becomes the subreaper, so that orphans of a container without a pid
    /// namespace are ours. The launched process unblocks signals for itself.
    ///
    /// # Errors
    /// The failed call.
    pub fn prepare(subreaper: bool) -> Result<Self, Failure> {
        if subreaper {
            let this = rustix::process::getpid();
            rustix::process::set_child_subreaper(Some(this)).call(|| "prctl(PR_SET_CHILD_SUBREAPER)")?;
        }
        let all = SigSet::all();
        all.thread_block().map_err(|errno| corten::Error::os("sigprocmask", errno as i32))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&all, flags)
            .map_err(|errno| corten::Error::os("signalfd4", errno as i32))?;
        Ok(Foreground { signals })
    }

    /// Relays signals and the terminal until the process ends. The outcome is its exit code, or 128 + the signal
    /// that ended it.
    ///
    /// # Errors
    /// Something of ours failed; the process is killed then, because nobody attends it any more.
    pub fn attend(self, launched: Launched) -> Outcome {
        crate::ALLOCATOR.stay();
        let Launched { pid, pidfd, console, .. } = launched;
        let relayed = console.map(ConsoleRelay::attach).transpose().and_then(|mut console| {
            self.relay(pid, pidfd.as_fd(), console.as_mut())?;
            // Dropping the console gives the caller its terminal back, before anything is said on it.
            console.map_or(Ok(()), ConsoleRelay::finish)
        });
        if let Err(error) = relayed {
            // It may have ended by itself in the meantime.
            let _ = tty::send(pidfd.as_fd(), libc::SIGKILL);
            return Err(error.into());
        }
        let code = match verbs::wait(pidfd.as_fd())? {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        };
        Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
    }

    fn relay(
        &self,
        pid: i32,
        pidfd: BorrowedFd<'_>,
        mut console: Option<&mut ConsoleRelay>,
    ) -> corten::Result<()> {
        let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
        loop {
            let mut fds = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&pidfd, PollFlags::IN),
                // Places that are not wanted watch the signals for nothing, which is never ready: poll(2) reports
                // a hang-up even where nothing was asked.
                PollFd::new(&self.signals, PollFlags::empty()),
                PollFd::new(&self.signals, PollFlags::empty()),
                PollFd::new(&self.signals, PollFlags::empty()),
            ];
            if let Some(console) = console.as_deref() {
                console.wishes(stdin.as_fd(), stdout.as_fd(), &mut fds[2..]);
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(corten::Error::os("poll", errno)),
            }
            let ready = Ready { stdin: fds[2].revents(), master: fds[3].revents(), stdout: fds[4].revents() };
            let (signalled, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if let Some(console) = console.as_deref_mut() {
                console.step(ready, stdin.as_fd(), stdout.as_fd()).step(|| "terminal")?;
            }
            if signalled {
                self.forward(pid, pidfd, console.as_deref())?;
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Handles every signal that has come.
    fn forward(&self, pid: i32, pidfd: BorrowedFd<'_>, console: Option<&ConsoleRelay>) -> corten::Result<()> {
        loop {
            let signal = match self.signals.read_signal() {
                Ok(Some(info)) => i32::try_from(info.ssi_signo).unwrap_or_default(),
                Ok(None) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(corten::Error::os("read(signalfd)", errno as i32)),
            };
            match signal {
                libc::SIGCHLD => tty::reap_all_but(pid),
                libc::SIGWINCH => {
                    if let Some(console) = console {
                        console.resize();
                    }
                }
                // Ours alone: about our own writes and sockets.
                libc::SIGPIPE | libc::SIGURG => {}
                // The process may have ended; then its pidfd says so next.
                signal => drop(tty::send(pidfd, signal)),
            }
        }
    }
}
