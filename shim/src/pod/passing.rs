// SPDX-License-Identifier: Apache-2.0
//! Containers, handed over and gone on with. Nobody is in the middle of anything: no verb runs, no end is being told
//! (`work`), and every process that lives is watched again.

#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use corten::ask::Stdio;
use corten::cgroup::{Group, OomMark, OomWatch};
use tokio::sync::Mutex;
use tokio::task::spawn_local;

use super::sandbox::Sandbox;
use super::{Pod, watch};
use crate::driver::{Driver, Wish};
use crate::handover::state::{AwaitingState, ContainerState, OomState, ServerState};
use crate::handover::{Handed, Outgoing};
use crate::io::Owner;
use crate::log;
use crate::process::TaskProcess;
use crate::ready::Once;
use crate::refusal::Result;
use crate::task::{Awaiting, Starts, Task};
use crate::threads::Crew;

impl Pod {
    /// Whether it has a container of this id, or is the sandbox.
    pub fn holds(&self, id: &str) -> bool {
        self.tasks.borrow().contains_key(id) || self.sandbox_id().is_some_and(|held| held == id)
    }

    fn sandbox_id(&self) -> Option<String> {
        self.sandbox.borrow().as_ref().map(|sandbox| sandbox.place.id.clone())
    }

    /// The ids of its containers, and its sandbox's.
    pub fn container_ids(&self) -> Vec<String> {
        self.tasks.borrow().keys().cloned().chain(self.sandbox_id()).collect()
    }

    /// Puts itself into `state`.
    pub fn pass(&self, state: &mut ServerState, to: &mut Outgoing) {
        state.namespace = self.namespace.clone();
        state.address = self.server.address.clone();
        state.events = self.events.pass(to);
        state.asked_to_end = self.asked_to_end.get();
        state.shut_down = self.shut_down.get();
        state.options = self.options.clone();
        state.sandbox = self.sandbox.borrow().as_ref().map(|sandbox| sandbox.pass(to));
        state.containers = self.tasks.borrow().values().map(|task| task.pass(to)).collect();
    }

    /// Takes over the containers of `state`. Nothing happens to them yet.
    ///
    /// # Errors
    /// What of them does not read.
    pub fn take_over(&self, state: &ServerState, from: &Handed) -> Result<()> {
        self.asked_to_end.set(state.asked_to_end);
        self.shut_down.set(state.shut_down);
        if let Some(sandbox) = &state.sandbox {
            let resumed = Sandbox::resumed(sandbox, from).map_err(|refusal| refusal.at(&sandbox.id))?;
            self.sandbox.replace(Some(resumed));
        }
        for container in &state.containers {
            let task = self.resumed(container, from).map_err(|refusal| refusal.at(&container.id))?;
            self.tasks.borrow_mut().insert(task.id.clone(), task);
        }
        Ok(())
    }

    /// Watches what lives again. Nobody else may have been told of an end before.
    pub fn go_on(self: &Rc<Self>) {
        let sandbox = self.sandbox.borrow().clone();
        if let Some((sandbox, pidfd)) = sandbox.and_then(|sandbox| sandbox.watched().map(|fd| (sandbox, fd)))
        {
            self.reaper.claim(sandbox.pid.get());
            spawn_local(sandbox.watch(pidfd, self.reaper.clone()));
        }
        let tasks: Vec<_> = self.tasks.borrow().values().cloned().collect();
        for task in tasks {
            for process in std::iter::once(task.init.clone()).chain(task.running_execs()) {
                let Some(pidfd) = process.pidfd.borrow().clone() else { continue };
                self.reaper.claim(process.pid.get());
                if Rc::ptr_eq(&process, &task.init) {
                    spawn_local(self.clone().watch_oom(task.clone()));
                    spawn_local(watch::init(self.clone(), task.clone(), pidfd));
                } else {
                    spawn_local(watch::exec(self.clone(), task.clone(), process.clone(), pidfd));
                }
            }
        }
        self.end_if_empty();
    }

    fn resumed(&self, state: &ContainerState, from: &Handed) -> Result<Rc<Task>> {
        let driver = Driver::resumed(&state.driver, &state.bundle);
        let owner = Owner {
            ids: state.owner,
            id: state.id.clone(),
            namespace: self.namespace.clone(),
            reaper: self.reaper.clone(),
        };
        let process = |state| TaskProcess::resumed(state, from, &self.reaper);
        let group = OnceCell::new();
        if let Some(record) = state.group.clone() {
            let _ = group.set(Arc::new(Group::open(record)));
        }
        let oom = group.get().zip(state.oom.as_ref()).and_then(|(group, oom)| watch_again(group, oom, from));
        let execs = state.execs.iter().map(|exec| Ok((exec.exec_id.clone(), process(exec)?)));
        let task = Rc::new(Task {
            id: state.id.clone(),
            bundle: state.bundle.clone(),
            driver,
            owner,
            mounted: state.mounted,
            own_pids: state.own_pids,
            group,
            oom: RefCell::new(oom),
            awaiting: RefCell::new(state.awaiting.as_ref().map(|awaiting| self.awaiting(state, awaiting))),
            init: process(&state.init)?,
            execs: RefCell::new(execs.collect::<Result<_>>()?),
            paused: Cell::new(state.paused),
            turn: Mutex::new(()),
            starts: Starts::default(),
            starters: Crew::default(),
            askers: Crew::default(),
            over: Once::default(),
            abandoned: Once::default(),
        });
        if state.over {
            task.over.happen();
            task.starters.dismiss();
        }
        if state.abandoned {
            task.abandoned.happen();
        }
        Ok(task)
    }

    fn awaiting(&self, container: &ContainerState, state: &AwaitingState) -> Awaiting {
        let wish = Wish {
            id: container.id.clone(),
            bundle: container.bundle.clone(),
            stdio: Stdio::default(),
            options: state.options.clone(),
            reaper: self.reaper.clone(),
        };
        Awaiting { wish, images: state.images.clone() }
    }
}

/// Its groups may be gone by now, with all that could still be told of them.
fn watch_again(group: &Group, state: &OomState, from: &Handed) -> Option<OomWatch> {
    let mark = OomMark { told: state.told, noticed: state.noticed };
    let watch = group.oom_watch_from(from.fd(state.fd).ok()?, mark);
    watch.inspect_err(|error| log::warn(&error.to_string())).ok()
}

impl Task {
    fn pass(&self, to: &mut Outgoing) -> ContainerState {
        let oom = |watch: &OomWatch, to: &mut Outgoing| {
            let OomMark { told, noticed } = watch.mark();
            OomState { fd: to.fd(watch.as_fd()), told, noticed }
        };
        let awaiting = self.awaiting.borrow();
        let awaiting = awaiting.as_ref().map(|Awaiting { wish, images }| AwaitingState {
            options: wish.options.clone(),
            images: images.clone(),
        });
        ContainerState {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            driver: self.driver.pass(),
            owner: self.owner.ids,
            mounted: self.mounted,
            own_pids: self.own_pids,
            group: self.group.get().map(|group| group.record().clone()),
            oom: self.oom.borrow().as_ref().map(|watch| oom(watch, to)),
            awaiting,
            paused: self.paused.get(),
            over: self.over.has_happened(),
            abandoned: self.abandoned.has_happened(),
            init: self.init.pass(to),
            execs: self.execs.borrow().values().map(|exec| exec.pass(to)).collect(),
        }
    }
}
