// SPDX-License-Identifier: Apache-2.0
//! The command line's allocator: memory is handed out upwards and comes back when the process ends.
//!
//! A call of `corten` lives for a millisecond. musl's allocator maps and unmaps pages for every growing vector,
//! which is a quarter of a `create`'s own work; here an allocation is an addition. The newest block can grow,
//! shrink and be freed in place, so a vector that is filled alone costs what it holds. One thread has the arena for
//! itself and takes no lock (a locked addition costs three times as much). A command that stays (`events`, whoever
//! attends a process) says so: from then on blocks are the C library's, and come back. Never for the shim.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::io::Write;
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};

use crate::error::Words;

/// Bytes in the executable's .bss: pages that are not touched cost nothing.
const ARENA: usize = 256 * 1024;
/// Bytes besides, for when the kernel has no more.
const RESERVE: usize = 64 * 1024;
/// Least size of what is mapped when the arena is used up.
const CHUNK: usize = 1024 * 1024;

/// The allocator. There may be any number; each has an arena of its own.
pub struct Bump {
    /// Whether some thread has taken `own`.
    owned: AtomicBool,
    /// For that thread alone: the arena, then mappings.
    own: UnsafeCell<Region>,
    locked: AtomicBool,
    /// For all others, under the lock: mappings.
    shared: UnsafeCell<Region>,
    /// All mappings, the newest first.
    mappings: AtomicPtr<Mapping>,
    /// New blocks are the C library's.
    stays: AtomicBool,
    arena: UnsafeCell<Arena<ARENA>>,
    /// Whether the reserve is somebody's region by now.
    spent: AtomicBool,
    /// For when the kernel has no more memory: saying so, and undoing what was done, takes some.
    reserve: UnsafeCell<Arena<RESERVE>>,
    /// What the process ends with where that is not enough either; 0: it is whoever asked for memory that sees to it.
    ends_with: AtomicI32,
}

/// What a mapping begins with.
struct Mapping {
    before: *mut Mapping,
    /// Of the whole mapping, in bytes.
    size: usize,
}

thread_local! {
    /// The allocator whose `own` region is this thread's. A constant without a destructor: reading it is one load.
    static OWNER: Cell<*const Bump> = const { Cell::new(null_mut()) };
}

#[repr(align(4096))]
struct Arena<const SIZE: usize> {
    _bytes: [u8; SIZE],
}

/// Where the next block goes. `next` and `end` belong to one object: the arena or one mapping.
struct Region {
    next: *mut u8,
    end: *mut u8,
}

// SAFETY: `own` is touched only by the one thread that `owned` let in, `shared` only under the lock. `arena` and `reserve` are never
// accessed by Bump itself after their addresses were taken, only handed out in disjoint blocks.
unsafe impl Sync for Bump {}

impl Bump {
    /// An allocator that has handed out nothing.
    #[must_use]
    pub const fn new() -> Self {
        Bump {
            owned: AtomicBool::new(false),
            own: UnsafeCell::new(Region { next: null_mut(), end: null_mut() }),
            locked: AtomicBool::new(false),
            shared: UnsafeCell::new(Region { next: null_mut(), end: null_mut() }),
            mappings: AtomicPtr::new(null_mut()),
            stays: AtomicBool::new(false),
            arena: UnsafeCell::new(Arena { _bytes: [0; ARENA] }),
            spent: AtomicBool::new(false),
            reserve: UnsafeCell::new(Arena { _bytes: [0; RESERVE] }),
            ends_with: AtomicI32::new(0),
        }
    }

    /// When there is no memory at all, the process says so in one line and ends with this code, as if it were killed there; the
    /// standard library would abort it, which leaves a core and pages of a backtrace.
    pub fn end_with(&self, code: u8) {
        self.ends_with.store(code.into(), Ordering::Relaxed);
    }

    /// Has the kernel back the first `bytes` of the arena at once (madvise(2), MADV_POPULATE_WRITE, Linux 5.14): one
    /// call instead of a page fault for every page. Where it cannot, the faults do it.
    pub fn populate(&self, bytes: usize) {
        let start = self.arena.get();
        // SAFETY: the range lies in the arena, and populating pages changes nothing that they hold.
        let _ = unsafe { libc::madvise(start.cast(), bytes.min(ARENA), libc::MADV_POPULATE_WRITE) };
    }

    /// Gives the arena to the calling thread, for good. Once: a second call, by whatever thread, changes nothing.
    pub fn own(&'static self) {
        if !self.owned.swap(true, Ordering::Relaxed) {
            let start: *mut u8 = self.arena.get().cast();
            // SAFETY: this thread alone got here, and OWNER, which lets it use `own`, is set after this; the end is one
            // past the arena, which is ARENA bytes long.
            unsafe { *self.own.get() = Region { next: start, end: start.add(ARENA) } };
            OWNER.set(self);
        }
    }

    /// From now on blocks come from the C library's allocator and go back to it: for a command that does not end soon.
    pub fn stay(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    /// Whether blocks are the C library's. Whoever has got such a block from another thread sees it, too: reads of one atomic
    /// do not go back in time.
    #[inline]
    fn stays(&self) -> bool {
        self.stays.load(Ordering::Relaxed)
    }

    /// Whether a block lies in the arena or in a mapping of this allocator.
    fn holds(&self, block: *mut u8) -> bool {
        let within = |start: usize, size: usize| block.addr().wrapping_sub(start) < size;
        if within(self.arena.get().addr(), ARENA) || within(self.reserve.get().addr(), RESERVE) {
            return true;
        }
        let mut at = self.mappings.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: every entry of the list is the head of a mapping that is never given back, was written before it
            // was published, and is not changed afterwards.
            let Mapping { before, size } = unsafe { at.read() };
            if within(at.addr(), size) {
                return true;
            }
            at = before;
        }
        false
    }

    /// Runs `work` on this thread's region. The lock of the others is held for a few instructions (once in a while for
    /// one mmap), so waiting for it is spinning.
    #[inline]
    fn with<T>(&self, work: impl FnOnce(&mut Region) -> T) -> T {
        if OWNER.get() == ptr::from_ref(self) {
            // SAFETY: only the owning thread has this OWNER, and `work` neither allocates nor can reach the region in
            // another way: this is the only reference.
            return work(unsafe { &mut *self.own.get() });
        }
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::hint::spin_loop();
        }
        // SAFETY: the lock is held, so this is the only reference; `work` is as above.
        let result = work(unsafe { &mut *self.shared.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// A block of this allocator's own, be it of the reserve; null when there is none.
    fn take(&self, layout: Layout) -> *mut u8 {
        let taken = self.with(|region| {
            region.allocate(layout, &self.mappings).or_else(|errno| {
                let block = self.take_reserve(region, layout);
                if block.is_null() { Err(errno) } else { Ok(block) }
            })
        });
        taken.unwrap_or_else(|errno| {
            self.end(layout.size(), errno);
            null_mut()
        })
    }

    /// Ends the process, if that is what it is to do.
    #[cold]
    fn end(&self, bytes: usize, errno: i32) {
        let code = self.ends_with.load(Ordering::Relaxed);
        if code == 0 {
            return;
        }
        let mut line = [0; 160];
        let mut rest = &mut line[..];
        // It fits, and is built without memory: an error's words take none.
        let _ = writeln!(rest, "level=error msg=\"mmap(for {bytes} bytes): {}\"", Words(errno));
        let left = rest.len();
        // SAFETY: bytes of this frame; then the process ends without running anything.
        unsafe {
            libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len() - left);
            libc::_exit(code)
        }
    }

    /// Makes the reserve the region, if it fits and is there still.
    fn take_reserve(&self, region: &mut Region, layout: Layout) -> *mut u8 {
        if layout.size() + layout.align() > RESERVE || self.spent.swap(true, Ordering::Relaxed) {
            return null_mut();
        }
        let start: *mut u8 = self.reserve.get().cast();
        // SAFETY: whoever sets `spent` alone gets here; the end is one past the reserve, which is RESERVE bytes long.
        *region = Region { next: start, end: unsafe { start.add(RESERVE) } };
        region.allocate_next(layout)
    }
}

impl Default for Bump {
    fn default() -> Self {
        Bump::new()
    }
}

impl Region {
    /// A block, of a new mapping if need be; else why there is none.
    fn allocate(&mut self, layout: Layout, mappings: &AtomicPtr<Mapping>) -> Result<*mut u8, i32> {
        let found = self.allocate_next(layout);
        if !found.is_null() {
            return Ok(found);
        }
        let (start, size) = map(layout, mappings)?;
        // SAFETY: the mapping is of `size` bytes, more than its head: both stay within it or one past its end.
        unsafe {
            self.next = start.add(size_of::<Mapping>());
            self.end = start.add(size);
        }
        Ok(self.allocate_next(layout))
    }

    /// From what is left; null when that is too little.
    fn allocate_next(&mut self, layout: Layout) -> *mut u8 {
        let padding = self.next.align_offset(layout.align());
        let left = self.end.addr() - self.next.addr();
        match padding.checked_add(layout.size()) {
            Some(needed) if needed <= left => {
                // SAFETY: padding <= needed <= left, so both pointers stay within the object or one past its end.
                unsafe {
                    let block = self.next.add(padding);
                    self.next = block.add(layout.size());
                    block
                }
            }
            _ => null_mut(),
        }
    }

    /// Makes the newest block `new` bytes long, where it lies. False when it is another block, or does not fit.
    fn resize(&mut self, block: *mut u8, old: usize, new: usize) -> bool {
        let newest = block.wrapping_add(old) == self.next;
        if !newest || new > self.end.addr() - block.addr() {
            return false;
        }
        // SAFETY: `block` ends at `next` and, as GlobalAlloc demands, is not empty. A block was taken from every
        // object as soon as it was the current one, so `next` is past the object's first byte and `block` lies in
        // the same object; `new` bytes from it reach at most to `end`.
        self.next = unsafe { block.add(new) };
        true
    }
}

/// New memory that fits `layout` behind its head, never given back, and entered in the list of all; or the errno of mmap(2).
fn map(layout: Layout, mappings: &AtomicPtr<Mapping>) -> Result<(*mut u8, usize), i32> {
    let size =
        layout.size().checked_add(layout.align()).and_then(|size| size.checked_add(size_of::<Mapping>()));
    let size = size.and_then(|size| size.max(CHUNK).checked_next_multiple_of(4096)).ok_or(libc::ENOMEM)?;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new private mapping at an address of the kernel's choice disturbs nothing.
    let start = unsafe { libc::mmap(null_mut(), size, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM));
    }
    let head: *mut Mapping = start.cast();
    let mut before = mappings.load(Ordering::Relaxed);
    loop {
        // SAFETY: a mapping begins at a page, is longer than its head, and nobody else knows it until it is published.
        unsafe { head.write(Mapping { before, size }) };
        match mappings.compare_exchange_weak(before, head, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return Ok((start.cast(), size)),
            Err(newer) => before = newer,
        }
    }
}

// SAFETY: blocks come from memory that lives as long as the allocator (its arena) or for ever (mappings), are
// aligned and sized as asked, and are disjoint: `next` only moves past what was handed out, and moves back only
// over the newest block when that block is freed or shrunk by its owner. Once it stays, blocks are System's, whose
// promise is the same; which of the two a block is from tells its address. No method unwinds.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.stays() {
            // SAFETY: the caller's promise.
            let block = unsafe { System.alloc(layout) };
            return if block.is_null() { self.take(layout) } else { block };
        }
        self.take(layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !self.stays() {
            self.with(|region| region.resize(block, layout.size(), 0));
        } else if !self.holds(block) {
            // SAFETY: the block is not from here, so it is from System, with this layout: the caller's promise.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !self.stays() {
            if self.with(|region| region.resize(block, layout.size(), new_size)) {
                return block;
            }
        } else if !self.holds(block) {
            // SAFETY: as in `dealloc`.
            let moved = unsafe { System.realloc(block, layout, new_size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller guarantees that `new_size` rounded up to the alignment does not overflow isize, and that it is
        // not zero.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !moved.is_null() {
            // What System could not make longer stays its, to the end: so does this process, soon.
            // SAFETY: both blocks are at least this long, and the new one overlaps no live block.
            unsafe { ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size)) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Hands out, fills, and checks that nothing overlaps, across the arena's end and through mappings.
    #[test]
    fn blocks_are_aligned_and_disjoint() {
        static BUMP: Bump = Bump::new();
        let bump = &BUMP;
        bump.own();
        let mut blocks = Vec::new();
        for n in 0..3000_usize {
            let layout = layout(1 + n % 700, 1 << (n % 8));
            // SAFETY: the size is not zero.
            let block = unsafe { bump.alloc(layout) };
            assert!(!block.is_null() && block.align_offset(layout.align()) == 0);
            // SAFETY: the block is ours and this long.
            unsafe { block.write_bytes(n as u8, layout.size()) };
            blocks.push((block, layout.size(), n as u8));
        }
        for (block, size, byte) in blocks {
            // SAFETY: the block is still ours.
            let content = unsafe { std::slice::from_raw_parts(block, size) };
            assert!(content.iter().all(|b| *b == byte));
        }
    }

    #[test]
    fn the_newest_block_grows_shrinks_and_is_freed_in_place() {
        static BUMP: Bump = Bump::new();
        let bump = &BUMP;
        // SAFETY: every block is used with the layout it was last given.
        unsafe {
            let first = bump.alloc(layout(10, 1));
            assert_eq!(bump.realloc(first, layout(10, 1), 5000), first);
            assert_eq!(bump.realloc(first, layout(5000, 1), 20), first);
            let second = bump.alloc(layout(8, 1));
            assert_eq!(second, first.add(20));
            first.write_bytes(7, 20);
            let moved = bump.realloc(first, layout(20, 1), 40);
            assert_ne!(moved, first);
            assert!(std::slice::from_raw_parts(moved, 20).iter().all(|b| *b == 7));
            bump.dealloc(moved, layout(40, 1));
            assert_eq!(bump.alloc(layout(1, 1)), moved);
            // Not the newest: freeing it gives nothing back.
            bump.dealloc(second, layout(8, 1));
            assert_ne!(bump.alloc(layout(8, 1)), second);
        }
    }

    #[test]
    fn what_does_not_fit_is_mapped_and_what_cannot_be_is_null() {
        static BUMP: Bump = Bump::new();
        let bump = &BUMP;
        // SAFETY: as above; the impossible block is never touched.
        unsafe {
            let big = bump.alloc(layout(3 * CHUNK, 4096));
            assert_eq!(big.align_offset(4096), 0);
            big.write_bytes(1, 3 * CHUNK);
            let grown = bump.realloc(big, layout(3 * CHUNK, 4096), 5 * CHUNK);
            assert!(std::slice::from_raw_parts(grown, 3 * CHUNK).iter().all(|b| *b == 1));
            assert!(bump.alloc(layout(isize::MAX as usize - 8192, 8)).is_null());
            assert!(!bump.alloc(layout(8, 8)).is_null());
            let reserve = |size| bump.with(|region| bump.take_reserve(region, layout(size, 8)));
            assert!(reserve(RESERVE).is_null(), "what does not fit leaves it");
            let kept = reserve(100);
            assert!(bump.holds(kept) && kept == bump.reserve.get().cast());
            assert_eq!(bump.alloc(layout(8, 8)), kept.add(104));
            assert!(reserve(8).is_null(), "it is there once");
        }
    }

    #[test]
    fn what_stays_gives_back() {
        static BUMP: Bump = Bump::new();
        let bump = &BUMP;
        bump.own();
        // SAFETY: every block is used with the layout it was last given.
        unsafe {
            let (small, big) = (bump.alloc(layout(100, 8)), bump.alloc(layout(3 * CHUNK, 8)));
            small.write_bytes(1, 100);
            big.write_bytes(2, 3 * CHUNK);
            bump.stay();
            let fresh = bump.alloc(layout(100, 8));
            assert!(
                bump.holds(small)
                    && bump.holds(big)
                    && bump.holds(big.add(3 * CHUNK - 1))
                    && !bump.holds(fresh)
            );
            let grown = bump.realloc(small, layout(100, 8), 4000);
            assert!(!bump.holds(grown) && std::slice::from_raw_parts(grown, 100).iter().all(|b| *b == 1));
            let shrunk = bump.realloc(big, layout(3 * CHUNK, 8), 50);
            assert!(std::slice::from_raw_parts(shrunk, 50).iter().all(|b| *b == 2));
            let grown = bump.realloc(grown, layout(4000, 8), 8000);
            for (block, size) in [(fresh, 100), (grown, 8000), (shrunk, 50)] {
                bump.dealloc(block, layout(size, 8));
            }
            // 16 GiB, all in all.
            for _ in 0..1 << 14 {
                let block = bump.alloc(layout(CHUNK, 8));
                assert!(!block.is_null());
                bump.dealloc(block, layout(CHUNK, 8));
            }
        }
    }

    #[test]
    fn threads_get_different_blocks() {
        static BUMP: Bump = Bump::new();
        let bump = &BUMP;
        let mut all: Vec<usize> = std::thread::scope(|scope| {
            let take = || {
                bump.own();
                // SAFETY: as above.
                (0..2000).map(|_| unsafe { bump.alloc(layout(16, 16)) }.addr()).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8000);
    }
}
