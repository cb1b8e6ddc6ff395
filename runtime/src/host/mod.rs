// SPDX-License-Identifier: Apache-2.0
//! The host's half: opening what the container gets, launching the stage, meeting it at barriers, undoing.
//!
//! Nothing here runs inside the container, and nothing that comes from inside is believed beyond its form. The
//! counterpart is `stage/`; the order of everything is `program/compile.rs`.

#![forbid(unsafe_code)]

mod advice;
mod birth;
mod channel;
pub(crate) mod fate;
mod fields;
pub(crate) mod gate;
pub(crate) mod hooks;
pub mod identity;
mod idmap;
pub(crate) mod idtool;
mod image;
mod launch;
pub(crate) mod log;
pub(crate) mod members;
mod mount_points;
mod netdev;
mod netlink;
pub(crate) mod network_lock;
pub mod notify;
pub(crate) mod own_mount;
pub(crate) mod permitted;
pub mod rdt;
mod ready;
pub(crate) mod restore;
mod restored;
mod sockets;
mod sources;
mod undo;

pub use channel::{Channel, word_fault};
pub use idmap::userns;
pub use launch::Launched;
pub(crate) use launch::{Launch, LaunchPurpose, Subject};
pub(crate) use restore::Restoration;
pub use sockets::{append, write_whole};
