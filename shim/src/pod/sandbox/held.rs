// SPDX-License-Identifier: Apache-2.0
//! A pod that this shim holds itself, in place of a pause container: its files, and the process that waits in its namespaces
//! (decision 0082).
//!
//! Its record stands in its bundle before anything is made, as a container's does, so that `delete` finds all of it when this
//! server is dead.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use corten::error::Context;
use corten::host::identity;
use tokio::sync::Mutex;

use crate::driver::{Driver, LaunchedProcess};
use crate::process::ProcessExit;
use crate::ready::Once;
use crate::reaper::Reaper;
use crate::record::ShimRecord;
use crate::refusal::{Refusal, Result};
use crate::sandbox::files::PodFiles;
use crate::sandbox::wish::PodWish;
use crate::{clock, log, threads};

/// Where it is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxPhase {
    /// Asked for; nothing is made.
    Created,
    /// Its namespaces and files are there.
    Ready,
    /// What held the namespaces has ended, or never was.
    Ended,
}

/// What a thread needs to make it or to take it away.
#[derive(Debug, Clone)]
pub struct SandboxPlace {
    pub id: String,
    pub bundle: PathBuf,
    /// The one inside, whatever runtime its containers have.
    pub driver: Driver,
    pub files: PodFiles,
}

/// The pod.
pub struct Sandbox {
    pub place: SandboxPlace,
    pub wish: PodWish,
    pub phase: Cell<SandboxPhase>,
    /// What holds the namespaces; 0 before there is one.
    pub pid: Cell<i32>,
    pub(super) pidfd: RefCell<Option<Rc<OwnedFd>>>,
    /// When it was started, since the epoch.
    pub started_at: Cell<Option<Duration>>,
    pub ended: Cell<Option<ProcessExit>>,
    /// It will not be ready any more.
    pub over: Once,
    /// Whoever changes it holds this.
    pub turn: Mutex<()>,
}

impl Sandbox {
    /// One that is asked for.
    pub fn new(place: SandboxPlace, wish: PodWish) -> Rc<Sandbox> {
        Rc::new(Sandbox {
            place,
            wish,
            phase: Cell::new(SandboxPhase::Created),
            pid: Cell::new(0),
            pidfd: RefCell::default(),
            started_at: Cell::default(),
            ended: Cell::default(),
            over: Once::default(),
            turn: Mutex::new(()),
        })
    }

    /// It is ready. Its end is to be watched.
    pub fn born(&self, made: LaunchedProcess) -> Rc<OwnedFd> {
        let pidfd = Rc::new(made.pidfd);
        self.pid.set(made.pid);
        self.pidfd.replace(Some(pidfd.clone()));
        self.started_at.set(Some(clock::since_epoch()));
        self.phase.set(SandboxPhase::Ready);
        pidfd
    }

    /// What held it has ended, or it was given up before there was anything.
    pub fn finish(&self, ended: ProcessExit) {
        if self.ended.get().is_none() {
            self.ended.set(Some(ended));
        }
        self.pidfd.take();
        self.phase.set(SandboxPhase::Ended);
        self.over.happen();
    }

    /// Watches what holds it to its end.
    pub async fn watch(self: Rc<Self>, pidfd: Rc<OwnedFd>, reaper: Reaper) {
        let ended = ProcessExit::now(reaper.end_of(&pidfd, self.pid.get()).await);
        let bundle = self.place.bundle.clone();
        let written = threads::run(move || {
            let Some(mut record) = ShimRecord::read(&bundle) else { return Ok(()) };
            record.ended(ended);
            Ok(record.replace(&bundle)?)
        });
        if let Err(refusal) = written.await {
            log::warn(&format!("sandbox {}: {refusal}", self.place.id));
        }
        self.finish(ended);
    }

    /// Ends what holds it, and waits for that. Nothing there is fine.
    ///
    /// # Errors
    /// DeadlineExceeded after `limit`.
    pub async fn end(&self, limit: Duration) -> Result<()> {
        let pidfd = self.pidfd.borrow().clone();
        match pidfd {
            Some(pidfd) => identity::kill(pidfd.as_fd())?,
            None => self.finish(ProcessExit { status: 0, at: Some(clock::since_epoch()) }),
        }
        let late = |_| Refusal::late(format!("sandbox {}: its first process does not end", self.place.id));
        tokio::time::timeout(limit, self.over.wait()).await.map_err(late)
    }
}

impl SandboxPlace {
    /// On a verb's thread: files, then namespaces. After an error nothing is left but the record.
    ///
    /// # Errors
    /// The failed call, naming what it was for.
    pub fn make(&self, wish: &PodWish, reaper: &Reaper) -> Result<LaunchedProcess> {
        let made = self.files.make(wish).map_err(|refusal| refusal.at("the pod's files"));
        let made = made.and_then(|()| self.hold(wish, reaper));
        if made.is_err()
            && let Err(refusal) = self.files.remove()
        {
            log::warn(&format!("sandbox {}: {refusal}", self.id));
        }
        made
    }

    fn hold(&self, wish: &PodWish, reaper: &Reaper) -> Result<LaunchedProcess> {
        // Opened until it is joined: the path leads to it.
        let user = match &wish.ids {
            Some(_) if !wish.network.is_empty() => Some(owner_of(&wish.network)?),
            _ => None,
        };
        let path = user.as_ref().map(|user| format!("/proc/self/fd/{}", user.as_raw_fd()));
        let config = wish.configuration(path.as_deref()).to_string().into_bytes();
        let made = self.driver.hold(&self.id, &self.bundle, config, reaper)?;
        if let Some(mut record) = ShimRecord::read(&self.bundle) {
            record.pid = made.pid;
            // It is there, whether `delete` is to know its pid or not.
            if let Err(error) = record.replace(&self.bundle) {
                log::warn(&format!("sandbox {}: {error}", self.id));
            }
        }
        Ok(made)
    }

    /// On a verb's thread: takes all of it away. Nothing there is fine, and it may be done again.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(&self) -> Result<()> {
        let removed = self.driver.delete(&self.id);
        self.files.remove().and(removed)
    }
}

/// The user namespace that a network namespace was made in.
fn owner_of(network: &str) -> Result<OwnedFd> {
    let file = File::open(network).call(|| format!("open({network})"))?;
    Ok(corten::sys::ns::owner(file.as_fd()).map_err(|error| error.at(network.to_owned()))?)
}
