// SPDX-License-Identifier: Apache-2.0
//! The bills of materials against what `cargo metadata` and Cargo.lock say, which `sbom` does not ask in that way.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

mod resolved;

use resolved::{Key, Resolved, key, list, text, workspace};

const TARGET: &str = "x86_64-unknown-linux-musl";
const PROGRAMS: [&str; 2] = ["corten", "containerd-shim-corten-v2"];

/// Has both written into a directory of that name, and returns them as they are.
fn written(zone: &str) -> Vec<String> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(zone);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sbom"));
    command.arg(&directory).arg(TARGET).args(PROGRAMS).current_dir(workspace()).env("TZ", zone);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PROGRAMS
        .map(|program| std::fs::read_to_string(directory.join(format!("{program}.cdx.json"))).unwrap())
        .into()
}

/// The program itself, and what it is made of.
fn components(bill: &Value) -> Vec<&Value> {
    std::iter::once(&bill["metadata"]["component"]).chain(list(&bill["components"])).collect()
}

fn purl((name, version): &Key) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

#[test]
fn each_package_has_its_line() {
    let resolved = Resolved::read(TARGET);
    for (program, bill) in PROGRAMS.iter().zip(written("UTC")) {
        let bill: Value = serde_json::from_str(&bill).unwrap();
        assert_eq!(
            (text(&bill["bomFormat"]), text(&bill["specVersion"])),
            ("CycloneDX".into(), "1.5".into())
        );
        let main = &bill["metadata"]["component"];
        assert_eq!((text(&main["name"]), text(&main["type"])), ((*program).into(), "application".into()));
        let (generic, packages): (Vec<&Value>, Vec<&Value>) =
            components(&bill).into_iter().partition(|part| text(&part["purl"]).starts_with("pkg:generic/"));
        let names: Vec<String> = generic.iter().map(|component| text(&component["name"])).collect();
        assert_eq!(names, ["rust-std", "musl"], "what the toolchain brings");
        let linked = packages.iter().filter(|package| package["scope"] == "required");
        resolved.linked(program).hold(&linked.map(|package| key(package)).collect());
        resolved.needed(program).hold(&packages.iter().map(|package| key(package)).collect());
        for package in packages {
            let key = key(package);
            assert_eq!(text(&package["purl"]), purl(&key));
            assert_eq!(text(&package["licenses"][0]["expression"]), resolved.licence(&key), "{key:?}");
            assert_eq!(package["hashes"][0]["content"].as_str(), resolved.checksum(&key), "{key:?}");
        }
    }
}

/// All that a bill refers to is in it, once, and everything in it has a licence.
#[test]
fn bills_are_whole() {
    for bill in written("Asia/Tokyo") {
        let bill: Value = serde_json::from_str(&bill).unwrap();
        let components = components(&bill);
        let known: BTreeSet<String> =
            components.iter().map(|component| text(&component["bom-ref"])).collect();
        assert_eq!(known.len(), components.len(), "a reference that stands for two");
        assert!(components.iter().all(|component| !text(&component["licenses"][0]["expression"]).is_empty()));
        let needs = list(&bill["dependencies"]);
        assert_eq!(needs.iter().map(|needs| text(&needs["ref"])).collect::<BTreeSet<_>>(), known);
        assert!(needs.iter().flat_map(|needs| list(&needs["dependsOn"])).all(|to| known.contains(&text(to))));
    }
}

#[test]
fn of_the_same_sources_the_same_bill() {
    let (one, other) = (written("Europe/Berlin"), written("America/Lima"));
    assert_eq!(one, other);
    let here = workspace().display().to_string();
    assert!(one.iter().all(|bill| !bill.contains(&here)), "a path of this machine");
}
