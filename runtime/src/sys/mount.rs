// SPDX-License-Identifier: Apache-2.0
//! mount_setattr(2), which `rustix` lacks.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use crate::error::RawErrno;

/// What to change on a mount (struct mount_attr).
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttrChange<'a> {
    /// MOUNT_ATTR_* to set.
    pub set: u64,
    /// MOUNT_ATTR_* to clear.
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE or 0.
    pub propagation: u64,
    /// User namespace of an id mapping.
    pub userns: Option<BorrowedFd<'a>>,
    /// The whole tree (AT_RECURSIVE).
    pub recursive: bool,
}

/// Whether this process may copy mounts: CAP_SYS_ADMIN in the user namespace that owns its mount namespace.
#[must_use]
pub(crate) fn may_copy() -> bool {
    let flags =
        rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(rustix::fs::CWD, "/", flags).is_ok()
}

/// Whether the kernel has mount_setattr(2) (Linux 5.12). Asked once.
pub(crate) fn has_set_attr() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(ask_set_attr)
}

/// With a size that every kernel that has it refuses.
fn ask_set_attr() -> bool {
    // SAFETY: with a size of 0 nothing is read.
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), libc::AT_EMPTY_PATH, 0, 0) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

/// Changes the mount behind `mount`, which may be detached.
///
/// # Errors
/// The errno of mount_setattr(2): ENOSYS before Linux 5.12, EINVAL for what the kernel or the file system cannot.
pub fn set_attr(mount: BorrowedFd<'_>, change: &MountAttrChange<'_>) -> Result<(), RawErrno> {
    let idmap = if change.userns.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 };
    let attr = libc::mount_attr {
        attr_set: change.set | idmap,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: change.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, the structure is initialised and passed with its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of_val(&attr),
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}
