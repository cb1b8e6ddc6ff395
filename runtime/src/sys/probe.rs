// SPDX-License-Identifier: Apache-2.0
//! Questions to the kernel that change nothing. Its user is `features`.

/// Whether seccomp(2) takes these `SECCOMP_FILTER_FLAG_*`.
pub(crate) fn seccomp_flags(flags: libc::c_ulong) -> bool {
    let no_filter: *const libc::sock_fprog = std::ptr::null();
    // SAFETY: flags are checked first (EINVAL for an unknown one); then the null filter gives EFAULT, so that in no
    // case a filter is installed.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, no_filter) };
    result < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}
