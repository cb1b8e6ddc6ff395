// SPDX-License-Identifier: Apache-2.0
//! `mounts` (compatibility S22): crun's.

use std::ffi::OsString;
use std::path::Path;

use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;

/// change what a container that is there has mounted
///
/// FILE holds a JSON array of mounts, each as in "mounts" of config.json. "add" makes all
/// of them or none, "remove" takes away what is mounted at their destinations. The bundle's
/// configuration stays as it is.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct MountsCommand {
    action: String,
    id: String,
    file: OsString,
}

impl Verb for MountsCommand {
    const NAME: &'static str = "mounts";
    const USAGE: &'static str = "add|remove <container-id> <file>";
    const ARITY: Arity = Arity::exactly(3);

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        let file = Path::new(&self.file);
        match self.action.as_str() {
            "add" => verbs::add_mounts(&session.home, &self.id, file)?,
            "remove" => verbs::remove_mounts(&session.home, &self.id, file)?,
            other => {
                return Err(Failure::new(format!(
                    "unknown action {other:?} of mounts: expected add or remove"
                )));
            }
        }
        Ok(0)
    }
}
