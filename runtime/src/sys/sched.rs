// SPDX-License-Identifier: Apache-2.0
//! Limits and scheduling of another process, by pid: the caller must hold it (an unreaped child, or a pidfd open).

use std::io::Error;

use crate::error::RawErrno;

fn check(result: i64) -> Result<(), RawErrno> {
    if result < 0 { Err(Error::last_os_error().into()) } else { Ok(()) }
}

/// prlimit(2): sets soft and hard limit of `resource`.
///
/// # Errors
/// EPERM without CAP_SYS_RESOURCE when the hard limit is raised.
pub(crate) fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<(), RawErrno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the structure is initialised and outlives the call; no old limit is asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, 0) })
}

/// The processors that this thread may run on, as far as is known; one at least. (The standard library's count reads the control
/// groups' files as well.)
pub(crate) fn processors() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count().max(1) as usize)
}

/// Arguments of sched_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// SCHED_* number.
    pub policy: u32,
    /// SCHED_FLAG_* bits.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// struct sched_attr, first version (48 bytes, linux/sched/types.h).
#[repr(C)]
struct Attr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// sched_setattr(2).
///
/// # Errors
/// EPERM without CAP_SYS_NICE, EINVAL or EBUSY for parameters that the scheduler refuses.
pub(crate) fn set_attr(pid: i32, attr: &SchedAttr) -> Result<(), RawErrno> {
    let attr = Attr {
        size: size_of::<Attr>() as u32,
        policy: attr.policy,
        flags: attr.flags,
        nice: attr.nice,
        priority: attr.priority,
        runtime: attr.runtime,
        deadline: attr.deadline,
        period: attr.period,
    };
    // SAFETY: the structure is initialised, carries its size and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attr, 0) })
}

/// ioprio_set(2) for one process; `value` is class << 13 | level.
///
/// # Errors
/// EPERM for the real-time class without CAP_SYS_ADMIN or CAP_SYS_NICE.
pub(crate) fn ioprio_set(pid: i32, value: i32) -> Result<(), RawErrno> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, value) })
}

/// sched_setaffinity(2) with a mask of any length (little-endian bits in 64-bit words).
///
/// # Errors
/// EINVAL when no CPU of the mask may be used.
pub(crate) fn set_affinity(pid: i32, mask: &[u64]) -> Result<(), RawErrno> {
    // SAFETY: the mask is passed with its length in bytes.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) })
}
