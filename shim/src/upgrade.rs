// SPDX-License-Identifier: Apache-2.0
//! A server goes on as another program: the newly installed one, by execve(2) in the same process (decision 0081).
//!
//! ```text
//! a request (root's) ─> candidate: does it read what we hand over? asked as a child, while we go on serving
//!                    ─> the gate is closed for some milliseconds, until nothing is under way
//!                    ─> handover: a sealed memfd; execve ─> entry/take_over in the new program
//! ```
//! From the last look at what is under way to the exec nothing is awaited: what is handed over is what is. If anything fails
//! the server goes on as it was, and whoever asked is told why. If the new program cannot take over it executes this one
//! again, which goes on from the same memfd.

#![forbid(unsafe_code)]

pub mod ask;
mod candidate;

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use corten::error::Context;
use corten::features::{COMMIT, VERSION};
use corten::sys::passing::number_of;
use rustix::fs::{Mode, OFlags, open};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use self::candidate::Candidate;
use crate::flags::Flags;
use crate::handover::Outgoing;
use crate::handover::state::{AskerState, ServerState};
use crate::pod::Pod;
use crate::refusal::{Refusal, Result};
use crate::server::{Clients, Successor};
use crate::{driver, log, work};

/// For how long the gate is closed while what is under way comes to its end.
const GATE: Duration = Duration::from_millis(8);
/// For how long it is open in between.
const OPEN: Duration = Duration::from_millis(60);
/// For how long that is tried.
const PATIENCE: Duration = Duration::from_secs(15);
/// For how long an event on its way is waited for; a containerd that does not answer will get it twice.
const EVENTS: Duration = Duration::from_secs(2);

/// What is asked of a server.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpgradeWish {
    /// The program to go on as.
    pub binary: PathBuf,
    /// Only if it has this container, in that namespace if one is named.
    pub id: Option<String>,
    pub namespace: Option<String>,
}

/// What whoever asked is told by the program that has taken over.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upgraded {
    pub pid: u32,
    /// Versions and commits.
    pub from: String,
    pub to: String,
    /// For how long nobody was served.
    pub paused_us: u64,
    pub containers: Vec<String>,
}

/// A server, with all that is handed over.
pub struct Served {
    pub listener: Rc<UnixListener>,
    pub clients: Rc<Clients>,
    pub pod: Rc<Pod>,
}

/// `upgrade-check NUMBER`: whether this program could take over from that memfd.
///
/// # Errors
/// Why it could not.
#[inline(never)]
pub fn check(flags: &Flags) -> Result<String> {
    candidate::answer(flags.operands.first().map_or("", String::as_str))
}

/// This program.
pub fn this_version() -> String {
    format!("{VERSION} ({COMMIT})")
}

/// Microseconds of a clock that goes on over an exec.
pub fn microseconds() -> u64 {
    corten::sys::passing::monotonic().as_micros() as u64
}

impl Served {
    /// Attends to whoever asks for another program. For ever, or until there is one.
    pub async fn attend(self) {
        loop {
            let asked = self.clients.wants_successor().await;
            let Err(refusal) = self.go_on_as_another(&asked).await;
            log::warn(&format!("goes on as it is: {refusal}"));
            self.clients.answer(&asked.connection, asked.stream, Err(refusal));
        }
    }

    async fn go_on_as_another(&self, asked: &Successor) -> Result<Infallible> {
        let wish: UpgradeWish = serde_json::from_slice(&asked.payload)
            .map_err(|error| Refusal::invalid(format!("malformed upgrade: {error}")))?;
        if wish.id.as_ref().is_some_and(|id| !self.pod.holds(id))
            || wish.namespace.as_ref().is_some_and(|namespace| *namespace != self.pod.namespace)
        {
            return Err(Refusal::not_found("that container is another server's: not found"));
        }
        let us = open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let us = us.call(|| "open(/proc/self/exe)")?;
        let candidate = Candidate::open(&wish.binary)?;
        let (memfd, _) = self.hand_over(asked, &us, 0)?;
        candidate.check(&memfd, &self.pod.reaper).await?;
        drop(memfd);
        let begun = Instant::now();
        loop {
            let held = work::hold();
            let held_at = microseconds();
            let settled = self.settled(begun.elapsed() < EVENTS);
            if timeout(GATE, settled).await.is_ok() && nothing_under_way() {
                return Err(self.execute(asked, &candidate, &us, held_at));
            }
            drop(held);
            if begun.elapsed() > PATIENCE {
                return Err(Refusal::state(format!("still under way after {PATIENCE:?}: {}", in_the_way())));
            }
            sleep(OPEN).await;
        }
    }

    /// Waits until nothing is under way.
    async fn settled(&self, events: bool) {
        loop {
            work::none().await;
            if events {
                self.pod.events.settled().await;
            }
            if nothing_under_way() {
                // Who was woken by the last of it comes first: a Wait whose exec was deleted would not find it again.
                yield_now().await;
                if nothing_under_way() {
                    return;
                }
            }
            // A verb's thread that has told its result ends right after.
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Returns when it failed: then nothing has happened.
    fn execute(&self, asked: &Successor, candidate: &Candidate, us: &OwnedFd, held_at: u64) -> Refusal {
        let (memfd, outgoing) = match self.hand_over(asked, us, held_at) {
            Ok(handed) => handed,
            Err(refusal) => return refusal,
        };
        let mut arguments = our_arguments();
        arguments.extend(CString::new(number_of(memfd.as_fd()).to_string()));
        Refusal::from(outgoing.fds.execute(candidate.program(), &arguments)).at(&candidate.name())
    }

    fn hand_over(&self, asked: &Successor, us: &OwnedFd, held_at: u64) -> Result<(OwnedFd, Outgoing)> {
        let mut to = Outgoing::default();
        let mut state = ServerState { from: this_version(), ..ServerState::default() };
        state.listener = to.fd(&*self.listener);
        if let Some((fifo, debug)) = log::fifo() {
            (state.log, state.debug) = (Some(to.fd(fifo)), debug);
        }
        state.here = driver::kept_working_directory().map(|here| to.fd(here));
        self.pod.pass(&mut state, &mut to);
        let (connections, place) = self.clients.pass(&asked.connection, &mut to);
        state.connections = connections;
        state.asker = place.map(|connection| AskerState { connection, stream: asked.stream, held_at });
        let memfd = to.seal(&state, us)?;
        Ok((memfd, to))
    }
}

/// How we were called, up to what the next program is told besides; `ps` shows whose server it is as before.
pub fn our_arguments() -> Vec<CString> {
    let mut words: Vec<_> = std::env::args_os().collect();
    let action = words.iter().rposition(|word| word == "start" || word == "take-over");
    words.truncate(action.unwrap_or(words.len()));
    let mut arguments: Vec<_> =
        words.into_iter().filter_map(|word| CString::new(word.into_vec()).ok()).collect();
    arguments.push(c"take-over".into());
    arguments
}

fn threads() -> usize {
    // Not known is not one.
    std::fs::read_dir("/proc/self/task").map_or(usize::MAX, Iterator::count)
}

fn nothing_under_way() -> bool {
    work::list().is_empty() && threads() == 1
}

fn in_the_way() -> String {
    let mut list = work::list();
    match threads() {
        1 => {}
        more => list.push(format!("{} verbs of the runtime", more - 1)),
    }
    list.dedup();
    list.join(", ")
}

/// A path without what the kernel says of one that was removed.
fn is_removed(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)")
}
