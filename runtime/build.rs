// SPDX-License-Identifier: Apache-2.0
//! Builds the stage, and the one that `--trace` runs (decisions/0089): one rustc call each, core only, no libc, linked with the
//! toolchain's own `rust-lld`. Then the list of packages in the program (`sbom/`).
//!
//! Cargo's RUSTFLAGS do not reach it; its lints come from the std crate, which compiles the same modules. Set
//! CORTEN_STAGE_LINKER=cc for toolchains that ship no rust-lld.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=stage");
    println!("cargo::rerun-if-env-changed=CORTEN_STAGE_LINKER");
    println!("cargo::rerun-if-env-changed=CORTEN_COMMIT");
    println!("cargo::rustc-env=CORTEN_COMMIT={}", env::var("CORTEN_COMMIT").unwrap_or_else(|_| commit()));
    println!("cargo::rustc-check-cfg=cfg(traced)");
    build_stage("stage", &[]);
    build_stage("stage-traced", &["--cfg", "traced"]);
    // `src/sys/entry.rs`.
    if [var("CARGO_CFG_TARGET_ARCH"), var("CARGO_CFG_TARGET_ENV")] == ["x86_64", "musl"] {
        println!("cargo::rustc-link-arg-bins=-Wl,--undefined=corten_entry,--entry=corten_entry");
    }
    sbom::embed_list("corten").unwrap_or_else(|error| fail(&error));
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| fail(&format!("{name}: {error}")))
}

/// One rustc call; `more` are arguments of its own.
fn build_stage(name: &str, more: &[&str]) {
    let output = Path::new(&var("OUT_DIR")).join(name);
    let mut rustc = Command::new(var("RUSTC"));
    rustc.args(["--edition=2024", "--crate-type=bin", "--crate-name=stage", "--cap-lints=warn"]);
    rustc.args(more);
    rustc.arg("--target").arg(var("TARGET"));
    rustc.args(["-Copt-level=s", "-Cpanic=abort", "-Clto=fat", "-Ccodegen-units=1", "-Cdebuginfo=0"]);
    rustc.args(["-Cforce-unwind-tables=no", "-Crelocation-model=static", "-Ctarget-feature=+crt-static"]);
    rustc.args(["-Coverflow-checks=off", "-Cstrip=symbols"]);
    // Targets with a C library of the system's do not know the option, nor what it switches off.
    if var("CARGO_CFG_TARGET_ENV") == "musl" {
        rustc.arg("-Clink-self-contained=no");
    }
    match env::var("CORTEN_STAGE_LINKER") {
        Ok(linker) => rustc.arg(format!("-Clinker={linker}")).args(linker_arguments("-Wl,", true)),
        Err(_) => {
            rustc.args(["-Clinker=rust-lld", "-Clinker-flavor=ld.lld", "-Cdefault-linker-libraries=no"]);
            rustc.args(linker_arguments("", false))
        }
    };
    rustc.arg("-o").arg(&output).arg("stage/main.rs");
    match rustc.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("the stage does not build: {status}")),
        Err(error) => fail(&format!("{:?}: {error}", rustc.get_program())),
    }
}

fn linker_arguments(prefix: &str, driver: bool) -> Vec<String> {
    let mut arguments = vec!["-Clink-arg=-nostdlib".to_owned(), "-Clink-arg=-static".to_owned()];
    if driver {
        arguments.push("-Clink-arg=-nostartfiles".to_owned());
    }
    for flag in ["--gc-sections", "--build-id=none", "-znorelro", "--no-eh-frame-hdr", "-Tstage/stage.ld"] {
        arguments.push(format!("-Clink-arg={prefix}{flag}"));
    }
    arguments
}

/// The commit for `--version`, when this is a checkout.
fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or("unknown".to_owned(), |text| String::from_utf8_lossy(&text).trim().to_owned())
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}
