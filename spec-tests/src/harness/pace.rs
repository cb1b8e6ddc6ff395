// SPDX-License-Identifier: Apache-2.0
//! Limits of time that say the same on a busy machine.

#![forbid(unsafe_code)]

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use super::case::{Trouble, Verdict};
use crate::check;

/// What is spun to learn how busy the machine is.
const SAMPLE: Duration = Duration::from_millis(100);
/// So many programs are run for it, too, one after the other.
const PROGRAMS: u32 = 20;
/// What one of them takes, from fork to wait, on a slow machine of its own.
const PROGRAM: Duration = Duration::from_millis(2);

/// Fails if `what` took longer than `limit`: on a machine with nothing else to do, or, should that be exceeded, as many
/// times longer as other work slows this one down.
pub fn within(what: &str, took: Duration, limit: Duration) -> Verdict {
    if took >= limit {
        let slower = slowdown()?;
        check!(
            took < limit.mul_f64(slower),
            "{what} took {took:?}; may take {limit:?} where others leave the processors free, {slower:.1} times that here"
        );
    }
    Ok(())
}

/// The processor time, in user mode and in the kernel, of whom `who` names.
pub fn processor_time(who: UsageWho) -> Result<Duration, Trouble> {
    let usage = getrusage(who)?;
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()) as u64)
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

/// How many times longer things take here than on a machine of its own with nothing else to do.
pub fn slowdown() -> Result<f64, Trouble> {
    Ok(others()?.max(processor()).max(1.0))
}

/// The clock's time for a second of processor time of this thread, which wants nothing else: 1 on an idle machine.
fn others() -> Result<f64, Trouble> {
    let (begin, before) = (Instant::now(), processor_time(UsageWho::RUSAGE_THREAD)?);
    let mut spent = Duration::ZERO;
    while spent < SAMPLE && begin.elapsed() < 20 * SAMPLE {
        (0..10_000).for_each(|n| {
            std::hint::black_box(n);
        });
        spent = processor_time(UsageWho::RUSAGE_THREAD)? - before;
    }
    // A clock that ticks may have counted nothing yet.
    Ok(begin.elapsed().as_secs_f64() / spent.as_secs_f64().max(0.01))
}

/// The clock's time for a program that does nothing, as many times what it takes on real hardware: a guest does not see
/// how busy its host is, and its processor may be emulated. 0 where there is no such program.
fn processor() -> f64 {
    let begin = Instant::now();
    let ran = (0..PROGRAMS).all(|_| Command::new("/bin/true").status().is_ok());
    if ran { begin.elapsed().as_secs_f64() / f64::from(PROGRAMS) / PROGRAM.as_secs_f64() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_never_quicker_than_an_idle_one() {
        assert!(slowdown().unwrap() >= 1.0);
    }

    #[test]
    fn what_takes_a_hundred_times_its_limit_is_told() {
        within("x", Duration::from_millis(9), Duration::from_millis(10)).unwrap();
        let told =
            format!("{:?}", within("x", Duration::from_secs(1000), Duration::from_secs(1)).unwrap_err());
        assert!(told.contains("x took 1000s"), "{told}");
    }
}
