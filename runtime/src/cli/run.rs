// SPDX-License-Identifier: Apache-2.0
//! `run` (reference S5): create, start, attend, delete.

use corten::ask::Stdio;
use corten::verbs;

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::foreground::Foreground;
use super::launch::{Launch, NO_SOCKET_WANTED};

/// create and run a container
///
/// The container is an instance of a bundle: a directory with a specification file
/// named "config.json" and a root filesystem. Unless detached, the command stays until
/// the container's process ends, exits with its code (128 + the signal that ended it),
/// and deletes the container.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct Run {
    #[command(flatten)]
    launch: Launch,
    /// detach from the container's process
    #[arg(long, short)]
    detach: bool,
    /// do not delete the container after it exits
    #[arg(long)]
    keep: bool,
    /// do not become the subreaper of the container's orphans
    #[arg(long)]
    no_subreaper: bool,
    id: String,
}

impl Verb for Run {
    const NAME: &'static str = "run";
    const USAGE: &'static str = "[command options] <container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        self.launch(session).map_err(|failure| failure.under(&format!("{} run failed", session.name)))
    }
}

impl Run {
    fn launch(self, session: &Session<'_>) -> Outcome {
        let id = self.id.clone();
        let mut ask = self.launch.ask(self.id)?;
        (ask.run, ask.detach) = (true, self.detach);
        if !self.detach && matches!(ask.stdio, Stdio::ConsoleSocket(_)) {
            return Err(Failure::new(NO_SOCKET_WANTED));
        }
        session.root.prepare()?;
        if self.detach {
            verbs::create(&session.home, ask)?;
            return Ok(0);
        }
        let foreground = Foreground::prepare(!self.no_subreaper)?;
        let launched = verbs::create(&session.home, ask)?;
        let outcome = foreground.attend(launched);
        if !self.keep
            && let Err(error) = verbs::delete(&session.home, &id, true)
        {
            session.log.warn(&format!("the container has ended, but was not deleted: {error}"));
        }
        outcome
    }
}
