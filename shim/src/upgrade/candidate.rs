// SPDX-License-Identifier: Apache-2.0
//! The program that is to go on: opened once, so that what was asked is what is executed; and asked, in a child, whether it
//! reads what it would be handed. A program that is too old, damaged or no shim at all is found out there.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use corten::error::Context;
use corten::sys::passing::path_to;
use corten::sys::spawn::hand_down;
use corten::sys::wait::Exit;
use rustix::fs::{FileType, Mode, OFlags, fcntl_setfl, fstat, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::time::timeout;

use crate::handover::{READ, Written};
use crate::reaper::Reaper;
use crate::refusal::{Refusal, Result};

/// What a program that can take over answers, before its versions.
const YES: &str = "corten: takes over";
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The program.
pub struct Candidate {
    path: PathBuf,
    program: OwnedFd,
}

impl Candidate {
    /// Opens it.
    ///
    /// # Errors
    /// InvalidArgument naming the path.
    pub fn open(path: &Path) -> Result<Candidate> {
        if !path.is_absolute() {
            return Err(Refusal::invalid(format!("{} is no absolute path", path.display())));
        }
        let call = || format!("open({})", path.display());
        // A FIFO would be waited for, by the one thread that there is.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program = open(path, flags, Mode::empty()).call(call)?;
        let kind = FileType::from_raw_mode(fstat(&program).call(call)?.st_mode);
        if !kind.is_file() {
            return Err(Refusal::invalid(format!("{} is no file", path.display())));
        }
        Ok(Candidate { path: path.to_owned(), program })
    }

    /// It, open.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Its path.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Asks it whether it could take over from this memfd.
    ///
    /// # Errors
    /// FailedPrecondition with its own words, if it has any.
    pub async fn check(&self, memfd: &OwnedFd, reaper: &Reaper) -> Result<()> {
        let (answer, tell) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe")?;
        fcntl_setfl(&answer, OFlags::NONBLOCK).call(|| "fcntl(O_NONBLOCK)")?;
        let mut command = Command::new(path_to(self.program.as_fd()));
        command.args(["upgrade-check", "3"]).stdin(Stdio::null());
        command.stdout(tell.try_clone().call(|| "dup(pipe)")?).stderr(tell);
        hand_down(&mut command, vec![memfd.try_clone().call(|| "dup(memfd)")?]);
        let spawned = reaper.claimed(|| command.spawn().map(|child| (child.id() as i32, child)));
        let failed = |why: String| Refusal::state(format!("{} cannot take over: {why}", self.path.display()));
        let child = spawned.map_err(|error| failed(format!("execve: {error}")))?;
        // Our copies of what it has.
        drop(command);
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).call(|| "pidfd_open(child)")?;
        let pidfd = Rc::new(pidfd);
        let pid = child.id() as i32;
        let Ok(exit) = timeout(PATIENCE, reaper.end_of(&pidfd, pid)).await else {
            reaper.kill(pidfd.try_clone().call(|| "dup(pidfd)")?, pid).await;
            return Err(failed(format!("no answer after {PATIENCE:?}")));
        };
        let mut text = Vec::new();
        // What it has left open elsewhere does not end; there is nothing in it.
        let _ = File::from(answer).take(4096).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next_back().unwrap_or_default().trim();
        match exit {
            Exit::Code(0) if line.starts_with(YES) => Ok(()),
            Exit::Code(0) => Err(failed("it knows nothing of it: too old, or no shim of Corten's".into())),
            Exit::Code(_) if line.starts_with("containerd-shim-corten-v2 is executed by containerd") => {
                Err(failed("it knows nothing of it: too old".into()))
            }
            Exit::Code(code) if line.is_empty() => Err(failed(format!("exit code {code}"))),
            Exit::Code(_) => Err(failed(line.to_owned())),
            Exit::Signal(signal) => Err(failed(format!("killed by signal {signal}"))),
        }
    }
}

/// `upgrade-check NUMBER`: what the child of `check` does. The answer for stdout.
///
/// # Errors
/// Why it cannot take over.
pub fn answer(number: &str) -> Result<String> {
    let number = number.parse().map_err(|_| Refusal::invalid(format!("{number:?} is no descriptor")))?;
    let memfd = corten::sys::passing::copy_of(number)?;
    Written::read(memfd.as_fd())?.state()?;
    let (first, last) = (READ.start(), READ.end());
    Ok(format!("{YES} {first} to {last}, writes up to {last}: {}\n", super::this_version()))
}
