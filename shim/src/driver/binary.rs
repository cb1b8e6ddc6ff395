// SPDX-License-Identifier: Apache-2.0
//! Another OCI runtime, driven by its command line as containerd's own shim drives runc: nvidia-container-runtime, crun.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use corten::ask::Stdio;
use corten::cgroup::Group;
use corten::error::{Context, Words};
use corten::host::identity;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::paper::{ConsoleSocket, Nameless, unguessable};
use super::{CheckpointWish, LaunchedProcess, Wish};
use crate::handover::state::DriverState;
use crate::reaper::Reaper;
use crate::refusal::{Refusal, Result};

/// What the service manager tells containerd, and nobody below it: with the first a runc that starts a container waits
/// for the container's own word, which never comes.
const NOT_HANDED_ON: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// The bundle that the server was started in: a runtime's working directory, as with containerd's own shim, whose
/// working directory it is. A later member of a group gets the first one's.
static HERE: OnceLock<OwnedFd> = OnceLock::new();

/// Keeps the working directory for the runtimes to come; it may be removed meanwhile.
pub fn keep_working_directory() {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(here) = open(".", flags, Mode::empty()) {
        let _ = HERE.set(here);
    }
}

/// The working directory that was kept.
pub fn kept_working_directory() -> Option<&'static OwnedFd> {
    HERE.get()
}

/// Goes on with one that was kept before.
pub fn go_on_in(here: OwnedFd) {
    let _ = HERE.set(here);
}

/// The program, its global flags, and the bundle of the container.
#[derive(Debug, Clone)]
pub struct Binary {
    program: PathBuf,
    root: PathBuf,
    systemd: bool,
    bundle: PathBuf,
}

impl Binary {
    /// `program` with containers below `root`.
    pub fn new(program: &Path, root: PathBuf, systemd: bool, bundle: &Path) -> Binary {
        Binary { program: program.to_owned(), root, systemd, bundle: bundle.to_owned() }
    }

    /// As it is handed over.
    pub fn pass(&self) -> DriverState {
        let (program, root) = (Some(self.program.clone()), self.root.clone());
        DriverState { program, root, systemd: self.systemd, traces: None }
    }

    /// `create`. The pid file stays in the bundle, where programs around the runtime look for it.
    pub fn create(&self, wish: Wish) -> Result<LaunchedProcess> {
        let mut flags = vec!["--bundle".to_owned(), self.bundle.display().to_string()];
        if wish.options.no_pivot_root {
            flags.push("--no-pivot".to_owned());
        }
        if wish.options.no_new_keyring {
            flags.push("--no-new-keyring".to_owned());
        }
        let pid_file = self.bundle.join("init.pid");
        // One of an earlier attempt must not be taken for this one's.
        let _ = std::fs::remove_file(&pid_file);
        let made = self.launch("create", flags, &wish.id, wish.stdio, &pid_file, &wish.reaper)?;
        let group = Group::of_process(made.pid).ok();
        Ok(made.in_group(group))
    }

    /// `exec --detach --process`.
    pub fn exec(&self, id: &str, json: &[u8], stdio: Stdio, reaper: &Reaper) -> Result<LaunchedProcess> {
        let process = Nameless::new("process.json")?;
        process.write(json)?;
        let flags = vec!["--detach".to_owned(), "--process".to_owned(), process.path()];
        let pid_file = self.bundle.join(format!(".pid-{}", unguessable()?));
        let made = self.launch("exec", flags, id, stdio, &pid_file, reaper);
        let _ = std::fs::remove_file(&pid_file);
        made
    }

    /// `checkpoint`, as containerd's own shim asks for it.
    pub fn checkpoint(&self, id: &str, wanted: &CheckpointWish) -> Result<()> {
        let criu = &wanted.criu;
        let mut arguments = vec!["--image-path".to_owned(), criu.image_path.display().to_string()];
        if let Some(work) = &criu.work_path {
            arguments.extend(["--work-path".to_owned(), work.display().to_string()]);
        }
        let flags = [
            (!wanted.exit, "--leave-running"),
            (criu.tcp_established, "--tcp-established"),
            (criu.ext_unix_sk, "--ext-unix-sk"),
            (criu.shell_job, "--shell-job"),
            (criu.file_locks, "--file-locks"),
        ];
        arguments.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned()));
        arguments.push(id.to_owned());
        self.plain("checkpoint", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `restore`.
    pub fn restore(&self, wish: Wish, images: &Path, work: &Path) -> Result<LaunchedProcess> {
        let mut flags: Vec<String> = ["--detach", "--no-subreaper", "--bundle"].map(str::to_owned).to_vec();
        flags.push(self.bundle.display().to_string());
        flags.extend(["--image-path".to_owned(), images.display().to_string()]);
        flags.extend(["--work-path".to_owned(), work.display().to_string()]);
        let pid_file = self.bundle.join("init.pid");
        let _ = std::fs::remove_file(&pid_file);
        let made = self.launch("restore", flags, &wish.id, wish.stdio, &pid_file, &wish.reaper)?;
        let group = Group::of_process(made.pid).ok();
        Ok(made.in_group(group))
    }

    /// `update --resources`.
    pub fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let input = Nameless::new("resources.json")?;
        input.write(resources)?;
        let log = Nameless::new("log")?;
        let mut command = self.command(&log);
        command.arg("update").arg("--resources").arg(input.path()).arg(id);
        self.run("update", command, &log)
    }

    /// A verb without descriptors.
    pub fn plain(&self, verb: &str, arguments: &[&str]) -> Result<()> {
        let log = Nameless::new("log")?;
        let mut command = self.command(&log);
        command.arg(verb).args(arguments);
        self.run(verb, command, &log)
    }

    fn launch(
        &self,
        verb: &str,
        flags: Vec<String>,
        id: &str,
        stdio: Stdio,
        pid_file: &Path,
        reaper: &Reaper,
    ) -> Result<LaunchedProcess> {
        let log = Nameless::new("log")?;
        let mut command = self.command(&log);
        command.arg(verb).args(flags).arg("--pid-file").arg(pid_file);
        let mut console = None;
        match stdio {
            Stdio::Fds([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
            }
            _ => {
                let socket = ConsoleSocket::listen(&self.bundle)?;
                command.arg("--console-socket").arg(socket.path());
                console = Some(socket);
            }
        }
        command.arg(id);
        let _adoption = reaper.adopting(pid_file);
        self.run(verb, command, &log)?;
        let text = std::fs::read_to_string(pid_file).call(|| format!("read({})", pid_file.display()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Refusal::unknown(format!("{}: no pid in its pid file", self.name())))?;
        // It came to us, the subreaper, when the runtime ended, and is ours to wait for; nobody has yet.
        reaper.claim(pid.as_raw_nonzero().get());
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).call(|| format!("pidfd_open({text})"))?;
        let console = console.map(|socket| socket.receive()).transpose();
        if console.is_err() {
            identity::kill(pidfd.as_fd())?;
            reaper.unclaim(pid.as_raw_nonzero().get());
        }
        Ok(LaunchedProcess {
            pid: pid.as_raw_nonzero().get(),
            pidfd,
            console: console?,
            group: None,
            oom: None,
        })
    }

    fn command(&self, log: &Nameless) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--log").arg(log.path());
        command.args(["--log-format", "json"]);
        if self.systemd {
            command.arg("--systemd-cgroup");
        }
        if let Some(here) = HERE.get() {
            // A way that works when its name is gone.
            command.current_dir(format!("/proc/self/fd/{}", here.as_raw_fd()));
        }
        for name in NOT_HANDED_ON {
            command.env_remove(name);
        }
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    }

    fn run(&self, verb: &str, mut command: Command, log: &Nameless) -> Result<()> {
        let name = self.name();
        let status = command.status().map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => Refusal::unknown(format!(
                "OCI runtime {verb} failed: exec: \"{name}\": executable file not found in $PATH"
            )),
            errno => {
                let words = Words(errno.unwrap_or(libc::EIO));
                Refusal::unknown(format!("OCI runtime {verb} failed: exec: \"{name}\": {words}"))
            }
        })?;
        if status.success() {
            return Ok(());
        }
        let told = last_error(&log.text()).unwrap_or_else(|| format!("{name}: {status}"));
        Err(Refusal::unknown(format!("OCI runtime {verb} failed: {told}")))
    }

    fn name(&self) -> String {
        self.program.display().to_string()
    }
}

/// The message of the last record of level error.
fn last_error(log: &str) -> Option<String> {
    let records = log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut errors = records.filter(|record| matches!(record["level"].as_str(), Some("error" | "fatal")));
    errors.next().and_then(|record| record["msg"].as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_own_words_are_told() {
        let log = "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"last\"}\n{\"level\":\"info\",\"msg\":\"x\"}\nrubbish\n";
        assert_eq!(last_error(log), Some("last".into()));
        assert_eq!(last_error(""), None);
    }

    #[test]
    fn a_runtime_that_is_not_there_is_named() {
        let binary = Binary::new(Path::new("no-runc"), "/nowhere".into(), false, Path::new("/"));
        let error = binary.plain("start", &["x"]).unwrap_err();
        assert!(error.text.contains("\"no-runc\": executable file not found"), "{error}");
    }
}
