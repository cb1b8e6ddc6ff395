// SPDX-License-Identifier: Apache-2.0
//! Verbs of the runtime on threads of their own, so that nothing that may take long stands in the way of the reactor.
//!
//! A thread lives for one verb: an idle shim has none, and nothing of theirs stays behind (a pool would keep the last
//! one's stack, some 44 KB of it touched). A verb may hang for as long as the container's owner likes, on a file system
//! that does not answer or a hook that does not end; so none ever waits for another container's (decision 0056).

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use corten::ask::Home;
use corten::ask::Manager;
use corten::error::Context;
use tokio::sync::{Semaphore, oneshot};

use crate::log;
use crate::refusal::{Refusal, Result};

/// How many of a crew's threads there may be; more verbs wait for their turn.
const THREADS: usize = 8;
/// A thread's stack; where memfds cannot be executed it is the stage's as well.
const STACK: usize = 512 << 10;

/// Where containers are kept, to be taken to another thread.
#[derive(Debug, Clone)]
pub struct StateRoot {
    /// The state root of the namespace.
    pub root: PathBuf,
    /// Who manages control groups.
    pub manager: Manager,
    /// Where it is told what takes how long.
    pub traces: Option<PathBuf>,
}

impl StateRoot {
    /// Calls `verb` with it; warnings go to the log.
    pub fn with<T>(&self, verb: impl FnOnce(&Home<'_>) -> T) -> T {
        verb(&Home {
            root: self.root.clone(),
            manager: self.manager,
            rootless: None,
            warn: &log::warn,
            trace: None,
        })
    }
}

/// The threads of one container for one kind of verbs of which any number may be asked at once. Those that hang keep
/// theirs, and nobody else's.
pub struct Crew(Arc<Semaphore>);

impl Default for Crew {
    fn default() -> Crew {
        Crew(Arc::new(Semaphore::new(THREADS)))
    }
}

impl Crew {
    /// Nothing that has not begun will: it would find another container, or none.
    pub fn dismiss(&self) {
        self.0.close();
    }

    /// Runs `work` on a thread of the crew, when one is free.
    ///
    /// # Errors
    /// As [`run`]; FailedPrecondition when the crew has been dismissed.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let over = |_| Refusal::state("the container is not running");
        let turn = self.0.clone().acquire_owned().await.map_err(over)?;
        // The turn ends with the work, also when nobody waits for it any more.
        run(move || {
            let result = work();
            drop(turn);
            result
        })
        .await
    }
}

/// Runs `work` on a thread, at once: for what a container has one of at a time.
///
/// # Errors
/// Its own; EAGAIN when there can be no thread.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (told, answer) = oneshot::channel();
    // The name that ps -L shows stays what it was.
    let thread = std::thread::Builder::new().name("verb".into()).stack_size(STACK);
    thread
        .spawn(move || {
            // Whoever asked may have gone.
            let _ = told.send(work());
        })
        .call(|| "clone(thread)")?;
    answer.await.unwrap_or_else(|_| Err(lost_operation()))
}

fn lost_operation() -> Refusal {
    Refusal::unknown("internal error: an operation was lost")
}
