// SPDX-License-Identifier: Apache-2.0
//! Writes what our own fuzzer begins with to where cargo-fuzz looks for it: corpus/TARGET below this directory, or below the
//! one that is given.

#![forbid(unsafe_code)]

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let top = std::env::args_os()
        .nth(1)
        .map_or(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus"), PathBuf::from);
    for target in corten_fuzz::ALL {
        let directory = top.join(target.name);
        std::fs::create_dir_all(&directory)?;
        for (number, seed) in corten_fuzz::seeds(&target).iter().enumerate() {
            std::fs::write(directory.join(format!("{number:04}")), seed)?;
        }
        println!("{}", directory.display());
    }
    Ok(())
}
