// SPDX-License-Identifier: Apache-2.0
//! Files of the image that are read with root's rights. A name in the image may lead into any file system that is mounted
//! there: what a read gives, and what it does (/proc/kmsg hands the host's messages out, once), is then the kernel's and
//! not the image's.

use super::sys::{self, Result};

/// File systems whose files are the kernel's answers (linux/magic.h): proc, sysfs, cgroup, cgroup2, debugfs, tracefs,
/// securityfs, selinuxfs, smackfs, apparmor, bpf, pstore, configfs, efivarfs, binfmt_misc, devpts, mqueue, nsfs, pidfs, fusectl,
/// resctrl, rpc_pipefs, nfsd, hugetlbfs, binder.
const PSEUDO: [u64; 25] = [
    0x9fa0,
    0x6265_6572,
    0x27_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xf97c_ff8c,
    0x4341_5d53,
    0x5a3c_69f0,
    0xcafe_4a11,
    0x6165_676c,
    0x6265_6570,
    0xde5e_81e4,
    0x4249_4e4d,
    0x1cd1,
    0x1980_0202,
    0x6e73_6673,
    0x5049_4446,
    0x6573_5543,
    0x0765_5821,
    0x6759_6969,
    0x6e66_7364,
    0x9584_58f6,
    0x6c6f_6f70,
];

/// Whether a descriptor (may be opened with O_PATH) is a regular file with content of its own. Most pseudo file systems give
/// theirs no size; the rest is told by the file system's type, which is asked for only where no disk is behind it.
#[inline(never)]
pub(super) fn is_stored(fd: i32) -> Result<bool> {
    let stat = sys::fstat(fd)?;
    if stat.kind() != sys::S_IFREG || stat.size == 0 {
        return Ok(false);
    }
    Ok(stat.device()[0] != 0 || !is_pseudo(fd)?)
}

/// Whether what a descriptor names lies in one of those file systems.
#[inline(never)]
pub(super) fn is_pseudo(fd: i32) -> Result<bool> {
    Ok(PSEUDO.contains(&sys::fs_magic(fd)?))
}
