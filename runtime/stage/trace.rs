// SPDX-License-Identifier: Apache-2.0
//! A traced stage's log: when each operation and each system call began and ended (layout: `wire::log`).
//!
//! Two stages are built of one source. In the usual one, and in the interpreter linked into the std crate, what is here is empty;
//! the one that `--trace` runs is compiled with `cfg(traced)`. Its readings are of the processor's counter, which is no system call:
//! no filter refuses it and no time namespace shifts it. Nobody but the host reads the log, and believes numbers alone
//! (`host/log.rs`). It must never change what the stage does.

/// The processor's counter: the time stamp counter, or the virtual count of the generic timer. Every processor of a machine counts alike.
pub fn ticks() -> u64 {
    use core::arch::asm;
    #[cfg(target_arch = "x86_64")]
    {
        let (low, high): (u32, u32);
        // SAFETY: reads a counter, after what comes before it.
        unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
        u64::from(high) << 32 | u64::from(low)
    }
    #[cfg(target_arch = "aarch64")]
    {
        let count;
        // SAFETY: reads a counter, after what comes before it.
        unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack)) };
        count
    }
}

#[cfg(traced)]
mod kept {
    use core::ptr::with_exposed_provenance_mut;

    use super::super::sys::{self, Result};
    use super::super::wire::log::{BEGUN, CALL, ENDS};
    use super::super::{MALFORMED, wire};
    use super::ticks;

    /// Where the two mappings lie. The stage is one segment at a fixed address and has no heap: nothing else is there.
    const STATE: usize = 0x10_0000_0000;
    const LOG: usize = 0x11_0000_0000;

    /// This process's own: a child has a copy.
    struct State {
        /// The word after the last entry.
        next: usize,
        /// The word after the log.
        end: usize,
        /// How many operations the log has room for.
        ops: usize,
        begun: u64,
    }

    fn state() -> &'static mut State {
        // SAFETY: `prepare` has mapped it, zeroed and for this process alone, before the first call; it is one thread, and no function
        // here holds it while it calls another.
        unsafe { &mut *with_exposed_provenance_mut::<State>(STATE) }
    }

    fn put(word: usize, value: u64) {
        if word < state().end {
            // SAFETY: below the end of the log, which is mapped there.
            unsafe { with_exposed_provenance_mut::<u64>(LOG).add(word).write_volatile(value) };
        }
    }

    /// The first thing that the process does: until then no system call may be made but this.
    pub fn prepare() {
        let begun = ticks();
        if sys::map_at(STATE, size_of::<State>(), None).is_err() {
            sys::undefined()
        }
        state().begun = begun;
    }

    /// Maps the log of `words` words that `fd` holds, for a program of `ops` operations.
    pub fn begin(fd: i32, words: u32, ops: u32) -> Result<()> {
        let (words, ops) = (words as usize, ops as usize);
        if fd == wire::NONE || ENDS + ops > words {
            return Err(MALFORMED);
        }
        sys::map_at(LOG, words * 8, Some(fd))?;
        let state = state();
        (state.next, state.end, state.ops) = (ENDS + ops, words, ops);
        put(BEGUN, state.begun);
        Ok(())
    }

    /// In a process that is not the container's: nothing more is logged.
    pub fn end() {
        state().end = 0;
    }

    /// Operation `index` is done.
    pub fn op_ends(index: usize) {
        put(ENDS + index, ticks());
    }

    /// A system call begins; where it is logged.
    pub fn call_begins(number: usize) -> usize {
        let at = state().next;
        if at + CALL > state().end {
            return usize::MAX - CALL;
        }
        state().next = at + CALL;
        put(at + 2, (number as u64) << 32);
        put(at, ticks());
        at
    }

    /// It has ended. A child that has just been cloned leaves that to its parent.
    pub fn call_ends(at: usize, number: usize, result: isize) {
        if result != 0 || !sys::clones(number) {
            put(at + 1, ticks());
            put(at + 2, (number as u64) << 32 | result.min(0).unsigned_abs() as u64);
        }
    }
}

#[cfg(not(traced))]
mod kept {
    use super::super::sys::Result;

    pub const fn prepare() {}
    pub const fn begin(_: i32, _: u32, _: u32) -> Result<()> {
        Ok(())
    }
    pub const fn end() {}
    pub const fn op_ends(_: usize) {}
    pub const fn call_begins(_: usize) -> usize {
        0
    }
    pub const fn call_ends(_: usize, _: usize, _: isize) {}
}

pub use kept::{begin, call_begins, call_ends, end, op_ends, prepare};
