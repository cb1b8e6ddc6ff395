// SPDX-License-Identifier: Apache-2.0
//! A trace, read again: what took how long, and the longest of it.

#![forbid(unsafe_code)]

use serde_json::Value;

use crate::error::{Error, Kind, Result, printable};

/// How many of the longest are told.
const LONGEST: usize = 10;

/// What a file of `--trace` says. Times are microseconds since the verb began.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Verb and container.
    pub title: String,
    /// Why something of the stage's is missing.
    pub missing: Option<String>,
    /// Everything but system calls, in the order in which it began.
    pub bars: Vec<Bar>,
}

/// Something that took time.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// `host` or `stage`.
    pub side: String,
    /// In words.
    pub name: String,
    /// JSON pointer into config.json, or empty.
    pub field: String,
    /// Which step of the program; `None`: none of it.
    pub step: Option<u64>,
    /// When it began.
    pub begin: f64,
    /// How long it took.
    pub took: f64,
    /// Its system calls, where they are known one by one.
    pub calls: Vec<BarOfCall>,
    /// It is there to wait for the other side.
    pub waits: bool,
    /// Why it failed.
    pub error: Option<String>,
}

/// A system call.
#[derive(Debug, Clone, PartialEq)]
pub struct BarOfCall {
    /// As strace(1) calls it.
    pub name: String,
    /// When it began.
    pub begin: f64,
    /// How long it took.
    pub took: f64,
    /// Why it failed.
    pub error: Option<String>,
}

impl Chart {
    /// Reads a file of `--trace`.
    ///
    /// # Errors
    /// `Kind::Invalid` for anything else.
    pub fn read(bytes: &[u8]) -> Result<Chart> {
        let invalid = |text: String| Error::new(Kind::Invalid, text);
        let file: Value =
            serde_json::from_slice(bytes).map_err(|error| invalid(format!("malformed JSON: {error}")))?;
        let about = &file["otherData"];
        let mut chart = Chart {
            title: format!("{} {}", text(&about["verb"]), text(&about["container"])).trim().to_owned(),
            missing: about["missing"].as_str().map(printed),
            bars: Vec::new(),
        };
        for event in file["traceEvents"].as_array().map(Vec::as_slice).unwrap_or_default() {
            chart.take(event);
        }
        if chart.bars.is_empty() {
            let error = invalid("it holds no step of a container's start".to_owned());
            return Err(error.advise("--trace of create, start, run and exec writes such files"));
        }
        chart.bars.sort_by(|one, other| one.begin.total_cmp(&other.begin));
        Ok(chart)
    }

    fn take(&mut self, event: &Value) {
        let (Some("X"), Some(begin), Some(took)) =
            (event["ph"].as_str(), event["ts"].as_f64(), event["dur"].as_f64())
        else {
            return;
        };
        let (name, args) = (text(&event["name"]), &event["args"]);
        let error = args["error"].as_str().map(printed);
        // A call follows the step that it is part of.
        if event["cat"] == "call" {
            let call = BarOfCall { name, begin, took, error };
            self.bars.last_mut().into_iter().for_each(|bar| bar.calls.push(call.clone()));
        } else if let Some(side) = args["side"].as_str() {
            self.bars.push(Bar {
                side: printed(side),
                name,
                field: text(&args["field"]),
                step: args["step"].as_u64(),
                begin,
                took,
                calls: Vec::new(),
                waits: args["waits"] == true,
                error,
            });
        }
    }

    /// From the first to the last.
    #[must_use]
    pub fn took(&self) -> f64 {
        let begin = self.bars.iter().map(|bar| bar.begin).fold(f64::INFINITY, f64::min);
        self.bars.iter().map(|bar| bar.begin + bar.took).fold(begin, f64::max) - begin
    }

    /// The longest, the longest first; not what is there to wait for the other side.
    #[must_use]
    pub fn longest(&self) -> Vec<&Bar> {
        let mut bars: Vec<&Bar> = self.bars.iter().filter(|bar| !bar.waits).collect();
        bars.sort_by(|one, other| other.took.total_cmp(&one.took));
        bars.truncate(LONGEST);
        bars
    }

    /// What `corten trace` prints.
    #[must_use]
    pub fn text(&self) -> String {
        let total = self.took();
        let mut text = format!("{}: {total:.0} µs\n", self.title);
        for side in ["host", "stage"] {
            text.push_str(&self.sum(side));
        }
        if let Some(missing) = &self.missing {
            text.push_str(&format!("not here: {missing}\n"));
        }
        let bars = self.longest();
        let width =
            bars.iter().map(|bar| dash(&bar.field).chars().count()).max().unwrap_or(0).max("FIELD".len());
        text.push_str(&format!("\n{:>8}     %  SIDE   CALLS  {:width$}  STEP\n", "µs", "FIELD"));
        for bar in bars {
            let share = if total > 0.0 { bar.took * 100.0 / total } else { 0.0 };
            let calls = if bar.side == "stage" && bar.step.is_some() {
                bar.calls.len().to_string()
            } else {
                "-".to_owned()
            };
            text.push_str(&format!(
                "{:8.1}  {share:4.1}  {:5}  {calls:>5}  {:width$}  {}\n",
                bar.took,
                bar.side,
                dash(&bar.field),
                bar.name
            ));
            if let Some(error) = &bar.error {
                text.push_str(&format!("{:8}  failed: {error}\n", ""));
            }
        }
        text
    }

    fn sum(&self, side: &str) -> String {
        let of_side = || self.bars.iter().filter(|bar| bar.side == side);
        let sum = |waits| of_side().filter(|bar| bar.waits == waits).map(|bar| bar.took).sum::<f64>() + 0.0;
        let steps = of_side().filter(|bar| bar.step.is_some()).count();
        let calls: f64 =
            of_side().filter(|bar| !bar.waits).flat_map(|bar| &bar.calls).map(|call| call.took).sum();
        let calls =
            if side == "stage" { format!(", {calls:.0} of it in system calls") } else { String::new() };
        match of_side().next() {
            None => String::new(),
            Some(_) => format!(
                "{side:5}  {steps} steps, at work for {:.0} µs{calls}, waiting for {:.0} µs\n",
                sum(false),
                sum(true)
            ),
        }
    }
}

fn dash(field: &str) -> &str {
    if field.is_empty() { "-" } else { field }
}

fn printed(text: &str) -> String {
    printable(text).into_owned()
}

fn text(value: &Value) -> String {
    value.as_str().map(printed).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = include_bytes!("sample.json");

    #[test]
    fn what_was_written_is_read_again() {
        let chart = Chart::read(SAMPLE).unwrap();
        let names: Vec<(&str, usize)> =
            chart.bars.iter().map(|bar| (bar.name.as_str(), bar.calls.len())).collect();
        let expected =
            [("read config.json", 0), ("wait", 0), ("prepare a proc file system", 2), ("execute \"/x\"", 1)];
        assert_eq!(names, expected);
        assert_eq!((chart.title.as_str(), chart.missing.as_deref()), ("create c1", Some("why")));
        assert!((chart.took() - 9.0).abs() < 1e-9, "{}", chart.took());
        let failed = chart.bars[2].calls[1].error.as_deref();
        assert_eq!(failed, Some("no such file or directory (ENOENT)"));
        let longest: Vec<&str> = chart.longest().into_iter().map(|bar| bar.name.as_str()).collect();
        assert_eq!(longest, ["execute \"/x\"", "prepare a proc file system", "read config.json"]);
        let text = chart.text();
        for line in [
            "create c1: 9 µs\n",
            "host   1 steps, at work for 1 µs, waiting for 8 µs\n",
            "stage  2 steps, at work for 4 µs, 3 of it in system calls, waiting for 0 µs\n",
            "not here: why\n",
            "     2.0  22.2  stage      2  /mounts/0  prepare a proc file system\n",
            "failed: exec /x: no\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for (bytes, word) in [
            (&b"{"[..], "malformed JSON"),
            (b"[]", "no step"),
            (b"{\"traceEvents\":[{\"ph\":\"X\",\"ts\":1,\"dur\":2,\"cat\":\"call\"},{\"ph\":7}]}", "no step"),
            (b"{\"traceEvents\":[{\"ph\":\"X\",\"ts\":1,\"dur\":2,\"args\":{\"side\":4}}]}", "no step"),
        ] {
            let error = Chart::read(bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
