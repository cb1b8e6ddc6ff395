// SPDX-License-Identifier: Apache-2.0
//! What an execution reached and what it took: the counters that LLVM's SanitizerCoverage puts into the library, and an
//! allocator that counts. Without instrumentation (`make test`) nothing is reached, and only memory is counted.
//!
//! `-Cpasses=sancov-module` is all it takes, and stable: see docs/decisions/0022-own-fuzzer.md. The only unsafe code of
//! the fuzzer is here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

static START: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Called by the instrumented code before main, with the section of all its counters.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    START.store(start, Relaxed);
    LENGTH.store(end as usize - start as usize, Relaxed);
}

static PLACES: AtomicPtr<usize> = AtomicPtr::new(std::ptr::null_mut());

/// Called with the table of the counters' places in the program: pairs of an address and flags.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_pcs_init(start: *mut usize, _end: *mut usize) {
    PLACES.store(start, Relaxed);
}

/// Writes the addresses of all counters into `FILE.all` and of those that were `reached` (not 0) into `FILE`, for addr2line(1).
pub fn write_places(file: &std::path::Path, reached: &[u16]) {
    use std::fmt::Write;
    let (start, length) = (PLACES.load(Relaxed), count());
    if start.is_null() {
        return;
    }
    // SAFETY: the section that the linker laid out: two words for each counter.
    let places = unsafe { std::slice::from_raw_parts(start, 2 * length) };
    let (mut all, mut some) = (String::new(), String::new());
    for (at, place) in places.iter().step_by(2).enumerate() {
        let _ = writeln!(all, "{place:#x}");
        if reached.get(at).is_some_and(|classes| *classes != 0) {
            let _ = writeln!(some, "{place:#x}");
        }
    }
    std::fs::write(file, some).unwrap();
    std::fs::write(file.with_extension("all"), all).unwrap();
}

/// How many counters there are; 0 without instrumentation.
pub fn count() -> usize {
    LENGTH.load(Relaxed)
}

/// Starts an execution.
pub fn clear() {
    let (start, length) = (START.load(Relaxed), LENGTH.load(Relaxed));
    if length > 0 {
        // SAFETY: the section that the linker laid out, writable and of that length. Fuzzing is done by one thread, and a
        // race with another one's increments could only spoil a count.
        unsafe { start.write_bytes(0, length) }
    }
}

/// The counters after an execution that are not 0, with their place.
pub fn reached(mut each: impl FnMut(usize, u8)) {
    let (start, length) = (START.load(Relaxed), LENGTH.load(Relaxed));
    if length == 0 {
        return;
    }
    // SAFETY: as above; read by the word, since most are 0. What is left at the unaligned ends is read by the byte.
    let (head, words, tail) = unsafe { std::slice::from_raw_parts(start, length).align_to::<u64>() };
    let mut bytes = |from: usize, bytes: &[u8]| {
        for (at, count) in bytes.iter().enumerate().filter(|(_, count)| **count != 0) {
            each(from + at, *count);
        }
    };
    bytes(0, head);
    for (at, word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
        bytes(head.len() + 8 * at, &word.to_ne_bytes());
    }
    bytes(length - tail.len(), tail);
}

/// The processor's time that this thread has had: what others do on the machine does not count.
#[allow(clippy::disallowed_methods, reason = "no kernel that lacks it runs this")]
pub fn time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

thread_local! {
    /// Bytes that this thread holds, and the most since `start_counting`.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// From here on, the most that is held besides what is held now.
pub fn start_counting() {
    HELD.set((0, 0));
}

/// The most bytes held at a time since.
pub fn most_held() -> usize {
    HELD.get().1.cast_unsigned()
}

/// The system's allocator, counting.
pub struct Counting;

impl Counting {
    /// The program's allocator takes back from here on; this one always does.
    pub fn stay(&self) {}
}

fn count_more(by: isize) {
    // A thread that ends may have given its locals back already.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + by, most.max(now + by)));
    });
}

// SAFETY: everything is the system allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_more(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count_more(-layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_more(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_more(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}
