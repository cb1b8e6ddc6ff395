// SPDX-License-Identifier: Apache-2.0
//! `state` (compatibility S6, J1).

use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::output;

/// output the state of a container
#[derive(Debug, clap::Parser)]
pub struct StateCommand {
    id: String,
}

impl Verb for StateCommand {
    const NAME: &'static str = "state";
    const USAGE: &'static str = "<container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        output::print_json_indented(&verbs::state(&session.home, &self.id)?, "  ")?;
        Ok(0)
    }
}
