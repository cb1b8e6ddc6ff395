// SPDX-License-Identifier: Apache-2.0
//! `--trace FILE` of the verbs that start a process: the verb is called with a recorder, and what that has recorded is written,
//! also when the verb has failed. Nothing is done if the file cannot be opened.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;

use corten::ask::Home;
use corten::error::{Context, WithStep};

use super::command::Session;
use super::failure::Failure;
use super::values;

/// Calls `verb`; `called` is how, and on which container.
///
/// # Errors
/// Its own, and a file that does not open. One that is not written is warned of: the container is there.
pub fn traced<T>(
    session: &Session<'_>,
    file: Option<OsString>,
    called: (&str, &str),
    verb: impl FnOnce(&Home<'_>) -> corten::Result<T>,
) -> Result<T, Failure> {
    let Some(path) = values::path(file) else { return Ok(verb(&session.home)?) };
    let opened = File::create(&path).call(|| format!("open({})", path.display()));
    let mut file = opened.step(|| "--trace")?;
    let (done, text) = session.home.recorded(called, verb);
    if let Err(error) = file.write_all(text.as_bytes()).call(|| format!("write({})", path.display())) {
        session.log.warn(&format!("--trace: {error}"));
    }
    Ok(done?)
}
