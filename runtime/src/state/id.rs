// SPDX-License-Identifier: Apache-2.0
//! Which ids a container may have: an id names its directory.

#![forbid(unsafe_code)]

use crate::error::{Error, Kind, Result, printable};

/// Checks a container's id before it becomes part of a path: letters, digits, `_`, `+`, `-` and `.`, not dots alone,
/// at most NAME_MAX (255) bytes (compatibility G15).
///
/// # Errors
/// `Kind::Invalid`, in runc's words.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() {
        return Err(Error::new(Kind::Invalid, "container id cannot be empty"));
    }
    if id.len() > 255 || !id.bytes().all(allowed) || id.bytes().all(|byte| byte == b'.') {
        let error = Error::new(Kind::Invalid, format!("invalid container ID format: {:?}", printable(id)));
        return Err(error.advise("up to 255 of A-Z a-z 0-9 _ + - . are allowed, not dots alone"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "A_b+c-d.e", "0", "-x", "..a", ".a", &"x".repeat(255)] {
            assert_eq!(check_id(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "...",
            "a/b",
            "/",
            "../x",
            "a b",
            "a\0b",
            "a\n",
            "é",
            "a:b",
            &"x".repeat(256),
            &"x".repeat(4096),
        ] {
            assert_eq!(check_id(bad).map_err(|error| error.kind()), Err(Kind::Invalid), "{bad:?}");
        }
    }

    /// S42: whatever bytes an id consists of, what passes is one plain path component.
    #[test]
    fn what_passes_is_a_plain_file_name() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..1_000_000 {
            let mut bytes = [0_u8; 8];
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.copy_from_slice(&seed.to_le_bytes());
            let text = String::from_utf8_lossy(&bytes[..(seed >> 60) as usize % 9]);
            if check_id(&text).is_ok() {
                let plain = text.bytes().all(
                    |b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'+' | b'-' | b'.'),
                );
                assert!(plain && text != "." && text != "..", "{text:?}");
            }
        }
    }
}
