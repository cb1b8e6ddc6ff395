// SPDX-License-Identifier: Apache-2.0
//! x
use crate::harness::case::Case;
/// x
pub fn cases() -> Vec<Case> {
    vec![]
}
