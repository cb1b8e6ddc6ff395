// SPDX-License-Identifier: Apache-2.0
//! A container in this shim: its processes, and what orders the things that happen to it.

#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corten::cgroup::{Group, OomWatch};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use crate::driver::{Driver, Wish};
use crate::io::Owner;
use crate::process::{ProcessPhase, TaskProcess};
use crate::ready::Once;
use crate::refusal::{Refusal, Result};
use crate::threads::Crew;

/// A container.
pub struct Task {
    pub id: String,
    pub bundle: PathBuf,
    /// The runtime that made it.
    pub driver: Driver,
    /// For the pipes of its processes.
    pub owner: Owner,
    /// Something was mounted on its rootfs by us.
    pub mounted: bool,
    /// Its own pid namespace: the kernel ends everything in it with init.
    pub own_pids: bool,
    /// Its control groups, if they are known.
    pub group: OnceCell<Arc<Group>>,
    /// Tells of kills for want of memory.
    pub oom: RefCell<Option<OomWatch>>,
    /// What its `Start` is to restore, if it was created from a checkpoint.
    pub awaiting: RefCell<Option<Awaiting>>,
    /// The first process.
    pub init: Rc<TaskProcess>,
    /// The others, by exec id.
    pub execs: RefCell<BTreeMap<String, Rc<TaskProcess>>>,
    /// It is frozen.
    pub paused: Cell<bool>,
    /// Held by whatever changes it, telling included. Who holds it, and what would go wrong otherwise:
    ///
    /// | holder | while it | the race that this closes |
    /// |---|---|---|
    /// | `Checkpoint` (`pod/checkpoint`) | has CRIU write it | an end told, a Pause or a Delete in the middle of a dump |
    /// | `Start` of init (`pod/start`) | starts or restores, and tells `/tasks/start` | a short program's exit told before its start; two Starts at once, of which one would be told of the other's process |
    /// | init's end (`pod/watch`) | kills what is left, records and tells `/tasks/exit` | an exit told in the middle of a Start, a Pause or an Update; a Delete that finds the exit not yet recorded |
    /// | `Delete` of init (`pod/end`) | removes the container, tells `/tasks/delete` | two Deletes that both tell one; a Pause or an Update of groups that are being removed. It lets go while it waits for the end of a container that never ran, since whoever tells that needs the turn, and then looks again whether the container is there |
    /// | `Pause`, `Resume` (`pod/resources`) | freezes or thaws, and tells it | `paused` saying something else than the freezer, which a Start or an Exec would believe |
    /// | `Update` (`pod/resources`) | writes the limits | two updates whose writes and records mix |
    ///
    /// Execs do not hold it: their starts may hang (`starts`).
    pub turn: Mutex<()>,
    /// Starts of execs that are under way: beside each other, and beside what changes the container, for they may hang.
    pub starts: Starts,
    /// Where execs are started.
    pub starters: Crew,
    /// Where it is asked and signalled.
    pub askers: Crew,
    /// Init has ended, which may not have been told yet: nothing starts any more.
    pub over: Once,
    /// Starts that are still under way are given up.
    pub abandoned: Once,
}

/// What a `Start` is to restore.
pub struct Awaiting {
    /// What was asked of `Create`, without descriptors: they are opened by Start. A client that deletes what it has not started waits
    /// for the end of the output first, which nobody would ever write to.
    pub wish: Wish,
    /// The images.
    pub images: PathBuf,
}

/// How many starts are under way.
#[derive(Default)]
pub struct Starts {
    count: Cell<usize>,
    fewer: Notify,
}

/// One that is under way, until it is dropped.
pub struct UnderWay(Rc<Task>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let starts = &self.0.starts;
        starts.count.set(starts.count.get() - 1);
        starts.fewer.notify_one();
    }
}

impl Starts {
    /// Waits until there are none, at most `limit`; whether there are none.
    pub async fn wait_until_none(&self, limit: Duration) -> bool {
        let settled = async {
            while self.count.get() != 0 {
                self.fewer.notified().await;
            }
        };
        timeout(limit, settled).await.is_ok()
    }
}

impl Task {
    /// A start begins.
    pub fn starting(self: &Rc<Self>) -> UnderWay {
        self.starts.count.set(self.starts.count.get() + 1);
        UnderWay(self.clone())
    }

    /// Init, or the exec of that id.
    ///
    /// # Errors
    /// NotFound.
    pub fn process(&self, exec_id: &str) -> Result<Rc<TaskProcess>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        let found = self.execs.borrow().get(exec_id).cloned();
        found.ok_or_else(|| Refusal::not_found(format!("process {exec_id} does not exist: not found")))
    }

    /// The execs that run.
    pub fn running_execs(&self) -> Vec<Rc<TaskProcess>> {
        let execs = self.execs.borrow();
        execs.values().filter(|exec| exec.phase.get() == ProcessPhase::Running).cloned().collect()
    }

    /// # Errors
    /// FailedPrecondition once init has ended.
    pub fn alive(&self) -> Result<()> {
        match self.over.has_happened() || self.init.phase.get() == ProcessPhase::Stopped {
            true => Err(Refusal::state(format!("container {} is not running", self.id))),
            false => Ok(()),
        }
    }
}
