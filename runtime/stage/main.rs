// SPDX-License-Identifier: Apache-2.0
//! The sealed stage as a program: entry point, memory routines, panic handler.
//!
//! Started by execveat(2) from a sealed memfd with one argument, a decimal number: the descriptor that holds its program, and in the
//! lower 32 bits the socket to the host. Built by `runtime/build.rs`.

#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the documentation is for the linked-in twin")]

use core::arch::global_asm;

#[path = "mod.rs"]
#[allow(dead_code, reason = "the std twin uses more")]
mod stage;

// The kernel enters with the argument count and vector on the stack (System V ABI, "Process Initialization").
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {entry}", "ud2", entry = sym entry);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x0, sp", "bl {entry}", "brk #1", entry = sym entry);

extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: the kernel put argc, then argc pointers to NUL-terminated strings there; we start ourselves with two.
    let argument = unsafe {
        let count = *stack;
        if count != 2 { None } else { Some(core::ffi::CStr::from_ptr(*stack.add(2) as *const _)) }
    };
    let mut number = 0_u64;
    for &digit in argument.map_or(&[][..], core::ffi::CStr::to_bytes) {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')));
    }
    stage::start((number >> 32) as i32, number as i32)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    stage::undefined()
}

/// The routines that the compiler calls for copies, fills and comparisons. Loops here are volatile or assembly:
/// a plain loop would be compiled into a call of itself.
mod memory {
    use core::arch::asm;

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller vouches for both ranges; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
        }
        #[cfg(not(target_arch = "x86_64"))]
        for i in 0..count {
            // SAFETY: the caller vouches for both ranges.
            unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        if (to as usize).wrapping_sub(from as usize) >= count {
            // SAFETY: a forward copy is right for these ranges.
            return unsafe { memcpy(to, from, count) };
        }
        let mut i = count;
        while i > 0 {
            i -= 1;
            // SAFETY: the caller vouches for both ranges; backwards, because they overlap upwards.
            unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller vouches for the range; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8, options(nostack));
        }
        #[cfg(not(target_arch = "x86_64"))]
        for i in 0..count {
            // SAFETY: the caller vouches for the range.
            unsafe { to.add(i).write_volatile(byte as u8) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        for i in 0..count {
            // SAFETY: the caller vouches for both ranges.
            let (a, b) = unsafe { (one.add(i).read_volatile(), other.add(i).read_volatile()) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        // SAFETY: passed on to the caller.
        unsafe { memcmp(one, other, count) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(text: *const u8) -> usize {
        let mut length = 0;
        // SAFETY: the caller vouches for a terminated string.
        while unsafe { text.add(length).read_volatile() } != 0 {
            length += 1;
        }
        length
    }
}
