// SPDX-License-Identifier: Apache-2.0
//! Loop devices: a file as a block device. Its user is the shim, for root file systems that come as one file.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use crate::error::{Context, RawErrno, Result};

/// How often a number that another took first is asked for anew.
const TRIES: u32 = 100;

// linux/loop.h
const LOOP_CTL_GET_FREE: u64 = 0x4c82;
const LOOP_CONFIGURE: u64 = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// struct loop_info64.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// struct loop_config.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A device over `file` (its name is for people): the kernel takes it away when neither the descriptor nor a mount
/// holds it any more.
///
/// # Errors
/// Those of the calls: EBUSY when a hundred free numbers were taken by others first.
pub fn attach(file: BorrowedFd<'_>, name: &Path, read_only: bool) -> Result<(OwnedFd, PathBuf)> {
    let control = "/dev/loop-control";
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let control = open(control, flags, Mode::empty()).call(|| format!("open({control})"))?;
    let config = configuration(file, name, read_only);
    for _ in 0..TRIES {
        // SAFETY: this call takes no argument and returns a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        check(number).call(|| "ioctl(LOOP_CTL_GET_FREE)")?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path, flags, Mode::empty()).call(|| format!("open({})", path.display()))?;
        // SAFETY: `config` is the structure that this call reads, whole, and outlives it.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
        match check(done) {
            Err(RawErrno(libc::EBUSY)) => {}
            other => {
                other.call(|| format!("ioctl({}, LOOP_CONFIGURE)", path.display()))?;
                return Ok((device, path));
            }
        }
    }
    Err(RawErrno(libc::EBUSY)).call(|| format!("ioctl(LOOP_CONFIGURE) of {TRIES} devices"))
}

fn configuration(file: BorrowedFd<'_>, name: &Path, read_only: bool) -> Config {
    let mut file_name = [0; 64];
    // The last byte stays a zero.
    for (to, from) in file_name.iter_mut().take(63).zip(name.as_os_str().as_encoded_bytes()) {
        *to = *from;
    }
    let info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 },
        file_name,
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    Config { fd: file.as_raw_fd() as u32, block_size: 0, info, reserved: [0; 8] }
}

fn check(result: i32) -> Result<(), RawErrno> {
    if result < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!((size_of::<Info>(), size_of::<Config>()), (232, 304));
    }
}
