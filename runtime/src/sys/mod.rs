// SPDX-License-Identifier: Apache-2.0
//! The door to the kernel: everything that `rustix` does not offer, each behind a safe function.
//!
//! The only room of the std side in which `unsafe` and raw descriptors may stand. Its counterpart inside the
//! container is `stage/sys.rs`.

pub mod bpf;
pub mod bump;
pub(crate) mod clone;
#[cfg(target_arch = "x86_64")]
mod entry;
pub(crate) mod image;
pub mod kept;
pub mod loopdev;
pub mod mount;
pub mod ns;
pub mod pages;
pub mod passing;
pub(crate) mod prctl;
pub(crate) mod probe;
pub mod random;
pub mod regex;
pub(crate) mod sched;
pub mod spawn;
pub mod thread;
pub(crate) mod ticks;
pub mod tty;
pub mod wait;
