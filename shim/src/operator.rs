// SPDX-License-Identifier: Apache-2.0
//! Verbs of the runtime on threads of their own, so that nothing that may take long stands in the way of the reactor.
//!
//! The threads are short-lived: an idle shim has none. How many verbs are under way is counted, because children of
//! theirs (hooks, a stage that fails) are theirs to wait for.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corten::ask::Home;
use corten::cgroup::Manager;

use crate::log;
use crate::refusal::{Refusal, Result};

/// How many verbs run at once; more wait for their turn.
pub const THREADS: usize = 8;
/// How long a thread waits for another verb.
pub const KEEP: Duration = Duration::from_millis(200);
/// A thread's stack; where memfds cannot be executed it is the stage's as well.
pub const STACK: usize = 512 << 10;

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
        verb(&Home { root: self.root.clone(), manager: self.manager, warn: &log::warn })
    }
}

/// Runs `work` on a thread.
///
/// # Errors
/// Its own.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    UNDER_WAY.fetch_add(1, Ordering::Relaxed);
    // The drop is at the work's end, also when nobody waits for it any more.
    let done = Done;
    let work = tokio::task::spawn_blocking(move || {
        let _done = done;
        work()
    });
    work.await.unwrap_or_else(|error| Err(Refusal::unknown(format!("internal error: {error}"))))
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
