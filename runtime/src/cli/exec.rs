// SPDX-License-Identifier: Apache-2.0
//! `exec` (compatibility S12 to S14).

use std::ffi::OsString;

use corten::ask::{self, Overlay, Stdio};
use corten::state;
use corten::verbs;

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::{EXEC_ERROR, Failure};
use super::flags::Order;
use super::foreground::Foreground;
use super::traced::traced;
use super::values;

/// execute a new process inside the container
///
/// Everything after the container's id is the command, with its own options. Without -p
/// the process is that of the configuration, with these options on top.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct ExecCommand {
    /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long)]
    console_socket: Option<OsString>,
    /// path to an AF_UNIX socket which will receive a pidfd of the process
    #[arg(long)]
    pidfd_socket: Option<OsString>,
    /// current working directory in the container
    #[arg(long)]
    cwd: Option<String>,
    /// set environment variables
    #[arg(long, short)]
    env: Vec<String>,
    /// allocate a pseudo-TTY
    #[arg(long, short)]
    tty: bool,
    /// UID (format: <uid>[:<gid>])
    #[arg(long, short)]
    user: Option<String>,
    /// additional gids
    #[arg(long, short = 'g')]
    additional_gids: Vec<String>,
    /// path to a file with the whole process object
    #[arg(long, short)]
    process: Option<OsString>,
    /// detach from the container's process
    #[arg(long, short)]
    detach: bool,
    /// file to write the process id to
    #[arg(long)]
    pid_file: Option<OsString>,
    /// set the process's SELinux label
    #[arg(long)]
    process_label: Option<String>,
    /// set the process's AppArmor profile
    #[arg(long)]
    apparmor: Option<String>,
    /// set the process's no new privileges value
    #[arg(long)]
    no_new_privs: bool,
    /// add a capability to the process's bounding, effective and permitted sets
    #[arg(long, short)]
    cap: Vec<String>,
    /// pass N more file descriptors to the process
    #[arg(long)]
    preserve_fds: Option<u32>,
    /// run the process in an existing sub-cgroup of the container, as [<controller>[,<controller>...]:]<path>
    #[arg(long)]
    cgroup: Vec<String>,
    /// allow exec in a paused container
    #[arg(long)]
    ignore_paused: bool,
    /// write where the time goes to FILE, for the command trace, Perfetto and Chrome
    #[arg(long)]
    trace: Option<OsString>,
    id: String,
    command: Vec<String>,
}

impl Verb for ExecCommand {
    const NAME: &'static str = "exec";
    const USAGE: &'static str =
        "[command options] <container-id> <command> [arguments] || -p process.json <container-id>";
    const ARITY: Arity = Arity { min: 1, max: usize::MAX };
    const ORDER: Order = Order::FlagsFirst;

    fn run(self, session: &Session<'_>) -> Outcome {
        self.exec(session).map_err(|failure| failure.under("exec failed").exiting(EXEC_ERROR))
    }
}

impl ExecCommand {
    fn exec(self, session: &Session<'_>) -> Outcome {
        let trace = self.trace.clone();
        let ask = self.ask()?;
        if ask.overlay.args.is_empty() && ask.process.is_none() {
            // As in runc, a container that is not there comes first.
            verbs::state(&session.home, &ask.id)?;
            return Err(Failure::new("process args cannot be empty"));
        }
        let id = ask.id.clone();
        let exec = |ask| traced(session, trace, (Self::NAME, &id), |home| verbs::exec(home, ask));
        if ask.detach {
            exec(ask)?;
            return Ok(0);
        }
        let foreground = Foreground::prepare(false)?;
        let launched = exec(ask)?;
        foreground.attend(launched)
    }

    fn ask(mut self) -> Result<ask::Exec, Failure> {
        state::check_id(&self.id)?;
        // `exec ID -- ls`: people who come from kubectl write it, and no program is called `--`.
        if self.command.first().is_some_and(|word| word == "--") {
            self.command.remove(0);
        }
        let stdio = values::stdio(self.console_socket.take());
        self.check_console(&stdio)?;
        let preserve_fds = self.preserve_fds.unwrap_or(0);
        values::handed_down("--preserve-fds", 3, preserve_fds)?;
        Ok(ask::Exec {
            object: None,
            process: values::path(self.process.take()),
            pid_file: values::path(self.pid_file.take()),
            pidfd_socket: values::path(self.pidfd_socket.take()),
            cgroup: std::mem::take(&mut self.cgroup),
            detach: self.detach,
            ignore_paused: self.ignore_paused,
            id: std::mem::take(&mut self.id),
            overlay: self.overlay()?,
            stdio,
            console_size: corten::sys::tty::size_of_stdio(),
            preserve_fds,
        })
    }

    /// E15. What a process file says of its terminal is read, and checked, by the verb.
    fn check_console(&self, stdio: &Stdio) -> Result<(), Failure> {
        let socket = matches!(stdio, Stdio::ConsoleSocket(_));
        if socket && (!self.detach || !self.tty && self.process.is_none()) {
            return Err(verbs::no_socket_wanted().into());
        }
        if self.detach && self.tty && !socket {
            return Err(verbs::socket_wanted().into());
        }
        Ok(())
    }

    fn overlay(self) -> Result<Overlay, Failure> {
        Ok(Overlay {
            args: self.command,
            env: self.env.into_iter().map(values::variable).collect::<Result<_, _>>()?,
            cwd: values::text(self.cwd),
            user: values::text(self.user).as_deref().map(values::user).transpose()?,
            additional_gids: self
                .additional_gids
                .iter()
                .map(|gid| values::group(gid))
                .collect::<Result<_, _>>()?,
            terminal: self.tty,
            caps: self.cap,
            no_new_privileges: self.no_new_privs,
            apparmor: values::text(self.apparmor),
            process_label: values::text(self.process_label),
        })
    }
}
