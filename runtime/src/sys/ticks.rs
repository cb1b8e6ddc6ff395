// SPDX-License-Identifier: Apache-2.0
//! The processor's counter beside the kernel's clock: a traced stage, which may make no system call of its own, reads the one,
//! and this side the other.

use crate::stage::ticks;

/// One moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Of the counter.
    pub ticks: u64,
    /// Of CLOCK_MONOTONIC, in nanoseconds.
    pub nanos: u64,
}

/// CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn nanos() -> u64 {
    nanos_of(libc::CLOCK_MONOTONIC)
}

/// What this thread has computed, in nanoseconds.
pub(crate) fn nanos_of_thread() -> u64 {
    nanos_of(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// By libc, which does without a vDSO where there is none (User Mode Linux); rustix does not.
fn nanos_of(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a live local. It cannot fail for these two clocks.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// This moment; `None` where the counter must not be read (PR_SET_TSC, which children inherit).
pub(crate) fn moment() -> Option<Moment> {
    /// Of so many, the one during which this thread was interrupted least.
    const TRIES: usize = 5;
    if !is_readable() {
        return None;
    }
    let try_once = |_| {
        let (before, nanos, after) = (ticks(), nanos(), ticks());
        let took = after.wrapping_sub(before);
        (took, Moment { ticks: before.wrapping_add(took / 2), nanos })
    };
    (0..TRIES).map(try_once).min_by_key(|(took, _)| *took).map(|(_, moment)| moment)
}

fn is_readable() -> bool {
    const PR_GET_TSC: libc::c_int = 25;
    const PR_TSC_SIGSEGV: libc::c_int = 2;
    let mut how: libc::c_int = 0;
    // SAFETY: writes one integer to a live local; a kernel that does not know the option writes nothing.
    let asked = unsafe { libc::prctl(PR_GET_TSC, &raw mut how, 0, 0, 0) };
    asked != 0 || how != PR_TSC_SIGSEGV
}

/// Turns readings of the counter between two moments into nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    first: Moment,
    last: Moment,
}

impl Scale {
    /// `None` where the counter stood still or ran backwards in between.
    pub(crate) fn between(first: Moment, last: Moment) -> Option<Scale> {
        (last.ticks > first.ticks && last.nanos > first.nanos).then_some(Scale { first, last })
    }

    /// When it was by CLOCK_MONOTONIC; before the first moment as well.
    pub(crate) fn nanos(&self, ticks: u64) -> u64 {
        let (ran, took) = (self.last.ticks - self.first.ticks, self.last.nanos - self.first.nanos);
        let since = i128::from(ticks) - i128::from(self.first.ticks);
        let nanos = i128::from(self.first.nanos) + since * i128::from(took) / i128::from(ran);
        u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_become_nanoseconds() {
        let first = Moment { ticks: 1 << 60, nanos: 5_000 };
        let last = Moment { ticks: (1 << 60) + 3_000, nanos: 6_000 };
        let scale = Scale::between(first, last).unwrap();
        let at = |ticks: i64| scale.nanos((1_u64 << 60).wrapping_add_signed(ticks));
        assert_eq!([at(0), at(300), at(3_000), at(-3_000), at(6_000)], [5_000, 5_100, 6_000, 4_000, 7_000]);
        assert_eq!(scale.nanos(0), 0);
        assert!(Scale::between(last, first).is_none() && Scale::between(first, first).is_none());
    }

    #[test]
    fn the_counter_counts() {
        let first = moment().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let scale = Scale::between(first, moment().unwrap()).unwrap();
        let now = moment().unwrap();
        // A reading of now, by either clock, is the same moment: within 50 µs also where this thread is interrupted.
        assert!(scale.nanos(now.ticks).abs_diff(now.nanos) < 50_000, "{now:?} {scale:?}");
    }
}
