// SPDX-License-Identifier: Apache-2.0
//! A CRIU of our own: started for one request, and attended until it has ended.
//!
//! It is not killed when we are: it notices that nobody answers it, lets the tasks go on (or, on restore, ends those that it
//! has made) and ends. Killed in the middle of a dump it would leave them frozen.

#![forbid(unsafe_code)]

use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use super::messages::{self, CriuFeature, CriuOptions, CriuResponse, RequestKind};
use crate::error::{Context, Error, Kind, Result, printable};
use crate::sys::spawn::{self, MountView};

/// The oldest that is spoken to: bookworm's.
const OLDEST: u32 = 3_17_00;
const INSTALL: &str = "install CRIU 3.17 or newer (Debian: apt-get install criu)";
/// A response with its lists; CRIU's own client has this much room.
const ROOM: usize = 64 * 1024;

/// The `criu` of PATH.
///
/// # Errors
/// `Kind::Unsupported` when there is none.
pub(crate) fn find() -> Result<PathBuf> {
    in_path("criu").ok_or_else(|| {
        Error::new(Kind::Unsupported, format!("no program of this name in PATH: {INSTALL}")).at("criu")
    })
}

/// A program of PATH.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_program = |file: &PathBuf| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let absolute = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    absolute.map(|dir| dir.join(name)).find(is_program)
}

/// What it is started with besides the socket.
#[derive(Default)]
pub(crate) struct CriuSetup {
    /// Its standard streams, and so the restored tasks'; without them it has none.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    /// Its descriptors from 4 on.
    pub(crate) inherit: Vec<OwnedFd>,
    /// The mounts that it finds in a mount namespace of its own; without one it is in ours.
    pub(crate) mounts: Option<MountView>,
}

/// The first of [`CriuSetup::inherit`].
pub(crate) const INHERITED: i32 = 4;

/// One that was started.
pub(crate) struct CriuProcess {
    child: Child,
    pidfd: OwnedFd,
    /// `None` once the connection was closed.
    socket: Option<OwnedFd>,
    /// What it wrote to its standard error, when that is not the tasks'.
    complaints: Option<std::fs::File>,
}

impl CriuProcess {
    /// Starts it. It does nothing before it is asked.
    ///
    /// # Errors
    /// What keeps it from being executed.
    pub(crate) fn start(program: &Path, setup: CriuSetup) -> Result<CriuProcess> {
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .call(|| "socketpair")?;
        let mut command = Command::new(program);
        command.args(["swrk", "3"]).current_dir("/");
        let complaints = match setup.stdio {
            Some([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
            None => {
                // So that what it has started can be ended after it; nothing that it restores has to do with it.
                command.process_group(0);
                let memfd = rustix::fs::memfd_create("criu", MemfdFlags::CLOEXEC).call(|| "memfd_create")?;
                let file = std::fs::File::from(memfd);
                command.stdin(Stdio::null()).stdout(Stdio::null());
                command.stderr(file.try_clone().call(|| "dup(memfd)")?);
                Some(file)
            }
        };
        spawn::begin_afresh(&mut command);
        let mut handed: Vec<OwnedFd> = vec![theirs];
        handed.extend(setup.inherit);
        if let Some(view) = setup.mounts {
            spawn::in_mount_view(&mut command, view);
        }
        spawn::hand_down(&mut command, handed);
        let mut child = command.spawn().call(|| format!("execve({})", program.display()))?;
        // The socket's end tells of its death only once no copy of the other side is ours.
        drop(command);
        let pidfd = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                // Its connection's end is its own, and it is to leave no zombie in a shim.
                drop(socket);
                let _ = child.wait();
                return Err(Error::os("pidfd_open(criu)", errno));
            }
        };
        Ok(CriuProcess { child, pidfd, socket: Some(socket), complaints })
    }

    /// Its pid: a child of ours that is not waited for until [`CriuProcess::end`].
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Asks which version it is; it can be asked for more afterwards.
    ///
    /// # Errors
    /// `Kind::Unsupported` for one that is too old.
    pub(crate) fn check_version(&mut self, program: &Path) -> Result<u32> {
        let version = self.question(&messages::version_request(), "its version")?.version;
        is_new_enough(version, program).map(|()| version)
    }

    /// Whether kernel and CRIU can do this; it can be asked for more afterwards.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn has_feature(&mut self, feature: CriuFeature) -> Result<bool> {
        let answer = self.question(&messages::feature_request(feature), "the question for a feature")?;
        Ok(answer.has(feature))
    }

    fn question(&mut self, bytes: &[u8], what: &str) -> Result<CriuResponse> {
        self.send(bytes)?;
        let answer = self.hear()?.0;
        if answer.success {
            return Ok(answer);
        }
        Err(Error::new(Kind::Peer, format!("{what} was refused")).at("criu"))
    }

    /// Asks for its one piece of work.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn ask(&mut self, kind: RequestKind, options: &CriuOptions) -> Result<()> {
        self.send(&messages::request(kind, Some(options)))
    }

    /// Lets it go on after a notification.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        self.send(&messages::notify_answer())
    }

    fn socket(&self) -> Result<&OwnedFd> {
        self.socket.as_ref().ok_or_else(|| Error::new(Kind::Peer, "its connection is closed").at("criu"))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match rustix::net::send(self.socket()?, bytes, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(errno) => Err(self.death(Error::os("send", errno))),
        }
    }

    /// What it says next, with the descriptor that came along.
    ///
    /// # Errors
    /// When it has ended without a word, or speaks something else.
    pub(crate) fn hear(&mut self) -> Result<(CriuResponse, Option<OwnedFd>)> {
        if !self.speaks()? {
            return Err(self.death(Error::new(Kind::Peer, "ended without an answer")));
        }
        let mut bytes = vec![0; self.next_size()?];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let heard = {
            let socket = self.socket()?;
            rustix::io::retry_on_intr(|| {
                let mut into = [IoSliceMut::new(&mut bytes)];
                rustix::net::recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            })
        };
        let fds = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fd = fds.flatten().next();
        match heard.map(|heard| heard.bytes) {
            Ok(0) => Err(self.death(Error::new(Kind::Peer, "ended without an answer"))),
            Err(errno) => Err(self.death(Error::os("recvmsg", errno))),
            Ok(count) => match CriuResponse::read(&bytes[..count]) {
                Some(response) => Ok((response, fd)),
                None => Err(Error::new(Kind::Peer, "its answer does not read").at("criu")),
            },
        }
    }

    /// How long the next message is: most are some tens of bytes, and room for the longest would cost sixteen page faults each.
    fn next_size(&mut self) -> Result<usize> {
        let socket = self.socket()?;
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        let size = rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut [0_u8; 0], flags));
        // One byte more than nothing: an end is then still told from an empty message.
        match size {
            Ok((_, length)) => Ok(length.clamp(1, ROOM)),
            Err(errno) => Err(self.death(Error::os("recv", errno))),
        }
    }

    /// Waits until it says something or has ended; whether it says something. The socket's end alone does not tell: processes
    /// that it has made may still have it.
    fn speaks(&self) -> Result<bool> {
        Ok(self.await_word(None)? == Some(true))
    }

    /// Whether it neither said anything nor ended for so many nanoseconds.
    ///
    /// # Errors
    /// Those of poll(2).
    pub(crate) fn is_silent_for(&self, nanoseconds: i64) -> Result<bool> {
        let time = Timespec { tv_sec: 0, tv_nsec: nanoseconds };
        Ok(self.await_word(Some(&time))?.is_none())
    }

    /// Whether it says something, or has ended; `None` for neither in this time.
    fn await_word(&self, time: Option<&Timespec>) -> Result<Option<bool>> {
        let (pidfd, socket) = (&self.pidfd, self.socket()?);
        loop {
            let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            match poll(&mut fds, time) {
                Err(rustix::io::Errno::INTR) => {}
                other => {
                    let ready = other.call(|| "poll(criu)")?;
                    return Ok((ready > 0).then(|| !fds[0].revents().is_empty()));
                }
            }
        }
    }

    /// How it ended, and what it complained about, added to what we saw of it.
    fn death(&mut self, seen: Error) -> Error {
        // It is not waited for here: its number is still needed.
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = match waitid(WaitId::Pid(Pid::from_child(&self.child)), how) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("criu (exit code {code})"),
                (None, signal) => format!("criu (killed by signal {})", signal.unwrap_or_default()),
            },
            _ => "criu".to_owned(),
        };
        match self.complaint() {
            Some(text) => Error::new(Kind::Peer, text).at(ended),
            None => seen.at(ended),
        }
    }

    /// The end of what it wrote to its standard error.
    fn complaint(&mut self) -> Option<String> {
        const KEPT: u64 = 400;
        let file = self.complaints.as_mut()?;
        let length = file.seek(SeekFrom::End(0)).ok()?;
        file.seek(SeekFrom::Start(length.saturating_sub(KEPT))).ok()?;
        let mut text = Vec::new();
        file.take(KEPT).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        Some(printable(text.trim()).into_owned()).filter(|text| !text.is_empty())
    }

    /// Closes the connection, which ends it if nothing else has, and waits for that.
    ///
    /// # Errors
    /// Those of waitid(2).
    pub(crate) fn end(mut self) -> Result<()> {
        self.close_and_wait()
    }

    fn close_and_wait(&mut self) -> Result<()> {
        self.socket.take();
        if self.complaints.is_some() {
            self.end_helpers()?;
        }
        self.child.wait().map(drop).call(|| "wait(criu)")
    }

    /// Ends the processes that a dump's CRIU has left behind, which it does only if it was killed. It leads their process group,
    /// whose number is nobody else's until it is waited for.
    fn end_helpers(&self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        loop {
            match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                // Waited for already.
                Err(rustix::io::Errno::CHILD) => return Ok(()),
                other => break other.map(drop).call(|| "waitid(criu)")?,
            }
        }
        // ESRCH: there are none.
        let _ = kill_process_group(pid, Signal::KILL);
        Ok(())
    }

    /// Its process, for whoever must be able to end it.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Whoever gives it up on an error leaves no zombie: a shim stays.
impl Drop for CriuProcess {
    fn drop(&mut self) {
        // Waited for already, after `end`.
        let _ = self.close_and_wait();
    }
}

fn is_new_enough(version: u32, program: &Path) -> Result<()> {
    if version >= OLDEST {
        return Ok(());
    }
    let (major, minor) = (version / 10_000, version / 100 % 100);
    let text = format!("version {major}.{minor} of {} is too old: {INSTALL}", program.display());
    Err(Error::new(Kind::Unsupported, text).at("criu"))
}

/// Whether CRIU finds what it needs of this kernel (`criu check`).
pub(crate) fn is_content(program: &Path) -> bool {
    let setup = CriuSetup { mounts: Some(MountView::default()), ..CriuSetup::default() };
    let asked = CriuProcess::start(program, setup).and_then(|mut criu| {
        criu.send(&messages::request(RequestKind::Check, None))?;
        criu.hear()
    });
    asked.is_ok_and(|(answer, _)| answer.success)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_new_enough;

    #[test]
    fn an_old_one_is_told_with_what_to_install() {
        let error = is_new_enough(3_16_01, Path::new("/sbin/criu")).unwrap_err().to_string();
        assert!(error.contains("version 3.16 of /sbin/criu is too old: install CRIU 3.17"), "{error}");
        assert!(is_new_enough(3_17_00, Path::new("/sbin/criu")).is_ok());
    }
}
