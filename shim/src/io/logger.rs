// SPDX-License-Identifier: Apache-2.0
//! `binary://` and `binary-v2://`: a program that receives the output. It has the reading ends of the container's pipes
//! as descriptors 3 and 4, and says on 5 that it is ready. The shim keeps the pipes open beside it: should the logger
//! die, the container is neither blocked nor killed by it, its output is dropped.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use corten::error::Context;
use corten::sys::spawn::hand_down;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::{Owner, pump};
use crate::handover::state::LoggerState;
use crate::handover::{Handed, Outgoing};
use crate::ready::Once;
use crate::reaper::Reaper;
use crate::refusal::{Refusal, Result};
use crate::{log, ready, work};

/// How long a logger may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// Between SIGTERM and SIGKILL (containerd's figure).
const TERMINATE: Duration = Duration::from_secs(12);

/// A logger that runs.
pub struct Logger {
    pid: i32,
    pidfd: Rc<OwnedFd>,
    /// Our own reading ends.
    pipes: Rc<[OwnedFd; 2]>,
    ended: Rc<Once>,
    /// It has been asked to end.
    ending: Rc<Cell<bool>>,
}

impl Logger {
    /// Starts it, and waits until it is ready.
    ///
    /// # Errors
    /// InvalidArgument when the program is not there; its end before it was ready (`binary-v2://`).
    pub async fn start(uri: &str, owner: &Owner, pipes: [OwnedFd; 2]) -> Result<Logger> {
        let (ready, tell) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe")?;
        fcntl_setfl(&ready, OFlags::NONBLOCK).call(|| "fcntl(O_NONBLOCK)")?;
        let (path, arguments, strict) = parse(uri)?;
        let mut command = Command::new(&path);
        command.args(arguments).env_clear();
        command.env("CONTAINER_ID", &owner.id).env("CONTAINER_NAMESPACE", &owner.namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let [out, err] = &pipes;
        let down = vec![out.try_clone().call(|| "dup(pipe)")?, err.try_clone().call(|| "dup(pipe)")?, tell];
        hand_down(&mut command, down);
        let spawned = owner.reaper.claimed(|| command.spawn().map(|child| (child.id() as i32, child)));
        let child = spawned.map_err(|error| Refusal::invalid(format!("logger {path}: {error}")))?;
        // Our copies of what it has.
        drop(command);
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).call(|| "pidfd_open(logger)")?;
        let logger = Logger::over(child.id() as i32, pidfd, pipes);
        logger.watch(owner.reaper.clone());
        logger.ready(ready, strict).await.map_err(|refusal| refusal.at(&format!("logger {path}")))?;
        Ok(logger)
    }

    fn over(pid: i32, pidfd: OwnedFd, pipes: [OwnedFd; 2]) -> Logger {
        Logger {
            pid,
            pidfd: Rc::new(pidfd),
            pipes: Rc::new(pipes),
            ended: Rc::default(),
            ending: Rc::default(),
        }
    }

    fn watch(&self, reaper: Reaper) {
        let (pid, pidfd, ended) = (self.pid, self.pidfd.clone(), self.ended.clone());
        spawn_local(async move {
            let exit = reaper.end_of(&pidfd, pid).await;
            log::debug(&format!("logger {pid} has ended: {exit:?}"));
            ended.happen();
        });
    }

    /// As it is handed over.
    pub fn pass(&self, to: &mut Outgoing) -> LoggerState {
        let [out, err] = &*self.pipes;
        LoggerState {
            pid: self.pid,
            pidfd: to.fd(&*self.pidfd),
            pipes: [to.fd(out), to.fd(err)],
            ended: self.ended.has_happened(),
            ending: self.ending.get(),
        }
    }

    /// Goes on with one that was handed over.
    ///
    /// # Errors
    /// A descriptor that is not there.
    pub fn resumed(state: &LoggerState, from: &Handed, reaper: &Reaper) -> Result<Logger> {
        let [out, err] = state.pipes;
        let logger = Logger::over(state.pid, from.fd(state.pidfd)?, [from.fd(out)?, from.fd(err)?]);
        if state.ended {
            logger.ended.happen();
        } else {
            reaper.claim(state.pid);
            logger.watch(reaper.clone());
        }
        // Not ours to end before all is taken over and tasks run: if something else cannot be taken over, this is dropped,
        // and the program before us goes on with it.
        logger.ending.set(true);
        if !state.ending {
            let ending = logger.ending.clone();
            spawn_local(async move { ending.set(false) });
        }
        Ok(logger)
    }

    async fn ready(&self, ready: OwnedFd, strict: bool) -> Result<()> {
        let ready = ready::input(ready).call(|| "epoll_ctl")?;
        let said = timeout(READY, async {
            loop {
                let mut guard = ready.readable().await.call(|| "epoll")?;
                match read(ready.get_ref(), &mut [0; 1]) {
                    Err(Errno::AGAIN) => guard.clear_ready(),
                    other => return other.call(|| "read(ready)"),
                }
            }
        });
        match said.await {
            Ok(Ok(0)) if strict => Err(Refusal::unknown("ended before it was ready")),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Refusal::unknown(format!("not ready after {READY:?}"))),
        }
    }

    /// Waits for its end. If that comes before the end of the output, the rest is read away.
    pub fn attend(&self) -> impl Future<Output = ()> + use<> {
        let (ended, pipes) = (self.ended.clone(), self.pipes.clone());
        async move {
            ended.wait().await;
            let take = |pipe: &OwnedFd| {
                let pipe = pipe.try_clone().ok()?;
                // Of the logger's pipes nobody but us reads any more.
                fcntl_setfl(&pipe, OFlags::NONBLOCK).ok()?;
                Some(spawn_local(pump::discard(pipe)))
            };
            let rest: Vec<_> = pipes.iter().filter_map(take).collect();
            for pipe in rest {
                let _ = pipe.await;
            }
        }
    }

    /// It is not needed any more: SIGTERM, and SIGKILL if that does not help.
    pub fn end(&self) {
        if self.ended.has_happened() || self.ending.replace(true) {
            return;
        }
        let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
        let (pidfd, ended) = (self.pidfd.clone(), self.ended.clone());
        let work = work::begin(format!("the end of logger {}", self.pid));
        spawn_local(async move {
            if timeout(TERMINATE, ended.wait()).await.is_err() {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            }
            drop(work);
        });
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.end();
    }
}

/// `binary:///path?key=value&…` is `path key value …`, in the order of the query.
fn parse(uri: &str) -> Result<(String, Vec<String>, bool)> {
    let (scheme, rest) = uri.split_once("://").unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return Err(Refusal::invalid(format!("logger {uri}: no absolute path")));
    }
    let mut arguments = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        arguments.extend([key, value].map(|word| unescape(&word.replace('+', " "))));
    }
    Ok((unescape(path), arguments, scheme == "binary-v2"))
}

/// Percent-encoding.
fn unescape(text: &str) -> String {
    let (text, mut at) = (text.as_bytes(), 0);
    let mut bytes = Vec::with_capacity(text.len());
    while let Some(&byte) = text.get(at) {
        let digits = text.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(value) if byte == b'%' => {
                bytes.push(value);
                at += 3;
            }
            _ => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_a_command_line() {
        let (path, arguments, strict) = parse("binary:///usr/b%20in/l+g?a=b&c&d=%2Fx+y").unwrap();
        assert_eq!((path.as_str(), strict), ("/usr/b in/l+g", false));
        assert_eq!(arguments, ["a", "b", "c", "", "d", "/x y"]);
        assert!(parse("binary-v2:///x").unwrap().2);
        assert!(parse("binary://x/y").is_err());
    }
}
