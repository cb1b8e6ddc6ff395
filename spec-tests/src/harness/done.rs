// SPDX-License-Identifier: Apache-2.0
//! A finished command of the runtime, and what may be demanded of it.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::Value;

use super::case::Trouble;
use crate::check;

/// A finished command.
#[derive(Debug, Clone)]
pub struct Done {
    /// The command's words after the runtime's global options.
    pub words: String,
    /// The exit code, or 1000 + the signal that ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

type Checked<'a> = Result<&'a Done, Trouble>;

impl Done {
    /// It must have succeeded.
    pub fn ok(&self) -> Checked<'_> {
        self.exits(0)
    }

    /// It must have ended with this code.
    pub fn exits(&self, code: i32) -> Checked<'_> {
        check!(self.code == code, "{self}; expected exit code {code}");
        Ok(self)
    }

    /// It must have printed exactly this (a final newline aside).
    pub fn prints(&self, text: &str) -> Checked<'_> {
        let got = self.stdout.trim_end();
        check!(got == text, "`{}` printed {got:?}, not {text:?}", self.words);
        Ok(self)
    }

    /// It must have failed with exit code 1 and one line of error that holds each of `says`; `a|b` allows either.
    pub fn refuses(&self, says: &[&str]) -> Checked<'_> {
        self.exits(1)?;
        self.complains(says)
    }

    /// One line of error that holds each of `says`; `a|b` allows either. Letter case does not matter, nor whether the log's format
    /// has escaped a quotation mark.
    pub fn complains(&self, says: &[&str]) -> Checked<'_> {
        let errors = self.errors();
        check!(errors.len() == 1, "{self}; expected one line of error, got {}", errors.len());
        let escaped = errors[0].to_lowercase();
        let line = escaped.replace("\\\"", "\"");
        for say in says {
            let found = say.split('|').any(|one| {
                let one = one.to_lowercase();
                escaped.contains(&one) || line.contains(&one) || line.contains(&pointer(&one))
            });
            check!(found, "the error {:?} does not say {say:?}", errors[0]);
        }
        Ok(self)
    }

    /// The lines of stderr, without warnings and notes.
    pub fn errors(&self) -> Vec<&str> {
        let warning = |line: &&str| {
            ["level=warning", "level=info", "level=debug", "\"level\":\"warning\"", "[warning]", "warning:"]
                .iter()
                .any(|mark| line.contains(mark))
        };
        self.stderr.lines().filter(|line| !line.trim().is_empty() && !warning(line)).collect()
    }

    /// Standard output as one JSON document.
    pub fn json(&self) -> Result<Value, Trouble> {
        let parsed = serde_json::from_str(&self.stdout);
        parsed
            .map_err(|e| Trouble::Fail(format!("`{}` printed no JSON ({e}): {:?}", self.words, self.stdout)))
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with {}", self.words, self.code)?;
        for (name, text, most) in [("stderr", &self.stderr, 600), ("stdout", &self.stdout, 100)] {
            if !text.trim().is_empty() {
                let start = text.len().saturating_sub(most);
                let tail = text.get(start..).unwrap_or(text).trim();
                write!(f, ", {name} {tail:?}")?;
            }
        }
        Ok(())
    }
}

/// A field as a JSON pointer, which names it just as well: `mounts[7].type` is `/mounts/7/type`.
fn pointer(field: &str) -> String {
    format!("/{}", field.replace('[', "/").replace(']', "").replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(stderr: &str) -> Done {
        let (words, stdout) = (String::new(), String::new());
        Done { words, code: 1, stdout, stderr: stderr.to_owned(), took: Duration::ZERO }
    }

    #[test]
    fn an_error_is_one_line_that_says_all() {
        let one = failed("level=warning msg=x\nlevel=error msg=\"mounts[3]: EPERM\"\n");
        assert!(one.refuses(&["MOUNTS[3]|other", "eperm"]).is_ok());
        assert!(one.refuses(&["mounts[4]"]).is_err());
        assert!(failed("one\ntwo\n").refuses(&[]).is_err());
        assert!(failed("").refuses(&[]).is_err());
    }
}
