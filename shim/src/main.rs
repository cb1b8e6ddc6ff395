// SPDX-License-Identifier: Apache-2.0
//! `containerd-shim-corten-v2`: a skeleton that says so.
//!
//! The shim's contract is built by an issue of its own. Until then this program refuses every call, so that
//! nobody mistakes it for a working shim.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!(
        "containerd-shim-corten-v2 {}: the shim is not built yet; use the `corten` runtime",
        env!("CARGO_PKG_VERSION")
    );
    ExitCode::FAILURE
}
