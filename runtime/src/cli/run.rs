// SPDX-License-Identifier: Apache-2.0
//! `run` (compatibility S5): create, start, attend, delete.

use std::os::fd::AsFd;

use corten::ask::Stdio;
use corten::error::Context;
use corten::host::Launched;
use corten::host::notify::Notify;
use corten::sys::thread::ThreadAtWork;
use corten::verbs;

use super::command::{Arity, Outcome, Session, Verb};
use super::create::LaunchFlags;
use super::foreground::Foreground;
use super::traced::traced;

/// create and run a container
///
/// The container is an instance of a bundle: a directory with a specification file
/// named "config.json" and a root filesystem. Unless detached, the command stays until
/// the container's process ends, exits with its code (128 + the signal that ended it),
/// and deletes the container.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct RunCommand {
    #[command(flatten)]
    launch: LaunchFlags,
    /// detach from the container's process
    #[arg(long, short)]
    detach: bool,
    /// do not delete the container after it exits
    #[arg(long)]
    keep: bool,
    id: String,
}

impl Verb for RunCommand {
    const NAME: &'static str = "run";
    const USAGE: &'static str = "[command options] <container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        self.launch(session).map_err(|failure| failure.under(&format!("{} run failed", session.name)))
    }
}

impl RunCommand {
    fn launch(self, session: &Session<'_>) -> Outcome {
        let (id, trace) = (self.id.clone(), self.launch.trace.clone());
        let create = |ask| traced(session, trace, (Self::NAME, &id), |home| verbs::create(home, ask));
        let subreaper = !self.launch.no_subreaper;
        let mut ask = self.launch.ask(self.id)?;
        (ask.run, ask.detach) = (true, self.detach);
        if !self.detach && matches!(ask.stdio, Stdio::ConsoleSocket(_)) {
            return Err(verbs::no_socket_wanted().into());
        }
        session.root.prepare()?;
        if self.detach {
            let Launched { pid, pidfd, notify, .. } = create(ask)?;
            if let Some(notify) = notify {
                notify.relay(pidfd.as_fd(), pid)?;
            }
            return Ok(0);
        }
        let foreground = Foreground::prepare(subreaper)?;
        let mut launched = create(ask)?;
        let relay = launched.notify.take().map(|notify| Relay::start(notify, &launched)).transpose()?;
        let outcome = foreground.attend(launched);
        if let Some(Err(error)) = relay.map(Relay::finish) {
            session.log.warn(&error.to_string());
        }
        if !self.keep
            && let Err(error) = verbs::delete(&session.home, &id, true)
        {
            session.log.warn(&format!("the container has ended, but was not deleted: {error}"));
        }
        outcome
    }
}

/// The notification socket beside the foreground's own loop. The manager watches us, who stay as long as the container
/// and end with its code.
struct Relay(ThreadAtWork<corten::Result<()>>);

impl Relay {
    fn start(notify: Notify, launched: &Launched) -> corten::Result<Self> {
        let pidfd = launched.pidfd.try_clone().call(|| "dup(pidfd)")?;
        let us = i32::try_from(std::process::id()).unwrap_or_default();
        let relay = move || notify.relay(pidfd.as_fd(), us);
        ThreadAtWork::start(relay).map(Relay)
    }

    /// The container has ended, and so does this.
    fn finish(self) -> corten::Result<()> {
        self.0.finish()?
    }
}
