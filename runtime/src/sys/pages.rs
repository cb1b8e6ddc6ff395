// SPDX-License-Identifier: Apache-2.0
//! Memory of a program that rests: what it can have again from its file, and stack that it does not use.

use std::ffi::c_void;
use std::os::raw::c_int;

/// madvise(2) takes whole pages; every page size of Linux divides this one.
const GRAIN: usize = 64 << 10;
const PAGE: usize = 4 << 10;
/// How far below our frame the stack is in use: the call of madvise, and what lies below a frame without being claimed
/// (the red zone, 128 bytes).
const MARGIN: usize = 512;
/// How far down the stack is given back; a first thread's stack has nothing but itself there (stack_guard_gap and
/// mmap_base keep at least 1 MiB clear).
const DEPTH: usize = 256 << 10;

/// Gives back the pages of this executable's code and constants, and of the calling thread's stack below its frame. Code
/// comes back from the page cache when it is needed next, some sixteen pages with each fault; what was ever written is left
/// alone. For the first thread only.
pub fn rest() {
    // SAFETY: the callback has the type that dl_iterate_phdr(3) calls, and uses what it is given only while it runs.
    unsafe { libc::dl_iterate_phdr(Some(object), std::ptr::null_mut()) };
    let here = 0_u8;
    let top = ((&raw const here as usize) - MARGIN) & !(PAGE - 1);
    // SAFETY: the range ends below this frame, where the first thread's stack is dead: nothing refers to it. Anonymous
    // pages read as zeroes afterwards. Parts that are not mapped are passed over (ENOMEM, which says nothing more).
    unsafe { libc::madvise((top - DEPTH) as *mut c_void, DEPTH, libc::MADV_DONTNEED) };
}

/// For one object of dl_iterate_phdr(3): drops its segments that nobody may write.
extern "C" fn object(info: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr hands over a structure that is valid for this call, with `dlpi_phnum` headers.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let begin = (base + header.p_vaddr as usize).next_multiple_of(GRAIN);
        let end = (base + header.p_vaddr as usize + header.p_memsz as usize) & !(GRAIN - 1);
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
        super::rest();
        assert_eq!(format!("{text} {}", 17), "kept 17");
        super::rest();
    }
}
