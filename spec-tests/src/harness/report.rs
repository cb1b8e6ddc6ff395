// SPDX-License-Identifier: Apache-2.0
//! The probe's report (see `probe::report` for its shape), and what may be demanded of it.

#![forbid(unsafe_code)]

use serde_json::Value;

use super::case::{Trouble, Verdict};
use crate::check;

/// What a probe saw.
#[derive(Debug, Clone)]
pub struct Report(pub Value);

impl Report {
    /// Reads the first line of `text` that is a report.
    pub fn read(text: &str) -> Result<Self, Trouble> {
        let line = text.lines().find(|line| line.starts_with('{'));
        let line = line.ok_or_else(|| Trouble::Fail(format!("no report in {text:?}")))?;
        Ok(Self(serde_json::from_str(line)?))
    }

    /// The value at a JSON pointer; null when absent.
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The text at a JSON pointer; empty when absent.
    pub fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    /// The value at a JSON pointer must be this.
    pub fn is(&self, pointer: &str, want: impl Into<Value>) -> Verdict {
        let (got, want) = (self.at(pointer), want.into());
        check!(*got == want, "{pointer} is {got}, not {want}");
        Ok(())
    }

    /// The topmost mount on `dest`.
    pub fn mount(&self, dest: &str) -> Result<Mount<'_>, Trouble> {
        let all = self.at("/mounts").as_array();
        let found = all.and_then(|all| all.iter().rev().find(|mount| mount["dest"] == dest));
        found.map(Mount).ok_or_else(|| Trouble::Fail(format!("nothing is mounted on {dest}")))
    }

    /// Nothing may be mounted on `dest`.
    pub fn no_mount(&self, dest: &str) -> Verdict {
        check!(self.mount(dest).is_err(), "something is mounted on {dest}");
        Ok(())
    }

    /// The environment variable's values, in order.
    pub fn variable(&self, name: &str) -> Vec<&str> {
        let all = self.at("/env").as_array().into_iter().flatten().filter_map(Value::as_str);
        all.filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
    }
}

/// One line of the container's mount table.
#[derive(Clone, Copy)]
pub struct Mount<'a>(pub &'a Value);

impl Mount<'_> {
    /// The file system's type must be this.
    pub fn fstype(self, want: &str) -> Result<Self, Trouble> {
        check!(self.0["fstype"] == want, "{} is of type {}, not {want}", self.0["dest"], self.0["fstype"]);
        Ok(self)
    }

    /// Each of these must be among the options of the mount or of its file system.
    pub fn has(self, options: &[&str]) -> Result<Self, Trouble> {
        for option in options {
            check!(self.lists(option), "{} lacks {option}: {}", self.0["dest"], self.0);
        }
        Ok(self)
    }

    /// None of these may be among the mount's own options.
    pub fn lacks(self, options: &[&str]) -> Result<Self, Trouble> {
        for option in options {
            check!(!holds(&self.0["options"], option), "{} has {option}: {}", self.0["dest"], self.0);
        }
        Ok(self)
    }

    /// The mount's propagation must be exactly this: `shared`, `master`, `unbindable`, or nothing for private. What is
    /// shared may be a slave as well.
    pub fn propagates(self, want: &[&str]) -> Verdict {
        let kinds = self.0["propagation"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let kinds: Vec<_> = kinds.map(|kind| kind.split(':').next().unwrap_or(kind)).collect();
        let also_slave = want == ["shared"] && kinds == ["shared", "master"];
        check!(kinds == want || also_slave, "propagation of {} is {kinds:?}, not {want:?}", self.0["dest"]);
        Ok(())
    }

    fn lists(self, option: &str) -> bool {
        holds(&self.0["options"], option) || holds(&self.0["super"], option)
    }
}

fn holds(list: &Value, option: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|one| one == option))
}
