// SPDX-License-Identifier: Apache-2.0
//! `start` (compatibility S4).

use std::ffi::OsString;

use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::traced::traced;
use super::values;

/// execute the user defined process in a created container
#[derive(Debug, clap::Parser)]
pub struct StartCommand {
    /// write where the time goes to FILE, for the command trace, Perfetto and Chrome
    #[arg(long)]
    trace: Option<OsString>,
    id: String,
}

impl Verb for StartCommand {
    const NAME: &'static str = "start";
    const USAGE: &'static str = "[command options] <container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        traced(session, self.trace, (Self::NAME, &self.id), |home| match values::notify_socket() {
            Some(manager) => verbs::start_notifying(home, &self.id, &manager),
            None => verbs::start(home, &self.id),
        })?;
        Ok(0)
    }
}
