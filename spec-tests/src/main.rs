// SPDX-License-Identifier: Apache-2.0
//! The black-box harness.

fn main() {}
