// SPDX-License-Identifier: Apache-2.0
//! The end of a performance: everything is ended as containerd would, and what was told and what is left is looked at.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::left;
use super::perform::{PATIENCE, Stage, code};
use crate::harness::case::Trouble;
use crate::shim::events::Event;
use crate::shim::procs;
use crate::shim::task::{Shim, Task};
use crate::shim::ttrpc::{CLOSED, NOT_FOUND};
use crate::shim::wire::Message;

impl Stage<'_> {
    /// As containerd ends what it has: kill, wait, delete; Shutdown; `delete` of the binary.
    pub fn end(&mut self) -> Result<(), Trouble> {
        let names: Vec<_> = self.containers.keys().filter(|name| *name != "z").cloned().collect();
        let shim = self.connect("a")?.shim;
        for name in &names {
            let bundle = &self.containers[name].bundle;
            clear(&Task::new(shim.clone(), &bundle.id), self.containers[name].unsure);
        }
        let waits = std::mem::take(&mut self.waits);
        for (whose, pending) in waits {
            // All has ended by now, so that what is to be answered is.
            let answer = pending.within(PATIENCE / 3.0);
            let status = answer.as_ref().map_or(0, |answer| answer.number(1));
            self.seen.push(
                json!({ "step": format!("waited for {whose}"), "code": code(&answer), "status": status }),
            );
        }
        let quiet = !self.containers.values().any(|container| container.unsure);
        if quiet {
            self.seen.push(json!({ "step": "all deleted", "code": 0, "descriptors": left::descriptors(self.d, shim.pid) }));
            for name in &names {
                let events = self.story(name)?;
                self.seen.push(json!({ "step": "events", "code": 0, "events": events }));
            }
        }
        shim.call("Shutdown", &Message::new().text(1, &shim.id)).ok();
        let alive = self.outlives(&shim);
        self.seen.push(json!({ "step": "shut down", "code": 0, "alive": alive }));
        for name in &names {
            let deleted = self.d.delete(&self.containers[name].bundle);
            self.seen.push(json!({ "step": "binary's delete", "code": u8::from(deleted.is_err()) }));
        }
        self.d.t.reap();
        self.seen.push(left::after(self.d));
        if let Err(Trouble::Fail(text)) = self.d.events.follow_the_rules() {
            self.seen.push(json!({ "step": "rules", "code": 0, "broken": text.split(" of ").next() }));
        } else {
            self.seen.push(json!({ "step": "rules", "code": 0 }));
        }
        Ok(())
    }

    fn outlives(&self, shim: &Arc<Shim>) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            self.d.t.reap();
            if !procs::is_alive(shim.pid) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// The container's events in order, once they have stopped coming.
    fn story(&self, name: &str) -> Result<Vec<String>, Trouble> {
        let container = &self.containers[name];
        let id = container.bundle.id.as_str();
        let created = |all: &[Event], kind: &str| {
            all.iter().filter(|event| event.container == id && event.kind == kind).count()
        };
        // Each creation is followed by one deletion in the end; the last event comes with it.
        self.d
            .events
            .wait(10.0, "the last delete", |all| {
                (created(all, "create") == created(all, "delete")).then_some(())
            })
            .ok();
        std::thread::sleep(Duration::from_millis(20));
        let all = self.d.events.all();
        let told = all.iter().filter(|event| event.container == id);
        Ok(told
            .map(|event| {
                let mut words = vec![event.kind.clone()];
                words.extend((!event.exec.is_empty()).then(|| event.exec.clone()));
                if event.kind == "exit" || event.kind == "delete" {
                    words.push(event.status.to_string());
                }
                words.join(" ")
            })
            .collect())
    }
}

/// Ends a container whatever it is. What was cut may yet come to be: it is looked for a little longer.
fn clear(task: &Task, unsure: bool) {
    let begin = Instant::now();
    let grace = Duration::from_millis(if unsure { 1500 } else { 0 });
    loop {
        let state = task.state("");
        let gone = state.as_ref().is_err_and(|failure| failure.code == NOT_FOUND || failure.code == CLOSED);
        if gone && begin.elapsed() >= grace || begin.elapsed() > Duration::from_secs_f64(PATIENCE / 2.0) {
            return;
        }
        if state.is_ok() {
            task.resume().ok();
            task.kill("", 9, true).ok();
            task.wait("").within(2.0).ok();
            task.delete("").ok();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
