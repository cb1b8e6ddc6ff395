// SPDX-License-Identifier: Apache-2.0
//! The door to the kernel: everything that `rustix` does not offer, each behind a safe function.
//!
//! The only room of the std side in which `unsafe` and raw descriptors may stand. Its counterpart inside the
//! container is `stage/sys.rs`.

pub mod bpf;
pub mod bump;
pub mod clone;
pub mod image;
pub mod loopdev;
pub mod mount;
pub mod ns;
pub mod pages;
pub mod prctl;
pub mod probe;
pub mod random;
pub mod sched;
pub mod spawn;
pub mod tty;
pub mod wait;
