// SPDX-License-Identifier: Apache-2.0
//! Keyrings (keyrings(7)): this session's, and one that others may find.

use super::last_errno;

/// The description of this session's keyring: `keyring;uid;gid;perm;name`.
pub fn session_keyring() -> Result<String, i32> {
    const KEYCTL_DESCRIBE: i64 = 6;
    const SESSION: i64 = -3;
    let mut text = vec![0u8; 512];
    // SAFETY: the kernel writes at most the given length into the buffer.
    let len = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, SESSION, text.as_mut_ptr(), 512) };
    if len < 0 {
        return Err(last_errno());
    }
    text.truncate((len as usize).min(512));
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned())
}

/// A new keyring in this session's that all of the user may search: its serial number.
pub fn searchable_keyring(name: &str) -> Result<i64, i32> {
    const KEYCTL_SETPERM: i64 = 5;
    const SESSION: i64 = -3;
    let name = std::ffi::CString::new(name).map_err(|_| libc::EINVAL)?;
    // SAFETY: both texts are terminated and live through the call; there is no payload.
    let key = unsafe {
        libc::syscall(libc::SYS_add_key, c"keyring".as_ptr(), name.as_ptr(), 0_usize, 0_usize, SESSION)
    };
    if key < 0 {
        return Err(last_errno());
    }
    // SAFETY: numbers only.
    match unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key, 0x3f3f_0000) } {
        0 => Ok(key),
        _ => Err(last_errno()),
    }
}

/// Ends a key of this process's.
pub fn revoke(key: i64) {
    const KEYCTL_REVOKE: i64 = 3;
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_REVOKE, key) };
}

/// The LSM's label of this session's keyring.
pub fn session_keyring_label() -> Result<String, i32> {
    const KEYCTL_GET_SECURITY: i64 = 17;
    const SESSION: i64 = -3;
    let mut text = vec![0u8; 512];
    // SAFETY: the kernel writes at most the given length into the buffer.
    let len =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_SECURITY, SESSION, text.as_mut_ptr(), 512) };
    if len < 0 {
        return Err(last_errno());
    }
    text.truncate((len as usize).min(512));
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned())
}
