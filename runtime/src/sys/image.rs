// SPDX-License-Identifier: Apache-2.0
//! What the static program brings in place of the C library's own.

/// memcpy(3) and memmove(3) for the static program: musl's are one `rep movsq` whatever the length, whose start costs
/// tens of nanoseconds, and a launch copies thousands of short strings and structures (a tenth of its own time).
/// Both are defined, because musl's memmove would bring its memcpy along. Not a loop in sight: the compiler would
/// make a call of memcpy of it.
#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
mod copy {
    use core::arch::asm;

    // Loads all, then stores all: right for overlapping ranges, too. `T` is loaded from both ends inwards.
    ///
    /// # Safety
    /// Both ranges are valid for `count` bytes, and `N * size_of::<T>() <= count <= 2 * N * size_of::<T>()`.
    macro_rules! ends {
        ($to:ident, $from:ident, $count:ident, $t:ty, $($i:literal)*) => {{
            const SIZE: usize = size_of::<$t>();
            let head = [$($from.add($i * SIZE).cast::<$t>().read_unaligned()),*];
            let tail = [$($from.add($count - ($i + 1) * SIZE).cast::<$t>().read_unaligned()),*];
            $($to.add($i * SIZE).cast::<$t>().write_unaligned(head[$i]);)*
            $($to.add($count - ($i + 1) * SIZE).cast::<$t>().write_unaligned(tail[$i]);)*
        }};
    }

    /// Up to 128 bytes, overlapping or not.
    ///
    /// # Safety
    /// Both ranges are valid for `count` bytes.
    #[inline(always)]
    unsafe fn short(to: *mut u8, from: *const u8, count: usize) {
        // SAFETY: each arm loads and stores within `count` bytes of either pointer, as its bounds say.
        unsafe {
            match count {
                0 => {}
                1 => *to = *from,
                2..=4 => ends!(to, from, count, u16, 0),
                5..=8 => ends!(to, from, count, u32, 0),
                9..=16 => ends!(to, from, count, u64, 0),
                17..=32 => ends!(to, from, count, u128, 0),
                33..=64 => ends!(to, from, count, u128, 0 1),
                _ => ends!(to, from, count, u128, 0 1 2 3),
            }
        }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        // SAFETY: the caller vouches for both ranges; the direction flag is clear by the ABI.
        unsafe {
            if count <= 128 {
                short(to, from, count);
            } else {
                asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
            }
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        // SAFETY: the caller vouches for both ranges; upwards is right unless the target begins inside the source.
        unsafe {
            if count <= 128 {
                short(to, from, count);
            } else if to.addr().wrapping_sub(from.addr()) >= count {
                asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
            } else {
                let (last_to, last_from) = (to.add(count - 1), from.add(count - 1));
                asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") last_to => _,
                     inout("rsi") last_from => _, options(nostack));
            }
        }
        to
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn every_length_and_overlap_is_copied_right() {
            for count in 0..300_usize {
                for shift in [0, 1, 7, 16, 127, 128, 129, 400] {
                    let original: Vec<u8> = (0..1200_usize).map(|i| (i * 7 + i / 256) as u8).collect();
                    for (from, to) in [(400, 400 + shift), (400 + shift, 400)] {
                        let mut bytes = original.clone();
                        let base = bytes.as_mut_ptr();
                        // SAFETY: both ranges lie within the 1200 bytes.
                        unsafe { super::memmove(base.add(to), base.add(from), count) };
                        let mut expected = original.clone();
                        (0..count).for_each(|i| expected[to + i] = original[from + i]);
                        assert_eq!(bytes, expected, "{count} bytes from {from} to {to}");
                    }
                }
            }
        }
    }
}
