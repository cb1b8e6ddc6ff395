// SPDX-License-Identifier: Apache-2.0
//! prctl(2).

/// Whether `cap` is in this thread's bounding set; `None` when the kernel does not know the capability.
pub(crate) fn bounding_set_has(cap: u32) -> Option<bool> {
    // SAFETY: PR_CAPBSET_READ takes and returns numbers.
    match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(cap), 0, 0, 0) } {
        0 => Some(false),
        -1 if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) => None,
        // Also where it is not told: it is to be dropped then, and that fails if it must.
        _ => Some(true),
    }
}
