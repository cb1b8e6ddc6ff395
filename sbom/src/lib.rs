// SPDX-License-Identifier: Apache-2.0
//! What a program is made of, as cargo resolves it: written as a bill of materials (`make sbom`), and put into the program
//! itself by its build script (decisions/0083).
//!
//! Must never say what it does not know: whatever cannot be read fails the build. No dependencies, for it is built before
//! everything else.

#![forbid(unsafe_code)]

pub mod auditable;
pub mod copyright;
pub mod cyclonedx;
mod json;
pub mod packages;

use std::env;
use std::path::Path;

pub use packages::{Asked, Kind, Package, packages};

/// For the build script of a program: has the list of its packages linked into it, as the section `.dep-v0`, which is not
/// loaded.
///
/// # Errors
///
/// One line that says what could not be read or written.
pub fn embed_list(program: &str) -> Result<(), String> {
    let var = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    println!("cargo::rerun-if-env-changed=CARGO_AUDITABLE_ORIG_ARGS");
    let target = var("TARGET")?;
    // For the test that reads it back.
    println!("cargo::rustc-env=CORTEN_TARGET={target}");
    // `cargo auditable build` puts in a list of its own; two in one section are none.
    if env::var_os("CARGO_AUDITABLE_ORIG_ARGS").is_some() {
        return Ok(());
    }
    let directory = var("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&directory).parent().ok_or("the package has no workspace around it")?;
    println!("cargo::rerun-if-changed={}", workspace.join("Cargo.lock").display());
    let Some(machine) = auditable::machine(&target) else {
        println!(
            "cargo::warning=no list of packages in the program: {target} is not known to sbom/src/auditable.rs"
        );
        return Ok(());
    };
    let cargo = var("CARGO")?;
    let asked = Asked { cargo: Path::new(&cargo), workspace, program, target: &target };
    let object = auditable::object(auditable::list(&packages(&asked)?).as_bytes(), machine);
    let path = Path::new(&var("OUT_DIR")?).join("packages.o");
    std::fs::write(&path, object).map_err(|error| format!("{}: {error}", path.display()))?;
    // The symbol is asked for, lest the linker drop a section that nothing refers to.
    for word in ["-u", auditable::SYMBOL, &path.to_string_lossy()] {
        println!("cargo::rustc-link-arg-bin={program}={word}");
    }
    Ok(())
}
