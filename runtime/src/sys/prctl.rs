// SPDX-License-Identifier: Apache-2.0
//! prctl(2).

/// Whether `cap` is in this thread's bounding set; `None` when the kernel does not know the capability.
pub fn bounding_set_has(cap: u32) -> Option<bool> {
    // SAFETY: PR_CAPBSET_READ takes and returns numbers.
    match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(cap), 0, 0, 0) } {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// A signal by number, the real-time ones included, of which `rustix` knows no names.
pub fn signal(number: i32) -> Option<rustix::process::Signal> {
    let known = (1..=libc::SIGRTMAX()).contains(&number);
    // SAFETY: a number in the kernel's range; sending a signal that libc keeps to itself harms the receiver only.
    known.then(|| unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}
