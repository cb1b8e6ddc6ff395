// SPDX-License-Identifier: Apache-2.0
//! `restore` (compatibility S17): as `run`, out of a checkpoint.

use std::ffi::OsString;

use corten::ask::{Create, Restore, Stdio};
use corten::{state, verbs};

use super::checkpoint::CriuFlags;
use super::command::{Arity, Outcome, Session, Verb};
use super::foreground::Foreground;
use super::values;

/// restore a container from a checkpoint
///
/// CRIU makes the processes again that "checkpoint" has written into a directory, in a
/// container of the bundle's configuration. Unless detached, the command stays until the
/// container's process ends, exits with its code, and deletes the container.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct RestoreCommand {
    /// path to the root of the bundle directory, defaults to the current directory
    #[arg(long, short)]
    bundle: Option<OsString>,
    /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long)]
    console_socket: Option<OsString>,
    /// file to write the process id to
    #[arg(long)]
    pid_file: Option<OsString>,
    /// detach from the container's process
    #[arg(long, short)]
    detach: bool,
    /// do not become the subreaper of the container's orphans
    #[arg(long)]
    no_subreaper: bool,
    /// do not use pivot_root; CRIU has a way of its own
    #[arg(long)]
    no_pivot: bool,
    /// close TCP connections instead of restoring them
    #[arg(long)]
    tcp_close: bool,
    /// AppArmor profile or SELinux label for the processes instead of the dumped one
    #[arg(long)]
    lsm_profile: Option<String>,
    /// SELinux context for mounts instead of the dumped one
    #[arg(long)]
    lsm_mount_context: Option<String>,
    #[command(flatten)]
    criu: CriuFlags,
    id: String,
}

impl Verb for RestoreCommand {
    const NAME: &'static str = "restore";
    const USAGE: &'static str = "[command options] <container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        self.restore(session).map_err(|failure| failure.under(&format!("{} restore failed", session.name)))
    }
}

impl RestoreCommand {
    fn restore(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        let id = self.id.clone();
        let ask = Create {
            id: self.id,
            bundle: values::path(self.bundle).unwrap_or_else(|| ".".into()),
            stdio: values::stdio(self.console_socket),
            pid_file: values::path(self.pid_file),
            no_pivot: self.no_pivot,
            console_size: corten::sys::tty::size_of_stdio(),
            run: true,
            detach: self.detach,
            ..Create::default()
        };
        let how = Restore {
            criu: self.criu.settings()?,
            tcp_close: self.tcp_close,
            lsm_profile: values::text(self.lsm_profile),
            lsm_mount_context: values::text(self.lsm_mount_context),
        };
        if !self.detach && matches!(ask.stdio, Stdio::ConsoleSocket(_)) {
            return Err(verbs::no_socket_wanted().into());
        }
        session.root.prepare()?;
        if self.detach {
            verbs::restore(&session.home, ask, &how)?;
            return Ok(0);
        }
        let foreground = Foreground::prepare(!self.no_subreaper)?;
        let outcome = foreground.attend(verbs::restore(&session.home, ask, &how)?);
        if let Err(error) = verbs::delete(&session.home, &id, true) {
            session.log.warn(&format!("the container has ended, but was not deleted: {error}"));
        }
        outcome
    }
}
