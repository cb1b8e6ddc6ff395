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
    let mut bytes = [0_u8; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
