// SPDX-License-Identifier: Apache-2.0
//! The end of a performance: everything is ended as containerd would, and what was told and what is left is looked at.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::left;
use super::perform::{Container, PATIENCE, Stage, code};
use crate::harness::case::Trouble;
use crate::harness::procs;
use crate::shim::events::Event;
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
            let (unsure, doomed) = (self.containers[name].unsure, &self.containers[name].doomed);
            clear(&Task::new(shim.clone(), &bundle.id), unsure, doomed);
        }
        let waits = std::mem::take(&mut self.waits);
        for (whose, pending) in waits {
            // All has ended by now, so that what is to be answered has been, or is just about to be.
            let answer = pending.within(PATIENCE / 10.0);
            let status = answer.as_ref().map_or(0, |answer| answer.number(1));
            self.seen.push(
                json!({ "step": format!("waited for {whose}"), "code": code(&answer), "status": status }),
            );
        }
        let quiet = !self.containers.values().any(|container| container.unsure);
        if quiet {
            self.seen.push(json!({ "step": "all deleted", "code": 0, "descriptors": left::descriptors(self.d, shim.pid) }));
            self.last_events();
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
        let broken = match self.d.events.follow_the_rules() {
            Err(Trouble::Fail(text)) => json!(self.without_ids(&text)),
            _ => json!(null),
        };
        self.seen.push(json!({ "step": "rules", "code": 0, "broken": broken }));
        Ok(())
    }

    /// The containers by their names, and no numbers.
    fn without_ids(&self, text: &str) -> String {
        let named =
            |text: String, (name, container): (&String, &Container)| text.replace(&container.bundle.id, name);
        let text = self.containers.iter().fold(text.to_owned(), named);
        text.chars().filter(|character| !character.is_ascii_digit()).collect()
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

    /// The events that came of the end, once they have stopped coming.
    fn last_events(&mut self) {
        // Each creation is followed by one deletion in the end; the last event comes with it.
        let count = |all: &[Event], kind: &str| all.iter().filter(|event| event.kind == kind).count();
        let deleted = |all: &[Event]| (count(all, "create") == count(all, "delete")).then_some(());
        self.d.events.wait(10.0, "the last delete", deleted).ok();
        std::thread::sleep(Duration::from_millis(20));
        let events = self.heard(&[]);
        self.seen.push(json!({ "step": "events at the end", "code": 0, "events": events }));
    }
}

/// Ends a container whatever it is. What was cut may yet come to be: it is looked for a little longer. What is doomed
/// ends of the signal that it got while it was frozen, and not of ours.
fn clear(task: &Task, unsure: bool, doomed: &[String]) {
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
            for process in doomed {
                task.wait(process).within(PATIENCE / 10.0).ok();
            }
            task.kill("", 9, true).ok();
            task.wait("").within(2.0).ok();
            task.delete("").ok();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
