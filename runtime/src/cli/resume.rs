// SPDX-License-Identifier: Apache-2.0
//! `resume` (compatibility S10).

use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};

/// resume all processes that have been paused
#[derive(Debug, clap::Parser)]
pub struct ResumeCommand {
    id: String,
}

impl Verb for ResumeCommand {
    const NAME: &'static str = "resume";
    const USAGE: &'static str = "<container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        verbs::resume(&session.home, &self.id)?;
        Ok(0)
    }
}
