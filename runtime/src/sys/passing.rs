// SPDX-License-Identifier: Apache-2.0
//! Descriptors that pass an exec of this very process: entered by whoever has them, taken over by their numbers in the
//! program that comes next. Everything else is close-on-exec, always.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Context, Error, RawErrno, Result};

/// Numbers of descriptors that are to pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassedFds(Vec<RawFd>);

impl PassedFds {
    /// Enters one, and returns its place in the list: the same place for the same descriptor. It must stay open until the exec.
    pub fn enter(&mut self, fd: BorrowedFd<'_>) -> u32 {
        let fd = fd.as_raw_fd();
        let place = self.0.iter().position(|known| *known == fd).unwrap_or_else(|| {
            self.0.push(fd);
            self.0.len() - 1
        });
        place as u32
    }

    /// The list, as it is handed over.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.0.iter().map(|fd| *fd as u32).collect()
    }

    /// Executes `program` (an open file) in this process with these descriptors open, this environment, and what stands
    /// behind 0, 1 and 2. Returns when that failed: everything is as before then. Must be called while this process has
    /// one thread: another's clone would pass on what is open meanwhile.
    ///
    /// # Errors
    /// The errno of execveat(2), or that of the descriptor that is not open.
    pub fn execute(&self, program: BorrowedFd<'_>, arguments: &[CString]) -> Error {
        let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
        pointers.push(std::ptr::null());
        let failed = match self.0.iter().try_for_each(|fd| set_flags(*fd, 0)) {
            Err(errno) => Error::os("fcntl(F_SETFD)", errno),
            Ok(()) => {
                // SAFETY: both arrays end with a null pointer and their strings live until the call returns, if it does;
                // `environ` is read only, and with one thread nobody writes to it.
                unsafe {
                    libc::syscall(
                        libc::SYS_execveat,
                        program.as_raw_fd(),
                        c"".as_ptr(),
                        pointers.as_ptr(),
                        environ,
                        libc::AT_EMPTY_PATH,
                    );
                }
                Error::os("execve", RawErrno::from(std::io::Error::last_os_error()))
            }
        };
        for fd in &self.0 {
            // Those that are not open have nothing to be set.
            let _ = set_flags(*fd, libc::FD_CLOEXEC);
        }
        failed
    }
}

unsafe extern "C" {
    static environ: *const *const libc::c_char;
}

fn set_flags(fd: RawFd, flags: libc::c_int) -> Result<(), RawErrno> {
    // SAFETY: numbers only.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, flags) } {
        -1 => Err(std::io::Error::last_os_error().into()),
        _ => Ok(()),
    }
}

/// Takes over descriptors that the program before us has left open for us: close-on-exec from here on.
///
/// # Errors
/// EBADF for a number that is not open, or is anybody's already: what this program opens itself is close-on-exec from
/// its birth, and so is what was taken over once.
pub fn take_over(numbers: &[u32]) -> Result<Vec<OwnedFd>> {
    numbers.iter().map(|number| take_over_one(*number).call(|| format!("descriptor {number}"))).collect()
}

fn take_over_one(number: u32) -> Result<OwnedFd, RawErrno> {
    let fd = RawFd::try_from(number).ok().filter(|fd| *fd > 2).ok_or(RawErrno(libc::EBADF))?;
    // SAFETY: numbers only.
    match unsafe { libc::fcntl(fd, libc::F_GETFD) } {
        -1 => return Err(std::io::Error::last_os_error().into()),
        flags if flags & libc::FD_CLOEXEC != 0 => return Err(RawErrno(libc::EBADF)),
        _ => {}
    }
    set_flags(fd, libc::FD_CLOEXEC)?;
    // SAFETY: it is open, and nobody in this process owns it: it was not close-on-exec, which everything is that this
    // process has opened or taken over.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Copies of descriptors, by which they can be put back under their numbers whatever has become of those meanwhile.
#[derive(Debug, Default)]
pub struct SpareFds(Vec<(RawFd, OwnedFd)>);

/// Copies what is open under these numbers.
///
/// # Errors
/// EBADF naming the number; EMFILE.
pub fn spare(numbers: &[u32]) -> Result<SpareFds> {
    let spare = |number: &u32| Ok((RawFd::try_from(*number).unwrap_or(-1), copy_of(*number)?));
    numbers.iter().map(spare).collect::<Result<_>>().map(SpareFds)
}

impl SpareFds {
    /// Executes what `program` numbers, in this process, with every number meaning again what it did. Nothing of this process
    /// is as before if that fails: it can do nothing but end.
    pub fn execute(self, program: u32, arguments: &[CString]) -> Error {
        for (number, copy) in &self.0 {
            // SAFETY: numbers only. Whatever is open under the number now is closed; its owner, of this same program, does
            // nothing more: the caller has this one thread, and execs or ends.
            unsafe { libc::dup2(copy.as_raw_fd(), *number) };
        }
        let numbers = PassedFds(self.0.iter().map(|(number, _)| *number).collect());
        match copy_of(program) {
            Ok(program) => numbers.execute(program.as_fd(), arguments),
            Err(error) => error,
        }
    }
}

/// CLOCK_MONOTONIC as it is (clock_gettime(2)), which std's `Instant` does not tell. Not by rustix, which ends the process where the
/// vDSO lacks something, as User Mode Linux's does.
#[must_use]
pub fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes one timespec, which is ours. This clock cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// A copy of a descriptor that is open under this number, whoever has it.
///
/// # Errors
/// EBADF.
pub fn copy_of(number: u32) -> Result<OwnedFd> {
    let fd = RawFd::try_from(number).unwrap_or(-1);
    // SAFETY: numbers only; the copy is new, and ours.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) } {
        -1 => Err(RawErrno::from(std::io::Error::last_os_error())).call(|| format!("descriptor {number}")),
        // SAFETY: it was made just now.
        copy => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
    }
}

/// The number by which a program that is handed `fd` finds it.
#[must_use]
pub fn number_of(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// A path that leads to what `fd` has open, in this process and up to a child's exec.
#[must_use]
pub fn path_to(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

    use super::*;

    #[test]
    fn what_is_somebodys_is_not_taken_over() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut passed = PassedFds::default();
        assert_eq!([&read, &write, &read].map(|fd| passed.enter(fd.as_fd())), [0, 1, 0]);
        assert!(take_over(&passed.numbers()).is_err());
        assert!(take_over(&[0]).is_err() && take_over(&[u32::MAX]).is_err());
        // As an exec would leave it.
        let left = read.try_clone().unwrap();
        fcntl_setfd(&left, FdFlags::empty()).unwrap();
        let number = number_of(left.as_fd());
        std::mem::forget(left);
        let taken = take_over(&[number]).unwrap();
        assert!(fcntl_getfd(&taken[0]).unwrap().contains(FdFlags::CLOEXEC));
        assert!(take_over(&[number]).is_err());
    }

    #[test]
    fn a_failed_exec_leaves_everything_close_on_exec() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut passed = PassedFds::default();
        passed.enter(null.as_fd());
        let error = passed.execute(null.as_fd(), &[c"x".into()]);
        assert_eq!(error.errno(), Some(libc::EACCES), "{error}");
        assert!(fcntl_getfd(&null).unwrap().contains(FdFlags::CLOEXEC));
        let gone = PassedFds(vec![-1]).execute(null.as_fd(), &[]);
        assert_eq!(gone.errno(), Some(libc::EBADF), "{gone}");
    }
}
