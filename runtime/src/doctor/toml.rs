// SPDX-License-Identifier: Apache-2.0
//! TOML, as far as engines' configurations need it: every value with the whole path of its key, and where it stands. Dates and
//! numbers are kept as they are written; what two tables of an array say stands one after the other.

#![forbid(unsafe_code)]

use std::ops::Range;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TomlValue {
    Text(String),
    /// The texts in it, however deep.
    List(Vec<String>),
    /// A number, a truth value, a date.
    Bare(String),
}

/// A key and its value. A table without keys has an entry of its own, with an empty last name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TomlEntry {
    /// `[a."b.c"] d = 1`: a, b.c, d.
    pub(crate) path: Vec<String>,
    pub(crate) value: TomlValue,
    /// From its key (a table's: its bracket) to its end, in bytes.
    pub(crate) at: Range<usize>,
    /// Of its path, what an inline table or an array of such is called by: nothing else in the file may add to that.
    pub(crate) inline: Option<usize>,
}

impl TomlValue {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            TomlValue::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        *self == TomlValue::Bare("true".to_owned())
    }

    pub(crate) fn list(&self) -> &[String] {
        match self {
            TomlValue::List(all) => all,
            _ => &[],
        }
    }
}

/// How deep arrays and inline tables may nest.
const DEEPEST: u32 = 32;

/// Reads a file's text.
///
/// # Errors
/// The line and what is wrong in it.
pub(crate) fn read(text: &str) -> Result<Vec<TomlEntry>, String> {
    let mut reader = TomlReader { text, at: 0, entries: Vec::new(), within: None };
    match reader.file() {
        Ok(()) => Ok(reader.entries),
        Err(what) => {
            let line = 1 + text.as_bytes().iter().take(reader.at).filter(|byte| **byte == b'\n').count();
            Err(format!("line {line}: {what}"))
        }
    }
}

struct TomlReader<'a> {
    text: &'a str,
    at: usize,
    entries: Vec<TomlEntry>,
    /// Of the outermost inline table around here.
    within: Option<usize>,
}

type Step<T> = Result<T, &'static str>;

impl<'a> TomlReader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.rest().starts_with(word);
        self.at += if there { word.len() } else { 0 };
        there
    }

    fn expect(&mut self, word: &str, what: &'static str) -> Step<()> {
        if self.take(word) { Ok(()) } else { Err(what) }
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    /// Blanks, line ends and comments.
    fn gap(&mut self) {
        loop {
            self.at += self.rest().len() - self.rest().trim_start().len();
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn file(&mut self) -> Step<()> {
        let mut table: Vec<String> = Vec::new();
        loop {
            self.gap();
            if self.rest().is_empty() {
                return Ok(());
            }
            let start = self.at;
            if self.take("[") {
                let close = if self.take("[") { "]]" } else { "]" };
                self.blanks();
                table = self.key()?;
                self.blanks();
                self.expect(close, "a table's name does not end")?;
                let path = table.iter().cloned().chain([String::new()]).collect();
                self.entry(path, TomlValue::Bare(String::new()), start);
            } else {
                self.pair(&table, DEEPEST)?;
            }
            self.blanks();
            if !self.rest().is_empty() && !self.rest().starts_with(['\n', '\r', '#']) {
                return Err("more than one thing on a line");
            }
        }
    }

    fn pair(&mut self, table: &[String], deep: u32) -> Step<()> {
        let start = self.at;
        let mut path = table.to_vec();
        path.extend(self.key()?);
        self.blanks();
        self.expect("=", "a key without a value")?;
        self.blanks();
        if self.take("{") {
            return self.inline(&path, deep.checked_sub(1).ok_or("too deep")?);
        }
        let value = self.value(deep, &path)?;
        self.entry(path, value, start);
        Ok(())
    }

    fn entry(&mut self, path: Vec<String>, value: TomlValue, start: usize) {
        self.entries.push(TomlEntry { path, value, at: start..self.at, inline: self.within });
    }

    fn inline(&mut self, path: &[String], deep: u32) -> Step<()> {
        let around = self.within;
        self.within = around.or(Some(path.len()));
        let table = path.iter().cloned().chain([String::new()]).collect();
        self.entry(table, TomlValue::Bare(String::new()), self.at);
        loop {
            self.gap();
            if self.take("}") {
                self.within = around;
                return Ok(());
            }
            self.pair(path, deep)?;
            self.gap();
            if !self.take(",") && !self.rest().starts_with('}') {
                return Err("an inline table does not end");
            }
        }
    }

    /// `a."b.c".d`
    fn key(&mut self) -> Step<Vec<String>> {
        let mut path = Vec::new();
        loop {
            self.blanks();
            path.push(match self.rest().chars().next() {
                Some('"' | '\'') => self.string()?,
                _ => {
                    let bare = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                    let end = self.rest().find(|c| !bare(c)).unwrap_or(self.rest().len());
                    let name = self.rest().get(..end).filter(|name| !name.is_empty()).ok_or("no key")?;
                    self.at += end;
                    name.to_owned()
                }
            });
            self.blanks();
            if !self.take(".") {
                return Ok(path);
            }
        }
    }

    fn value(&mut self, deep: u32, path: &[String]) -> Step<TomlValue> {
        if self.rest().starts_with(['"', '\'']) {
            return self.string().map(TomlValue::Text);
        }
        if self.take("[") {
            return self.list(deep.checked_sub(1).ok_or("too deep")?, path).map(TomlValue::List);
        }
        let end =
            self.rest().find(|c: char| c.is_whitespace() || ",]}#".contains(c)).unwrap_or(self.rest().len());
        let bare = self.rest().get(..end).filter(|bare| !bare.is_empty()).ok_or("no value")?;
        self.at += end;
        Ok(TomlValue::Bare(bare.to_owned()))
    }

    fn list(&mut self, deep: u32, path: &[String]) -> Step<Vec<String>> {
        let mut all = Vec::new();
        loop {
            self.gap();
            if self.take("]") {
                return Ok(all);
            }
            if self.take("{") {
                self.inline(path, deep)?;
            } else {
                match self.value(deep, path)? {
                    TomlValue::Text(text) => all.push(text),
                    TomlValue::List(texts) => all.extend(texts),
                    TomlValue::Bare(_) => {}
                }
            }
            self.gap();
            if !self.take(",") && !self.rest().starts_with(']') {
                return Err("a list does not end");
            }
        }
    }

    /// The four kinds: `"a\n"`, `'a'`, and each in three quotes over several lines.
    fn string(&mut self) -> Step<String> {
        let quotes = ["\"\"\"", "'''", "\"", "'"];
        let quote = quotes.into_iter().find(|quote| self.take(quote)).ok_or("no text")?;
        let mut text = String::new();
        while !self.take(quote) {
            let c = self.rest().chars().next().ok_or("a text does not end")?;
            if c == '\n' && quote.len() == 1 {
                return Err("a text does not end");
            }
            self.at += c.len_utf8();
            if c != '\\' || quote.starts_with('\'') {
                text.push(c);
                continue;
            }
            let escaped = self.rest().chars().next().ok_or("a text does not end")?;
            self.at += escaped.len_utf8();
            match escaped {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                // No path has the others; what they mean is not lost, only not the same.
                other => text.push(other),
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_whole_path() {
        let text = "version = 3 # a comment\nimports = [\n  '/a/*.toml', # one\n  \"b\",\n]\n\n[plugins.\"io.x.v1\".runtimes.corten]\n  runtime_type = \"io.containerd.corten.v2\"\n  options = { SystemdCgroup = true, deep.er = [\"x\", { version = 1 }] }\n[empty]\r\n[[a]]\nlong = \"\"\"one\ntwo\"\"\"\n";
        let told: Vec<String> = read(text)
            .unwrap()
            .iter()
            .map(|entry| format!("{} {:?}", entry.path.join("/"), entry.value))
            .collect();
        assert_eq!(
            told,
            [
                "version Bare(\"3\")",
                "imports List([\"/a/*.toml\", \"b\"])",
                "plugins/io.x.v1/runtimes/corten/ Bare(\"\")",
                "plugins/io.x.v1/runtimes/corten/runtime_type Text(\"io.containerd.corten.v2\")",
                "plugins/io.x.v1/runtimes/corten/options/ Bare(\"\")",
                "plugins/io.x.v1/runtimes/corten/options/SystemdCgroup Bare(\"true\")",
                "plugins/io.x.v1/runtimes/corten/options/deep/er/ Bare(\"\")",
                "plugins/io.x.v1/runtimes/corten/options/deep/er/version Bare(\"1\")",
                "plugins/io.x.v1/runtimes/corten/options/deep/er List([\"x\"])",
                "empty/ Bare(\"\")",
                "a/ Bare(\"\")",
                "a/long Text(\"one\\ntwo\")",
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, what) in [
            ("\na = \"x", "line 2: a text does not end"),
            ("a\n", "line 1: a key without a value"),
            ("[a\nb = 1", "line 1: a table's name does not end"),
            ("a = [1\nb = 2", "line 2: a list does not end"),
            ("a = 1 b = 2", "line 1: more than one thing on a line"),
            ("= 1", "line 1: no key"),
            ("a =\n", "line 1: no value"),
        ] {
            assert_eq!(read(text), Err(what.to_owned()), "{text:?}");
        }
        assert!(read(&format!("a = {}", "[".repeat(100_000))).is_err());
    }

    /// Whatever stands in a file: it is read to its end, and nothing panics.
    #[test]
    fn rubbish_is_read_or_refused() {
        let words =
            ["[", "]", "{", "}", "=", ",", ".", "\n", "\"", "'", "\"\"\"", "#", "a", "é", "\\", " ", "[["];
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..50_000 {
            let mut text = String::new();
            for _ in 0..seed % 16 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push_str(words[(seed >> 33) as usize % words.len()]);
            }
            seed = seed.wrapping_add(0x9E37_79B9);
            let entries = read(&text).unwrap_or_default();
            assert!(entries.len() <= 1 + text.len(), "{text:?}");
        }
    }
}
