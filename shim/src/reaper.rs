// SPDX-License-Identifier: Apache-2.0
//! The ends of children. Everything that we launch is watched by its pidfd from birth; orphans of the containers, which
//! come to us as the subreaper, are swept away by SIGCHLD, and never anything that somebody waits for: a verb's own
//! children (hooks, a stage that fails) are its thread's until that ends, and nothing that the first thread sees. So a
//! verb that hangs keeps nobody from being swept.

#![forbid(unsafe_code)]

mod strays;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corten::host::identity;
use corten::sys::wait::{Exit, ended_child, reap};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::time::sleep;

use crate::{log, ready};

/// Whose the ends of children are: one value for the whole server, held by the sweeper and by everybody who launches.
#[derive(Debug, Clone, Default)]
pub struct Reaper(Arc<Children>);

#[derive(Debug, Default)]
struct Children {
    /// Those that somebody waits for by their pidfd.
    claimed: Mutex<BTreeSet<i32>>,
    /// Pid files of runtimes that are executed just now.
    adopted: Mutex<Vec<PathBuf>>,
}

/// While it is held, the process whose pid stands in a file is not taken for an orphan: another runtime writes the file
/// before it ends, which is what makes its container's process our child.
pub struct Adoption {
    reaper: Reaper,
    pid_file: PathBuf,
}

impl Drop for Adoption {
    fn drop(&mut self) {
        let mut adopted = self.reaper.adopted();
        if let Some(at) = adopted.iter().position(|file| *file == self.pid_file) {
            adopted.swap_remove(at);
        }
    }
}

impl Reaper {
    fn claimed_pids(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.0.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopted(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.adopted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a runtime is executed that will write this pid file.
    pub fn adopting(&self, pid_file: &Path) -> Adoption {
        self.adopted().push(pid_file.to_owned());
        Adoption { reaper: self.clone(), pid_file: pid_file.to_owned() }
    }

    fn is_adopted(&self, pid: i32) -> bool {
        let adopted = self.adopted();
        let mut texts = adopted.iter().filter_map(|file| std::fs::read_to_string(file).ok());
        texts.any(|text| text.trim().parse() == Ok(pid))
    }

    /// Runs `launch`, which returns the pid of a new child, and claims it before the sweeper can see it end.
    ///
    /// # Errors
    /// `launch`'s.
    pub fn claimed<T, E>(&self, launch: impl FnOnce() -> Result<(i32, T), E>) -> Result<T, E> {
        // Held over the launch: the sweeper takes it for each of its steps.
        let mut claimed = self.claimed_pids();
        let (pid, value) = launch()?;
        claimed.insert(pid);
        Ok(value)
    }

    /// Claims a child that the verb under way has made: before its thread ends, which makes it the first thread's.
    pub fn claim(&self, pid: i32) {
        self.claimed_pids().insert(pid);
    }

    /// Leaves a claimed child to the sweeper: nobody is going to wait for it.
    pub fn unclaim(&self, pid: i32) {
        self.claimed_pids().remove(&pid);
    }

    /// Waits for a claimed child's end and reaps it.
    pub async fn end_of(&self, pidfd: &Rc<OwnedFd>, pid: i32) -> Exit {
        ready::until_input(pidfd.clone()).await;
        let exit = reap(pidfd.as_fd()).unwrap_or_else(|error| {
            log::warn(&format!("the end of process {pid} was lost: {error}"));
            Exit::Code(255)
        });
        self.unclaim(pid);
        exit
    }

    /// Kills a claimed child that nobody is to hear of, and reaps it.
    pub async fn kill(&self, pidfd: OwnedFd, pid: i32) {
        if let Err(error) = identity::kill(pidfd.as_fd()) {
            log::warn(&error.to_string());
        }
        self.end_of(&Rc::new(pidfd), pid).await;
    }

    /// Sweeps for ever. SIGTERM and SIGINT are answered by `asked`; they must not cost a container its life.
    pub async fn sweep(self, signals: SignalFd, asked: impl Fn()) {
        let Some(signals) = ready::watched(signals, "children that end") else { return asked() };
        // What ended while another program was in our place.
        self.sweep_orphans().await;
        loop {
            let Ok(mut ready) = signals.readable().await else { return };
            let mut children = false;
            while let Ok(Some(signal)) = signals.get_ref().read_signal() {
                match signal.ssi_signo as i32 {
                    libc::SIGCHLD => children = true,
                    libc::SIGHUP => {}
                    _ => asked(),
                }
            }
            ready.clear_ready();
            if children {
                self.sweep_orphans().await;
            }
        }
    }

    /// Reaps what nobody waits for. The kernel shows one ended child at a time: while that is somebody else's, this waits.
    async fn sweep_orphans(&self) {
        let mut pause = Duration::from_millis(1);
        loop {
            match self.sweep_one() {
                Swept::None => return,
                Swept::One => {}
                Swept::Others => {
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(100));
                }
            }
        }
    }

    fn sweep_one(&self) -> Swept {
        let claimed = self.claimed_pids();
        let Some(pid) = ended_child() else { return Swept::None };
        if claimed.contains(&pid) || self.is_adopted(pid) {
            return Swept::Others;
        }
        // A zombie of ours: its number cannot be taken before we reap it.
        if let Some(pid) = Pid::from_raw(pid)
            && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        {
            let _ = reap(pidfd.as_fd());
            return Swept::One;
        }
        Swept::Others
    }
}

/// The signals that are ours to read. To be blocked before there is a second thread.
///
/// # Errors
/// The failed call.
pub fn block_signals() -> corten::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    let failed = |call: &'static str| move |errno| corten::Error::os(call, errno as i32);
    set.thread_block().map_err(failed("sigprocmask"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed("signalfd4"))
}

/// What one look at the ended children came to.
enum Swept {
    /// There was no ended child.
    None,
    /// One was reaped.
    One,
    /// There is one that is not ours to reap.
    Others,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_waits_for_is_not_swept() {
        let reaper = Reaper::default();
        #[expect(clippy::zombie_processes, reason = "the reaper is to find it")]
        let launch = || {
            let child = std::process::Command::new("/bin/true").spawn().unwrap();
            Ok::<_, std::io::Error>((child.id() as i32, child.id() as i32))
        };
        let pid = reaper.claimed(launch).unwrap();
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        // Its end, which the look below leaves in place.
        let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), ended).unwrap();
        assert!(matches!(reaper.sweep_one(), Swept::Others));
        reaper.unclaim(pid);
        assert!(matches!(reaper.sweep_one(), Swept::One));
        assert!(matches!(reaper.sweep_one(), Swept::None));
    }
}
