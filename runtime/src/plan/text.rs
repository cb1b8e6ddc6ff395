// SPDX-License-Identifier: Apache-2.0
//! Strings of the configuration: what every room asks of them before they reach the kernel.

#![forbid(unsafe_code)]

use std::fmt::Display;

pub(super) use crate::error::printable;
use crate::error::{Error, Result};

/// The text, unless it holds a NUL byte: the kernel would silently take the part before it for the whole.
///
/// # Errors
/// `Kind::Invalid` at `at`.
pub(super) fn plain(at: impl Display, text: &str) -> Result<&str> {
    if text.contains('\0') {
        return Err(Error::invalid(at, format!("{text:?} contains a NUL byte")));
    }
    Ok(text)
}

/// The path, if it is absolute and without NUL bytes.
///
/// # Errors
/// `Kind::Invalid` at `at`.
pub(super) fn absolute(at: impl Display, path: &str) -> Result<&str> {
    if !path.starts_with('/') {
        let error = Error::invalid(at, format!("{path:?} is not an absolute path"));
        return Err(error.advise("a path begins with /"));
    }
    plain(at, path)
}

/// `Some` of a text that is not empty: Go's configurations cannot tell an absent string from an empty one.
pub(super) fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// The JSON pointer of an item of the list at `at`. A launch makes a hundred of them, and format! takes its time.
pub(super) fn item(at: &str, index: usize) -> String {
    let mut pointer = String::with_capacity(at.len() + 4);
    pointer.push_str(at);
    pointer.push('/');
    push_decimal(&mut pointer, index);
    pointer
}

fn push_decimal(text: &mut String, number: usize) {
    if number > 9 {
        push_decimal(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

/// A key as part of a JSON pointer (RFC 6901), fit for a line of a log.
pub(super) fn escape(key: &str) -> String {
    printable(&key.replace('~', "~0").replace('/', "~1")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_nul_and_relative() {
        assert!(
            plain("/x", "a\0b").unwrap_err().to_string().contains(r#"config.json /x: "a\0b" contains a NUL"#)
        );
        assert!(absolute("/x", "a").is_err());
        assert_eq!(absolute("/x", "/a").unwrap(), "/a");
        assert_eq!(escape("a/b~c\n"), "a~1b~0c\\n");
        assert_eq!((item("/a", 0), item("/b", 1209)), ("/a/0".into(), "/b/1209".into()));
        assert_eq!((filled(Some("")), filled(Some("x"))), (None, Some("x")));
    }
}
