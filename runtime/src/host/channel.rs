// SPDX-License-Identifier: Apache-2.0
//! The socket to the stage: 16-byte messages, at most one descriptor each, and the wording of faults.

#![forbid(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendFlags, SocketFlags, SocketType,
};

use super::advice;
use crate::error::{Context, Error, Kind, Result, Words, printable};
use crate::plan::hooks::Hook;
use crate::program::op::Must;
use crate::program::{Op, Program, StageOp, explain};
use crate::stage::wire::{Message, aux, kind};
use crate::sys::ns::unprivileged;

/// Bytes of a message.
const HEAD: usize = 16;
/// Most that may follow it: a page of what a hook wrote.
const OUTPUT: usize = 4096;

/// What came from the stage.
#[derive(Debug)]
pub struct Incoming {
    pub message: Message,
    /// The descriptor that came with it.
    pub fd: Option<OwnedFd>,
    /// What a failed hook wrote.
    pub output: Vec<u8>,
}

impl Incoming {
    /// The longest message: one with what a hook wrote.
    pub(crate) const MOST: usize = HEAD + OUTPUT;

    /// Reads a message.
    ///
    /// # Errors
    /// Anything shorter than one: it must not pass for the end, which means success.
    pub(crate) fn of(bytes: &[u8], fd: Option<OwnedFd>) -> Result<Incoming> {
        match bytes.split_at_checked(HEAD) {
            Some((head, output)) => Ok(Incoming {
                message: Message::from_bytes(head.try_into().unwrap_or_default()),
                fd,
                output: output.to_vec(),
            }),
            None => Err(Error::new(Kind::Peer, "malformed message from the stage")),
        }
    }
}

/// The host's end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// EMFILE and its like.
    pub fn pair() -> Result<(Channel, OwnedFd)> {
        let (host, stage) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .call(|| "socketpair")?;
        Ok((Channel(host), stage))
    }

    /// A channel over a connected socket (the gate's).
    pub(super) fn over(socket: OwnedFd) -> Channel {
        Channel(socket)
    }

    /// Lets the stage go on.
    ///
    /// # Errors
    /// EPIPE when it is gone.
    pub(crate) fn go(&self) -> Result<()> {
        let bytes = Message { kind: kind::GO, ..Default::default() }.bytes();
        let mut ancillary = SendAncillaryBuffer::default();
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
            .call(|| "sendmsg(stage)")
            .map(drop)
    }

    /// The same with a descriptor: what it waits for.
    ///
    /// # Errors
    /// EPIPE when it is gone.
    pub(crate) fn give(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let bytes = Message { kind: kind::GO, ..Default::default() }.bytes();
        super::sockets::send_descriptor(self.0.as_fd(), &bytes, fd)
    }

    /// The next message of the process behind `pidfd`; `None` when that has ended with nothing said, although another may hold its
    /// end of the socket, and wait for a word of ours.
    ///
    /// # Errors
    /// Those of poll(2), and of [`Channel::receive`].
    pub(super) fn receive_from(&self, pidfd: BorrowedFd<'_>) -> Result<Option<Incoming>> {
        let said = |patience: Option<&Timespec>| {
            let mut ready = [PollFd::new(&self.0, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut ready, patience)).call(|| "poll(stage, pidfd)")?;
            Ok(!ready[0].revents().is_empty())
        };
        // Looked at again: it may have spoken, and then ended, between the looks at the two.
        if said(None)? || said(Some(&Timespec::default()))? { self.receive() } else { Ok(None) }
    }

    /// The next message; `None` when the other end is closed: the stage has become the user's program, or died.
    ///
    /// # Errors
    /// A packet that is no message of the stage's is one: it must not pass for the end, which means success.
    pub fn receive(&self) -> Result<Option<Incoming>> {
        let mut bytes = [0; Incoming::MOST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut iov = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                // A stage that ends with a word of ours unread leaves ECONNRESET, once, before what it said itself.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                other => break other.call(|| "recvmsg(stage)")?,
            }
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                fds.extend(some);
            }
        }
        let cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        if received.bytes == 0 && fds.is_empty() && !cut {
            return Ok(None);
        }
        // What is cut short reads as too short.
        let whole = if fds.len() < 2 && !cut { received.bytes } else { 0 };
        Incoming::of(bytes.get(..whole).unwrap_or_default(), fds.pop()).map(Some)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Words a fault of the stage, which names the record that it was at.
pub fn word_fault(program: &Program, incoming: &Incoming) -> Error {
    let Message { op, errno, aux, .. } = incoming.message;
    let Some(&index) = program.records().get(op as usize) else {
        // The launch window's own, or the stage's before its first operation.
        return Error::os(call_name(aux), errno).at("starting the stage");
    };
    let step = program.steps.get(index).map(|step| &step.op);
    let place = match (explain::step_name(program, index), program.steps.get(index)) {
        (name, Some(step)) if name.is_empty() => explain::sentence(program, step),
        (name, _) => name,
    };
    match (step, aux) {
        (Some(Op::Stage(StageOp::Hook { number, kind, hook, .. })), _) => {
            hook_failure(kind, *number, hook, aux, errno, &incoming.output)
        }
        (Some(Op::Stage(StageOp::Lookup(_))), aux::LOOKUP) => lookup_failure(program, errno),
        (Some(Op::Stage(StageOp::Exec { args, .. })), _) => {
            let program = args.first().map_or("", String::as_str);
            let hint = if errno == libc::ENOENT {
                ": the interpreter or loader that it names is missing"
            } else {
                ""
            };
            let text = format!("exec {program}: {}{hint}", Words(errno));
            Error::new(Kind::Os, text).advise(advice::of_exec(program, errno))
        }
        // runc's words, which podman's tests read.
        (Some(Op::Stage(StageOp::Chdir { path, .. })), call) if call < aux::HOOK_STATUS => {
            let text = format!("chdir to cwd ({path:?}) set in config.json failed: {}", Words(errno));
            Error::new(Kind::Invalid, text).at(place)
        }
        (_, aux::OUTSIDE) => {
            Error::new(Kind::Invalid, "the working directory is outside of the root").at(place)
        }
        (_, aux::MISMATCH) => mismatch(step, errno).at(place),
        (_, flags) if flags & aux::LOCKED != 0 => {
            let call = format!("mount_setattr({})", explain::operand(program, index));
            super::sources::locked(Error::os(call, errno), u64::from(flags & !aux::LOCKED)).at(place)
        }
        (_, aux::PROGRAM) => Error::new(Kind::Invalid, "internal error: malformed program").at(place),
        (Some(Op::Stage(StageOp::Keyring { .. })), _) if errno == libc::EDQUOT => {
            let text =
                format!("{}: the user's key quota is exhausted; --no-new-keyring does without", Words(errno));
            Error::new(Kind::Os, text).at(place).at("session keyring")
        }
        _ => {
            let call = format!("{}({})", call_name(aux), explain::operand(program, index));
            let error = Error::os(call, errno).advised(step.and_then(|op| advice::of_step(op, errno)));
            match step.and_then(|op| explain_errno(op, errno)) {
                Some(why) => error.at(why).at(place),
                None => error.at(place),
            }
        }
    }
}

/// What an errno means that a user namespace is the reason of.
fn explain_errno(op: &Op, errno: i32) -> Option<&'static str> {
    let Op::Stage(op) = op else { return None };
    if !unprivileged() {
        return None;
    }
    match (op, errno) {
        (StageOp::FsMount { .. }, libc::EPERM) => Some(
            "not allowed in this user namespace (proc and sysfs: only where all of one is visible already, and with the pid \
             or network namespace its own)",
        ),
        (StageOp::SetAttr { .. }, libc::EPERM) => Some("a flag that another user namespace has locked stays"),
        (StageOp::SetIds { .. } | StageOp::Groups { .. }, libc::EINVAL) => {
            Some("an id that is not mapped in the user namespace")
        }
        (StageOp::Groups { .. }, libc::EPERM) => Some("the user namespace denies setgroups(2)"),
        (StageOp::OpenTree { .. }, libc::EINVAL) => {
            Some("what is mounted below cannot be left out here (use rbind)")
        }
        _ => None,
    }
}

fn mismatch(step: Option<&Op>, errno: i32) -> Error {
    let text = match step {
        Some(Op::Stage(StageOp::Target { .. })) if errno == libc::EPERM => {
            "the mount point lies inside a procfs"
        }
        Some(Op::Stage(StageOp::Target { .. } | StageOp::Unmount { .. })) if errno == libc::EINVAL => {
            "the mount point is the root itself"
        }
        Some(Op::Stage(StageOp::OpenTree { tree, .. })) => match tree.must {
            Must::Proc => "the source is no procfs: /proc must be one",
            _ => "not a directory",
        },
        Some(Op::Stage(StageOp::CopyInside { .. })) => "the source is no procfs: /proc must be one",
        Some(Op::Stage(StageOp::Mknod { .. })) => "something else exists there already",
        Some(Op::Stage(StageOp::Keyring { .. })) => "somebody made a session keyring of that name before",
        Some(Op::Stage(StageOp::CopyUp { .. })) if errno == libc::EINVAL => {
            "what is to be copied lies in a pseudo file system"
        }
        Some(Op::Stage(StageOp::Mask { .. })) => "the container's /dev/null is not the null device",
        Some(Op::Stage(StageOp::Console { .. })) => "/dev/pts/ptmx is not a terminal multiplexer",
        Some(Op::Stage(StageOp::ConsoleBind(_))) => "/dev/console is a symbolic link or a directory",
        _ => "not what was expected",
    };
    Error::new(Kind::Invalid, format!("{text}: {}", Words(errno)))
}

/// The wording of Go's exec.LookPath, which clients match (compatibility E5).
fn lookup_failure(program: &Program, errno: i32) -> Error {
    let name = program.steps.iter().find_map(|step| match &step.op {
        Op::Stage(StageOp::Exec { args, .. }) => args.first(),
        _ => None,
    });
    let name = name.map_or("", String::as_str);
    let text = match (name.contains('/'), errno) {
        (false, libc::ENOENT) => format!("exec: \"{name}\": executable file not found in $PATH"),
        (true, libc::ENOENT) => format!("exec: \"{name}\": stat {name}: {}", Words(errno)),
        _ => format!("exec: \"{name}\": {}", Words(errno)),
    };
    Error::new(Kind::Invalid, text).advise(advice::of_program(name, errno))
}

/// The wording of runc (compatibility E11), for hooks of both sides.
pub(crate) fn hook_failure(
    kind: &str,
    number: u16,
    hook: &Hook,
    aux: u32,
    errno: i32,
    output: &[u8],
) -> Error {
    // It is the hook's, perhaps from inside: one line, and nothing that speaks to a terminal.
    let output = String::from_utf8_lossy(output);
    let output = printable(output.trim_end());
    let what = match aux {
        aux::HOOK_STATUS => format!("exit status {errno}"),
        aux::HOOK_SIGNAL => format!("killed by signal {errno}"),
        aux::HOOK_TIMEOUT => {
            let seconds = hook.timeout.unwrap_or_default().as_secs_f64();
            format!("hook ran past specified timeout of {seconds:.1}s")
        }
        call => format!("{}({}): {}", call_name(call), hook.path, Words(errno)),
    };
    let output = if output.is_empty() { String::new() } else { format!(", output: {output}") };
    Error::new(Kind::Peer, format!("error running {kind} hook #{number} ({}): {what}{output}", hook.path))
        .at(format!("config.json {}", hook.at))
}

pub(super) fn call_name(number: u32) -> String {
    syscalls::Sysno::new(number as usize)
        .map_or_else(|| format!("system call {number}"), |name| name.name().to_owned())
}
