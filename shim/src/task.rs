// SPDX-License-Identifier: Apache-2.0
//! A container in this shim: its processes, and what orders the things that happen to it.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use corten::cgroup::{Group, OomWatch};
use tokio::sync::RwLock;

use crate::driver::Driver;
use crate::io::Owner;
use crate::process::{Phase, Process};
use crate::refusal::{Refusal, Result};

/// A container.
pub struct Task {
    /// Its id.
    pub id: String,
    /// Its bundle.
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
    pub group: Option<Arc<Group>>,
    /// Tells of kills for want of memory.
    pub oom: RefCell<Option<OomWatch>>,
    /// The first process.
    pub init: Rc<Process>,
    /// The others, by exec id.
    pub execs: RefCell<BTreeMap<String, Rc<Process>>>,
    /// It is frozen.
    pub paused: Cell<bool>,
    /// Held for reading while a process is started in it, for writing by whatever else changes it. What a holder
    /// learns of before it lets go (an end, above all) is told after what it tells itself.
    pub turn: RwLock<()>,
}

impl Task {
    /// Init, or the exec of that id.
    ///
    /// # Errors
    /// NotFound.
    pub fn process(&self, exec_id: &str) -> Result<Rc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        let found = self.execs.borrow().get(exec_id).cloned();
        found.ok_or_else(|| Refusal::not_found(format!("process {exec_id} does not exist: not found")))
    }

    /// The execs that run.
    pub fn running_execs(&self) -> Vec<Rc<Process>> {
        let execs = self.execs.borrow();
        execs.values().filter(|exec| exec.phase.get() == Phase::Running).cloned().collect()
    }

    /// # Errors
    /// FailedPrecondition once init has ended.
    pub fn alive(&self) -> Result<()> {
        match self.init.phase.get() {
            Phase::Stopped => Err(Refusal::state(format!("container {} is not running", self.id))),
            _ => Ok(()),
        }
    }
}
