// SPDX-License-Identifier: Apache-2.0
//! `pause` (compatibility S10).

use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};

/// suspend all processes inside the container
#[derive(Debug, clap::Parser)]
pub struct PauseCommand {
    id: String,
}

impl Verb for PauseCommand {
    const NAME: &'static str = "pause";
    const USAGE: &'static str = "<container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        verbs::pause(&session.home, &self.id)?;
        Ok(0)
    }
}
