// SPDX-License-Identifier: Apache-2.0
//! `create` (compatibility S1), and the flags that it shares with `run`.

use std::ffi::OsString;

use corten::{ask, state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::traced::traced;
use super::values;

/// create a container
///
/// The container is an instance of a bundle: a directory with a specification file
/// named "config.json" and a root filesystem. Its process waits until "start".
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct CreateCommand {
    #[command(flatten)]
    launch: LaunchFlags,
    id: String,
}

impl Verb for CreateCommand {
    const NAME: &'static str = "create";
    const USAGE: &'static str = "[command options] <container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        self.create(session).map_err(|failure| failure.under(&format!("{} create failed", session.name)))
    }
}

impl CreateCommand {
    fn create(self, session: &Session<'_>) -> Outcome {
        let (id, trace) = (self.id.clone(), self.launch.trace.clone());
        let ask = self.launch.ask(self.id)?;
        session.root.prepare()?;
        traced(session, trace, (Self::NAME, &id), |home| verbs::create(home, ask))?;
        Ok(0)
    }
}

/// Flags of `create` and `run`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct LaunchFlags {
    /// path to the root of the bundle directory, defaults to the current directory
    #[arg(long, short)]
    bundle: Option<OsString>,
    /// name of the specification file in the bundle (default: "config.json")
    #[arg(long, short = 'f')]
    config: Option<OsString>,
    /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long)]
    console_socket: Option<OsString>,
    /// path to an AF_UNIX socket which will receive a pidfd of the container's init process
    #[arg(long)]
    pidfd_socket: Option<OsString>,
    /// file to write the process id to
    #[arg(long)]
    pid_file: Option<OsString>,
    /// do not use pivot_root; for a root filesystem on a ramdisk
    #[arg(long)]
    no_pivot: bool,
    /// keep the caller's session keyring instead of creating one for the container
    #[arg(long)]
    no_new_keyring: bool,
    /// do not become the subreaper of the container's orphans; create never does
    #[arg(long)]
    pub no_subreaper: bool,
    /// pass N more file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long)]
    preserve_fds: Option<u32>,
    /// write where the time goes to FILE, for the command trace, Perfetto and Chrome
    #[arg(long)]
    pub trace: Option<OsString>,
}

impl LaunchFlags {
    /// The request.
    ///
    /// # Errors
    /// A malformed id, a descriptor that is not there.
    pub fn ask(self, id: String) -> Result<ask::Create, Failure> {
        state::check_id(&id)?;
        let listen_fds = values::listen_fds();
        let preserve_fds = self.preserve_fds.unwrap_or(0);
        values::handed_down("LISTEN_FDS", 3, listen_fds)?;
        values::handed_down("--preserve-fds", 3 + listen_fds, preserve_fds)?;
        Ok(ask::Create {
            id,
            bundle: values::path(self.bundle).unwrap_or_else(|| ".".into()),
            config: values::path(self.config),
            document: None,
            stdio: values::stdio(self.console_socket),
            pid_file: values::path(self.pid_file),
            pidfd_socket: values::path(self.pidfd_socket),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            keyring_suffix: String::new(),
            console_size: corten::sys::tty::size_of_stdio(),
            preserve_fds,
            listen_fds,
            notify: values::notify_socket(),
            run: false,
            detach: false,
        })
    }
}
