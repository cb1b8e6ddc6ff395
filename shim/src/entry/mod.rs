// SPDX-License-Identifier: Apache-2.0
//! What containerd executes us for: `start`, `delete`, `-info`.

#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod delete;
mod group;
pub mod info;
mod sha256;
pub mod socket;
pub mod start;
