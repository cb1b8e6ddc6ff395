// SPDX-License-Identifier: Apache-2.0
//! The places of the notification socket (sd_notify(3)). Counterpart: `host/notify.rs`.

#![forbid(unsafe_code)]

/// The directory of the socket below the container's, which is bound to [`INSIDE`].
pub const DIRECTORY: &str = "notify";
/// Where it is in the container: runc's place, which images may know.
pub const INSIDE: &str = "/run/notify";
/// The socket's name in both.
pub const SOCKET: &str = "notify.sock";
