// SPDX-License-Identifier: Apache-2.0
//! `doctor` (compatibility S19).

use std::fmt::Write;
use std::io::IsTerminal;

use corten::doctor::{self, Cleaned, Health, HostCheck, Signs};
use corten::features::VERSION;
use serde::Serialize;

use super::command::{Arity, Outcome, Session, Verb};
use super::{failure, output};

/// check what this host has of all that containers need
///
/// Looks at the kernel, control groups, user namespaces, security modules, file systems, programs, engines'
/// configurations and what dead containers have left, as root or as a user, and changes nothing. Each line is ok, note
/// (who asks for it misses it), warn, FAIL, or ? (not checked, and why), with a line of advice where there is one. The
/// exit code is 1 if something failed, else 0. docs/doctor.md explains every check.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct DoctorCommand {
    /// print JSON
    #[arg(long)]
    json: bool,
    /// remove what dead containers and shims have left, as `delete` does; nothing that runs is touched
    #[arg(long)]
    clean: bool,
    /// print only what is not ok
    #[arg(long, short)]
    quiet: bool,
}

impl Verb for DoctorCommand {
    const NAME: &'static str = "doctor";
    const USAGE: &'static str = "[command options]";
    const ARITY: Arity = Arity::exactly(0);

    fn run(self, session: &Session<'_>) -> Outcome {
        let root = &session.home.root;
        let mut signs = Signs::look(root)?;
        let mut cleaned = Vec::new();
        if self.clean {
            cleaned = doctor::clean(signs.leftovers(), session.home.warn);
            // What is there after it is what is told.
            signs = Signs::look(root)?;
        }
        let mut checks = doctor::examine(&signs);
        let worst = doctor::worst(&checks);
        checks.retain(|check| !self.quiet || check.health != Health::Ok);
        match self.json {
            true => output::print_json_indented(&document(&checks, worst, &cleaned), "  ")?,
            false => output::print(&text(&checks, &cleaned, std::io::stdout().is_terminal()))?,
        }
        let failed = worst == Health::Fail || cleaned.iter().any(|(_, done)| done.is_err());
        Ok(if failed { failure::ERROR } else { 0 })
    }
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    result: Health,
    checks: &'a [HostCheck],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cleaned: Vec<CleanedItem<'a>>,
}

#[derive(Serialize)]
struct CleanedItem<'a> {
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn document<'a>(checks: &'a [HostCheck], result: Health, cleaned: &'a [Cleaned]) -> Document<'a> {
    let item =
        |(what, done): &'a Cleaned| CleanedItem { what, error: done.as_ref().err().map(ToString::to_string) };
    Document { version: VERSION, result, checks, cleaned: cleaned.iter().map(item).collect() }
}

/// The word for it, and its colour on a terminal (ECMA-48).
fn word(health: Health) -> (&'static str, &'static str) {
    match health {
        Health::Ok => ("ok", "\x1b[32m"),
        Health::Note => ("note", "\x1b[36m"),
        Health::Unknown => ("?", "\x1b[2m"),
        Health::Warn => ("warn", "\x1b[33m"),
        Health::Fail => ("FAIL", "\x1b[1;31m"),
    }
}

/// A group's name, then a line for each of its checks, below it one with what to do and what is lost.
fn text(checks: &[HostCheck], cleaned: &[Cleaned], colours: bool) -> String {
    let name = |check: &HostCheck| {
        let name = check.id.split_once('.').map_or(check.id, |(_, name)| name);
        check.subject.as_ref().map_or(name.to_owned(), |subject| format!("{name} {subject}"))
    };
    let mut text = String::new();
    for (what, done) in cleaned {
        // Writing to a String cannot fail.
        let _ = match done {
            Ok(()) => writeln!(text, "removed {what}"),
            Err(error) => writeln!(text, "not removed: {what}: {error}"),
        };
    }
    let mut group = "";
    for check in checks {
        if check.group() != group {
            group = check.group();
            let _ = writeln!(text, "{}{group}", if text.is_empty() { "" } else { "\n" });
        }
        let (word, colour) = word(check.health);
        let (on, off) = if colours { (colour, "\x1b[0m") } else { ("", "") };
        let _ = writeln!(text, "  {on}{word:<4}{off}  {:<22} {}", name(check), one_line(&check.found));
        if check.health != Health::Ok && !check.advice.is_empty() {
            let lost = if check.loses { format!(" (lost: {})", check.lost) } else { String::new() };
            let _ = writeln!(text, "        -> {}{lost}", one_line(&check.advice));
        }
    }
    let count = |health| checks.iter().filter(|check| check.health == health).count();
    let counted = [Health::Fail, Health::Warn, Health::Note, Health::Unknown, Health::Ok]
        .map(|health| (word(health).0, count(health)))
        .into_iter()
        .filter(|(_, count)| *count > 0);
    let counted = counted.map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "\n{counted}");
    text
}

/// What programs and files say of themselves is not to speak to a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_a_line_for_each_and_advice_below() {
        let check = |id, subject: Option<&str>, health, found: &str, advice: &str| HostCheck {
            id,
            subject: subject.map(str::to_owned),
            health,
            found: found.to_owned(),
            since: None,
            lost: "much",
            advice: advice.to_owned(),
            loses: health == Health::Warn,
        };
        let all = [
            check("kernel.clone3", None, Health::Ok, "Linux 5.3", ""),
            check("files.idmap", Some("/tmp"), Health::Warn, "tmpfs:\x1b[2J", "do"),
            check("files.root", None, Health::Unknown, "why", ""),
        ];
        let cleaned = [("container /r/c".to_owned(), Ok(()))];
        assert_eq!(
            text(&all, &cleaned, false),
            "removed container /r/c\n\nkernel\n  ok    clone3                 Linux 5.3\n\nfiles\n  warn  idmap /tmp             tmpfs: [2J\n        \
             -> do (lost: much)\n  ?     root                   why\n\n1 warn, 1 ?, 1 ok\n"
        );
        assert!(text(&all, &[], true).contains("\x1b[33mwarn\x1b[0m"));
        let json = serde_json::to_value(document(&all, Health::Warn, &cleaned)).unwrap();
        assert_eq!((&json["result"], &json["checks"][1]["subject"]), (&"warn".into(), &"/tmp".into()));
        assert_eq!(json["cleaned"][0]["what"], "container /r/c");
    }
}
