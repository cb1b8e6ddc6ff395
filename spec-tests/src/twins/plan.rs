// SPDX-License-Identifier: Apache-2.0
//! What a pair of twins does: a container, who calls the runtime, and the commands.
//!
//! A plan is data: it is printed with a finding, stands as witness in docs/differences.md, and can be performed again.
//! The generators make parts of plans, which [`Plan::join`] combines. In its strings `$DIR` stands for the bundle, `$ID` for the
//! container's id, `$MARK` for a text that is in all names of one performance.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A container, its caller, and what is done with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Edits of the default configuration, in order: a JSON pointer (`/-` at its end appends) and a value; null removes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<(String, Value)>,
    /// What is made before, relative to the bundle: `dir PATH MODE`, `file PATH TEXT`, `link PATH TARGET`,
    /// `mount TYPE SOURCE PATH OPTIONS`, `node PATH c|b MAJOR MINOR`, `group PATH [frozen]`, `agent PATH`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub things: Vec<String>,
    #[serde(skip_serializing_if = "Caller::is_plain")]
    pub caller: Caller,
    /// Operations that the container's first process, and the process of each `exec report`, tries after its report.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tries: Vec<String>,
    /// Options of the runtime before every command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub globals: Vec<String>,
    /// The second container (`@2`) has a state root of its own.
    #[serde(skip_serializing_if = "is_default")]
    pub second_root: bool,
    /// The commands; none is `run`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// How the process is that calls the runtime.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Caller {
    /// It may run on the first processor only.
    #[serde(skip_serializing_if = "is_default")]
    pub one_processor: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub umask: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    pub nice: i32,
    /// Numbers of signals.
    #[serde(skip_serializing_if = "is_default")]
    pub ignored: Vec<i32>,
    #[serde(skip_serializing_if = "is_default")]
    pub blocked: Vec<i32>,
    /// So many descriptors that it forgot to close.
    #[serde(skip_serializing_if = "is_default")]
    pub leaks: u32,
    /// So many groups more.
    #[serde(skip_serializing_if = "is_default")]
    pub groups: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub stdin: Stream,
    #[serde(skip_serializing_if = "is_default")]
    pub stdout: Stream,
    #[serde(skip_serializing_if = "is_default")]
    pub stderr: Stream,
}

/// What a standard stream of the caller is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// /dev/null for input, else a file that is read afterwards.
    #[default]
    Plain,
    Pipe,
    Terminal,
    Closed,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// The runtime's words, `@` for the container's id (`@2` for that of a second one); or the harness's own, which begin
    /// with a colon (see `perform`).
    Words(String),
    /// `exec` with a process of its own, as edits of the container's.
    Exec { exec: Vec<(String, Value)> },
    /// `update` with these resources.
    Update { update: Value },
}

impl From<&str> for Step {
    fn from(words: &str) -> Self {
        Self::Words(words.to_owned())
    }
}

impl Step {
    /// The first word, which names it in a comparison.
    pub fn verb(&self) -> &str {
        match self {
            Self::Words(words) => words.split(' ').next().unwrap_or_default(),
            Self::Exec { .. } => "exec",
            Self::Update { .. } => "update",
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Caller {
    fn is_plain(&self) -> bool {
        is_default(self)
    }
}

impl Plan {
    /// One edit of the configuration.
    pub fn set(pointer: &str, value: Value) -> Self {
        Self { config: vec![(pointer.to_owned(), value)], ..Self::default() }
    }

    /// One more edit.
    pub fn and(mut self, pointer: &str, value: Value) -> Self {
        self.config.push((pointer.to_owned(), value));
        self
    }

    /// One more thing made before.
    pub fn thing(mut self, words: impl Into<String>) -> Self {
        self.things.push(words.into());
        self
    }

    /// More operations.
    pub fn tries(mut self, ops: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tries.extend(ops.into_iter().map(Into::into));
        self
    }

    /// These commands.
    pub fn steps(mut self, steps: impl IntoIterator<Item = impl Into<Step>>) -> Self {
        self.steps = steps.into_iter().map(Into::into).collect();
        self
    }

    /// All parts in one container: the caller and the commands are those of the first part that has any.
    pub fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::default();
        for part in parts {
            whole.config.extend(part.config);
            whole.things.extend(part.things);
            whole.tries.extend(part.tries);
            if whole.caller.is_plain() {
                whole.caller = part.caller;
            }
            if whole.steps.is_empty() {
                whole.globals = part.globals;
                whole.second_root = part.second_root;
                whole.steps = part.steps;
            }
        }
        whole
    }

    /// Whether a step speaks of the second container.
    pub fn has_second(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Words(words) if words.contains("@2")))
    }

    /// What conditions of docs/differences.md are asked of: the plan and the configuration it makes.
    pub fn facts(&self, config: &Value) -> Value {
        let plan = json!(self);
        json!({ "config": config, "caller": plan["caller"], "steps": self.steps, "things": self.things, "globals": self.globals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let mut plan = Plan::set("/process/cwd", json!("/tmp")).thing("dir host 755").tries(["open /x"]);
        plan.caller.leaks = 3;
        plan.steps = vec![
            "create @".into(),
            Step::Exec { exec: vec![("/cwd".to_owned(), json!("/"))] },
            Step::Update { update: json!({"pids": {"limit": 3}}) },
        ];
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan, "{text}");
        assert_eq!(serde_json::to_string(&Plan::default()).unwrap(), "{}");
    }

    #[test]
    fn parts_are_combined_in_order() {
        let whole = Plan::join([Plan::set("/a", json!(1)), Plan::set("/b", json!(2)).steps(["create @"])]);
        assert_eq!(whole.config.len(), 2);
        assert_eq!(whole.steps, ["create @".into()]);
    }
}
