// SPDX-License-Identifier: Apache-2.0
//! `create` (compatibility S1).

use corten::verbs;

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::launch::LaunchFlags;

/// create a container
///
/// The container is an instance of a bundle: a directory with a specification file
/// named "config.json" and a root filesystem. Its process waits until "start".
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct CreateCommand {
    #[command(flatten)]
    launch: LaunchFlags,
    id: String,
}

impl Verb for CreateCommand {
    const NAME: &'static str = "create";
    const USAGE: &'static str = "[command options] <container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        self.create(session).map_err(|failure| failure.under(&format!("{} create failed", session.name)))
    }
}

impl CreateCommand {
    fn create(self, session: &Session<'_>) -> Outcome {
        let ask = self.launch.ask(self.id)?;
        session.root.prepare()?;
        verbs::create(&session.home, ask).map_err(Failure::from)?;
        Ok(0)
    }
}
