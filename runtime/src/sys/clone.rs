// SPDX-License-Identifier: Apache-2.0
//! clone3(2) and the launch window: the few system calls that the new process makes before it is the stage.
//!
//! The window must be sound in a child of a threaded process: it allocates nothing, locks nothing, formats nothing
//! and touches no Rust runtime state; all it uses was prepared before the clone. CLONE_VM is never used.

use std::ffi::{CString, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{Context, RawErrno, Result};
use crate::stage::wire::{Message, NO_OP, barrier, kind};

/// How the stage comes to run.
pub(crate) enum Stage<'a> {
    /// The sealed program in this memfd, and the memfd with its operations.
    Sealed {
        /// The stage's own executable.
        image: BorrowedFd<'a>,
        /// The encoded program.
        program: BorrowedFd<'a>,
    },
    /// The interpreter linked into this binary, on these words (the child has its own copy).
    Linked(&'a mut [u64]),
}

impl Stage<'_> {
    /// The same once more, for a second attempt.
    pub(crate) fn again(&mut self) -> Stage<'_> {
        match self {
            Stage::Sealed { image, program } => Stage::Sealed { image: *image, program: *program },
            Stage::Linked(words) => Stage::Linked(words),
        }
    }
}

/// How a new process gets into its control groups. The program names the first or the second way, by the kind of hierarchy
/// (`Version::way_in`); what the kernel refuses then becomes the third (`host/birth.rs`), and the third the fourth
/// (`Placement::place`). However it is, the process is in them before the stage runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayIn {
    /// It is born in its group: clone3(2) with CLONE_INTO_CGROUP. For the unified hierarchy (v2).
    Born,
    /// It joins its groups by itself, writing "0" to the file tasks of each, and tells the host. For v1; in its group of a unified
    /// hierarchy beside that it is born.
    JoinsItself,
    /// It waits until the host has written its pid to each cgroup.procs.
    MovedByPid,
    /// It waits until systemd has done that for us (AttachProcessesToUnit): where its old group and the new one have only
    /// systemd's groups in common, root alone may move it.
    PutBySystemd,
}

impl WayIn {
    /// Whether somebody else moves it, for which it waits.
    fn is_moved(self) -> bool {
        matches!(self, WayIn::MovedByPid | WayIn::PutBySystemd)
    }
}

/// Everything that the launch window needs.
pub(crate) struct Window<'a> {
    /// CLONE_NEW* flags.
    pub flags: u64,
    /// How it gets into its control groups.
    pub way_in: WayIn,
    /// Directory of the v2 group to be born into; for whoever is moved it says nothing.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// For `JoinsItself`: the files tasks of its groups, open for writing. Where they refuse, it waits to be moved.
    pub joins: &'a [OwnedFd],
    /// Wait for the host's word before the stage, whatever the way into the groups.
    pub wait: bool,
    /// Become root of the new user namespace: the exec of the stage would lose all capabilities otherwise.
    pub become_root: bool,
    /// What holds the container's lock: a child that joins its groups itself may be kept from it for long, and would keep
    /// the lock when the host is gone.
    pub lock: Option<BorrowedFd<'a>>,
    /// The child's end of the socket to the host.
    pub sync: BorrowedFd<'a>,
    /// The host's end: a child that waits holding it would never see the host end.
    pub host: Option<BorrowedFd<'a>>,
    /// What becomes descriptors 0, 1 and 2, when not the caller's own. Each is 3 or above.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
    /// Descriptors that survive the exec of the stage.
    pub inherit: &'a [BorrowedFd<'a>],
}

impl<'a> Window<'a> {
    /// For a process that is no stage: in the caller's groups, and waiting for nobody.
    fn plain(flags: u64, sync: BorrowedFd<'a>) -> Window<'a> {
        Window {
            flags,
            way_in: WayIn::Born,
            cgroup: None,
            joins: &[],
            wait: false,
            become_root: false,
            lock: None,
            sync,
            host: None,
            stdio: None,
            inherit: &[],
        }
    }

    /// The group that the process is born into.
    fn born_into(&self) -> Option<BorrowedFd<'a>> {
        self.cgroup.filter(|_| !self.way_in.is_moved())
    }

    /// CLONE_NEW* flags of what it makes only when it is in its groups: a cgroup namespace is rooted where its maker is.
    fn made_when_moved(&self) -> u64 {
        if self.way_in.is_moved() { self.flags & libc::CLONE_NEWCGROUP as u64 } else { 0 }
    }
}

/// Launches the stage; returns its pid (in this process's pid namespace) and its pidfd.
///
/// # Errors
/// The errno of clone3(2): ENOSYS before Linux 5.7 or behind a filter, ENOSPC at a namespace limit, EAGAIN or EBUSY
/// from the control group, EPERM without privilege.
pub(crate) fn launch(window: &Window<'_>, stage: Stage<'_>) -> Result<(i32, OwnedFd)> {
    // Everything that allocates comes before the clone.
    let inherit: Vec<RawFd> = window.inherit.iter().map(AsRawFd::as_raw_fd).collect();
    let number = match &stage {
        // Two descriptors in one number: it must be able to say that it could not read the first.
        Stage::Sealed { program, .. } => {
            ((program.as_raw_fd() as u64) << 32 | window.sync.as_raw_fd() as u64).to_string()
        }
        Stage::Linked(_) => String::new(),
    };
    let argument = CString::new(number).unwrap_or_default();
    let argv: [*const c_char; 3] = [c"corten".as_ptr(), argument.as_ptr(), std::ptr::null()];
    let env: [*const c_char; 1] = [std::ptr::null()];
    let image = match &stage {
        Stage::Sealed { image, .. } => image.as_raw_fd(),
        Stage::Linked(_) => -1,
    };
    let linked = match stage {
        Stage::Linked(words) => Some((words.as_mut_ptr().cast::<u8>(), size_of_val(words))),
        Stage::Sealed { .. } => None,
    };
    let (pid, pidfd) = clone3(window)?;
    if let Some(pidfd) = pidfd {
        return Ok((pid, pidfd));
    }
    // The child, from here on.
    before_stage(window, &inherit);
    if let Some((base, length)) = linked {
        // SAFETY: the words are this process's own copy, 8-byte aligned, and used by nothing else any more.
        unsafe { crate::stage::run(base, length) }
    }
    // SAFETY: an empty path with AT_EMPTY_PATH, and two NULL-terminated arrays that live on this stack.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            image,
            c"".as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    give_up(window.sync, libc::SYS_execveat)
}

/// Of linux/sched.h, beyond libc's 32-bit flags: all handlers to their defaults.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
/// Of linux/sched.h: born into the group of `clone_args.cgroup`.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The raw clone: `Some(pidfd)` in the parent, `None` in the child.
fn clone3(window: &Window<'_>) -> Result<(i32, Option<OwnedFd>)> {
    let mut pidfd: RawFd = -1;
    let group = window.born_into();
    let into = if group.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let namespaces = window.flags & !window.made_when_moved();
    let args = libc::clone_args {
        flags: namespaces | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND | into,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: group.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: without CLONE_VM the child has a copy of everything, this frame included; the structure is passed
    // with its size and `pidfd` outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match pid {
        0 => Ok((0, None)),
        pid if pid > 0 => {
            // SAFETY: CLONE_PIDFD stored a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd((&raw const pidfd).read_volatile()) };
            Ok((pid as i32, Some(pidfd)))
        }
        _ => Err(RawErrno::from(std::io::Error::last_os_error())).call(|| "clone3"),
    }
}

/// In the child: gets into its groups, waits for the host's word and puts descriptors where the stage expects them.
fn before_stage(window: &Window<'_>, inherit: &[RawFd]) {
    let sync = window.sync;
    if let Some(host) = window.host {
        // SAFETY: closes this process's own copy.
        unsafe { libc::syscall(libc::SYS_close, host.as_raw_fd()) };
    }
    if let (Some(lock), WayIn::JoinsItself) = (window.lock, window.way_in) {
        // SAFETY: closes this process's own copy.
        unsafe { libc::syscall(libc::SYS_close, lock.as_raw_fd()) };
    }
    let is_in = match window.way_in {
        WayIn::Born => true,
        WayIn::JoinsItself => join(sync, window.joins),
        WayIn::MovedByPid | WayIn::PutBySystemd => false,
    };
    if !is_in {
        wait_for_word(sync);
    }
    if window.wait {
        wait_for_word(sync);
    }
    let late = window.made_when_moved();
    // SAFETY: the flags are namespaces, which concern this process alone.
    if late != 0 && unsafe { libc::syscall(libc::SYS_unshare, late) } != 0 {
        give_up(sync, libc::SYS_unshare)
    }
    if window.become_root {
        for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
            // SAFETY: raw calls with numbers: libc's wrappers would signal threads that this process does not have.
            if unsafe { libc::syscall(call, 0, 0, 0) } != 0 {
                give_up(sync, call)
            }
        }
    }
    if let Some(stdio) = window.stdio {
        for (to, from) in (0..).zip(stdio) {
            // SAFETY: dup3 of descriptors that this process owns a copy of.
            if unsafe { libc::syscall(libc::SYS_dup3, from.as_raw_fd(), to, 0) } < 0 {
                give_up(sync, libc::SYS_dup3)
            }
        }
    }
    for &fd in inherit {
        // SAFETY: clears the close-on-exec flag of a descriptor that this process owns a copy of.
        if unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_SETFD, 0) } < 0 {
            give_up(sync, libc::SYS_fcntl)
        }
    }
}

/// Waits until the host says that it may go on; without the host it ends.
fn wait_for_word(sync: BorrowedFd<'_>) {
    let mut word = [0_u8; 16];
    // SAFETY: reads at most 16 bytes into a buffer of 16.
    let length = unsafe { libc::read(sync.as_raw_fd(), word.as_mut_ptr().cast(), word.len()) };
    if length < 0 {
        give_up(sync, libc::SYS_read)
    }
    if length != 16 || word[0] != kind::GO {
        // SAFETY: ends this process without running anything.
        unsafe { libc::_exit(1) }
    }
}

/// Joins groups by itself and tells the host; whether it could. For a process that moves itself and is its only
/// thread, the kernel takes no lock that waits for every processor (cgroup_procs_write_start, Linux 5.12): that wait
/// is some 10 ms.
fn join(sync: BorrowedFd<'_>, groups: &[OwnedFd]) -> bool {
    let mut errno = 0;
    for tasks in groups {
        // SAFETY: writes one byte of a constant to a descriptor that this process owns a copy of; errno as in `give_up`.
        unsafe {
            if libc::write(tasks.as_raw_fd(), b"0".as_ptr().cast(), 1) != 1 {
                errno = *libc::__errno_location();
                break;
            }
        }
    }
    let message =
        Message { kind: kind::REACHED, barrier: barrier::JOINED, aux: errno as u32, ..Default::default() };
    let bytes = message.bytes();
    // SAFETY: writes 16 bytes of a buffer of 16, and ends a process without running anything that could not: the host would
    // wait for that word for ever. Its end it sees, and the errno is the exit status.
    unsafe {
        if libc::write(sync.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) != bytes.len() as isize {
            libc::_exit(*libc::__errno_location())
        }
    }
    errno == 0
}

/// Tells the host which call failed, in the stage's own words, and ends.
fn give_up(sync: BorrowedFd<'_>, call: i64) -> ! {
    // SAFETY: errno is this thread's own; on both C libraries it is a plain thread-local integer.
    let errno = unsafe { *libc::__errno_location() };
    let bytes =
        Message { kind: kind::FAULT, op: NO_OP, errno, aux: call as u32, ..Default::default() }.bytes();
    // SAFETY: writes 16 bytes of a buffer of 16 and ends this process without running anything. Where it cannot say why, the errno
    // of that is the exit status.
    unsafe {
        let told = libc::write(sync.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
        libc::_exit(if told < 0 { *libc::__errno_location() } else { 1 })
    }
}

/// A process that only sleeps, in a new user namespace and those of `flags`: to write mappings to, and to hold on to
/// the namespaces.
///
/// # Errors
/// The errno of clone3(2).
pub(crate) fn sleeper_in_userns(flags: u64) -> Result<(i32, OwnedFd)> {
    sleeper(libc::CLONE_NEWUSER as u64 | flags)
}

/// A process that only sleeps, in new namespaces of `flags`.
///
/// # Errors
/// The errno of clone3(2).
pub(crate) fn sleeper(flags: u64) -> Result<(i32, OwnedFd)> {
    let stdin = rustix::stdio::stdin();
    let parent = std::process::id();
    match clone3(&Window::plain(flags, stdin))? {
        (pid, Some(pidfd)) => Ok((pid, pidfd)),
        (_, None) => sleep(parent),
    }
}

/// The same in a user namespace that exists; it is there on return.
///
/// # Errors
/// The errno of clone3(2) or of setns(2).
pub(crate) fn sleeper_in(userns: BorrowedFd<'_>) -> Result<(i32, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call(|| "pipe")?;
    let parent = std::process::id();
    let (pid, pidfd) = match clone3(&Window::plain(0, write.as_fd()))? {
        (pid, Some(pidfd)) => (pid, pidfd),
        (_, None) => {
            // SAFETY: a number and a descriptor that this process owns a copy of; the word is 4 bytes of its own stack.
            unsafe {
                let joined = libc::syscall(libc::SYS_setns, userns.as_raw_fd(), libc::CLONE_NEWUSER);
                let errno = if joined == 0 { 0 } else { *libc::__errno_location() };
                libc::write(write.as_raw_fd(), (&raw const errno).cast(), size_of::<i32>());
                if joined != 0 {
                    libc::_exit(1)
                }
            }
            sleep(parent)
        }
    };
    drop(write);
    let mut word = [0; 4];
    let length = rustix::io::read(&read, &mut word).unwrap_or(0);
    match i32::from_ne_bytes(word) {
        0 if length == word.len() => Ok((pid, pidfd)),
        errno => {
            crate::sys::wait::reap(pidfd.as_fd())?;
            let errno = if errno == 0 { libc::ECHILD } else { errno };
            Err(crate::error::Error::os("setns(user)", errno))
        }
    }
}

/// In the child: sleeps until it is killed, or its parent ends.
fn sleep(parent: u32) -> ! {
    loop {
        // SAFETY: numbers only; the process ends by SIGKILL, also when its parent does.
        unsafe {
            libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            if libc::syscall(libc::SYS_getppid) != i64::from(parent) {
                libc::_exit(0)
            }
            libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
    }
}
