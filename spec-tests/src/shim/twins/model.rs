// SPDX-License-Identifier: Apache-2.0
//! The words of a step, and the request they mean.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::json;

use crate::harness::bundle::Bundle;
use crate::harness::case::Trouble;
use crate::shim::daemon::Daemon;
use crate::shim::task::{Io, PROCESS, RESOURCES, Task, process};
use crate::shim::wire::Message;

/// How a client treats its own request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It waits for the answer.
    Waits,
    /// It closes the connection after so long.
    HangsUp(Duration),
    /// It gives the server so long.
    Limits(Duration),
}

/// A step: `[hangup|cancel MS] VERB CONTAINER PROCESS [MORE…]`.
#[derive(Debug, Clone)]
pub struct Step {
    pub manner: Manner,
    pub verb: String,
    pub container: String,
    /// Empty for the first process.
    pub process: String,
    pub more: Vec<String>,
}

impl Step {
    pub fn read(text: &str) -> Result<Self, Trouble> {
        let mut words = text.split(' ').map(str::to_owned);
        let mut next = || words.next().ok_or_else(|| Trouble::from(format!("step {text:?} is too short")));
        let mut verb = next()?;
        let mut manner = Manner::Waits;
        if verb == "hangup" || verb == "cancel" {
            let after =
                Duration::from_millis(next()?.parse().map_err(|_| format!("step {text:?}: no number"))?);
            manner = if verb == "hangup" { Manner::HangsUp(after) } else { Manner::Limits(after) };
            verb = next()?;
        }
        let (container, process) = (next()?, next()?);
        // The others are about the container as a whole.
        let of_processes = ["start", "exec", "kill", "delete", "state", "wait", "closeio", "resize"];
        let first = process == "-" || !of_processes.contains(&verb.as_str());
        let process = if first { String::new() } else { process };
        Ok(Self { manner, verb, container, process, more: words.collect() })
    }

    fn word(&self, at: usize) -> &str {
        self.more.get(at).map_or("", String::as_str)
    }

    /// The task service's name for it.
    pub fn method(&self) -> &str {
        match self.verb.as_str() {
            "create" => "Create",
            "start" => "Start",
            "exec" => "Exec",
            "kill" => "Kill",
            "delete" => "Delete",
            "pause" => "Pause",
            "resume" => "Resume",
            "update" => "Update",
            "closeio" => "CloseIO",
            "resize" => "ResizePty",
            "checkpoint" => "Checkpoint",
            "shutdown" => "Shutdown",
            "state" => "State",
            "wait" => "Wait",
            "pids" => "Pids",
            "stats" => "Stats",
            "connect" => "Connect",
            _ => "Nonsense",
        }
    }

    /// Whether it leaves everything as it is.
    pub fn only_looks(&self) -> bool {
        ["state", "wait", "pids", "stats", "connect", "nonsense"].contains(&self.verb.as_str())
    }

    /// The signal of a kill.
    pub fn signal(&self) -> u64 {
        self.word(0).parse().unwrap_or(0)
    }

    /// Whether a kill is meant for all processes.
    pub fn all(&self) -> bool {
        self.word(1) == "all"
    }

    /// Whether the program of an exec ends by itself.
    pub fn program(&self) -> &str {
        self.word(0)
    }

    pub fn request(&self, d: &Daemon, task: &Task, b: &Bundle, io: &Io, options: &Message) -> Message {
        let about = Message::new().text(1, &task.id).text(2, &self.process);
        match self.verb.as_str() {
            "create" => task.create_request(b, io, &d.rootfs(), options),
            "exec" => self.exec(about, io),
            "kill" => about.number(3, self.signal()).flag(4, self.all()),
            "update" => update(Message::new().text(1, &task.id), self.word(0)),
            "closeio" => about.flag(3, true),
            "resize" => about.number(3, 80).number(4, 24),
            "checkpoint" => Message::new().text(1, &task.id).text(2, "/nowhere"),
            "shutdown" => Message::new().text(1, &task.id).flag(2, self.word(0) == "now"),
            "start" | "delete" | "state" | "wait" => about,
            _ => Message::new().text(1, &task.id),
        }
    }

    fn exec(&self, about: Message, io: &Io) -> Message {
        let mut object = process(match self.program() {
            "exits" => &["/probe", "exit", "5"],
            "missing" => &["/no/such/program"],
            "empty" => &[],
            _ => &["/probe", "forever"],
        });
        if self.program() == "nowhere" {
            object["cwd"] = json!("/no/such/directory");
        }
        let terminal = self.program() == "terminal" && !io.stdout.is_empty();
        object["terminal"] = json!(terminal);
        let about = if terminal { about.flag(3, true).text(5, &io.stdout) } else { about };
        about.any(7, PROCESS, object.to_string().as_bytes())
    }
}

fn update(about: Message, what: &str) -> Message {
    let resources = match what {
        "pids" => json!({"pids": {"limit": 50}}).to_string(),
        "memory" => json!({"memory": {"limit": 67_108_864}}).to_string(),
        "wrong" => json!({"pids": {"limit": "many"}}).to_string(),
        "empty" => "{}".to_owned(),
        _ => "rubbish".to_owned(),
    };
    about.any(2, RESOURCES, resources.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_words() {
        let step = Step::read("hangup 10 kill a - 9 all").unwrap();
        assert_eq!(step.manner, Manner::HangsUp(Duration::from_millis(10)));
        assert_eq!((step.method(), step.process.as_str()), ("Kill", ""));
        assert_eq!((step.signal(), step.all(), step.only_looks()), (9, true, false));
        assert!(Step::read("state a x").unwrap().only_looks());
        assert_eq!(Step::read("pause a x").unwrap().process, "");
        assert!(Step::read("hangup 1 state").is_err());
    }
}
