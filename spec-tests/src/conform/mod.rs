// SPDX-License-Identifier: Apache-2.0
//! `spec-tests conform LOGS FILE`: what the runs of `.ci/conformance` and `.ci/oci-validation` said, as one document.
//!
//! LOGS holds a file `RUNTIME.ENVIRONMENT` for each run of the cases, and `oci.RUNTIME` for each run of the OCI suite.
//! The document has no times and no machine in it, and its order is that of the cases: the same results give the same
//! bytes. Of its two halves the one whose logs are not there stays as it is in FILE.

#![forbid(unsafe_code)]

mod logs;
mod oci;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use logs::{Log, Outcome};

/// The order of the columns.
pub const RUNTIMES: [&str; 3] = ["corten", "runc", "crun"];

/// The environments, in the order of the document, and what they are.
pub const ENVIRONMENTS: [(&str, &str); 6] = [
    ("native-v1", "the host, cgroup v1 (or hybrid)"),
    ("native-v2", "the host, pure cgroup v2 without controllers"),
    ("uml", "guest, pure cgroup v2 with cpu, io, memory, pids"),
    ("uml-apparmor", "the same guest with AppArmor, enforcing"),
    ("uml-selinux", "the same guest with SELinux, enforcing"),
    ("uml-systemd", "the same guest under systemd, with the systemd cgroup driver"),
];

const OURS: &str = include_str!("ours.md");

/// Writes the document and prints the sums. Exit code 1 if a case failed anywhere.
pub fn main(args: &[String]) -> ExitCode {
    let [logs, file] = args else {
        eprintln!("usage: spec-tests conform LOGS FILE");
        return ExitCode::from(2);
    };
    match document(Path::new(logs), Path::new(file)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("spec-tests conform: {error}");
            ExitCode::from(2)
        }
    }
}

fn document(dir: &Path, file: &Path) -> Result<bool, String> {
    let logs = logs::read(dir);
    let suite = oci::read(dir);
    let old = fs::read_to_string(file).unwrap_or_default();
    let cases = if logs.is_empty() { kept(&old, "cases") } else { cases(&logs) };
    let oci = if suite.is_empty() { kept(&old, "oci") } else { oci::section(&suite) };
    let mut text = String::from("# Conformance\n\n");
    text += "Written by `make conformance` and `make oci-validation`; do not edit. ";
    text += "What the words mean stands in spec-tests/README.md.\n\n";
    for (name, section) in [("cases", cases), ("oci", oci)] {
        let _ = write!(text, "<!-- {name} -->\n{}\n<!-- end of {name} -->\n\n", section.trim_end());
    }
    fs::write(file, text.trim_end().to_owned() + "\n").map_err(|e| format!("{}: {e}", file.display()))?;
    print!("{}", sums(&logs));
    let failed = logs.iter().any(|log| log.count(None).failed > 0);
    Ok(!failed && oci::holds(&suite))
}

/// A half of the document as it was.
fn kept(old: &str, name: &str) -> String {
    let begin = format!("<!-- {name} -->\n");
    let end = format!("\n<!-- end of {name} -->");
    let half = old.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    half.map_or_else(|| "Not run.".to_owned(), |(half, _)| half.to_owned())
}

fn cases(logs: &[Log]) -> String {
    let mut text = String::from("## Sums\n\n");
    text += "Cases passed in each environment; in brackets those that a peer is known to fail, with the reason below.\n\n";
    text += &sums(logs);
    text += "\n";
    for (name, what) in ENVIRONMENTS.iter().filter(|(name, _)| logs.iter().any(|log| log.env == *name)) {
        let _ = write!(text, "## {name}: {what}\n\n{}\n", chapters(logs, name));
    }
    text += &failures(logs);
    text += &differences(logs);
    let _ = writeln!(text, "{OURS}");
    text += &not_run(logs);
    text += &limits(logs);
    text
}

/// Environment × runtime.
fn sums(logs: &[Log]) -> String {
    let mut text = head("environment", logs);
    for (env, _) in ENVIRONMENTS {
        let row = RUNTIMES.map(|runtime| {
            let log = logs.iter().find(|log| log.env == env && log.runtime == runtime);
            log.map_or_else(|| "not run".to_owned(), |log| log.count(None).to_string())
        });
        let _ = writeln!(text, "| {env} | {} |", row.join(" | "));
    }
    text
}

fn head(first: &str, logs: &[Log]) -> String {
    let title = |runtime: &str| {
        let version = logs.iter().find(|log| log.runtime == runtime).map_or("", |log| log.version.as_str());
        format!("{runtime} {version}").trim_end().to_owned()
    };
    format!("| {first} | {} |\n|---|---|---|---|\n", RUNTIMES.map(title).join(" | "))
}

/// Chapter × runtime in one environment.
fn chapters(logs: &[Log], env: &str) -> String {
    let mut names: Vec<String> = Vec::new();
    for case in crate::cases::all() {
        let chapter = logs::chapter(&case.name).to_owned();
        if !names.contains(&chapter) {
            names.push(chapter);
        }
    }
    let mut text = head("chapter", logs);
    for name in names {
        let row = RUNTIMES.map(|runtime| {
            let log = logs.iter().find(|log| log.env == env && log.runtime == runtime);
            log.map_or_else(|| "not run".to_owned(), |log| log.count(Some(&name)).to_string())
        });
        let _ = writeln!(text, "| {name} | {} |", row.join(" | "));
    }
    text
}

/// What failed without a reason: there should be none.
fn failures(logs: &[Log]) -> String {
    let mut text = String::new();
    for log in logs {
        for (name, reason) in log.with(|outcome| matches!(outcome, Outcome::Failed)) {
            let reason: String = reason.chars().take(300).collect();
            let _ = writeln!(text, "- {} on {}: {name}: {reason}", log.runtime, log.env);
        }
    }
    if text.is_empty() { text } else { format!("## Failed\n\n{text}\n") }
}

/// Each peer's known differences, and where they were seen if not everywhere.
fn differences(logs: &[Log]) -> String {
    let mut text = String::from("## Where the peers differ\n\n");
    text += "Each of these cases was run and failed, as it must: one that passes is a failure of the list. a1 to a26 and the\n";
    text += "other short names are rows of the table of features that Corten is built after.\n\n";
    for runtime in RUNTIMES {
        let of = |log: &&Log| log.runtime == runtime;
        let ran: BTreeSet<&str> = logs.iter().filter(of).map(|log| log.env.as_str()).collect();
        let mut seen: BTreeMap<usize, (String, String, BTreeSet<&str>)> = BTreeMap::new();
        for log in logs.iter().filter(of) {
            for (name, reason) in log.with(|outcome| matches!(outcome, Outcome::Differs)) {
                let entry = seen
                    .entry(logs::position(name))
                    .or_insert_with(|| (name.to_owned(), reason.to_owned(), BTreeSet::new()));
                entry.2.insert(&log.env);
            }
        }
        if !seen.is_empty() {
            let _ = writeln!(text, "### {runtime}\n");
        }
        for (name, reason, envs) in seen.values() {
            let places = if *envs == ran { String::new() } else { format!(" ({})", ordered(envs)) };
            let _ = writeln!(text, "- {name}: {reason}{places}");
        }
        text += if seen.is_empty() { "" } else { "\n" };
    }
    text
}

/// Environments in the document's order.
fn ordered(envs: &BTreeSet<&str>) -> String {
    let names: Vec<_> =
        ENVIRONMENTS.iter().map(|(name, _)| *name).filter(|name| envs.contains(name)).collect();
    names.join(", ")
}

/// Reasons for which cases were not run, each with its cases and environments; Corten's runs speak for all.
fn not_run(logs: &[Log]) -> String {
    let mut text = String::from("## Not run\n\n");
    for (env, what) in ENVIRONMENTS {
        let Some(log) = logs.iter().find(|log| log.env == env && log.runtime == RUNTIMES[0]) else {
            let _ = writeln!(text, "- {env} ({what}): nothing was run");
            continue;
        };
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, reason) in log.with(|outcome| matches!(outcome, Outcome::NotRun)) {
            reasons.entry(reason).or_default().push(name);
        }
        for (reason, names) in reasons {
            let _ = writeln!(text, "- {env}: {reason}: {}", shortened(&names));
        }
    }
    text + "\n"
}

/// The names, or how many of a chapter when there are many.
fn shortened(names: &[&str]) -> String {
    if names.len() <= 6 {
        return names.join(", ");
    }
    let mut chapters: BTreeMap<&str, usize> = BTreeMap::new();
    names.iter().for_each(|name| *chapters.entry(logs::chapter(name)).or_default() += 1);
    let counts: Vec<_> = chapters.iter().map(|(name, count)| format!("{count} of {name}")).collect();
    counts.join(", ")
}

/// Limit × driver, from lines `LIMIT limit driver words…` that cases print.
fn limits(logs: &[Log]) -> String {
    let mut rows: Vec<&str> = Vec::new();
    let mut columns: BTreeSet<&str> = BTreeSet::new();
    let mut cells: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for line in logs.iter().filter(|log| log.runtime == RUNTIMES[0]).flat_map(|log| &log.limits) {
        let mut words = line.splitn(3, ' ');
        let (Some(limit), Some(driver)) = (words.next(), words.next()) else { continue };
        if !rows.contains(&limit) {
            rows.push(limit);
        }
        columns.insert(driver);
        cells.insert((limit, driver), words.next().unwrap_or("yes"));
    }
    if rows.is_empty() {
        return String::new();
    }
    let names: Vec<_> = columns.iter().copied().collect();
    let mut text = format!(
        "## Limits by driver\n\n| limit | {} |\n|---{}|\n",
        names.join(" | "),
        "|---".repeat(names.len())
    );
    for row in rows {
        let cells: Vec<_> =
            names.iter().map(|driver| *cells.get(&(row, driver)).unwrap_or(&"not run")).collect();
        let _ = writeln!(text, "| {row} | {} |", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(runtime: &str, env: &str, lines: &str) -> Log {
        Log::parse(runtime, env, lines)
    }

    #[test]
    fn a_case_is_told_once_with_its_places() {
        let name = &crate::cases::all()[0].name;
        let line = format!("DIFFERS {name}: a1: of course\n");
        let logs = [log("runc", "uml", &line), log("runc", "native-v1", &line)];
        assert!(differences(&logs).contains(&format!("- {name}: a1: of course\n")));
        let logs = [log("runc", "uml", &line), log("runc", "native-v1", "")];
        assert!(differences(&logs).contains(&format!("- {name}: a1: of course (uml)\n")));
    }

    #[test]
    fn limits_are_a_table_and_nothing_without_lines() {
        assert_eq!(limits(&[log("corten", "uml", "PASS a/b\n")]), "");
        let logs = [
            log("corten", "uml", "LIMIT memory.limit v2 yes\nLIMIT pids.limit v2\n"),
            log("corten", "native-v1", "LIMIT memory.limit v1 no such file\n"),
        ];
        let table = limits(&logs);
        assert!(table.contains("| memory.limit | no such file | yes |\n"), "{table}");
        assert!(table.contains("| pids.limit | not run | yes |\n"), "{table}");
    }

    #[test]
    fn a_half_without_logs_stays() {
        assert_eq!(kept("x\n<!-- oci -->\nold\ntext\n<!-- end of oci -->\n", "oci"), "old\ntext");
        assert_eq!(kept("", "oci"), "Not run.");
    }
}
