// SPDX-License-Identifier: Apache-2.0
//! What a shim must do, a file per part of the contract. A case that the Go shim cannot pass bears the reason.

#![forbid(unsafe_code)]

mod bad_input;
mod behind;
mod checkpoint;
mod crash;
mod entry;
mod errors;
mod events;
mod faults;
mod frames;
mod given_up;
mod hanging;
mod io;
mod killed;
mod layers;
mod lifecycle;
mod options;
mod requests;
mod sandbox;
mod sandbox_crash;
mod soak;
mod stress;
mod upgrade;
mod upgrade_load;
pub mod upgrade_refused;

use crate::harness::case::Case;

/// Every case, in the order in which they run.
pub fn all() -> Vec<Case> {
    let chapters = [
        lifecycle::cases,
        errors::cases,
        entry::cases,
        options::cases,
        behind::cases,
        layers::cases,
        checkpoint::cases,
        io::cases,
        events::cases,
        crash::cases,
        killed::cases,
        given_up::cases,
        hanging::cases,
        bad_input::cases,
        frames::cases,
        requests::cases,
        faults::cases,
        sandbox::cases,
        sandbox_crash::cases,
        stress::cases,
        soak::cases,
        upgrade::cases,
        upgrade_refused::cases,
        upgrade_load::cases,
    ];
    chapters.into_iter().flat_map(|chapter| chapter()).collect()
}
