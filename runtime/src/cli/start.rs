// SPDX-License-Identifier: Apache-2.0
//! `start` (compatibility S4).

use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::values;

/// execute the user defined process in a created container
#[derive(Debug, clap::Parser)]
pub struct StartCommand {
    id: String,
}

impl Verb for StartCommand {
    const NAME: &'static str = "start";
    const USAGE: &'static str = "<container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        match values::notify_socket() {
            Some(manager) => verbs::start_notifying(&session.home, &self.id, &manager)?,
            None => verbs::start(&session.home, &self.id)?,
        }
        Ok(0)
    }
}
