// SPDX-License-Identifier: Apache-2.0
//! `kill` (compatibility S9).

use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::flags::Order;
use super::values;

/// send the specified signal (default: SIGTERM) to the container's init process
///
/// A signal is a number or a name: 9, KILL, SIGKILL, kill and RTMIN+3 are all understood.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct KillCommand {
    /// send the signal to all processes inside the container
    #[arg(long, short)]
    all: bool,
    id: String,
    signal: Option<String>,
}

impl Verb for KillCommand {
    const NAME: &'static str = "kill";
    const USAGE: &'static str = "[command options] <container-id> [signal]";
    const ARITY: Arity = Arity { min: 1, max: 2 };
    const ORDER: Order = Order::FlagsFirst;

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        let signal = self.signal.as_deref().map_or(Ok(libc::SIGTERM), values::signal)?;
        verbs::kill(&session.home, &self.id, signal, self.all)?;
        Ok(0)
    }
}
