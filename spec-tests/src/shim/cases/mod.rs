// SPDX-License-Identifier: Apache-2.0
//! What a shim must do, a file per part of the contract. A case that the Go shim cannot pass bears the reason.

#![forbid(unsafe_code)]

mod lifecycle;

use crate::harness::case::Case;

/// Every case, in the order in which they run.
pub fn all() -> Vec<Case> {
    let chapters = [lifecycle::cases];
    chapters.into_iter().flat_map(|chapter| chapter()).collect()
}
