// SPDX-License-Identifier: Apache-2.0
//! What `spec-tests run` printed, read back.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::{ENVIRONMENTS, RUNTIMES};

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// A peer failed as it is listed to.
    Differs,
    NotRun,
}

/// One run.
pub struct Log {
    pub runtime: String,
    pub version: String,
    pub env: String,
    /// Outcome, name and reason, in the order of the cases.
    lines: Vec<(Outcome, String, String)>,
    /// What follows the word LIMIT.
    pub limits: Vec<String>,
}

/// How many of some cases ended how.
#[derive(Debug, Default)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    differs: usize,
    not_run: usize,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.passed + self.failed + self.differs == 0 {
            return f.write_str("not run");
        }
        write!(f, "{}", self.passed)?;
        if self.differs > 0 {
            write!(f, " ({} differ)", self.differs)?;
        }
        if self.failed > 0 {
            write!(f, ", **{} failed**", self.failed)?;
        }
        if self.not_run > 0 {
            write!(f, ", {} not run", self.not_run)?;
        }
        Ok(())
    }
}

/// All that are there, in the order of the document.
pub fn read(dir: &Path) -> Vec<Log> {
    let runs = ENVIRONMENTS.iter().flat_map(|(env, _)| RUNTIMES.map(|runtime| (runtime, *env)));
    let log = |(runtime, env): (&str, &str)| {
        let text = fs::read_to_string(dir.join(format!("{runtime}.{env}"))).ok()?;
        let log = Log::parse(runtime, env, &text);
        (!log.lines.is_empty()).then_some(log)
    };
    runs.filter_map(log).collect()
}

impl Log {
    /// Reads what a run printed.
    pub fn parse(runtime: &str, env: &str, text: &str) -> Self {
        let mut log = Self {
            runtime: runtime.to_owned(),
            version: String::new(),
            env: env.to_owned(),
            lines: Vec::new(),
            limits: Vec::new(),
        };
        text.lines().for_each(|line| log.line(line));
        log.lines.sort_by_key(|(_, name, _)| position(name));
        log
    }

    fn line(&mut self, line: &str) {
        const WORDS: [(&str, Outcome); 4] = [
            ("PASS ", Outcome::Passed),
            ("FAIL ", Outcome::Failed),
            ("DIFFERS ", Outcome::Differs),
            ("NOT RUN ", Outcome::NotRun),
        ];
        if let Some(rest) = line.strip_prefix("RUNTIME ") {
            self.version = rest.split(' ').nth(1).unwrap_or_default().to_owned();
        } else if let Some(rest) = line.strip_prefix("LIMIT ") {
            self.limits.push(rest.to_owned());
        } else if let Some((word, outcome)) = WORDS.iter().find(|(word, _)| line.starts_with(word)) {
            let (name, reason) = line[word.len()..].split_once(": ").unwrap_or((&line[word.len()..], ""));
            self.lines.push((*outcome, name.to_owned(), reason.to_owned()));
        }
    }

    /// Counts the cases of a chapter, or all.
    pub fn count(&self, of: Option<&str>) -> Count {
        let mut count = Count::default();
        for (outcome, name, _) in &self.lines {
            if of.is_none_or(|of| of == chapter(name)) {
                *match outcome {
                    Outcome::Passed => &mut count.passed,
                    Outcome::Failed => &mut count.failed,
                    Outcome::Differs => &mut count.differs,
                    Outcome::NotRun => &mut count.not_run,
                } += 1;
            }
        }
        count
    }

    /// Names and reasons of the cases that ended so.
    pub fn with(&self, so: impl Fn(Outcome) -> bool) -> impl Iterator<Item = (&str, &str)> {
        self.lines
            .iter()
            .filter(move |(outcome, ..)| so(*outcome))
            .map(|(_, name, reason)| (name.as_str(), reason.as_str()))
    }
}

/// The part of a case's name that is its chapter's.
pub fn chapter(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// Where a case stands among all; the last place for one that is no more.
pub fn position(name: &str) -> usize {
    static PLACES: OnceLock<HashMap<String, usize>> = OnceLock::new();
    let places = PLACES.get_or_init(|| {
        crate::cases::all().into_iter().enumerate().map(|(at, case)| (case.name, at)).collect()
    });
    places.get(name).copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_by_outcome() {
        let text = "RUNTIME crun 1.28 on uml\nPASS a/x\nFAIL a/y: z: u\nDIFFERS b/x: a2: why\nNOT RUN a/z: no\nother\n";
        let log = Log::parse("crun", "uml", text);
        assert_eq!(log.version, "1.28");
        assert_eq!(log.count(None).to_string(), "1 (1 differ), **1 failed**, 1 not run");
        assert_eq!(log.count(Some("b")).to_string(), "0 (1 differ)");
        assert_eq!(log.count(Some("c")).to_string(), "not run");
        assert_eq!(log.with(|o| o == Outcome::Failed).collect::<Vec<_>>(), [("a/y", "z: u")]);
    }
}
