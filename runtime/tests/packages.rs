// SPDX-License-Identifier: Apache-2.0
//! The list of packages in the programs (sbom/src/auditable.rs), read back as a scanner does: the section `.dep-v0`, through
//! somebody else's zlib, against what Cargo.lock and `cargo metadata` say. And that nothing of it is ever loaded.
//!
//! A test of both crates (shim/Cargo.toml names this file, too).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

#[path = "../../sbom/tests/resolved/mod.rs"]
mod resolved;

use resolved::{Key, Resolved, key};

/// elf(5).
const SHF_ALLOC: u64 = 2;

fn program() -> &'static str {
    option_env!("CARGO_BIN_EXE_corten")
        .or(option_env!("CARGO_BIN_EXE_containerd-shim-corten-v2"))
        .expect("no program of this crate")
}

fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// The flags and the bytes of every section of that name.
fn sections<'a>(elf: &'a [u8], wanted: &str) -> Vec<(u64, &'a [u8])> {
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "no 64-bit ELF file, or not little-endian");
    let (first, count, names) =
        (number(elf, 40, 8) as usize, number(elf, 60, 2) as usize, number(elf, 62, 2) as usize);
    let header = |index: usize| first + index * number(elf, 58, 2) as usize;
    let content = |header: usize| {
        let (offset, size) = (number(elf, header + 24, 8) as usize, number(elf, header + 32, 8) as usize);
        &elf[offset..offset + size]
    };
    let names = content(header(names));
    let name = |header: usize| names[number(elf, header, 4) as usize..].split(|byte| *byte == 0).next();
    let of_that_name = (1..count).map(header).filter(|header| name(*header) == Some(wanted.as_bytes()));
    of_that_name.map(|header| (number(elf, header + 8, 8), content(header))).collect()
}

/// Through Python's zlib; none where there is no Python.
fn decompressed(bytes: &[u8]) -> Option<Value> {
    let words = "import sys, zlib; sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))";
    let mut command = Command::new("python3");
    command.args(["-c", words]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("NOT RUN packages: there is no python3, whose zlib would read the list");
        return None;
    };
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "zlib does not read the section");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn the_list_in_the_program_is_what_cargo_resolves() {
    let elf = std::fs::read(program()).unwrap();
    let found = sections(&elf, ".dep-v0");
    assert_eq!(found.len(), 1, "sections of that name");
    assert_eq!(found[0].0 & SHF_ALLOC, 0, "the list is loaded");
    let Some(list) = decompressed(found[0].1) else { return };
    let packages = list["packages"].as_array().unwrap();
    let keys: Vec<Key> = packages.iter().map(key).collect();
    let roots: Vec<&Value> = packages.iter().filter(|package| package["root"] == true).collect();
    assert_eq!(roots.len(), 1);
    assert_eq!(roots[0]["name"], env!("CARGO_PKG_NAME"));
    let resolved = Resolved::read(env!("CORTEN_TARGET"));
    let linked = packages.iter().filter(|package| package["kind"] != "build").map(key);
    let linked: BTreeSet<Key> = linked.collect();
    resolved.linked(env!("CARGO_PKG_NAME")).hold(&linked);
    resolved.needed(env!("CARGO_PKG_NAME")).hold(&keys.iter().cloned().collect());
    for (package, key) in packages.iter().zip(&keys) {
        let source = if resolved.checksum(key).is_some() { "crates.io" } else { "local" };
        assert_eq!(package["source"], source, "{key:?}");
        let indices = package["dependencies"].as_array().into_iter().flatten();
        let needs: BTreeSet<Key> =
            indices.map(|index| keys[index.as_u64().unwrap() as usize].clone()).collect();
        assert!(needs.is_subset(&resolved.needs(key)), "{key:?} does not need all of {needs:?}");
    }
    println!("{} packages, {} of them linked, {} bytes", packages.len(), linked.len(), found[0].1.len());
}
