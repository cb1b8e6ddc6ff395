// SPDX-License-Identifier: Apache-2.0
//! Which mistake is made: CORTEN_MUTANT's number. What a run comes by is written to the file CORTEN_MUTANTS_REACHED, four bytes for
//! each. Only in copies of the sources that `spec-tests/mutants` makes.

#![forbid(unsafe_code)]

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const COUNT: usize = 0;
static SEEN: [AtomicBool; COUNT + 1] = [const { AtomicBool::new(false) }; COUNT + 1];
static CHOICE: OnceLock<(u32, Option<std::ffi::OsString>)> = OnceLock::new();

/// True if this one is chosen.
pub fn is(number: u32) -> bool {
    let choice = CHOICE.get_or_init(|| {
        let chosen = std::env::var("CORTEN_MUTANT").ok().and_then(|text| text.parse().ok());
        (chosen.unwrap_or(0), std::env::var_os("CORTEN_MUTANTS_REACHED"))
    });
    if let Some(file) = &choice.1
        && !SEEN[number as usize].swap(true, Ordering::Relaxed)
        // No descriptor is held: what a program has open is what some tests look at.
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).open(file)
    {
        file.write_all(&number.to_le_bytes()).ok();
    }
    choice.0 == number
}
