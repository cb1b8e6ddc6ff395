// SPDX-License-Identifier: Apache-2.0
//! The raw system calls `nix` lacks, as safe functions. The only unsafe code of this crate.

#![allow(unsafe_code)]

mod children;
mod keys;
mod little;
pub mod ptrace;
mod trace;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

pub use children::{child_with_pid, reaped};
pub use keys::{revoke, searchable_keyring, session_keyring, session_keyring_label};
pub use little::{in_group, limit_open_files, with_open_files, without_memory, without_syscall};
pub use trace::{seize, visit_pid_namespace, write_in_mount_namespace};

static IGNORED_AT_BIRTH: AtomicU64 = AtomicU64::new(0);

// Rust's start-up ignores SIGPIPE before `main`, so what the process inherited must be read earlier.
// SAFETY: the section holds pointers to functions of this type, which the C library calls once before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_BIRTH: extern "C" fn() = read_ignored_signals;

extern "C" fn read_ignored_signals() {
    let mut mask = 0u64;
    for signal in 1..=64 {
        // SAFETY: an all-zero sigaction is a valid value; the call only writes to it.
        let ignored = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
        };
        mask |= u64::from(ignored) << (signal - 1);
    }
    IGNORED_AT_BIRTH.store(mask, Ordering::Relaxed);
}

/// The signals that were ignored when this program was executed, bit n-1 for signal n.
pub fn ignored_at_birth() -> u64 {
    IGNORED_AT_BIRTH.load(Ordering::Relaxed)
}

/// `syscall(nr, args…)`, for asking what a seccomp filter says: only for calls that touch no memory of ours.
pub fn syscall(nr: i64, args: [i64; 6]) -> Result<i64, i32> {
    // SAFETY: the caller passes plain numbers; pointers among them are null or wild and make the kernel say EFAULT.
    let got = unsafe { libc::syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if got == -1 { Err(last_errno()) } else { Ok(got) }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A copy of another process's descriptor (pidfd_getfd(2)).
pub fn descriptor_of(pid: i32, fd: i32) -> io::Result<OwnedFd> {
    let open = |raw: i64| {
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows of it.
        unsafe { OwnedFd::from_raw_fd(raw as RawFd) }
    };
    let failed = io::Error::from_raw_os_error;
    let pidfd = open(syscall(libc::SYS_pidfd_open, [pid.into(), 0, 0, 0, 0, 0]).map_err(failed)?);
    let args = [pidfd.as_raw_fd().into(), fd.into(), 0, 0, 0, 0];
    Ok(open(syscall(libc::SYS_pidfd_getfd, args).map_err(failed)?))
}

/// A call through the 32-bit gate, `int 0x80`, with no arguments: answers the raw result.
#[cfg(target_arch = "x86_64")]
pub fn syscall_int80(nr: i32) -> i32 {
    let got: i32;
    // SAFETY: only argument-less calls are made; the gate clobbers r8-r11 and eax and touches no memory.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") nr => got,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, options(nostack));
    }
    got
}

/// Like x86_64's; other machines have no such gate.
#[cfg(not(target_arch = "x86_64"))]
pub fn syscall_int80(_nr: i32) -> i32 {
    -libc::ENOSYS
}

/// What sched_getattr(2) tells of the calling thread.
#[repr(C)]
#[derive(Default, Clone, Copy)]
pub struct SchedAttr {
    size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// sched_getattr(2) of the calling thread.
pub fn sched_getattr() -> SchedAttr {
    let mut attr = SchedAttr::default();
    // SAFETY: the kernel writes at most the given size, which is the struct's.
    unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &mut attr, size_of::<SchedAttr>(), 0) };
    attr
}

/// The extended attribute `name` of a file, links not followed.
pub fn attribute(path: &std::path::Path, name: &std::ffi::CStr) -> Result<String, i32> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| libc::EINVAL)?;
    let mut text = vec![0u8; 512];
    // SAFETY: both names are terminated; the kernel writes at most the given length into the buffer.
    let len = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), text.as_mut_ptr().cast(), 512) };
    if len < 0 {
        return Err(last_errno());
    }
    text.truncate(len as usize);
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned())
}

/// get_mempolicy(2) of the calling thread: the mode with its flags, and the nodes.
pub fn memory_policy() -> Result<(i32, Vec<u64>), i32> {
    let mut mode = 0i32;
    let mut nodes = [0u64; 16];
    let most = 8 * size_of_val(&nodes);
    // SAFETY: the kernel writes one int, and at most so many bits as the array has.
    let got = unsafe { libc::syscall(libc::SYS_get_mempolicy, &mut mode, nodes.as_mut_ptr(), most, 0, 0) };
    if got < 0 {
        return Err(last_errno());
    }
    let bits = (0..most as u64).filter(|bit| nodes[(bit / 64) as usize] >> (bit % 64) & 1 == 1);
    Ok((mode, bits.collect()))
}

/// renameat2(RENAME_EXCHANGE): the two paths swap what they name.
pub fn exchange(one: &std::path::Path, other: &std::path::Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let [one, other] = [one, other].map(|path| std::ffi::CString::new(path.as_os_str().as_bytes()));
    let (one, other) = (one?, other?);
    let cwd = libc::AT_FDCWD;
    // SAFETY: both paths are terminated.
    let got = unsafe {
        libc::syscall(libc::SYS_renameat2, cwd, one.as_ptr(), cwd, other.as_ptr(), libc::RENAME_EXCHANGE)
    };
    if got == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The NIS domain name.
pub fn domainname() -> String {
    // SAFETY: utsname is plain bytes, which the call fills with terminated strings.
    unsafe {
        let mut uts: libc::utsname = std::mem::zeroed();
        libc::uname(&mut uts);
        std::ffi::CStr::from_ptr(uts.domainname.as_ptr()).to_string_lossy().into_owned()
    }
}

/// Whether a network interface of this namespace is up; None when it cannot be asked.
pub fn interface_is_up(name: &str) -> Option<bool> {
    // SAFETY: an all-zero ifreq is valid; the call reads the name and writes the flags of this one.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)).ok()?;
        let socket = OwnedFd::from_raw_fd(socket);
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request)).ok()?;
        Some(i32::from(request.ifr_ifru.ifru_flags) & libc::IFF_UP != 0)
    }
}

/// The process's umask.
pub fn umask() -> u32 {
    // SAFETY: umask(2) cannot fail and takes no pointer.
    unsafe {
        let mask = libc::umask(0);
        libc::umask(mask);
        mask
    }
}

/// The size (rows, columns) of the terminal `fd`, or None when it is none.
pub fn window_size(fd: BorrowedFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills the struct.
    let got = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ as _, &mut size) };
    (got == 0).then_some((size.ws_row, size.ws_col))
}

/// Sets the size of the terminal `fd`.
pub fn set_window_size(fd: BorrowedFd, rows: u16, cols: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads the struct.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ as _, &size) }).map(drop)
}

/// Pushes a byte into the input of terminal `fd` (TIOCSTI).
pub fn push_input(fd: BorrowedFd, byte: u8) -> Result<(), i32> {
    // SAFETY: TIOCSTI reads one byte.
    let got = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSTI as _, &byte) };
    if got == 0 { Ok(()) } else { Err(last_errno()) }
}

fn check(got: i32) -> io::Result<i32> {
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got) }
}

/// Gives `command` a session of its own with its standard input as controlling terminal.
pub fn with_controlling_terminal(command: &mut Command) {
    // SAFETY: setsid and ioctl are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            check(libc::setsid())?;
            check(libc::ioctl(0, libc::TIOCSCTTY as _, 0)).map(drop)
        });
    }
}

/// Gives `command` the descriptor `from` under the number `to`.
pub fn with_fd(command: &mut Command, from: RawFd, to: RawFd) {
    // SAFETY: dup2 and fcntl are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if from == to {
                return check(libc::fcntl(to, libc::F_SETFD, 0)).map(drop);
            }
            check(libc::dup2(from, to)).map(drop)
        });
    }
}

/// Makes `command` start the way a careless caller leaves it: SIGUSR1 and SIGPIPE ignored, SIGUSR2 and SIGTERM blocked.
pub fn with_dirty_signals(command: &mut Command) {
    // SAFETY: signal and sigprocmask are async-signal-safe; an all-zero sigset_t is valid.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGUSR1, libc::SIG_IGN);
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&mut set, libc::SIGUSR2);
            libc::sigaddset(&mut set, libc::SIGTERM);
            check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())).map(drop)
        });
    }
}

/// Makes `command` start as a member of `groups`, and with `umask`.
pub fn with_groups_and_umask(command: &mut Command, groups: Vec<u32>, umask: u32) {
    // SAFETY: setgroups and umask are async-signal-safe; the vector lives in the closure.
    unsafe {
        command.pre_exec(move || {
            libc::umask(umask);
            check(libc::setgroups(groups.len(), groups.as_ptr())).map(drop)
        });
    }
}

/// How a process is that calls a runtime.
#[derive(Debug, Default)]
pub struct Attributes {
    /// It may run on the first processor only.
    pub one_processor: bool,
    pub umask: Option<u32>,
    pub nice: i32,
    /// Numbers of signals.
    pub ignored: Vec<i32>,
    pub blocked: Vec<i32>,
    /// So many descriptors that it forgot to close.
    pub leaks: u32,
    pub groups: Vec<u32>,
    /// Numbers of descriptors it has closed.
    pub closed: Vec<RawFd>,
}

impl Attributes {
    /// Takes them on. Only calls that may be made between fork and exec.
    fn take_on(&self) -> io::Result<()> {
        // SAFETY: all of these are plain system calls, or write to the local sets; all zeroes is a valid set.
        unsafe {
            if self.one_processor {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(0, &mut set);
                check(libc::sched_setaffinity(0, size_of_val(&set), &set))?;
            }
            if let Some(mask) = self.umask {
                libc::umask(mask);
            }
            if self.nice != 0 {
                check(libc::setpriority(libc::PRIO_PROCESS, 0, self.nice))?;
            }
            self.ignored.iter().for_each(|signal| _ = libc::signal(*signal, libc::SIG_IGN));
            if !self.blocked.is_empty() {
                let mut set: libc::sigset_t = std::mem::zeroed();
                self.blocked.iter().for_each(|signal| _ = libc::sigaddset(&mut set, *signal));
                check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
            }
            if !self.groups.is_empty() {
                check(libc::setgroups(self.groups.len(), self.groups.as_ptr()))?;
            }
            for _ in 0..self.leaks {
                check(libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY))?;
            }
            self.closed.iter().for_each(|fd| _ = libc::close(*fd));
        }
        Ok(())
    }
}

/// Blocks and ignores no signal, whoever started this: a shell's background, nohup and init ignore some, and what a runtime makes
/// of that is compared. (SIGPIPE is the standard library's to see to.)
pub fn handle_signals_as_usual() {
    // SAFETY: plain system calls; no handler is installed; all zeroes is a valid set.
    unsafe {
        for number in (1..=libc::SIGRTMAX()).filter(|number| *number != libc::SIGPIPE) {
            let mut now: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(number, std::ptr::null(), &mut now) == 0 && now.sa_sigaction == libc::SIG_IGN {
                libc::signal(number, libc::SIG_DFL);
            }
        }
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Makes `command` start with these attributes.
pub fn with_attributes(command: &mut Command, attributes: Attributes) {
    // SAFETY: what is called is async-signal-safe and allocates nothing; the vectors live in the closure.
    unsafe { command.pre_exec(move || attributes.take_on()) };
}

/// Makes `command` start as an ordinary user.
pub fn as_user(command: &mut Command, uid: u32) {
    // SAFETY: setgroups, setgid and setuid are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setgid(uid))?;
            check(libc::setuid(uid)).map(drop)
        });
    }
}

/// Receives one message and the descriptors that came with it.
pub fn receive(socket: BorrowedFd, text: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: text.len() };
    let mut space = [0u64; 16]; // aligned as a control message must be
    let mut fds = Vec::new();
    // SAFETY: the message points to live buffers of the given lengths; the CMSG macros stay within what the kernel
    // wrote; the descriptors are new and nobody else knows them.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&space) as _;
        let count = libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(control) = header.as_ref() {
            if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let bytes = control.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first = libc::CMSG_DATA(header).cast::<RawFd>();
                fds.extend((0..bytes / 4).map(|i| OwnedFd::from_raw_fd(first.add(i).read_unaligned())));
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        Ok((count as usize, fds))
    }
}

/// Makes orphaned descendants children of this process.
pub fn becomes_subreaper() -> io::Result<()> {
    // SAFETY: prctl with plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// The core-scheduling cookie of a process, 0 for none; the errno where the kernel has no such thing.
pub fn core_scheduling_cookie(pid: i32) -> Result<u64, i32> {
    let mut cookie = 0u64;
    // SAFETY: `cookie` outlives the call, which writes eight bytes to it.
    let got = unsafe { libc::prctl(libc::PR_SCHED_CORE, libc::PR_SCHED_CORE_GET, pid, 0, &raw mut cookie) };
    if got == -1 { Err(last_errno()) } else { Ok(cookie) }
}

static TELL: AtomicI32 = AtomicI32::new(-1);

extern "C" fn tell(_: libc::c_int) {
    // SAFETY: writes one byte of a constant to a descriptor that is never closed; write(2) may be called in a handler.
    unsafe { libc::write(TELL.load(Ordering::Relaxed), b"x".as_ptr().cast(), 1) };
}

/// A pipe that becomes readable when this process is told to end: by SIGTERM, SIGINT or SIGHUP, or because its parent is gone.
/// To be called once.
pub fn told_to_end() -> io::Result<OwnedFd> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    TELL.store(write.into_raw_fd(), Ordering::Relaxed);
    let ignored = |signal: &i32| ignored_at_birth() >> (signal - 1) & 1 == 1;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP].into_iter().filter(|signal| !ignored(signal)) {
        // SAFETY: an all-zero sigaction with a handler that does what handlers may; programs that are executed do not have it.
        check(unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = tell as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut())
        })?;
    }
    // SAFETY: prctl with plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0) })?;
    Ok(read)
}

/// One request on a seccomp listener: its id, the calling process and the number of the call.
pub struct Notification {
    pub id: u64,
    pub pid: u32,
    pub nr: i32,
}

const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;

/// Waits for a request on a seccomp listener.
pub fn seccomp_receive(listener: BorrowedFd) -> io::Result<Notification> {
    // SAFETY: an all-zero request is what the kernel demands; it fills the struct.
    unsafe {
        let mut request: libc::seccomp_notif = std::mem::zeroed();
        check(libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &mut request))?;
        Ok(Notification { id: request.id, pid: request.pid, nr: request.data.nr })
    }
}

/// Answers a request: the call returns `value`, or fails with `errno` when that is not 0.
pub fn seccomp_answer(listener: BorrowedFd, id: u64, value: i64, errno: i32) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp { id, val: value, error: -errno, flags: 0 };
    // SAFETY: the kernel reads the struct.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &mut answer) }).map(drop)
}

/// The processor time that this process has had.
pub fn processor_time() -> std::time::Duration {
    // SAFETY: all zeroes is a valid timespec; the call only writes to it.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time);
        time
    };
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Children of this process, and of the programs it executes, need not be waited for.
pub fn forget_children() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}
