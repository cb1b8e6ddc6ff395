// SPDX-License-Identifier: Apache-2.0
//! The library's launches on a verb's thread: what they leave when they fail.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;

use corten::host::{Launched, identity};
use corten::procfs;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use rustix::thread::gettid;

use super::Reaper;
use crate::log;

impl Reaper {
    /// Runs the library's `launch` on a verb's thread. The process is claimed before that thread ends, which makes it the first thread's;
    /// where it fails, nothing is left of it: see [`Self::end_strays`].
    ///
    /// # Errors
    /// `launch`'s.
    pub fn launched(&self, launch: impl FnOnce() -> corten::Result<Launched>) -> corten::Result<Launched> {
        let launched = launch();
        match &launched {
            Ok(launched) => self.claim(launched.pid),
            Err(_) => self.end_strays(),
        }
        launched
    }

    /// Ends this thread's children that nobody has claimed. A process that was cloned, and of which the news was lost (recvmsg(2) may fail, and
    /// drops a descriptor where there is room for no more), ends by itself, but is waited for by nobody: the first thread does not see it
    /// while this one lives, and a container's init waits for everything in its pid namespace (pid_namespaces(7)).
    fn end_strays(&self) {
        // The first thread's children are the orphans of containers.
        if gettid() == getpid() {
            return;
        }
        let Ok(children) = procfs::read("/proc/thread-self/children") else { return };
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let known = self.claimed_pids().contains(&pid);
            let stray = Pid::from_raw(pid).filter(|_| !known);
            // Not waited for yet: its number is nobody else's.
            let Some(Ok(pidfd)) = stray.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { continue };
            if let Err(error) = identity::end(pidfd.as_fd()) {
                log::warn(&format!("process {pid}, left by a launch that failed: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_launch_leaves_is_ended_and_nothing_else() {
        let reaper = Reaper::default();
        let there = std::thread::spawn(move || {
            let sleep = || std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
            let (mut known, mut stray) = (sleep(), sleep());
            reaper.claim(known.id() as i32);
            let failed = reaper.launched(|| Err(corten::Error::os("clone3", libc::EAGAIN)));
            assert!(failed.is_err());
            // ECHILD: it was waited for.
            assert!(stray.wait().is_err());
            assert!(known.try_wait().unwrap().is_none(), "it lives");
            known.kill().unwrap();
            known.wait().unwrap();
        });
        there.join().unwrap();
    }
}
