// SPDX-License-Identifier: Apache-2.0
//! What containerd executes us for: `start`, `delete`, `-info`; and what servers execute themselves for: `take-over`.

#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod delete;
mod group;
pub mod info;
mod serve;
mod sha256;
pub mod socket;
pub mod start;
pub mod take_over;
