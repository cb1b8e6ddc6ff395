// SPDX-License-Identifier: Apache-2.0
//! Verbs of the runtime on threads of their own, so that nothing that may take long stands in the way of the reactor.
//!
//! A thread lives for one verb: an idle shim has none, and nothing of theirs stays behind (a pool would keep the last
//! one's stack, some 44 KB of it touched). How many verbs are under way is counted, because children of theirs
//! (hooks, a stage that fails) are theirs to wait for.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use corten::ask::Home;
use corten::cgroup::Manager;
use corten::error::Context;
use tokio::sync::{Semaphore, oneshot};

use crate::log;
use crate::refusal::{Refusal, Result};

/// How many verbs run at once; more wait for their turn.
const THREADS: usize = 8;
/// A thread's stack; where memfds cannot be executed it is the stage's as well.
const STACK: usize = 512 << 10;

static TURNS: Semaphore = Semaphore::const_new(THREADS);
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Where containers are kept, to be taken to another thread.
#[derive(Debug, Clone)]
pub struct Place {
    /// The state root of the namespace.
    pub root: PathBuf,
    /// Who manages control groups.
    pub manager: Manager,
}

impl Place {
    /// Calls `verb` with it; warnings go to the log.
    pub fn with<T>(&self, verb: impl FnOnce(&Home<'_>) -> T) -> T {
        verb(&Home { root: self.root.clone(), manager: self.manager, rootless: None, warn: &log::warn })
    }
}

/// Runs `work` on a thread.
///
/// # Errors
/// Its own; EAGAIN when there can be no thread.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let lost = || Refusal::unknown("internal error: an operation was lost");
    let turn = TURNS.acquire().await.map_err(|_| lost())?;
    let (told, answer) = oneshot::channel();
    UNDER_WAY.fetch_add(1, Ordering::Relaxed);
    // Dropped at the work's end, also when nobody waits for it any more.
    let done = Done;
    let thread = std::thread::Builder::new().name("operator".into()).stack_size(STACK);
    thread
        .spawn(move || {
            let result = work();
            drop(done);
            // Whoever asked may have gone.
            let _ = told.send(result);
            drop(turn);
        })
        .call(|| "clone(thread)")?;
    answer.await.unwrap_or_else(|_| Err(lost()))
}

/// Whether some verb is under way.
pub fn is_busy() -> bool {
    UNDER_WAY.load(Ordering::Relaxed) != 0
}

struct Done;

impl Drop for Done {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}
