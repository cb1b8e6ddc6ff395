// SPDX-License-Identifier: Apache-2.0
//! Another OCI runtime, driven by its command line as containerd's own shim drives runc: nvidia-container-runtime, crun.

#![forbid(unsafe_code)]

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use corten::ask::Stdio;
use corten::cgroup::Group;
use corten::error::{Context, Words};
use corten::host::identity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Made, Wish};
use crate::exits;
use crate::refusal::{Refusal, Result};

/// How long the runtime may take to hand over a terminal.
const CONSOLE: Duration = Duration::from_secs(30);

/// The program and its global flags.
#[derive(Debug, Clone)]
pub struct Binary {
    program: PathBuf,
    root: PathBuf,
    systemd: bool,
}

/// A directory for what one call leaves; removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(bundle: &Path) -> Result<Scratch> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = bundle.join(format!(".call-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).call(|| format!("mkdir({})", path.display()))?;
        Ok(Scratch(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Binary {
    /// `program` with containers below `root`.
    pub fn new(program: &Path, root: PathBuf, systemd: bool) -> Binary {
        Binary { program: program.to_owned(), root, systemd }
    }

    /// `create`.
    pub fn create(&self, wish: Wish) -> Result<Made> {
        let scratch = Scratch::new(&wish.bundle)?;
        let mut flags = vec!["--bundle".to_owned(), wish.bundle.display().to_string()];
        if wish.options.no_pivot_root {
            flags.push("--no-pivot".to_owned());
        }
        if wish.options.no_new_keyring {
            flags.push("--no-new-keyring".to_owned());
        }
        let made = self.launch("create", flags, &wish.id, wish.stdio, &scratch)?;
        let group = Group::of_process(made.pid).ok();
        let oom = group.as_ref().and_then(|group| group.oom_watch().ok());
        Ok(Made { group, oom, ..made })
    }

    /// `exec --detach --process`.
    pub fn exec(&self, id: &str, object: &[u8], stdio: Stdio, bundle: &Path) -> Result<Made> {
        let scratch = Scratch::new(bundle)?;
        let path = scratch.file("process.json");
        std::fs::write(&path, object).call(|| format!("write({})", path.display()))?;
        let flags = vec!["--detach".to_owned(), "--process".to_owned(), path.display().to_string()];
        self.launch("exec", flags, id, stdio, &scratch)
    }

    /// `update --resources`.
    pub fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let scratch = Scratch::new(&std::env::temp_dir())?;
        let path = scratch.file("resources.json");
        std::fs::write(&path, resources).call(|| format!("write({})", path.display()))?;
        let mut command = self.command(&scratch);
        command.arg("update").arg("--resources").arg(&path).arg(id);
        self.run("update", command, &scratch)
    }

    /// A verb without descriptors.
    pub fn plain(&self, verb: &str, arguments: &[&str]) -> Result<()> {
        let scratch = Scratch::new(&std::env::temp_dir())?;
        let mut command = self.command(&scratch);
        command.arg(verb).args(arguments);
        self.run(verb, command, &scratch)
    }

    fn launch(
        &self,
        verb: &str,
        flags: Vec<String>,
        id: &str,
        stdio: Stdio,
        scratch: &Scratch,
    ) -> Result<Made> {
        let mut command = self.command(scratch);
        let pid_file = scratch.file("pid");
        command.arg(verb).args(flags).arg("--pid-file").arg(&pid_file);
        let mut listener = None;
        match stdio {
            Stdio::Fds([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
            }
            _ => {
                let path = scratch.file("console");
                listener = Some(UnixListener::bind(&path).call(|| format!("bind({})", path.display()))?);
                command.arg("--console-socket").arg(path);
            }
        }
        command.arg(id);
        self.run(verb, command, scratch)?;
        let text = std::fs::read_to_string(&pid_file).call(|| format!("read({})", pid_file.display()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Refusal::unknown(format!("{}: no pid in its pid file", self.name())))?;
        // It came to us, the subreaper, when the runtime ended, and is ours to wait for; nobody has yet.
        exits::claim(pid.as_raw_nonzero().get());
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).call(|| format!("pidfd_open({text})"))?;
        let console = listener.map(|listener| receive(&listener)).transpose();
        if console.is_err() {
            identity::kill(pidfd.as_fd());
        }
        Ok(Made { pid: pid.as_raw_nonzero().get(), pidfd, console: console?, group: None, oom: None })
    }

    fn command(&self, scratch: &Scratch) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--log").arg(scratch.file("log"));
        command.args(["--log-format", "json"]);
        if self.systemd {
            command.arg("--systemd-cgroup");
        }
        command.current_dir("/").stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    }

    fn run(&self, verb: &str, mut command: Command, scratch: &Scratch) -> Result<()> {
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
        let log = std::fs::read_to_string(scratch.file("log")).unwrap_or_default();
        let told = last_error(&log).unwrap_or_else(|| format!("{name}: {status}"));
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

/// The terminal that comes over the console socket.
fn receive(listener: &UnixListener) -> Result<OwnedFd> {
    let limit = Timespec { tv_sec: CONSOLE.as_secs() as i64, tv_nsec: 0 };
    if poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit)).call(|| "poll(console socket)")? == 0 {
        return Err(Refusal::unknown("no terminal came from the runtime"));
    }
    let (socket, _) = listener.accept().call(|| "accept(console socket)")?;
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    recvmsg(&socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .call(|| "recvmsg(console socket)")?;
    let mut messages = ancillary.drain();
    let fd = messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| Refusal::unknown("no terminal came from the runtime"))
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
        let binary = Binary::new(Path::new("no-runc"), "/nowhere".into(), false);
        let error = binary.plain("start", &["x"]).unwrap_err();
        assert!(error.text.contains("\"no-runc\": executable file not found"), "{error}");
    }
}
