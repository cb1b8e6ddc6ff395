// SPDX-License-Identifier: Apache-2.0
//! What a foreground `run` or `exec` shares with its caller: the terminal, signals, orphans, descriptors.
//!
//! Its user is `cli/foreground.rs`; the container's own terminal is made by the stage.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::io::{Errno, Result};
use rustix::process::getpgrp;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
    tcsetwinsize,
};

/// A terminal in raw mode; dropping it restores what was.
#[derive(Debug)]
pub struct Raw {
    tty: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Puts `tty` into raw mode. `None` when it is no terminal, or we are in its background: then it belongs to
    /// somebody else (and with SIGTTOU blocked the kernel would not keep us from changing it).
    ///
    /// # Errors
    /// Those of tcsetattr(3) and fcntl(2).
    pub fn enter(tty: BorrowedFd<'_>) -> Result<Option<Raw>> {
        if !is_ours(tty) {
            return Ok(None);
        }
        let before = tcgetattr(tty)?;
        let raw = Raw { tty: fcntl_dupfd_cloexec(tty, 3)?, before };
        let mut modes = raw.before.clone();
        modes.make_raw();
        tcsetattr(tty, OptionalActions::Now, &modes)?;
        Ok(Some(raw))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has hung up has nothing to restore.
        let _ = tcsetattr(&self.tty, OptionalActions::Now, &self.before);
    }
}

/// A terminal that is nobody else's at the moment: its session has us in the foreground, or it has none.
fn is_ours(tty: BorrowedFd<'_>) -> bool {
    isatty(tty) && !tcgetpgrp(tty).is_ok_and(|group| group != getpgrp())
}

/// Whether what a container's terminal says goes to a terminal that is raw because of us: standard output is the one that
/// [`Raw::enter`] takes over at standard input. Any other ends lines in its own way, and must not be given lines that have ended already.
pub(crate) fn is_relayed_unchanged() -> bool {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    is_ours(stdin.as_fd()) && are_one(stdin.as_fd(), stdout.as_fd())
}

/// Whether both descriptors are of one terminal, whatever names (`/dev/tty`) it was opened by.
fn are_one(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    device_number(one).is_some_and(|one| device_number(other) == Some(one))
}

/// A terminal's device number, as the kernel knows it.
fn device_number(tty: BorrowedFd<'_>) -> Option<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGDEV writes one unsigned int, which lives here; the descriptor is open for the duration of the borrow.
    let result = unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGDEV as _, &raw mut number) };
    (result == 0).then_some(number)
}

/// Lets a pseudoterminal end its lines with a bare newline, for a reader that is no terminal, or one that ends lines itself.
///
/// # Errors
/// Those of tcgetattr(3) and tcsetattr(3).
pub fn plain_newlines(console: impl AsFd) -> Result<()> {
    let mut modes = tcgetattr(&console)?;
    modes.output_modes.remove(OutputModes::ONLCR);
    tcsetattr(&console, OptionalActions::Now, &modes)
}

/// The size (rows, columns) of the first of our standard descriptors that is a terminal with a size.
pub fn size_of_stdio() -> Option<(u16, u16)> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut sizes =
        [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().filter_map(|fd| tcgetwinsize(fd).ok());
    sizes.find(|size| size.ws_row != 0 || size.ws_col != 0).map(|size| (size.ws_row, size.ws_col))
}

/// Gives `console` the size of `tty`; a terminal without a size (0 × 0) has none to give.
///
/// # Errors
/// Those of tcgetwinsize(3) and tcsetwinsize(3): ENOTTY when either is no terminal.
pub fn copy_size(tty: impl AsFd, console: impl AsFd) -> Result<()> {
    let size = tcgetwinsize(tty)?;
    if size.ws_row == 0 && size.ws_col == 0 {
        return Ok(());
    }
    tcsetwinsize(console, size)
}

/// Whether the caller handed down descriptor `number`: it is open, and without FD_CLOEXEC, which no descriptor
/// that came through execve(2) can have and every one of ours has.
pub fn handed_down(number: u32) -> bool {
    let Ok(fd) = i32::try_from(number) else { return false };
    // SAFETY: F_GETFD takes no pointer and changes nothing; a number that is not open gives EBADF.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// The descriptor `number` as our own, if the caller handed it down and it can be written to. It must be taken but once.
pub fn take_handed_down(number: i32) -> Option<OwnedFd> {
    let handed = u32::try_from(number).is_ok_and(handed_down);
    // SAFETY: it is open and not one of ours, so that nobody else here owns it.
    let fd = handed.then(|| unsafe { OwnedFd::from_raw_fd(number) })?;
    let mode = rustix::fs::fcntl_getfl(&fd).ok()?;
    (mode & rustix::fs::OFlags::RWMODE != rustix::fs::OFlags::RDONLY).then_some(fd)
}

/// Makes ended children wait to be waited for, even if our caller ignores SIGCHLD: an ignored one (it is inherited
/// through execve) would let them vanish with their exit codes.
pub fn keep_zombies() {
    // SAFETY: SIG_DFL installs no code of ours. SIGCHLD is a valid signal, so the call cannot fail.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Sends `signal`, any number from 0 to 64.
///
/// # Errors
/// Those of pidfd_send_signal(2): ESRCH when the process has been waited for.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open for the duration of the borrow, a null info means "as kill(2) would fill it
    // in", and no flags are defined. (rustix takes only signals that have a name: no real-time ones.)
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

/// Reaps ended children until there are none, or the next one is `spared`.
pub fn reap_all_but(spared: i32) {
    loop {
        // SAFETY: all zeroes is a valid siginfo_t (plain integers and pointers).
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let peek = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` is a writable siginfo_t of ours.
        let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, peek) };
        // SAFETY: waitid fills in the SIGCHLD member, or leaves the zeroes.
        let pid = unsafe { info.si_pid() };
        if result < 0 || pid <= 0 || pid == spared {
            return;
        }
        // SAFETY: a null status is allowed; the pid is that of our own zombie, so it cannot have been reused.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::io::{FdFlags, fcntl_setfd};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{LocalModes, Winsize};

    use super::*;

    fn pty() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        (master, slave)
    }

    #[test]
    fn raw_mode_ends_with_its_guard() {
        let (_master, tty) = pty();
        let local = |tty: &OwnedFd| tcgetattr(tty).unwrap().local_modes;
        let before = local(&tty);
        assert!(before.contains(LocalModes::ICANON));
        let raw = Raw::enter(tty.as_fd()).unwrap().unwrap();
        assert!(!local(&tty).intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        drop(raw);
        assert_eq!(local(&tty), before);
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert!(Raw::enter(null.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_terminal_is_the_same_by_every_descriptor_of_it() {
        let ((_a, tty), (_b, other)) = (pty(), pty());
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert!(are_one(tty.as_fd(), tty.try_clone().unwrap().as_fd()));
        assert!(!are_one(tty.as_fd(), other.as_fd()));
        assert!(!are_one(null.as_fd(), null.as_fd()));
    }

    #[test]
    fn sizes_are_copied_unless_there_is_none() {
        let ((_a, tty), (console, _b)) = (pty(), pty());
        let size = |ws_row, ws_col| Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&tty, size(7, 9)).unwrap();
        copy_size(&tty, &console).unwrap();
        tcsetwinsize(&tty, size(0, 0)).unwrap();
        copy_size(&tty, &console).unwrap();
        let got = tcgetwinsize(&console).unwrap();
        assert_eq!((got.ws_row, got.ws_col), (7, 9));
    }

    #[test]
    fn handed_down_means_open_and_not_ours() {
        let fd = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let number = u32::try_from(fd.as_raw_fd()).unwrap();
        assert!(!handed_down(number));
        fcntl_setfd(&fd, FdFlags::empty()).unwrap();
        assert!(handed_down(number));
        assert!(!handed_down(u32::MAX));
    }

    #[test]
    fn any_signal_is_sent_and_the_spared_child_is_left() {
        keep_zombies();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        send(pidfd.as_fd(), 0).unwrap();
        send(pidfd.as_fd(), 40).unwrap();
        assert_eq!(send(pidfd.as_fd(), 65), Err(Errno::INVAL));
        // Other tests of this process have children too, so only the spared one can be asserted on.
        while {
            let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, None).unwrap() == 0
        } {}
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(40));
    }
}
