// SPDX-License-Identifier: Apache-2.0
//! `mutate --from DIR [--to DIR] [--without FILE] FILE…`: reads the files below the one directory and writes them below the other, where
//! each of many small mistakes can be chosen while the program runs. On stdout is a JSON array of the mistakes, numbered from 1: the
//! same sources give the same numbers. FILE of `--without` is a JSON array of numbers that are left out: they do not compile.
//!
//! Nothing is printed anew: text is put in at places, so all else stays as it was. `../mutant.rs` chooses.

#![forbid(unsafe_code)]

mod find;
mod kinds;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

/// A mistake that can be chosen. All but the line is how it is found again in other sources.
#[derive(Serialize)]
struct Mutant {
    number: u32,
    file: String,
    line: usize,
    function: String,
    operator: &'static str,
    /// What stands there, on one line.
    text: String,
    /// What it becomes.
    new: String,
}

#[derive(Default)]
struct Options {
    from: PathBuf,
    to: Option<PathBuf>,
    without: BTreeSet<u32>,
    files: Vec<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} takes a value"));
        match word.as_str() {
            "--from" => options.from = value()?.into(),
            "--to" => options.to = Some(value()?.into()),
            "--without" => {
                let text = std::fs::read_to_string(value()?).map_err(|e| format!("--without: {e}"))?;
                options.without = serde_json::from_str(&text).map_err(|e| format!("--without: {e}"))?;
            }
            _ => options.files.push(word),
        }
    }
    Ok(options)
}

fn run() -> Result<(), String> {
    let options = options()?;
    let mut all = Vec::new();
    for file in &options.files {
        let text = std::fs::read_to_string(options.from.join(file)).map_err(|e| format!("{file}: {e}"))?;
        let found = find::mutants(file, &text, all.len() as u32 + 1, &options.without)
            .map_err(|e| format!("{file}: {e}"))?;
        if let Some(to) = &options.to {
            write(&to.join(file), &found.text).map_err(|e| format!("{file}: {e}"))?;
        }
        all.extend(found.mutants);
    }
    println!("{}", serde_json::to_string(&all).map_err(|e| e.to_string())?);
    Ok(())
}

/// What is as it was keeps its time, and need not be built again.
fn write(at: &Path, text: &str) -> std::io::Result<()> {
    if std::fs::read_to_string(at).is_ok_and(|old| old == text) {
        return Ok(());
    }
    at.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(at, text)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("mutate: {words}");
            ExitCode::from(2)
        }
    }
}
