// SPDX-License-Identifier: Apache-2.0
//! Black-box cases for OCI runtimes, and the probe that runs inside their containers: one static binary.
//!
//! - `spec-tests run --runtime PATH …` runs the cases (see [`harness::cli`]).
//! - `spec-tests shim --shim PATH …` drives a containerd shim (see [`shim`]).
//! - `spec-tests shim-twins --shim PATH --peer PATH …` compares shims (see [`shim::twins`]).
//! - `spec-tests cri SOCKET …` runs a pod through a containerd's CRI (see [`shim::cri`]), `spec-tests cri-checkpoint SOCKET …` checkpoints
//!   and restores one's container, `spec-tests cri-features SOCKET …` asks for what newer kubelets ask for, `cri-figures` measures
//!   pods, `cri-begin` and `cri-go-on` leave one alone in between.
//! - `spec-tests scale SOCKET …` keeps more and more containers alive in a containerd (see [`shim::scale`]).
//! - `spec-tests rates SOCKET …` counts how many a containerd makes and ends in a second (see [`shim::rates`]).
//! - `spec-tests registry ADDRESS:PORT LAYOUT` gives out an image's blobs (see [`shim::registry`]).
//! - `spec-tests docker-front LISTEN DOCKER` stands between a kubelet and dockerd (see [`shim::docker_front`]).
//! - `spec-tests twins --runtime PATH --peer PATH …` compares runtimes (see [`twins`]).
//! - `spec-tests conform LOGS FILE` makes a document of what the runs said (see [`conform`]).
//! - `spec-tests probe ACTION …`, or the binary under the name `probe`, is what the containers run (see [`probe`]).
//!
//! A case may only look at what the outside sees: exit codes, output, files, and what the probe reports.

#![deny(unsafe_code)]

mod cases;
mod conform;
mod harness;
mod probe;
mod shim;
mod sys;
mod twins;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let name = if args.is_empty() { String::new() } else { args.remove(0) };
    if name.rsplit('/').next().is_some_and(|base| base.starts_with("probe")) {
        return probe::main(&args);
    }
    if shim::successor::is_meant(&args) {
        return shim::successor::main(&args);
    }
    if args.first().is_some_and(|first| first != "probe") {
        sys::handle_signals_as_usual();
    }
    match args.first().map(String::as_str) {
        Some("probe") => probe::main(&args[1..]),
        Some("shim") => shim::cli::main(&args),
        Some("shim-twins") => shim::twins::cli::main(&args),
        Some("shim-bench") => shim::bench::main(&args),
        Some("cri") => shim::cri::main(&args[1..]),
        Some("cri-checkpoint") => shim::cri::checkpoint::main(&args[1..]),
        Some("cri-features") => shim::cri::features::main(&args[1..]),
        Some("cri-figures") => shim::cri::figures::main(&args[1..]),
        Some("cri-begin") => shim::cri::restart::begin(&args[1..]),
        Some("cri-go-on") => shim::cri::restart::go_on(&args[1..]),
        Some("registry") => shim::registry::main(&args[1..]),
        Some("docker-front") => shim::docker_front::main(&args[1..]),
        Some("rates") => shim::rates::main(&args[1..]),
        Some("scale") => shim::scale::main(&args[1..]),
        Some("shim-upgrade") => shim::cli::upgrade(&args[1..]),
        Some("shim-ask") => shim::cli::ask(&args[1..]),
        Some("run") => harness::cli::main(&args),
        Some("twins") => twins::cli::main(&args),
        Some("conform") => conform::main(&args[1..]),
        _ => {
            eprintln!("{}", harness::cli::USAGE);
            ExitCode::from(2)
        }
    }
}
