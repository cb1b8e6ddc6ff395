// SPDX-License-Identifier: Apache-2.0
//! docs/differences.md: the differences that are known, each with who is right and why.
//!
//! A row is a section; its block of the kind `json twins` says what it matches:
//!
//! | key | is |
//! |---|---|
//! | `field` | the field, as the comparison names it; `*` stands for anything |
//! | `ours`, `theirs` | the values, with `*`, and `\|` between alternatives |
//! | `peers`, `envs` | where it holds: names with `*` and `\|`; everywhere when absent |
//! | `when` | what must be so: JSON pointers into `{config, caller, steps, things}`, and values as above; `*` is any that is there, `absent` none |
//! | `without` | a path that the machine must not have for the row to hold |
//! | `at_times` | true for a race inside a peer: the witness need not show it |
//! | `witness` | a plan that shows this difference, and no other that is not a row |
//!
//! Witnesses are performed in every run, so that a row whose difference is gone is found, whatever the seed is.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::compare::Difference;

/// One known difference.
#[derive(Debug, Clone)]
pub struct Row<P> {
    /// The section's title.
    pub name: String,
    pub says: Says<P>,
}

/// What a row's block says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Says<P> {
    pub field: String,
    pub ours: String,
    pub theirs: String,
    #[serde(default = "anything")]
    pub peers: String,
    #[serde(default = "anything")]
    pub envs: String,
    #[serde(default)]
    pub when: BTreeMap<String, String>,
    /// It holds only where the machine has nothing at this path.
    #[serde(default)]
    pub without: Option<PathBuf>,
    /// A race inside the peer: the witness need not show it every time.
    #[serde(default)]
    pub at_times: bool,
    pub witness: P,
}

fn anything() -> String {
    "*".to_owned()
}

impl<P> Row<P> {
    /// Whether it may show in this environment beside this peer.
    pub fn holds_for(&self, peer: &str, env: &str) -> bool {
        let has = |path: &PathBuf| path.exists();
        matches(&self.says.peers, peer)
            && matches(&self.says.envs, env)
            && !self.says.without.as_ref().is_some_and(has)
    }

    /// Whether it speaks of some environments only, or of machines that lack something.
    pub fn is_of_some(&self) -> bool {
        self.says.envs != anything() || self.says.without.is_some()
    }

    /// Whether this is the difference it speaks of. `facts` are those of the plan that shows it.
    pub fn explains(&self, difference: &Difference, facts: &Value) -> bool {
        let holds = |(pointer, value): (&String, &String)| match facts.pointer(pointer) {
            Some(fact) => matches(value, &fact.to_string()),
            // A star is for what is there.
            None => value.split('|').any(|one| one == "absent"),
        };
        matches(&self.says.field, &difference.field)
            && matches(&self.says.ours, &difference.ours)
            && matches(&self.says.theirs, &difference.theirs)
            && self.says.when.iter().all(holds)
    }
}

/// Reads the rows whose blocks are of this kind: `twins`, or `shims`.
pub fn read<P: DeserializeOwned>(file: &Path, kind: &str) -> Result<Vec<Row<P>>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    parse(&text, kind).map_err(|e| format!("{}: {e}", file.display()))
}

fn parse<P: DeserializeOwned>(text: &str, kind: &str) -> Result<Vec<Row<P>>, String> {
    let begin = format!("```json {kind}");
    let mut rows = Vec::new();
    let mut name = "";
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (&mut block, line) {
            (None, line) if line == begin => block = Some(String::new()),
            (None, _) => name = line.strip_prefix("## ").unwrap_or(name),
            (Some(json), "```") => {
                let says = serde_json::from_str(json).map_err(|e| format!("{name:?}: {e}"))?;
                rows.push(Row { name: name.to_owned(), says });
                block = None;
            }
            (Some(json), line) => {
                json.push_str(line);
                json.push('\n');
            }
        }
    }
    Ok(rows)
}

/// Whether `text` is like `pattern`: `*` stands for anything, `|` parts alternatives.
fn matches(pattern: &str, text: &str) -> bool {
    pattern.split('|').any(|one| is_like(one.as_bytes(), text.as_bytes()))
}

fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skipped| is_like(rest, &text[skipped..])),
        (Some((one, rest)), Some((first, after))) => one == first && is_like(rest, after),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::twins::plan::Plan;

    #[test]
    fn patterns_have_stars_and_bars() {
        assert!(matches("*/report/uid", "run/report/uid"));
        assert!(matches("a|b*", "bcd"));
        assert!(!matches("a|b", "bc"));
        assert!(matches("*x*y", "axbxy"));
    }

    #[test]
    fn a_row_matches_its_difference_only() {
        let text = "# T\n## A name\nwords\n```json twins\n{\"field\": \"*/uid\", \"ours\": \"[0]\", \"theirs\": \"*\",\n\"when\": {\"/config/a\": \"1\"}, \"witness\": {}}\n```\n";
        let rows = parse::<Plan>(text, "twins").unwrap();
        assert_eq!(rows[0].name, "A name");
        let mut difference = Difference { field: "run/uid".into(), ours: "[0]".into(), theirs: "[1]".into() };
        assert!(rows[0].explains(&difference, &json!({"config": {"a": 1}})));
        assert!(!rows[0].explains(&difference, &json!({"config": {"a": 2}})));
        difference.ours = "[5]".into();
        assert!(!rows[0].explains(&difference, &json!({"config": {"a": 1}})));
    }

    #[test]
    fn a_star_is_for_what_is_there() {
        let holds = |when: &str, facts: Value| {
            let text = format!(
                "## A\n```json twins\n{{\"field\": \"a\", \"ours\": \"*\", \"theirs\": \"*\", \"when\": {{\"/b\": \"{when}\"}}, \"witness\": {{}}}}\n```\n"
            );
            let row = parse::<Plan>(&text, "twins").unwrap().remove(0);
            row.explains(&Difference { field: "a".into(), ours: "1".into(), theirs: "2".into() }, &facts)
        };
        assert!(holds("*", json!({"b": 1})) && !holds("*", json!({})));
        assert!(holds("absent", json!({})) && !holds("absent", json!({"b": 1})));
        assert!(holds("1|absent", json!({})) && holds("1|absent", json!({"b": 1})));
    }

    #[test]
    fn a_row_may_hold_on_some_machines_only() {
        let row = |more: &str| {
            let text = format!(
                "## A\n```json twins\n{{\"field\": \"a\", \"ours\": \"*\", \"theirs\": \"*\"{more}, \"witness\": {{}}}}\n```\n"
            );
            parse::<Plan>(&text, "twins").unwrap().remove(0)
        };
        let everywhere = row("");
        assert!(everywhere.holds_for("runc", "uml") && !everywhere.is_of_some());
        let here = row(", \"envs\": \"uml*\"");
        assert!(
            here.holds_for("runc", "uml-systemd")
                && !here.holds_for("runc", "native-v2")
                && here.is_of_some()
        );
        let elsewhere = row(", \"without\": \"/proc/self\"");
        assert!(!elsewhere.holds_for("runc", "uml") && elsewhere.is_of_some());
        assert!(row(", \"without\": \"/proc/nothing\"").holds_for("runc", "uml"));
    }

    #[test]
    fn the_rows_of_the_document_can_be_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md");
        let rows = read::<Plan>(&file, "twins").unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        for row in &rows {
            let section = text.split("\n## ").find(|part| part.starts_with(&row.name)).unwrap_or_default();
            for word in ["Right: ", "Source: "] {
                assert!(section.contains(word), "{}: does not say \"{word}\"", row.name);
            }
            assert_ne!(row.says.field, "*", "{}: matches every field", row.name);
        }
    }
}
