// SPDX-License-Identifier: Apache-2.0
//! bpf(2): loading and attaching device programs of cgroups (linux/bpf.h; cgroup device programs are Linux 4.15,
//! replacing one atomically is 5.6).
//!
//! The kernel accepts a shorter `union bpf_attr` than its own and reads the rest as zero, so each command gets the
//! structure of its own fields and no more.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The name our programs carry in the kernel, by which they are found again.
pub(crate) const NAME: &str = "corten_device";

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4;

/// One eBPF instruction, laid out as the kernel's `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Destination register in the low half, source register in the high half (little endian bit fields).
    pub regs: u8,
    /// Jump distance or memory offset.
    pub off: i16,
    /// Operand.
    pub imm: i32,
}

#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
struct FdByIdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    head: [u64; 8],
    name: [u8; 16],
}

/// Loads a device program.
///
/// # Errors
/// EPERM without CAP_BPF or CAP_SYS_ADMIN in the initial user namespace; EINVAL, EACCES when the verifier refuses.
pub(crate) fn load_device_program(insns: &[Insn]) -> io::Result<OwnedFd> {
    match load(insns) {
        // Kernels before 5.11 charge programs to RLIMIT_MEMLOCK and answer EPERM when it is too low.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let before = getrlimit(Resource::Memlock);
            let Some(enough) = memlock_for_one_program(&before) else { return Err(error) };
            if setrlimit(Resource::Memlock, enough).is_err() {
                return Err(error);
            }
            let loaded = load(insns);
            // Back to what it was: children inherit it. Lowering a soft limit cannot fail.
            let _ = setrlimit(Resource::Memlock, before);
            loaded
        }
        other => other,
    }
}

/// A soft limit that a program fits in, if the present one is lower and may be raised (no privilege needed).
fn memlock_for_one_program(now: &Rlimit) -> Option<Rlimit> {
    const ENOUGH: u64 = 8 << 20;
    let low = now.current.is_some_and(|soft| soft < ENOUGH);
    let current = Some(now.maximum.map_or(ENOUGH, |hard| hard.min(ENOUGH)));
    (low && current > now.current).then_some(Rlimit { current, maximum: now.maximum })
}

fn load(insns: &[Insn]) -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    prog_name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    let attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(insns.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        insns: insns.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
        prog_ifindex: 0,
        expected_attach_type: ATTACH_TYPE_CGROUP_DEVICE,
    };
    let mut tries = 0;
    let fd = loop {
        // SAFETY: `attr` points to `insn_cnt` instructions and to a NUL-terminated string, both alive across the call;
        // the kernel only reads them.
        match unsafe { bpf(PROG_LOAD, &attr) } {
            // The verifier gives up when a signal comes (do_check in kernel/bpf/verifier.c); libbpf asks as often.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries < 5 => tries += 1,
            other => break other?,
        }
    };
    // SAFETY: PROG_LOAD answers a new descriptor (close-on-exec) that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to the group, beside those that are there, or in the place of one of them without a
/// moment in which neither holds.
///
/// # Errors
/// As bpf(2).
pub(crate) fn attach(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    instead: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let attr = AttachAttr {
        target_fd: raw(group),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI | if instead.is_some() { F_REPLACE } else { 0 },
        replace_bpf_fd: instead.map_or(0, raw),
    };
    // SAFETY: the structure holds numbers only; the descriptors are borrowed for the call.
    unsafe { bpf(PROG_ATTACH, &attr) }.map(drop)
}

/// Takes a device program off the group.
///
/// # Errors
/// As bpf(2).
pub(crate) fn detach(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = AttachAttr {
        target_fd: raw(group),
        attach_bpf_fd: raw(program),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    // SAFETY: the structure holds numbers only; the descriptors are borrowed for the call.
    unsafe { bpf(PROG_DETACH, &attr) }.map(drop)
}

/// The ids of the device programs attached to the group itself.
///
/// # Errors
/// As bpf(2); ENOSPC for more than 64, which is the kernel's own limit.
pub fn attached(group: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attr = QueryAttr {
        target_fd: raw(group),
        attach_type: ATTACH_TYPE_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        padding: 0,
    };
    // SAFETY: `prog_ids` points to `prog_cnt` numbers that live across the call and are not otherwise borrowed; the kernel
    // writes that many at most, and the count into `attr`, which is borrowed mutably.
    unsafe { bpf_mut(PROG_QUERY, &mut attr) }?;
    Ok(ids.into_iter().take(usize::try_from(attr.prog_cnt).unwrap_or(0)).collect())
}

/// A descriptor of the program with this id, if it is one of ours.
///
/// # Errors
/// As bpf(2): ENOENT if it is gone, EPERM without CAP_SYS_ADMIN.
pub(crate) fn open_if_ours(id: u32) -> io::Result<Option<OwnedFd>> {
    let attr = FdByIdAttr { prog_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: the structure holds numbers only.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &attr) }?;
    // SAFETY: PROG_GET_FD_BY_ID answers a new descriptor (close-on-exec) that nobody else knows.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = ProgInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: program.as_raw_fd().cast_unsigned(),
        info_len: size_of::<ProgInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `info` is `info_len` bytes of plain numbers that live across the call; the kernel writes no more than that.
    unsafe { bpf_mut(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let name = info.name.split(|&b| b == 0).next().unwrap_or_default();
    Ok((name == NAME.as_bytes()).then_some(program))
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// bpf(2) for commands that only read their attributes.
///
/// # Safety
/// `attr` is the structure of `command`, without padding, and every address in it is valid for what the kernel reads
/// there.
unsafe fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the kernel copies `size_of::<T>()` bytes and writes nothing back.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}

/// bpf(2) for commands that answer through their attributes.
///
/// # Safety
/// As [`bpf`], and every address in `attr` is valid for what the kernel writes there.
unsafe fn bpf_mut<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the kernel writes within `size_of::<T>()` bytes, into plain numbers.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_layout() {
        assert_eq!(size_of::<Insn>(), 8);
        assert_eq!(size_of::<LoadAttr>(), 72);
        assert_eq!(std::mem::offset_of!(LoadAttr, expected_attach_type), 68);
        assert_eq!(size_of::<AttachAttr>(), 20);
        assert_eq!(std::mem::offset_of!(QueryAttr, prog_cnt), 24);
        assert_eq!(std::mem::offset_of!(ProgInfo, name), 64);
    }

    #[test]
    fn the_verifier_reads_what_we_load() {
        let returns = |imm| Insn { code: 0xb7, regs: 0, off: 0, imm };
        let exit = Insn { code: 0x95, regs: 0, off: 0, imm: 0 };
        match load_device_program(&[returns(1), exit]) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => println!("not run: needs CAP_BPF"),
            Err(error) => panic!("{error}"),
        }
        // 2 is no answer of a device program: kernels since 5.3 refuse it.
        if let Err(error) = load_device_program(&[returns(2), exit]) {
            assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)), "{error}");
        }
    }
}
