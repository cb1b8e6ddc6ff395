// SPDX-License-Identifier: Apache-2.0
//! Memory of the program: what of it nobody writes to any more; of one that rests, what it can have again from its file, and stack
//! that it does not use.

use std::ffi::c_void;
use std::os::raw::c_int;

use crate::error::{Error, Result};

/// What is given back in: madvise(2) takes whole pages. Where pages can be larger, the largest that Linux has. No larger than need
/// be: what a segment's ends have outside stays, and how much that is is an accident of the program's size.
const PAGE: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 };
/// What may be claimed below a stack pointer without having moved it: the red zone (System V ABI, x86-64; others have none).
const RED_ZONE: usize = 128;
/// How far down the stack is given back; a first thread's stack has nothing but itself there (stack_guard_gap and
/// mmap_base keep at least 1 MiB clear).
const DEPTH: usize = 256 << 10;

/// Gives back the pages of this executable's code and constants, and of the calling thread's stack below its frame. Code
/// comes back from the page cache when it is needed next, some sixteen pages with each fault; what was ever written is left
/// alone. For the first thread only.
pub fn give_back() {
    // SAFETY: the callback has the type that dl_iterate_phdr(3) calls, and uses what it is given only while it runs.
    unsafe { libc::dl_iterate_phdr(Some(object), std::ptr::null_mut()) };
    // SAFETY: see there; we are called by the first thread only.
    unsafe { drop_stack() };
}

/// Gives back the pages between the stack pointer, less what is claimed below it, and [`DEPTH`] below. Right wherever the compiler
/// puts it, inlined or not: the stack pointer is read, the range computed and the kernel asked in one piece of assembly, so
/// that no frame, argument or spilled register can lie in between. What fails (parts that are not mapped: ENOMEM) fails
/// without harm.
///
/// # Safety
/// For a thread whose stack goes on for `DEPTH` or has nothing else there: the first one (stack_guard_gap and mmap_base keep
/// at least 1 MiB clear).
#[inline(always)]
unsafe fn drop_stack() {
    const DONTNEED: c_int = libc::MADV_DONTNEED;
    // SAFETY: everything that is alive lies at or above the stack pointer, or in the red zone below it; the range ends
    // under both. Anonymous pages read as zeroes afterwards. The kernel changes no register but those named.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!(
            "lea rdi, [rsp - {red_zone}]",
            "and rdi, {page}",
            "sub rdi, {depth}",
            "syscall",
            red_zone = const RED_ZONE,
            page = const -(PAGE as i64),
            depth = const DEPTH,
            inlateout("rax") libc::SYS_madvise => _,
            out("rdi") _,
            in("rsi") DEPTH,
            in("rdx") DONTNEED,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!(
            "mov x0, sp",
            "sub x0, x0, {red_zone}",
            "and x0, x0, {page}",
            "sub x0, x0, x1",
            "svc 0",
            red_zone = const RED_ZONE,
            page = const -(PAGE as i64),
            out("x0") _,
            in("x1") DEPTH,
            in("x2") DONTNEED,
            in("x8") libc::SYS_madvise,
            options(nostack),
        );
    }
}

/// Makes read-only what was relocated (PT_GNU_RELRO: tables of functions, the global offset table). A dynamic loader does so, and
/// glibc's start of a static program; musl's does not (seen with 1.2.5 in /proc/PID/maps).
///
/// # Errors
/// Those of mprotect(2).
pub fn protect_relocated() -> Result<()> {
    let mut failed = 0;
    // SAFETY: the callback has the type that dl_iterate_phdr(3) calls, uses what it is given only while it runs, and takes
    // its last argument for what it is.
    unsafe { libc::dl_iterate_phdr(Some(protect), (&raw mut failed).cast()) };
    match failed {
        0 => Ok(()),
        errno => Err(Error::os("mprotect(PT_GNU_RELRO)", errno)),
    }
}

/// For the first object of dl_iterate_phdr(3), the program: protects its relocated part. `failed` takes an errno.
extern "C" fn protect(info: *mut libc::dl_phdr_info, _size: usize, failed: *mut c_void) -> c_int {
    // SAFETY: `protect_relocated` hands over its own i32.
    let failed = unsafe { &mut *failed.cast::<i32>() };
    // SAFETY: as in `object`.
    let (base, headers) = unsafe { headers(info) };
    let page = rustix::param::page_size();
    for header in headers.iter().filter(|header| header.p_type == libc::PT_GNU_RELRO) {
        let begin = (base + header.p_vaddr as usize) & !(page - 1);
        let end = (base + header.p_vaddr as usize + header.p_memsz as usize) & !(page - 1);
        // SAFETY: the linker has laid out this part so that nothing else lies in its pages, and that nothing writes to it after the
        // relocation, which is over before `main`.
        if begin < end && unsafe { libc::mprotect(begin as *mut c_void, end - begin, libc::PROT_READ) } != 0 {
            *failed = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
        }
    }
    1
}

/// What dl_iterate_phdr(3) tells of an object: where it lies, and its program headers.
///
/// # Safety
/// `info` is what it has handed over, and its call lasts.
unsafe fn headers<'a>(info: *mut libc::dl_phdr_info) -> (usize, &'a [libc::Elf64_Phdr]) {
    // SAFETY: a structure that is valid for this call, with `dlpi_phnum` headers.
    unsafe {
        let info = &*info;
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    }
}

/// For one object of dl_iterate_phdr(3): drops its segments that nobody may write.
extern "C" fn object(info: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: it is what dl_iterate_phdr calls with.
    let (base, headers) = unsafe { headers(info) };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let begin = (base + header.p_vaddr as usize).next_multiple_of(PAGE);
        let end = (base + header.p_vaddr as usize + header.p_memsz as usize) & !(PAGE - 1);
        if begin < end {
            // SAFETY: the range lies inside a segment that is mapped from the file and never written (relocations go to
            // segments with PF_W only, there is no DT_TEXTREL): the next access finds the same bytes there.
            unsafe { libc::madvise(begin as *mut c_void, end - begin, libc::MADV_DONTNEED) };
        }
    }
    0
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_and_constants_are_there_afterwards() {
        let text = String::from("kept");
        std::thread::spawn(|| {}).join().unwrap();
        super::give_back();
        assert_eq!(format!("{text} {}", 17), "kept 17");
        super::give_back();
    }

    /// What its callers hold is the same afterwards, whatever place of a page they hold it at, and whether they are inlined or
    /// not. (A test's thread has a stack larger than what is dropped.)
    #[test]
    fn what_is_alive_stays() {
        assert!((0..64).all(|depth| below(depth, depth)));
    }

    /// Each frame is some hundred bytes.
    fn below(depth: usize, mark: usize) -> bool {
        let filled = std::hint::black_box([mark; 77]);
        let deeper = depth == 0 || below(depth - 1, mark);
        super::give_back();
        deeper && std::hint::black_box(filled) == [mark; 77]
    }
}
