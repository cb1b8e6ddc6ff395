// SPDX-License-Identifier: Apache-2.0
//! Keys that a TOML file is to have, and the lines that give it them: into the table that is there, or a new one at the end; for
//! a line that says otherwise where that may be, never into what only its author can tell apart. Pure.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::blocks::{self, TomlEdit};
use crate::doctor::toml::{self, TomlEntry, TomlValue};

/// A key and what it is to be.
#[derive(Debug, Clone)]
pub(super) struct TomlPut {
    /// The names of its table; none for a key at the top of the file, which only a new file gets.
    pub(super) table: Vec<String>,
    pub(super) key: &'static str,
    pub(super) value: TomlValue,
    /// A line that says otherwise is taken out of use.
    pub(super) replace: bool,
}

/// A value as it is written.
fn written(value: &TomlValue) -> String {
    let quoted = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    match value {
        TomlValue::Text(text) => quoted(text),
        TomlValue::Bare(bare) => bare.clone(),
        TomlValue::List(all) => format!("[{}]", all.iter().map(quoted).collect::<Vec<_>>().join(", ")),
    }
}

/// A table's name as it is written.
pub(super) fn header(table: &[String]) -> String {
    let bare = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let name = |name: &String| if bare(name) { name.clone() } else { format!("\"{name}\"") };
    format!("[{}]", table.iter().map(name).collect::<Vec<_>>().join("."))
}

impl TomlPut {
    pub(super) fn line(&self) -> String {
        format!("{} = {}", self.key, written(&self.value))
    }

    /// For who has to do it by hand.
    fn by_hand(&self, what: &str) -> String {
        let table = if self.table.is_empty() { String::new() } else { header(&self.table) + " " };
        format!("{what}; to be said by hand: {table}{}", self.line())
    }
}

/// The number of the line at a place.
pub(super) fn line_number(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// The line around a place, without its end.
fn line_at(text: &str, at: usize) -> Range<usize> {
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
    let rest = text.get(start..).unwrap_or_default();
    let line = rest.split('\n').next().unwrap_or_default();
    start..start + line.trim_end_matches('\r').len()
}

/// The edits that give a file these keys; those that it has need none.
///
/// # Errors
/// What is in the way, and what is to be said by hand.
pub(super) fn edits(base: Option<&str>, puts: &[TomlPut]) -> Result<Vec<TomlEdit>, String> {
    let text = base.unwrap_or_default();
    let entries = toml::read(text)?;
    let (mut edits, mut appended): (Vec<TomlEdit>, Vec<String>) = (Vec::new(), Vec::new());
    let mut open: Option<&[String]> = None;
    for put in puts {
        if let Some(there) = existing(&entries, put) {
            if there.value != put.value || there.inline.is_some() {
                edits.extend(replacement(text, &entries, there, put)?);
            }
            continue;
        }
        if let Some(at) = put.table_in(text, &entries)? {
            match edits
                .iter_mut()
                .find(|edit| matches!(edit, TomlEdit::Insert { at: other, .. } if *other == at))
            {
                Some(TomlEdit::Insert { lines, .. }) => lines.push(put.line()),
                _ => edits.push(TomlEdit::Insert { at, lines: vec![put.line()] }),
            }
            continue;
        }
        if put.table.is_empty() {
            appended.insert(0, put.line());
            continue;
        }
        if open != Some(&put.table) {
            if !appended.is_empty() {
                appended.push(String::new());
            }
            appended.push(header(&put.table));
            open = Some(&put.table);
        }
        appended.push(put.line());
    }
    if !appended.is_empty() {
        edits.push(TomlEdit::Append { lines: appended });
    }
    Ok(edits)
}

fn existing<'a>(entries: &'a [TomlEntry], put: &TomlPut) -> Option<&'a TomlEntry> {
    let is = |entry: &&TomlEntry| {
        entry
            .path
            .strip_prefix(put.table.as_slice())
            .is_some_and(|rest| rest.first().is_some_and(|key| key == put.key))
    };
    entries.iter().find(is)
}

/// For a line that has this key and nothing else, if it may be replaced; none where it says the same.
fn replacement(
    text: &str,
    entries: &[TomlEntry],
    there: &TomlEntry,
    put: &TomlPut,
) -> Result<Option<TomlEdit>, String> {
    let line = line_at(text, there.at.start);
    let in_line = |entry: &&TomlEntry| entry.at.start <= line.end && entry.at.end > line.start;
    let alone = line.contains(&there.at.end.saturating_sub(1)) && entries.iter().filter(in_line).count() == 1;
    match there.path.len() == put.table.len() + 1 {
        true if there.value == put.value => Ok(None),
        true if put.replace && alone && there.inline.is_none() => {
            let before = text.get(line.start..there.at.start).unwrap_or_default();
            let key = text.get(there.at.start..there.at.end).unwrap_or_default();
            // A key with dots before it stays one.
            let key = key.split('=').next().unwrap_or_default().trim_end();
            let with = format!("{before}{key} = {}", written(&put.value));
            Ok(Some(TomlEdit::Replace { line, with }))
        }
        _ => Err(put.by_hand(&format!("line {} says otherwise", line_number(text, there.at.start)))),
    }
}

impl TomlPut {
    /// Where a line of the table's may be inserted, if there is such a table.
    fn table_in(&self, text: &str, entries: &[TomlEntry]) -> Result<Option<usize>, String> {
        let line = |entry: &TomlEntry| line_number(text, entry.at.start);
        let within = |entry: &&TomlEntry| {
            let inline = entry.inline.and_then(|length| entry.path.get(..length));
            inline.is_some_and(|inline| self.table.starts_with(inline))
        };
        if let Some(entry) = entries.iter().find(within) {
            return Err(self.by_hand(&format!("line {} has an inline table", line(entry))));
        }
        if self.table.is_empty() {
            return Ok(None);
        }
        let of_table =
            |entry: &&TomlEntry| entry.path.split_last().is_some_and(|(_, table)| table == self.table);
        let Some(first) = entries.iter().find(of_table) else { return Ok(None) };
        let opening = text.get(first.at.clone()).unwrap_or_default();
        if !opening.starts_with('[') || opening.starts_with("[[") {
            return Err(
                self.by_hand(&format!("line {} has a table without a header of its own", line(first)))
            );
        }
        let end = line_at(text, first.at.start).end;
        let rest = text.get(end..).unwrap_or_default();
        Ok(Some(rest.find('\n').map_or(text.len(), |at| end + at + 1)))
    }
}

/// Whether two texts say the same but for what stands in the blocks of the first, and what is `restored` in the second.
///
/// # Errors
/// What is not the same, or cannot be read.
pub(super) fn same_outside(with: &str, without: &str, restored: &[Range<usize>]) -> Result<(), String> {
    let spans: Vec<_> = blocks::find(with)?.into_iter().map(|block| block.span).collect();
    let outside = |text: &str, spans: &[Range<usize>]| {
        let mut entries = toml::read(text)?;
        entries.retain(|entry| !spans.iter().any(|span| span.contains(&entry.at.start)));
        Ok::<_, String>(entries)
    };
    let (with, rest) = (outside(with, &spans)?, outside(without, restored)?);
    let same = |(one, other): (&TomlEntry, &TomlEntry)| one.path == other.path && one.value == other.value;
    if with.len() == rest.len() && with.iter().zip(&rest).all(same) {
        return Ok(());
    }
    let other =
        rest.iter().zip(&with).find(|pair| !same((pair.0, pair.1))).map(|(_, entry)| entry.path.join("."));
    Err(format!(
        "{} stands in a table of corten setup's: take it out by hand first",
        other.unwrap_or_else(|| "a key".into())
    ))
}
