// SPDX-License-Identifier: Apache-2.0
//! How commits are written: `area: what` in at most 72 letters, and a body that says why (CONTRIBUTING.md).

use std::process::Command;

use super::{assert_none, root};

/// The rule holds for what comes after this one.
const SINCE: &str = "4becda09bdae17b53017e336e39ce9fdc2f404c0";
/// Letters of a subject: what `git log` and mails show in one line.
const SUBJECT_MAX: usize = 72;

fn broken_rule(subject: &str, body: &str) -> Option<&'static str> {
    let area = subject.split_once(": ").map_or("", |(area, _)| area);
    match () {
        () if subject.chars().count() > SUBJECT_MAX => Some("more than 72 letters"),
        () if area.is_empty() => Some("no `area: what`"),
        () if body.trim().is_empty() => Some("no body that says why"),
        () => None,
    }
}

#[test]
fn commits_say_what_and_why() {
    let range = format!("{SINCE}..HEAD");
    let words = ["log", "--no-merges", "--format=%h%x1f%s%x1f%b%x1e", &range];
    let output = Command::new("git").args(words).current_dir(root()).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        println!("not run: no git, or a clone whose history does not reach back to {SINCE}");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut broken = Vec::new();
    let (mut all, mut with_body) = (0, 0);
    for commit in text.split('\u{1e}').map(str::trim).filter(|commit| !commit.is_empty()) {
        let mut fields = commit.split('\u{1f}');
        let mut field = || fields.next().unwrap_or_default();
        let (hash, subject, body) = (field(), field(), field());
        all += 1;
        with_body += usize::from(!body.trim().is_empty());
        broken.extend(broken_rule(subject, body).map(|rule| format!("{hash} {subject}: {rule}")));
    }
    println!("yardstick: commits {with_body} of {all}");
    assert_none("commits are `area: what` in at most 72 letters, with a body", broken);
}

#[test]
fn subjects_are_judged() {
    let long = format!("area: {}", "x".repeat(67));
    assert_eq!(broken_rule("host: what", "why"), None);
    assert_eq!(broken_rule(&long, "why"), Some("more than 72 letters"));
    assert_eq!(broken_rule("Fix it", "why"), Some("no `area: what`"));
    assert_eq!(broken_rule("host: what", "\n"), Some("no body that says why"));
}
