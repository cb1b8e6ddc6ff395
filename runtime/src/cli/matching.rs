// SPDX-License-Identifier: Apache-2.0
//! `--regex` of `kill` and `delete` (compatibility S8, S9): one verb on every container with a match in its id, as in crun.

use corten::error::Kind;
use corten::sys::regex::Regex;
use corten::verbs;

use super::command::{Outcome, Session};
use super::failure::Failure;

/// Calls `verb` with the id of each container of the root that `pattern` matches, in order. That there is none is no
/// error; one that the verb fails for keeps it from no other.
///
/// # Errors
/// A pattern that is none, a root that cannot be read; else a sum of the failures, each of which has been warned about.
pub fn each(session: &Session<'_>, pattern: &str, verb: impl Fn(&str) -> corten::Result<()>) -> Outcome {
    let wrong =
        |why| Failure::new(format!("--regex {pattern:?} is no POSIX extended regular expression: {why}"));
    let regex = Regex::new(pattern).map_err(wrong)?;
    let (mut matched, mut failed) = (0, 0);
    for id in verbs::ids(&session.home)?.iter().filter(|id| regex.is_match(id)) {
        matched += 1;
        match verb(id) {
            // Gone since the root was read.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => {
                failed += 1;
                session.log.warn(&format!("container {id}: {error}"));
            }
            Ok(()) => {}
        }
    }
    match failed {
        0 => Ok(0),
        _ => {
            Err(Failure::new(format!("--regex {pattern:?}: it failed for {failed} of {matched} containers")))
        }
    }
}
