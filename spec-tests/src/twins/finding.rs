// SPDX-License-Identifier: Apache-2.0
//! Writes a finding down: a directory with the bundle's configuration, the plan, the commands and what differs.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::compare::Difference;
use super::perform::configuration;
use super::plan::{Plan, Step};

const DEFAULT: &str = include_str!("../harness/default.json");

/// The configuration that a plan makes, with its placeholders.
pub fn configuration_of(plan: &Plan) -> Value {
    let base: Value = serde_json::from_str(DEFAULT).unwrap_or_default();
    let edits = [
        ("/process/terminal".to_owned(), json!(false)),
        ("/process/args".to_owned(), json!(["/probe", "report"])),
        ("/linux/cgroupsPath".to_owned(), json!("/$ID")),
    ];
    let base = configuration(base, &edits, &|text| text.to_owned());
    configuration(base, &plan.config, &|text| text.to_owned())
}

/// Writes to `DIR/NAME`; gives that path.
pub fn write(
    dir: &Path,
    name: &str,
    peer: &str,
    plan: &Plan,
    found: &[Difference],
) -> std::io::Result<PathBuf> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir)?;
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
    fs::write(dir.join("config.json"), pretty(&configuration_of(plan)))?;
    fs::write(dir.join("plan.json"), pretty(&json!(plan)))?;
    let told: String = found.iter().map(|difference| format!("{difference}\n")).collect();
    fs::write(dir.join("differences"), format!("beside {peer}:\n{told}"))?;
    fs::write(dir.join("commands"), commands(plan))?;
    Ok(dir)
}

/// The commands as a person would type them. The plan itself is performed by `spec-tests twins --plan plan.json`.
fn commands(plan: &Plan) -> String {
    let line = |step: &Step| match step {
        Step::Words(words) if words.starts_with(':') => format!("# {}", words.trim_start_matches(':')),
        Step::Words(words) => words.replace('@', "ID"),
        Step::Exec { exec } => format!("exec --process PROCESS.json ID  # edits: {}", json!(exec)),
        Step::Update { update } => format!("echo '{update}' | update --resources - ID"),
    };
    let made = plan.things.iter().map(|thing| format!("# before: {thing}"));
    let steps: Vec<_> =
        if plan.steps.is_empty() { vec!["run ID".to_owned()] } else { plan.steps.iter().map(line).collect() };
    made.chain(steps).map(|line| line + "\n").collect()
}
