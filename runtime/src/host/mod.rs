// SPDX-License-Identifier: Apache-2.0
//! The host's half: opening what the container gets, launching the stage, meeting it at barriers, undoing.
//!
//! Nothing here runs inside the container, and nothing that comes from inside is believed beyond its form. The
//! counterpart is `stage/`; the order of everything is `program/compile.rs`.

#![forbid(unsafe_code)]

mod birth;
mod channel;
pub mod fate;
mod fields;
pub mod gate;
pub mod hooks;
pub mod identity;
mod idmap;
mod idtool;
mod image;
mod launch;
pub mod members;
mod netdev;
mod netlink;
pub mod notify;
pub mod own_mount;
pub mod permitted;
pub mod rdt;
mod ready;
mod sockets;
mod sources;
mod undo;

pub use channel::{Channel, Incoming, word};
pub use idmap::userns;
pub use launch::{Launch, LaunchPurpose, Launched, Subject};
pub use sockets::{append, connect, send_descriptor, write_whole};
