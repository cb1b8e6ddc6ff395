// SPDX-License-Identifier: Apache-2.0
//! The list of packages in the program (`sbom/`), and where it begins (`runtime/src/sys/entry.rs`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = ["CARGO_CFG_TARGET_ARCH", "CARGO_CFG_TARGET_ENV"].map(std::env::var);
    if target == [Ok("x86_64".to_owned()), Ok("musl".to_owned())] {
        println!("cargo::rustc-link-arg-bins=-Wl,--undefined=corten_entry,--entry=corten_entry");
    }
    if let Err(error) = sbom::embed_list("containerd-shim-corten-v2") {
        println!("cargo::error={error}");
        std::process::exit(1);
    }
}
