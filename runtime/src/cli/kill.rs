// SPDX-License-Identifier: Apache-2.0
//! `kill` (compatibility S9).

use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::flags::Order;
use super::{matching, values};

/// send the specified signal (default: SIGTERM) to the container's init process
///
/// A signal is a number or a name: 9, KILL, SIGKILL, kill and RTMIN+3 are all understood.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct KillCommand {
    /// send the signal to all processes inside the container
    #[arg(long, short)]
    all: bool,
    /// take the id for a POSIX extended regular expression: signal every container that has a match in its id
    #[arg(long, short)]
    regex: bool,
    id: String,
    signal: Option<String>,
}

impl Verb for KillCommand {
    const NAME: &'static str = "kill";
    const USAGE: &'static str = "[command options] <container-id> [signal]";
    const ARITY: Arity = Arity { min: 1, max: 2 };
    const ORDER: Order = Order::FlagsFirst;

    fn run(self, session: &Session<'_>) -> Outcome {
        let signal = self.signal.as_deref().map_or(Ok(libc::SIGTERM), values::signal)?;
        if self.regex {
            return matching::each(session, &self.id, |id| verbs::kill(&session.home, id, signal, self.all));
        }
        state::check_id(&self.id)?;
        verbs::kill(&session.home, &self.id, signal, self.all)?;
        Ok(0)
    }
}
