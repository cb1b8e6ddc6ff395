// SPDX-License-Identifier: Apache-2.0
//! `delete` (compatibility S8).

use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::matching;

/// delete any resources held by the container
#[derive(Debug, clap::Parser)]
pub struct DeleteCommand {
    /// delete the container even if it is still running (uses SIGKILL); an absent one is no error
    #[arg(long, short)]
    force: bool,
    /// take the id for a POSIX extended regular expression: delete every container that has a match in its id
    #[arg(long, short)]
    regex: bool,
    id: String,
}

impl Verb for DeleteCommand {
    const NAME: &'static str = "delete";
    const USAGE: &'static str = "[command options] <container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        if self.regex {
            return matching::each(session, &self.id, |id| verbs::delete(&session.home, id, self.force));
        }
        state::check_id(&self.id)?;
        verbs::delete(&session.home, &self.id, self.force)?;
        Ok(0)
    }
}
