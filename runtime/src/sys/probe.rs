// SPDX-License-Identifier: Apache-2.0
//! Questions to the kernel that change nothing. Their users are `features` and `doctor`.

/// Whether seccomp(2) takes these `SECCOMP_FILTER_FLAG_*`.
pub(crate) fn seccomp_flags(flags: libc::c_ulong) -> bool {
    let no_filter: *const libc::sock_fprog = std::ptr::null();
    // SAFETY: flags are checked first (EINVAL for an unknown one); then the null filter gives EFAULT, so that in no
    // case a filter is installed.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, no_filter) };
    result < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// A system call as `doctor` asks for it: with arguments that every kernel which has it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// clone3(2) without arguments: EINVAL.
    Clone3,
    /// clone3(2) into a group that no descriptor can be: EINVAL; E2BIG where the field is not known.
    CloneIntoCgroup,
    /// openat2(2) without a `struct open_how`: EINVAL.
    Openat2,
    /// open_tree(2) with unknown flags: EINVAL.
    OpenTree,
    /// fsopen(2) with unknown flags: EINVAL, or EPERM before they are looked at.
    Fsopen,
    /// move_mount(2) with unknown flags: likewise.
    MoveMount,
    /// mount_setattr(2) without attributes: EINVAL.
    MountSetattr,
    /// pidfd_open(2) with unknown flags: EINVAL.
    PidfdOpen,
    /// close_range(2) from 1 to 0: EINVAL.
    CloseRange,
    /// seccomp(2) without a filter: EFAULT.
    Seccomp,
    /// seccomp(2), the sizes of notifications to nowhere: EFAULT; EINVAL where there are none.
    SeccompNotify,
    /// bpf(2), the programs of a group that no descriptor is: EBADF; EINVAL where groups have none.
    DeviceFilter,
    /// get_mempolicy(2) with unknown flags: EINVAL.
    MemoryPolicy,
    /// keyctl(2) with an unknown operation: EOPNOTSUPP.
    Keyring,
}

/// The errno of a [`Question`]; 0 should the call not have failed.
pub(crate) fn ask(question: Question) -> i32 {
    const ANY: libc::c_ulong = libc::c_ulong::MAX;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    const BPF_PROG_QUERY: libc::c_ulong = 16;
    const BPF_CGROUP_DEVICE: u64 = 6;
    const SECCOMP_GET_NOTIF_SIZES: libc::c_ulong = 3;
    let mut clone = [0_u64; 11];
    (clone[0], clone[10]) = (CLONE_INTO_CGROUP, u64::MAX);
    // target_fd, attach_type; all else is 0.
    let query = [u64::from(u32::MAX) | BPF_CGROUP_DEVICE << 32, 0, 0, 0, 0, 0, 0, 0];
    let none: libc::c_ulong = 0;
    let (number, a): (libc::c_long, [libc::c_ulong; 5]) = match question {
        Question::Clone3 => (libc::SYS_clone3, [none; 5]),
        Question::CloneIntoCgroup => {
            (libc::SYS_clone3, [clone.as_ptr() as libc::c_ulong, size_of_val(&clone) as _, none, none, none])
        }
        Question::Openat2 => (libc::SYS_openat2, [ANY, none, none, none, none]),
        Question::OpenTree => (libc::SYS_open_tree, [ANY, none, ANY, none, none]),
        Question::Fsopen => (libc::SYS_fsopen, [none, ANY, none, none, none]),
        Question::MoveMount => (libc::SYS_move_mount, [ANY, none, ANY, none, ANY]),
        Question::MountSetattr => (libc::SYS_mount_setattr, [ANY, none, none, none, none]),
        Question::PidfdOpen => (libc::SYS_pidfd_open, [none, ANY, none, none, none]),
        Question::CloseRange => (libc::SYS_close_range, [1, none, none, none, none]),
        Question::Seccomp => {
            (libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER as _, none, none, none, none])
        }
        Question::SeccompNotify => (libc::SYS_seccomp, [SECCOMP_GET_NOTIF_SIZES, none, none, none, none]),
        Question::DeviceFilter => (
            libc::SYS_bpf,
            [BPF_PROG_QUERY, query.as_ptr() as libc::c_ulong, size_of_val(&query) as _, none, none],
        ),
        Question::MemoryPolicy => (libc::SYS_get_mempolicy, [none, none, none, none, ANY]),
        Question::Keyring => (libc::SYS_keyctl, [ANY, none, none, none, none]),
    };
    // SAFETY: each is refused for its flags, sizes or descriptors (see the variants) before it does anything; the two structures are
    // whole and outlive the call; every other pointer is null.
    match unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) } {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
        _ => 0,
    }
}

/// What a process may do about user namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserNamespaceTry {
    /// Make one, and a mount namespace in it.
    Made,
    /// Not make one, for this errno.
    Refused(i32),
    /// Make one in which it is without privilege (AppArmor), for this errno of its mount namespace.
    Powerless(i32),
}

/// Tries it in a child, with which everything is gone again.
///
/// # Errors
/// Those of fork(2) and waitpid(2).
pub(crate) fn try_user_namespace() -> crate::Result<UserNamespaceTry> {
    use crate::error::Context;
    const POWERLESS: i32 = 64;
    let errno = || std::io::Error::last_os_error().raw_os_error().unwrap_or(0).clamp(1, POWERLESS - 1);
    let pid = super::spawn::fork()?;
    if pid == 0 {
        // SAFETY: numbers only; the child makes nothing that outlives it, and leaves without running anybody's destructors.
        unsafe {
            let code = match libc::unshare(libc::CLONE_NEWUSER) {
                0 if libc::unshare(libc::CLONE_NEWNS) == 0 => 0,
                0 => POWERLESS + errno(),
                _ => errno(),
            };
            libc::_exit(code)
        }
    }
    let mut status = 0;
    // SAFETY: the status is valid for writing; the child is ours and not waited for by anybody else.
    while unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } == -1 {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).call(|| "waitpid");
        }
    }
    Ok(match libc::WEXITSTATUS(status) {
        _ if !libc::WIFEXITED(status) => UserNamespaceTry::Refused(libc::EPERM),
        0 => UserNamespaceTry::Made,
        code if code > POWERLESS => UserNamespaceTry::Powerless(code - POWERLESS),
        code => UserNamespaceTry::Refused(code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_refused_for_what_is_wrong_with_them() {
        let errnos = (ask(Question::Clone3), ask(Question::Seccomp));
        assert_eq!(errnos, (libc::EINVAL, libc::EFAULT));
    }
}
