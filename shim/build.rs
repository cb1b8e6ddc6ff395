// SPDX-License-Identifier: Apache-2.0
//! The list of packages in the program (`sbom/`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(error) = sbom::embed_list("containerd-shim-corten-v2") {
        println!("cargo::error={error}");
        std::process::exit(1);
    }
}
