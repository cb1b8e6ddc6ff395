// SPDX-License-Identifier: Apache-2.0
//! Lines of setup's own in a TOML file, between two marks. The first mark tells by a sum of what stands between them whether that
//! is as setup wrote it, and how the lines came to their place; so a file becomes again, byte for byte, what it was, whatever
//! was written elsewhere in it meanwhile. Pure: what the lines are is decided by `puts.rs`.

#![forbid(unsafe_code)]

use std::ops::Range;

const BEGIN: &str = "# corten setup: begin ";
const END: &str = "# corten setup: end";
/// The file was not there: without these lines it goes, too.
const OWN_FILE: &str = ", a file of its own";
/// What stood before had no line end at the end of the file.
const NO_END: &str = ", after a line without an end";
/// The first line between the marks is one that was taken out of use.
const INSTEAD: &str = ", instead of the next line";

/// Something to be written into a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TomlEdit {
    /// At the end.
    Append { lines: Vec<String> },
    /// Where a line begins.
    Insert { at: usize, lines: Vec<String> },
    /// For a whole line, without its end, which stays as a comment.
    Replace { line: Range<usize>, with: String },
}

/// A block as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetupBlock {
    /// Both marks with their line ends.
    pub(super) span: Range<usize>,
    /// What stands between them, with `\n` at the ends.
    pub(super) body: String,
    own_file: bool,
    no_end: bool,
    instead: bool,
}

/// What a file is without the blocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TakenOut {
    /// Nothing where the file was setup's own.
    pub(super) text: Option<String>,
    /// Where lines are in use again.
    pub(super) restored: Vec<Range<usize>>,
}

/// FNV-1a, 32 bits: enough to tell that somebody has edited between the marks.
fn sum(body: &str) -> u32 {
    body.bytes().fold(0x811C_9DC5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Lines with their ends, and where they begin.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    })
}

/// The blocks of a file, in order.
///
/// # Errors
/// The line of one that does not end, or is not as setup wrote it.
pub(super) fn find(text: &str) -> Result<Vec<SetupBlock>, String> {
    let (mut found, mut open) = (Vec::new(), None);
    for (number, (at, line)) in lines(text).enumerate() {
        let bare = line.trim_end_matches(['\n', '\r']);
        match open.take() {
            None => {
                open = bare.strip_prefix(BEGIN).map(|mark| (at, number + 1, mark, String::new()));
            }
            Some((start, first, mark, body)) if bare == END => {
                let (wanted, how) = mark.split_at(mark.find(',').unwrap_or(mark.len()));
                if wanted != format!("{:08x}", sum(&body)) {
                    return Err(format!(
                        "line {first}: between the marks of corten setup it is not as that wrote it: set it right by hand"
                    ));
                }
                let is = |flag: &str| how.contains(flag);
                let (own_file, no_end, instead) = (is(OWN_FILE), is(NO_END), is(INSTEAD));
                let span = start..at + line.len();
                found.push(SetupBlock { span, body, own_file, no_end, instead });
            }
            Some((start, first, mark, body)) => open = Some((start, first, mark, body + bare + "\n")),
        }
    }
    match open {
        Some((_, first, ..)) => Err(format!("line {first}: a mark of corten setup without its end")),
        None => Ok(found),
    }
}

/// The file with the edits, each in a block of its own. `None` is one that is not there.
pub(super) fn apply(base: Option<&str>, edits: &[TomlEdit]) -> String {
    let mut text = base.unwrap_or_default().to_owned();
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let block = |body: &[String], how: &str| {
        let sum = sum(&body.iter().map(|line| format!("{line}\n")).collect::<String>());
        let first = [format!("{BEGIN}{sum:08x}{how}")];
        let lines = first.iter().map(String::as_str).chain(body.iter().map(String::as_str)).chain([END]);
        lines.map(|line| format!("{line}{end}")).collect::<String>()
    };
    // Of a line and what comes before it, the line is the later one.
    let place = |edit: &TomlEdit| match edit {
        TomlEdit::Append { .. } => (usize::MAX, false),
        TomlEdit::Insert { at, .. } => (*at, false),
        TomlEdit::Replace { line, .. } => (line.start, true),
    };
    let mut ordered = at_the_end_as_one(&text, edits);
    ordered.sort_by_key(&place);
    // From the end, so that what stands before stays where it is.
    for edit in ordered.iter().rev() {
        match edit {
            TomlEdit::Append { lines } if base.is_none() => text = block(lines, OWN_FILE),
            TomlEdit::Append { lines } if text.is_empty() || text.ends_with('\n') => {
                text += &block(lines, "")
            }
            TomlEdit::Append { lines } => text = format!("{text}{end}{}", block(lines, NO_END)),
            TomlEdit::Insert { at, lines } => text.insert_str(*at, &block(lines, "")),
            TomlEdit::Replace { line, with } => {
                let rest = text.get(line.end..).unwrap_or_default();
                let ended = rest.find('\n').map(|at| line.end + at + 1);
                let old = text.get(line.clone()).unwrap_or_default();
                let how = if ended.is_some() { INSTEAD.to_owned() } else { format!("{INSTEAD}{NO_END}") };
                let new = block(&[format!("#{old}"), with.clone()], &how);
                text.replace_range(line.start..ended.unwrap_or(text.len()), &new);
            }
        }
    }
    text
}

/// Where the last line is a table's header without a line end, what is to come into that table and what is to come after it
/// are one block.
fn at_the_end_as_one(text: &str, edits: &[TomlEdit]) -> Vec<TomlEdit> {
    let joined = |edit: &&TomlEdit| matches!(edit, TomlEdit::Insert { at, .. } if *at == text.len());
    if text.is_empty() || text.ends_with('\n') || !edits.iter().any(|edit| joined(&edit)) {
        return edits.to_vec();
    }
    let mut all: Vec<TomlEdit> =
        edits.iter().filter(|edit| matches!(edit, TomlEdit::Replace { .. })).cloned().collect();
    let mut lines = Vec::new();
    for edit in
        edits.iter().filter(joined).chain(edits.iter().filter(|edit| matches!(edit, TomlEdit::Append { .. })))
    {
        if let TomlEdit::Insert { lines: more, .. } | TomlEdit::Append { lines: more } = edit {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.extend(more.iter().cloned());
        }
    }
    all.extend(edits.iter().filter(|edit| matches!(edit, TomlEdit::Insert { .. }) && !joined(edit)).cloned());
    all.push(TomlEdit::Append { lines });
    all
}

/// What the file is without its blocks; nothing of a file that has none.
///
/// # Errors
/// As [`find`].
pub(super) fn take_out(text: &str) -> Result<Option<TakenOut>, String> {
    let blocks = find(text)?;
    if blocks.is_empty() {
        return Ok(None);
    }
    let (mut rest, mut restored, mut at) = (String::new(), Vec::new(), 0);
    let mut version = None;
    for block in &blocks {
        rest += text.get(at..block.span.start).unwrap_or_default();
        at = block.span.end;
        let last = at == text.len();
        let inside = text.get(block.span.clone()).unwrap_or_default();
        if block.instead {
            let line = inside.split_inclusive('\n').nth(1).unwrap_or_default();
            let line = line.strip_prefix('#').unwrap_or(line);
            let line = if block.no_end && last { line.trim_end_matches(['\n', '\r']) } else { line };
            restored.push(rest.len()..rest.len() + line.len());
            rest += line;
        } else if block.no_end && last {
            let end = if inside.contains("\r\n") { "\r\n" } else { "\n" };
            rest.truncate(rest.strip_suffix(end).map_or(rest.len(), str::len));
        }
        version = version.or(inside.split_inclusive('\n').find(|line| line.starts_with("version = ")));
    }
    rest += text.get(at..).unwrap_or_default();
    // What somebody has added meanwhile is of the version that the file has.
    let says = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    if let Some(version) = version.filter(|_| rest.lines().any(says)) {
        rest.insert_str(0, version);
        restored.iter_mut().for_each(|range: &mut Range<usize>| {
            *range = range.start + version.len()..range.end + version.len();
        });
        restored.push(0..version.len());
    }
    let own_file = blocks.iter().any(|block| block.own_file);
    let text = (!own_file || !rest.is_empty()).then_some(rest);
    Ok(Some(TakenOut { text, restored }))
}
