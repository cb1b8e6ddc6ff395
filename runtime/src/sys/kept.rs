// SPDX-License-Identifier: Apache-2.0
//! The shim's allocator: the C library's, which keeps two freed blocks of every size until the shim rests.
//!
//! musl's allocator maps a group of blocks for a size that is not in use, and unmaps it with the last of them (mallocng). A shim
//! holds next to nothing, so nearly every buffer of a request would be a mmap(2), a page fault and a munmap(2).

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Blocks of fewer bytes share groups that are in use anyway; larger ones are mappings of their own.
const LEAST: usize = 256;
const DOUBLINGS: usize = 7;
/// Sizes to a doubling: what is asked for is rounded up by less than a quarter.
const STEPS: usize = 4;
const CLASSES: usize = DOUBLINGS * STEPS + 1;
const KEPT: usize = 2;

/// The allocator. There is one: what is kept is kept for all.
pub struct Keeping;

static SLOTS: [[AtomicPtr<u8>; KEPT]; CLASSES] =
    [const { [const { AtomicPtr::new(null_mut()) }; KEPT] }; CLASSES];

/// The class of a block, and its size: 256, 320, 384, 448, 512, 640 bytes and so on.
fn class(layout: Layout) -> Option<(usize, Layout)> {
    let size = layout.size();
    if !(LEAST..=LEAST << DOUBLINGS).contains(&size) {
        return None;
    }
    let doubling = ((size - 1) / LEAST).checked_ilog2().map_or(0, |log| log as usize);
    let step = (LEAST << doubling) / STEPS;
    let steps = (size - (LEAST << doubling)).div_ceil(step);
    let whole = Layout::from_size_align((LEAST << doubling) + steps * step, layout.align()).ok()?;
    // malloc(3) aligns no further.
    (layout.align() <= 2 * size_of::<usize>()).then_some((doubling * STEPS + steps, whole))
}

fn take(class: usize) -> Option<*mut u8> {
    let kept = SLOTS.get(class)?.iter().map(|slot| slot.swap(null_mut(), Ordering::Acquire));
    kept.into_iter().find(|block| !block.is_null())
}

/// Whether there was room for it.
fn keep(class: usize, block: *mut u8) -> bool {
    let free = |slot: &AtomicPtr<u8>| {
        slot.compare_exchange(null_mut(), block, Ordering::Release, Ordering::Relaxed).is_ok()
    };
    SLOTS.get(class).is_some_and(|slots| slots.iter().any(free))
}

// SAFETY: blocks come from System and go back to it, with the size of their class in both directions. One that is kept is in one
// slot, and whoever takes it out by an exchange has it alone.
unsafe impl GlobalAlloc for Keeping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            // SAFETY: as the caller says of `layout`.
            None => unsafe { System.alloc(layout) },
            // SAFETY: a size that is not zero.
            Some((class, whole)) => take(class).unwrap_or_else(|| unsafe { System.alloc(whole) }),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class(layout) {
            // SAFETY: it came from there with this layout.
            None => unsafe { System.dealloc(block, layout) },
            Some((class, _)) if keep(class, block) => {}
            // SAFETY: it came from there with the layout of its class.
            Some((_, whole)) => unsafe { System.dealloc(block, whole) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller says of `layout`; a block that was kept has the bytes of its class.
        unsafe {
            let Some((class, whole)) = class(layout) else { return System.alloc_zeroed(layout) };
            let Some(block) = take(class) else { return System.alloc_zeroed(whole) };
            block.write_bytes(0, whole.size());
            block
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
        match (class(layout), class(wanted)) {
            // SAFETY: it came from there with this layout.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (Some((old, _)), Some((new, _))) if old == new => block,
            // SAFETY: a new block, which does not overlap the old one; both have the bytes that are copied.
            _ => unsafe {
                let new = self.alloc(wanted);
                if !new.is_null() {
                    new.copy_from_nonoverlapping(block, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                new
            },
        }
    }
}

/// Frees what is kept.
pub fn give_back() {
    for block in SLOTS.iter().flatten().map(|slot| slot.swap(null_mut(), Ordering::Acquire)) {
        // SAFETY: it came from malloc(3), and whoever takes it out of its slot has it alone. free(NULL) does nothing.
        unsafe { libc::free(block.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_class(size: usize) -> Option<(usize, usize)> {
        class(Layout::from_size_align(size, 8).unwrap()).map(|(class, whole)| (class, whole.size()))
    }

    #[test]
    fn classes_are_rounded_up_and_never_overlap() {
        let mut last = (0, LEAST);
        for size in LEAST..=LEAST << DOUBLINGS {
            let (class, whole) = size_of_class(size).unwrap();
            assert!(
                whole >= size && whole - size < size.div_ceil(STEPS).max(LEAST / STEPS),
                "{size}: {whole}"
            );
            assert!(class < CLASSES);
            // The next size is of the same class, or the next class begins just there.
            assert!((class, whole) == last || class == last.0 + 1 && size == last.1 + 1, "{size}");
            last = (class, whole);
        }
        assert_eq!([size_of_class(LEAST - 1), size_of_class((LEAST << DOUBLINGS) + 1)], [None, None]);
    }

    #[test]
    fn a_block_is_one_callers_alone_and_keeps_its_bytes_when_it_moves() {
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: each block is freed once with the layout that it has by then.
        unsafe {
            let blocks: Vec<*mut u8> = (0..5).map(|_| Keeping.alloc(layout(1000))).collect();
            blocks.iter().zip(0..).for_each(|(block, n)| block.write_bytes(n, 1000));
            blocks.iter().for_each(|block| Keeping.dealloc(*block, layout(1000)));
            let again: Vec<*mut u8> = (0..5).map(|_| Keeping.alloc(layout(900))).collect();
            let mut distinct = again.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), 5);
            let mut block = again[0];
            block.write_bytes(7, 900);
            for (from, to) in [(900, 1000), (1000, 10_000), (10_000, 100), (100, 100_000), (100_000, 300)] {
                block = Keeping.realloc(block, layout(from), to);
                assert!((0..100).all(|at| *block.add(at) == 7), "{from} to {to}");
            }
            Keeping.dealloc(block, layout(300));
            again[1..].iter().for_each(|block| Keeping.dealloc(*block, layout(900)));
        }
        give_back();
    }
}
