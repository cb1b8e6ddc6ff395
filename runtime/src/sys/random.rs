// SPDX-License-Identifier: Apache-2.0
//! What nobody can guess (getrandom(2)): parts of names that others must not be able to take first.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use rustix::rand::{GetRandomFlags, getrandom};

/// 128 bits as 32 hexadecimal digits.
///
/// # Errors
/// Those of getrandom(2).
pub fn text() -> std::io::Result<String> {
    texts().map(|[text]| text)
}

/// Several such texts, none of which tells of another, by one call.
///
/// # Errors
/// Those of getrandom(2).
pub(crate) fn texts<const N: usize>() -> std::io::Result<[String; N]> {
    let mut bytes = [[0_u8; 16]; N];
    // Up to 256 bytes come whole.
    getrandom(bytes.as_flattened_mut(), GetRandomFlags::empty())?;
    Ok(bytes.map(|bytes| {
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_tells_of_another() {
        let [one, other] = texts().unwrap();
        assert_ne!(one, other);
        for text in [one, other, text().unwrap()] {
            assert!(text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
        }
    }
}
