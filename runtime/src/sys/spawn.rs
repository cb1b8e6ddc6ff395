// SPDX-License-Identifier: Apache-2.0
//! What the shim and hooks need of fork(2) and of the time between fork and exec.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::error::{Context, RawErrno, Result};

/// Goes on in a child as well: 0 there, its pid here. Must be called while this process has one thread.
///
/// # Errors
/// The errno of fork(2); EBUSY when there is more than one thread.
pub fn fork() -> Result<i32> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(RawErrno(libc::EBUSY)).call(|| format!("fork with {threads} threads"));
    }
    // SAFETY: with a single thread no lock is held by anybody else, so the child may do whatever we may.
    match unsafe { libc::fork() } {
        -1 => Err(RawErrno::from(std::io::Error::last_os_error())).call(|| "fork"),
        pid => Ok(pid),
    }
}

/// Lets `command` run with `fds` as its descriptors 3, 4, 5 and so on.
pub fn hand_down(command: &mut Command, fds: Vec<OwnedFd>) {
    // Above every number that is to be taken, so that none is overwritten before it is moved.
    let lowest = 3 + fds.len() as RawFd;
    let place = move || {
        let mut high = [0; 8];
        for (slot, fd) in high.iter_mut().zip(&fds) {
            // SAFETY: duplicates a descriptor that this process owns a copy of.
            *slot = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
            if *slot < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        for (slot, to) in high.iter().take(fds.len()).zip(3..) {
            // SAFETY: dup2 of a descriptor made above; only this child's table changes.
            if unsafe { libc::dup2(*slot, to) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes only raw calls on numbers; it neither allocates nor locks.
    unsafe { command.pre_exec(place) };
}

/// Lets `command` begin with no signal blocked or ignored, and with nothing open but its three streams: it has nothing of whoever called us.
pub(crate) fn begin_afresh(command: &mut Command) {
    let begin = || {
        // SAFETY: an all-zero set is a set with nothing in it; numbers only otherwise. What is open is closed by exec.
        unsafe {
            let none: libc::sigset_t = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            // EINVAL for those that cannot be ignored, and were not.
            (1..=libc::SIGRTMAX()).for_each(|signal| _ = libc::signal(signal, libc::SIG_DFL));
            let marked =
                libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            if marked != 0 {
                // Linux 5.10 cannot mark ranges.
                (3..1024).for_each(|fd| _ = libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC));
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes only raw calls on numbers; it neither allocates nor locks.
    unsafe { command.pre_exec(begin) };
}

/// What a program finds in a mount namespace of its own, which is gone when it has ended.
#[derive(Default)]
pub struct MountView {
    /// A directory that a new tmpfs covers there. An empty name: nothing is to be found but the host's mounts.
    pub cover: CString,
    /// Who may look into it, and into what is made in it (an octal mode).
    pub mode: u32,
    /// Directories that are made in it, each after what it lies in. The last one is where the mounts are; without one, the cover.
    pub dirs: Vec<CString>,
    /// What is attached there.
    pub mounts: Vec<ViewMount>,
    /// Overlays of what was attached.
    pub overlays: Vec<ViewOverlay>,
}

/// A directory of a [`MountView`] with the contents of another, and with the view's mode: whoever may look into the view may look into
/// it. What is written to it is gone with the view.
pub struct ViewOverlay {
    /// Its name.
    pub name: CString,
    /// The name of an empty directory that is made for what is written.
    pub upper: CString,
    /// The name of an empty directory that is made for overlayfs.
    pub scratch: CString,
    /// What overlayfs is told, by names as above (Documentation/filesystems/overlayfs.rst).
    pub options: CString,
    /// A symbolic link that stands in for what has its name there: its path, below `upper`, and where it leads.
    pub link: Option<(CString, CString)>,
}

/// One mount of a [`MountView`].
pub struct ViewMount {
    /// The mount.
    pub mount: OwnedFd,
    /// The name of its mount point below the view's base.
    pub name: CString,
    /// It is a directory's.
    pub is_directory: bool,
    /// Nothing that is mounted on it shall be seen elsewhere.
    pub private: bool,
}

/// Lets `command` run in a mount namespace of its own, into which the host's mounts still come, with these besides.
pub fn in_mount_view(command: &mut Command, view: MountView) {
    let attach = move || {
        let done = |result: libc::c_long| match result {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        };
        let here = libc::AT_FDCWD;
        // SAFETY: raw calls on numbers and on strings that the closure owns; it neither allocates nor locks.
        unsafe {
            done(libc::c_long::from(libc::unshare(libc::CLONE_NEWNS)))?;
            let none = std::ptr::null();
            let slaves = libc::MS_SLAVE | libc::MS_REC;
            done(libc::c_long::from(libc::mount(none, c"/".as_ptr(), none, slaves, none.cast())))?;
            if view.cover.is_empty() {
                return Ok(());
            }
            let (tmpfs, cover) = (c"tmpfs".as_ptr(), view.cover.as_ptr());
            let flags = libc::MS_NOSUID | libc::MS_NODEV;
            done(libc::c_long::from(libc::mount(tmpfs, cover, tmpfs, flags, none.cast())))?;
            // The process's umask holds for what is made, not for this.
            done(libc::c_long::from(libc::chmod(cover, view.mode)))?;
            done(libc::c_long::from(libc::chdir(cover)))?;
            let make = |name: &CString| {
                done(libc::c_long::from(libc::mkdir(name.as_ptr(), view.mode)))?;
                done(libc::c_long::from(libc::chmod(name.as_ptr(), view.mode)))
            };
            for dir in &view.dirs {
                make(dir)?;
                done(libc::c_long::from(libc::chdir(dir.as_ptr())))?;
            }
            for ViewMount { mount, name, is_directory, private } in &view.mounts {
                let made = match is_directory {
                    true => libc::mkdir(name.as_ptr(), 0o700),
                    false => libc::mknod(name.as_ptr(), libc::S_IFREG | 0o600, 0),
                };
                done(libc::c_long::from(made))?;
                done(libc::syscall(
                    libc::SYS_move_mount,
                    mount.as_raw_fd(),
                    c"".as_ptr(),
                    here,
                    name.as_ptr(),
                    libc::MOVE_MOUNT_F_EMPTY_PATH,
                ))?;
                if *private {
                    let changed = libc::mount(none, name.as_ptr(), none, libc::MS_PRIVATE, none.cast());
                    done(libc::c_long::from(changed))?;
                }
            }
            for overlay in &view.overlays {
                make(&overlay.upper)?;
                if let Some((link, target)) = &overlay.link {
                    done(libc::c_long::from(libc::symlink(target.as_ptr(), link.as_ptr())))?;
                }
                make(&overlay.scratch)?;
                make(&overlay.name)?;
                let (kind, name) = (c"overlay".as_ptr(), overlay.name.as_ptr());
                let options = overlay.options.as_ptr().cast();
                done(libc::c_long::from(libc::mount(kind, name, kind, flags, options)))?;
            }
            done(libc::c_long::from(libc::chdir(c"/".as_ptr())))
        }
    };
    // SAFETY: as said in the closure.
    unsafe { command.pre_exec(attach) };
}

/// Lets `command` be killed when the thread that started it ends, however that comes about.
pub(crate) fn end_with_us(command: &mut Command) {
    let parent = std::process::id() as libc::pid_t;
    let ask = move || {
        // SAFETY: numbers only.
        let (asked, now) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0), libc::getppid()) };
        match asked {
            // Gone before it could be asked for.
            0 if now != parent => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes only raw calls on numbers; it neither allocates nor locks.
    unsafe { command.pre_exec(ask) };
}

/// Closes every descriptor from 3 on but `spared`: a daemon holds nothing of whoever started it.
pub fn close_all_but(spared: BorrowedFd<'_>) {
    let spared = spared.as_raw_fd() as libc::c_uint;
    // SAFETY: numbers only. The caller holds no other descriptor that it means to use: that is what it asks for.
    unsafe {
        if spared > 3 {
            libc::syscall(libc::SYS_close_range, 3, spared - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, spared.max(2) + 1, libc::c_uint::MAX, 0);
    }
}
