// SPDX-License-Identifier: Apache-2.0
//! A process for each performance, and a runtime to perform with.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::perform::perform;
use super::plan::Plan;
use crate::harness::case::Trouble;
use crate::harness::hostdiff::Snapshot;
use crate::harness::test::Test;
use crate::harness::{host::Host, warden};
use crate::sys;

/// A runtime, and where it performs.
#[derive(Debug, Clone)]
pub struct Twin {
    pub host: Host,
    /// The path as it was given.
    pub path: PathBuf,
}

impl Twin {
    /// Asks the runtime at `path` its name.
    pub fn look(path: &Path, patience: f64, tmp: &Path) -> Result<Self, String> {
        let mut host = Host::look(path)?;
        (host.patience, host.tmp) = (patience, tmp.to_owned());
        Ok(Self { host, path: path.to_owned() })
    }

    /// Performs `plan` in a process of its own.
    pub fn perform(&self, plan: &Plan) -> Result<Vec<Value>, String> {
        let words =
            ["twins", "--one", &self.path.to_string_lossy(), "--tmp", &self.host.tmp.to_string_lossy()];
        let mut command = Command::new(std::env::current_exe().map_err(shown)?);
        command.args(words).args(["--timeout", &self.host.patience.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(shown)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(serde_json::to_string(plan).map_err(shown)?.as_bytes()).map_err(shown)?;
        }
        let mut text = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut text).map_err(shown)?;
        }
        child.wait().map_err(shown)?;
        serde_json::from_str(&text).map_err(|e| format!("no performance of {} ({e}): {text}", self.host.name))
    }
}

fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// In that process: performs the plan on standard input, prints what was seen.
pub fn main(twin: &Twin) -> Result<ExitCode, String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(shown)?;
    let plan: Plan = serde_json::from_str(&text).map_err(shown)?;
    let seen = on_stage(twin.host.clone(), move |test| perform(test, &plan))
        .map_err(|trouble| format!("{trouble:?}"))?;
    println!("{}", Value::from(seen));
    Ok(ExitCode::SUCCESS)
}

/// The stage is built, played on, and cleaned as for a black-box case.
pub fn on_stage(
    host: Host,
    play: impl FnOnce(&Test) -> Result<Vec<Value>, Trouble> + Send + 'static,
) -> Result<Vec<Value>, Trouble> {
    let place = warden::prepare(&host)?;
    let told = sys::told_to_end()?;
    let before = Snapshot::take(&host, &place);
    let (send, receive) = std::sync::mpsc::channel();
    let end = send.clone();
    std::thread::spawn(move || {
        if std::fs::File::from(told).read_exact(&mut [0]).is_ok() {
            end.send(Err(Trouble::from("told to end"))).ok();
        }
    });
    let (its_host, its_place) = (host.clone(), place.clone());
    std::thread::spawn(move || {
        let test = Test::new(its_host, its_place);
        let seen = play(&test);
        drop(test);
        send.send(seen).ok();
    });
    let seen = receive.recv_timeout(Duration::from_secs_f64(host.patience * 4.0));
    warden::clean_up(&host, &place);
    let left = warden::settle(&host, &place, &before, || 1.0);
    warden::remove_directory(&place.dir);
    let mut seen = seen.unwrap_or_else(|_| Err("the performance does not end".into()))?;
    let left: Vec<_> = left.iter().map(|one| without_numbers(&one.replace(&place.mark, "$MARK"))).collect();
    if !left.is_empty() {
        seen.push(json!({ "step": "after", "left": left }));
    }
    Ok(seen)
}

/// Numbers of mounts, processes and devices say nothing to a twin.
fn without_numbers(text: &str) -> String {
    let word = |word: &str| {
        if word.bytes().all(|byte| byte.is_ascii_digit()) { "N".to_owned() } else { word.to_owned() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
