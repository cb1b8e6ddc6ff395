// SPDX-License-Identifier: Apache-2.0
//! `corten`, the command line.

#![forbid(unsafe_code)]

fn main() {}
