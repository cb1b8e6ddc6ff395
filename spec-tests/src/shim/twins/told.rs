// SPDX-License-Identifier: Apache-2.0
//! What answers and events tell, in words that do not depend on who was faster.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::model::Step;
use super::perform::{PATIENCE, Stage};
use crate::harness::case::Trouble;
use crate::harness::procs;
use crate::shim::events::Event;
use crate::shim::task::{CREATED, PAUSED, RUNNING, STOPPED, Task};
use crate::shim::wire::Fields;

/// Limits that Stats tells, which nothing but Create and Update changes: the way to each in the message of v1 and in that of v2.
const LIMITS: [(&str, &[u64], &[u64]); 6] = [
    ("pids", &[2, 2], &[1, 2]),
    ("memory", &[4, 33, 1], &[4, 33]),
    ("swap", &[4, 34, 1], &[4, 35]),
    ("kernel memory", &[4, 35, 1], &[]),
    ("kernel tcp memory", &[4, 36, 1], &[]),
    ("memory above", &[4, 16], &[]),
];

/// Parts of Stats that are messages: whether they are there.
const PARTS: [(&str, &[u64], &[u64]); 7] = [
    ("cpu usage", &[3, 1], &[]),
    ("throttling", &[3, 2], &[]),
    ("memory usage", &[4, 33], &[]),
    ("swap usage", &[4, 34], &[]),
    ("kernel usage", &[4, 35], &[]),
    ("kernel tcp usage", &[4, 36], &[]),
    ("memory events", &[9], &[8]),
];

/// The word for a state.
pub fn status_name(status: u64) -> &'static str {
    match status {
        CREATED => "created",
        RUNNING => "running",
        STOPPED => "stopped",
        PAUSED => "paused",
        _ => "unknown",
    }
}

impl Stage<'_> {
    /// What a successful answer tells, and what follows from it.
    pub fn told(
        &mut self,
        step: &Step,
        task: &Task,
        before: &str,
        answer: &Fields,
        seen: &mut Value,
    ) -> Result<(), Trouble> {
        match step.verb.as_str() {
            "create" | "start" => {
                let pid = answer.number(1);
                let container = self.containers.get_mut(&step.container).ok_or("no such container")?;
                seen["pid"] = json!(pid != 0);
                container.pids.insert(step.process.clone(), pid);
                if step.verb == "start" {
                    container.started.insert(step.process.clone());
                    let program = container.programs.get(&step.process).map_or("", String::as_str);
                    let stays = match step.process.is_empty() {
                        true => self.plan.init.is_empty() || self.plan.init.ends_with("forever"),
                        false => program == "stays" || program == "terminal",
                    };
                    program_runs(pid, stays);
                    self.follow(step, task, before)?;
                } else {
                    container.started.clear();
                }
            }
            "exec" => {
                let container = self.containers.get_mut(&step.container).ok_or("no such container")?;
                container.programs.insert(step.process.clone(), step.program().to_owned());
            }
            "kill" if before == "created" && step.process.is_empty() && step.signal() == 15 => {
                self.ends_before_its_start(step, task, seen);
            }
            "kill" | "resume" => self.follow(step, task, before)?,
            "closeio" if self.has_terminal(step) && before != "stopped" => {
                self.after_the_last_input(step, task, seen)
            }
            "delete" => {
                seen["pid"] = json!(self.known(step, answer.number(1)));
                seen["status"] = json!(answer.number(2));
                seen["ended"] = json!(answer.time(3)? > 0.0);
                let container = self.containers.get_mut(&step.container).ok_or("no such container")?;
                container.started.remove(&step.process);
            }
            "state" => self.state(step, task, answer, seen)?,
            "wait" => {
                seen["status"] = json!(answer.number(1));
                seen["ended"] = json!(answer.time(2)? > 0.0);
            }
            "pids" => seen["list"] = json!(pids(answer)?),
            "stats" => stats(answer, seen)?,
            "connect" => {
                seen["shim"] = json!(answer.number(1) != 0);
                seen["pid"] = json!(self.known(step, answer.number(2)));
            }
            _ => {}
        }
        Ok(())
    }

    /// What State says.
    fn state(&self, step: &Step, task: &Task, answer: &Fields, seen: &mut Value) -> Result<(), Trouble> {
        seen["pid"] = json!(self.known(step, answer.number(3)));
        seen["status"] = json!(status_name(answer.number(4)));
        seen["terminal"] = json!(answer.number(8) == 1);
        let paths = self.paths(step);
        seen["streams"] = json!([5, 6, 7].map(|field| match answer.text(field) {
            path if path.is_empty() => "none",
            path if paths.contains(&path) => "given",
            _ => "another",
        }));
        seen["bundle"] =
            json!(answer.text(2) == self.containers[&step.container].bundle.dir.to_string_lossy());
        seen["exit"] = json!(answer.number(9));
        seen["ended"] = json!(answer.time(10)? > 0.0);
        seen["id"] = json!(answer.text(1) == task.id);
        seen["exec"] = json!(answer.text(11));
        Ok(())
    }

    /// Whose pid it is, by what was told before.
    fn known(&self, step: &Step, pid: u64) -> String {
        let container = &self.containers[&step.container];
        let name = container.pids.iter().find(|(_, told)| **told == pid).map(|(name, _)| name.as_str());
        match name {
            _ if pid == 0 => "0".to_owned(),
            Some("") => "init's".to_owned(),
            Some(name) => name.to_owned(),
            None => "another".to_owned(),
        }
    }

    /// The events that a step makes, awaited, and all that have come since the one before, in order over all containers. Of execs that
    /// end together nobody knows which is the first. Once somebody has hung up in the midst of a change, nobody knows what is told when.
    pub fn heard(&mut self, expected: &[(&str, String, String)]) -> Value {
        if self.containers.values().any(|container| container.unsure) {
            return Value::Null;
        }
        let from = self.heard;
        let there = |all: &[Event]| {
            let news = all.get(from..).unwrap_or_default();
            let is = |event: &Event, (kind, id, exec): &(&str, String, String)| {
                event.kind == *kind && event.container == *id && event.exec == *exec
            };
            expected.iter().all(|one| news.iter().any(|event| is(event, one))).then_some(())
        };
        self.d.events.wait(PATIENCE / 3.0, "what a step makes", there).ok();
        let all = self.d.events.all();
        self.heard = all.len();
        let mut told: Vec<_> = all[from..].iter().map(|event| self.in_words(event)).collect();
        let is_exec_exit = |words: &String| words.contains(" exec-exit ");
        told.chunk_by_mut(|one, other| is_exec_exit(one) && is_exec_exit(other)).for_each(<[String]>::sort);
        json!(told)
    }

    fn in_words(&self, event: &Event) -> String {
        let name = self.containers.iter().find(|(_, container)| container.bundle.id == event.container);
        let name = name.map_or("?", |(name, _)| name.as_str());
        let kind = match (event.kind.as_str(), event.exec.as_str()) {
            ("exit", exec) if !exec.is_empty() => "exec-exit",
            (kind, _) => kind,
        };
        let mut words = vec![name, kind];
        words.extend(Some(event.exec.as_str()).filter(|exec| !exec.is_empty()));
        let status = event.status.to_string();
        if event.kind == "exit" || event.kind == "delete" {
            words.push(&status);
        }
        words.join(" ")
    }
}

/// The number at the end of a way through messages; `None` when one of them is not there.
fn number_at(message: &Fields, way: &[u64]) -> Result<Option<u64>, Trouble> {
    match way {
        [] => Ok(None),
        [last] => Ok(Some(message.number(*last))),
        [first, rest @ ..] if message.has(*first) => number_at(&message.message(*first)?, rest),
        _ => Ok(None),
    }
}

fn is_there(message: &Fields, way: &[u64]) -> Result<bool, Trouble> {
    match way {
        [] => Ok(false),
        [last] => Ok(message.has(*last)),
        [first, rest @ ..] => Ok(message.has(*first) && is_there(&message.message(*first)?, rest)?),
    }
}

/// What Stats tells that does not depend on the moment.
fn stats(answer: &Fields, seen: &mut Value) -> Result<(), Trouble> {
    let any = answer.message(1)?;
    let metrics = any.message(2)?;
    let v2 = any.text(1).contains(".v2.");
    seen["type"] = json!(any.text(1));
    seen["fields"] = json!((1..20).filter(|field| metrics.has(*field)).collect::<Vec<_>>());
    for (name, v1_way, v2_way) in LIMITS {
        seen["limits"][name] = json!(number_at(&metrics, if v2 { v2_way } else { v1_way })?);
    }
    for (name, v1_way, v2_way) in PARTS {
        seen["parts"][name] = json!(is_there(&metrics, if v2 { v2_way } else { v1_way })?);
    }
    if !v2 {
        seen["processors"] = json!(metrics.message(3)?.message(1)?.bytes(4).len().min(1));
    }
    Ok(())
}

/// What Pids says: the exec ids, sorted.
fn pids(answer: &Fields) -> Result<Vec<String>, Trouble> {
    let one = |one| {
        let info = Fields::read(one)?;
        let named = info.message(2)?.message(2)?.text(1);
        Ok(format!("{}{named}", if info.number(1) == 0 { "0 " } else { "" }))
    };
    let mut list = answer.all(1).map(one).collect::<Result<Vec<_>, Trouble>>()?;
    list.sort();
    Ok(list)
}

/// Waits until a process is the container's program: until then a signal meets the runtime's own code. One that stays is ready
/// when it waits for its signals.
pub fn program_runs(pid: u64, stays: bool) {
    let begin = Instant::now();
    let waits = format!("{} ", libc::SYS_rt_sigtimedwait);
    while begin.elapsed() < Duration::from_secs(5) {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let call = || std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        // Nothing may also be said for a moment of exec(2).
        let gone = words.is_empty() && !procs::is_alive(pid as i32);
        if gone || words.starts_with(b"/probe") && (!stays || call().starts_with(&waits)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process has a handler for a signal.
pub fn catches(pid: u64, signal: u64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    (1..=64).contains(&signal) && mask >> (signal - 1) & 1 == 1
}
