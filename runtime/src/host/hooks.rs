// SPDX-License-Identifier: Apache-2.0
//! Hooks in the runtime's namespaces: prestart, createRuntime, poststart, poststop (config.md#posix-platform-hooks).
//! A hook gets its own environment and nothing of ours; one without gets ours, and never the container's; no descriptor and no
//! blocked or ignored signal of ours or of our caller's; the bundle as its working directory, the state on stdin.
//! Counterpart: `stage/hook.rs`.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::channel::hook_failure;
use super::sockets::append;
use crate::ask::Home;
use crate::error::{Context, Result};
use crate::plan::hooks::Hook;
use crate::stage::wire::aux;
use crate::state::{Dir, Identity, hook_state};
use crate::sys::spawn;

/// How much of a hook's output is kept for the message.
const OUTPUT: usize = 4096;
/// How much a pipe holds (pipe(7)).
const PIPE: usize = 64 * 1024;

/// Runs hooks of one kind, in order; the first failure ends it. `dir` is the container's, which is locked meanwhile: there
/// it stands whom `delete --force` has to end.
///
/// # Errors
/// `Kind::Peer` with what the hook wrote.
pub(crate) fn run(kind: &str, hooks: &[Hook], state: &str, bundle: &Path, dir: &Dir) -> Result<()> {
    hooks
        .iter()
        .zip(0..)
        .try_for_each(|(hook, number)| run_hook(kind, number, hook, state, bundle, Some(dir)))
}

/// poststop: a failure is warned about and the next one runs (runtime.md#lifecycle, step 13).
pub(crate) fn poststop(
    home: &Home,
    hooks: &[Hook],
    id: &str,
    bundle: &Path,
    annotations: &BTreeMap<String, String>,
) {
    let (before, after) = hook_state(id, "stopped", bundle, annotations);
    let state = format!("{before}0{after}");
    for (hook, number) in hooks.iter().zip(0..) {
        if let Err(error) = run_hook("poststop", number, hook, &state, bundle, None) {
            (home.warn)(&error.to_string());
        }
    }
}

fn run_hook(
    kind: &str,
    number: u16,
    hook: &Hook,
    state: &str,
    bundle: &Path,
    dir: Option<&Dir>,
) -> Result<()> {
    let fail = |aux, errno, output: &[u8]| hook_failure(kind, number, hook, aux, errno, output);
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call(|| "pipe")?;
    let stderr = write.try_clone().call(|| "dup(pipe)")?;
    let mut command = Command::new(&hook.path);
    command.arg0(hook.args.first().unwrap_or(&hook.path)).args(hook.args.iter().skip(1));
    if let Some(env) = &hook.env {
        command.env_clear().envs(env.iter().filter_map(|entry| entry.split_once('=')));
    }
    command.current_dir(bundle).process_group(0);
    spawn::end_with_us(&mut command);
    command.stdin(Stdio::piped()).stdout(write).stderr(stderr);
    if let Some([stdout, stderr]) = hook.output.as_deref() {
        if let Some(path) = stdout {
            command.stdout(append(path)?);
        }
        if let Some(path) = stderr {
            command.stderr(append(path)?);
        }
    }
    spawn::begin_afresh(&mut command);
    let child = command
        .spawn()
        .map_err(|error| fail(libc::SYS_execve as u32, error.raw_os_error().unwrap_or(libc::EIO), b""))?;
    // Drops our copies of the pipe's writing end.
    drop(command);
    let mut running = Running { child, output: Some(read), kept: Vec::new() };
    // It outlives nobody who can no longer see to it.
    let attended = running.attend(hook, state, dir).inspect_err(|_| drop(running.kill()));
    let forgotten = dir.map_or(Ok(()), |dir| dir.set_hook(None));
    match attended.and_then(|ended| forgotten.map(|()| ended))? {
        None => Err(fail(aux::HOOK_TIMEOUT, 0, &running.kept)),
        Some(status) => match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(fail(aux::HOOK_STATUS, code, &running.kept)),
            (None, signal) => Err(fail(aux::HOOK_SIGNAL, signal.unwrap_or(0), &running.kept)),
        },
    }
}

struct Running {
    child: Child,
    output: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl Running {
    /// Feeds and drains the hook until it ends; `None` when its time was over and it was killed with its group.
    /// Its end counts, not that of its pipes: a process that it left behind may hold those for ever.
    fn attend(
        &mut self,
        hook: &Hook,
        state: &str,
        dir: Option<&Dir>,
    ) -> Result<Option<std::process::ExitStatus>> {
        let pid = Pid::from_child(&self.child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).call(|| "pidfd_open(hook)")?;
        if let Some(dir) = dir {
            dir.set_hook(Some(&Identity::of(pid.as_raw_nonzero().get(), pidfd.as_fd())?))?;
        }
        let deadline = hook.timeout.map(|timeout| Instant::now() + timeout);
        let mut stdin = self.child.stdin.take();
        let mut left = state.as_bytes();
        for fd in
            [stdin.as_ref().map(AsFd::as_fd), self.output.as_ref().map(AsFd::as_fd)].into_iter().flatten()
        {
            rustix::fs::fcntl_setfl(fd, rustix::fs::OFlags::NONBLOCK).call(|| "fcntl(O_NONBLOCK)")?;
        }
        loop {
            let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if remaining.is_some_and(|remaining| remaining.is_zero()) {
                return self.kill().map(|()| None);
            }
            let timeout = remaining.map(|remaining| Timespec {
                tv_sec: remaining.as_secs() as i64,
                tv_nsec: i64::from(remaining.subsec_nanos()),
            });
            let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
            fds.extend(self.output.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            fds.extend(stdin.as_ref().map(|fd| PollFd::new(fd, PollFlags::OUT)));
            match poll(&mut fds, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.call(|| "poll(hook)")?,
            };
            let ended = !fds[0].revents().is_empty();
            stdin = stdin.and_then(|mut pipe| match pipe.write(left) {
                Ok(count) if count < left.len() => {
                    left = &left[count..];
                    Some(pipe)
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(pipe),
                // All written, or the hook does not want it.
                _ => None,
            });
            self.drain();
            if ended {
                return self.child.wait().map(Some).call(|| "wait(hook)");
            }
        }
    }

    fn kill(&mut self) -> Result<()> {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        self.child.wait().map(drop).call(|| "wait(hook)")
    }

    /// Reads what is there, a pipe's worth at most: whoever writes without end must outlive neither the hook nor its time.
    /// Keeps the first page, discards the rest.
    fn drain(&mut self) {
        let Some(pipe) = self.output.take() else { return };
        let mut pipe = std::fs::File::from(pipe);
        let mut chunk = [0; OUTPUT];
        for _ in 0..PIPE / OUTPUT {
            match pipe.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    let keep = count.min(OUTPUT - self.kept.len());
                    self.kept.extend_from_slice(&chunk[..keep]);
                }
                Err(_) => break,
            }
        }
        self.output = Some(pipe.into());
    }
}

/// The state on stdin for a hook that is told the pid of init.
pub(crate) fn state_of(
    id: &str,
    status: &str,
    pid: i32,
    bundle: &Path,
    annotations: &BTreeMap<String, String>,
) -> String {
    let (before, after) = hook_state(id, status, bundle, annotations);
    format!("{before}{pid}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn hook(script: &str, timeout: u64) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        let timeout = Some(Duration::from_secs(timeout));
        Hook {
            at: "/hooks/prestart/0".into(),
            path: "/bin/sh".into(),
            args,
            env: Some(vec!["PATH=/usr/bin:/bin".into()]),
            timeout,
            output: None,
        }
    }

    /// Found by review: the output was read for as long as there was any.
    #[test]
    fn output_without_end_outlives_neither_the_hook_nor_its_time() {
        let noise = "y=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; n() { while echo $y$y$y$y; do :; done; }";
        let start = Instant::now();
        let left_behind = hook(&format!("{noise}; n & n & n & exit 0"), 60);
        assert_eq!(run_hook("prestart", 0, &left_behind, "{}", Path::new("/"), None), Ok(()));
        let endless = hook(&format!("{noise}; n & n & n"), 1);
        let error = run_hook("prestart", 0, &endless, "{}", Path::new("/"), None).unwrap_err().to_string();
        assert!(error.contains("hook ran past specified timeout of 1.0s") && error.len() < 5000, "{error}");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}
