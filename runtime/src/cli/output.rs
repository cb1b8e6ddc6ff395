// SPDX-License-Identifier: Apache-2.0
//! What a call prints: once, as a whole, with an end of its own when nobody reads it.

use std::io::{ErrorKind, Write};

use super::failure::Failure;

/// The exit code a shell shows for a program that SIGPIPE ended. Rust's runtime ignores that signal, so a reader
/// that goes away (`corten list | head -1`) is seen as EPIPE.
pub const SIGPIPE_CODE: u8 = 128 + 13;

/// Writes `text` to stdout.
///
/// # Errors
/// [`Failure::BrokenPipe`] when the reader went away, otherwise the failed write.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::BrokenPipe,
        _ => Failure::from(corten::Error::os("write(stdout)", error)),
    })
}

/// What somebody else has written, on one line: control characters are escaped.
pub fn one_line(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// `value` as JSON on one line.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(|error| Failure::new(error.to_string()))?;
    print(&(json + "\n"))
}

/// `value` as indented JSON.
///
/// # Errors
/// As [`print()`].
pub fn print_json_indented(value: &impl serde::Serialize, indent: &str) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        .map_err(|error| Failure::new(error.to_string()))?;
    bytes.push(b'\n');
    print(&String::from_utf8_lossy(&bytes))
}

/// Rows as a table: every column is as wide as its widest cell plus three, at least twelve (runc's tabwriter).
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        (widest.unwrap_or(0) + 3).max(12)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let used = cell.chars().count();
                text.extend(std::iter::repeat_n(' ', widths[column].saturating_sub(used)));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_look_like_runcs() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = table(&[row(["ID", "PID", "OWNER"]), row(["a-long-enough-id", "7", "root"])]);
        assert_eq!(text, "ID                 PID         OWNER\na-long-enough-id   7           root\n");
        assert_eq!(table(&[]), "");
    }
}
