// SPDX-License-Identifier: Apache-2.0
//! Programs with little: without a system call, with few descriptors, in a group of few processes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::check;

/// Of linux/bpf_common.h and linux/seccomp.h.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_LESS_NOT: u16 = 0x35;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// Makes `command` start on a kernel that lacks the system call `number`: it answers ENOSYS, or whatever `errno` says.
pub fn without_syscall(command: &mut Command, number: i64, errno: i32) {
    let insn = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filter = [
        insn(LOAD, 0, 0, 0),
        insn(JUMP_IF_EQUAL, 0, 1, number as u32),
        insn(RETURN, 0, 0, ERRNO | errno as u32),
        insn(RETURN, 0, 0, ALLOW),
    ];
    under(command, filter);
}

/// Makes `command` start where no memory of so many bytes or more at a time can be had: mmap(2) answers ENOMEM.
pub fn without_memory(command: &mut Command, bytes: u32) {
    // The low half of the second argument, as both our architectures have it.
    const LENGTH: u32 = 24;
    let insn = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filter = [
        insn(LOAD, 0, 0, 0),
        insn(JUMP_IF_EQUAL, 0, 3, libc::SYS_mmap as u32),
        insn(LOAD, 0, 0, LENGTH),
        insn(JUMP_IF_LESS_NOT, 0, 1, bytes),
        insn(RETURN, 0, 0, ERRNO | libc::ENOMEM as u32),
        insn(RETURN, 0, 0, ALLOW),
    ];
    under(command, filter);
}

fn under<const LENGTH: usize>(command: &mut Command, mut filter: [libc::sock_filter; LENGTH]) {
    // SAFETY: seccomp(2) is a plain system call; the program outlives it, in the closure.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            check(libc::syscall(libc::SYS_seccomp, 1, 0, &raw const program) as i32).map(drop)
        });
    }
}

/// Makes `command` start with at most so many open files.
pub fn with_open_files(command: &mut Command, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: setrlimit is async-signal-safe, and reads a structure that lives in the closure.
    unsafe {
        command.pre_exec(move || check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)).map(drop))
    };
}

/// Makes `command` start in the control group whose list of processes this is.
pub fn in_group(command: &mut Command, procs: OwnedFd) {
    // SAFETY: writes one byte of a constant to a descriptor that the closure owns.
    unsafe {
        command.pre_exec(move || {
            check(libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) as i32).map(drop)
        });
    }
}

/// Sets another process's soft limit of open files. Returns the one that it had.
pub fn limit_open_files(pid: i32, soft: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both structures are valid and outlive their call.
    unsafe {
        check(libc::prlimit64(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit))?;
        let before = std::mem::replace(&mut limit.rlim_cur, soft);
        check(libc::prlimit64(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()))?;
        Ok(before)
    }
}
