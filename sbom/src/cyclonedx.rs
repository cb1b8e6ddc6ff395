// SPDX-License-Identifier: Apache-2.0
//! A bill of materials as CycloneDX 1.5 has it, in JSON. It holds neither a time nor a number of its own: of the same sources
//! the same bill.

#![forbid(unsafe_code)]

use crate::json::{lines, list, object, string};
use crate::packages::{Kind, Package};

/// What is linked and comes with the toolchain, not from a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundled {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// An expression of SPDX licences.
    pub licence: &'static str,
}

/// The bill of a program: its packages, and what the toolchain adds.
pub fn bill(packages: &[Package], bundled: &[Bundled]) -> String {
    let programs = packages.iter().filter(|package| package.root);
    let program: Vec<String> = programs.map(|package| component(package, "application")).collect();
    let libraries =
        packages.iter().filter(|package| !package.root).map(|package| component(package, "library"));
    let reference = |package: &Package| string(&purl(package));
    let needs = |package: &Package| {
        let mut on: Vec<String> =
            package.dependencies.iter().map(|index| reference(&packages[*index])).collect();
        if package.root {
            on.extend(bundled.iter().map(|bundled| string(&bundled_purl(bundled))));
        }
        object(&[("ref", reference(package)), ("dependsOn", list(on))])
    };
    let alone = bundled.iter().map(|bundled| object(&[("ref", string(&bundled_purl(bundled)))]));
    let bill = object(&[
        ("bomFormat", string("CycloneDX")),
        ("specVersion", string("1.5")),
        ("version", "1".to_owned()),
        ("metadata", object(&[("component", program.concat())])),
        ("components", lines(libraries.chain(bundled.iter().map(bundled_component)))),
        ("dependencies", lines(packages.iter().map(needs).chain(alone))),
    ]);
    bill + "\n"
}

fn component(package: &Package, kind: &str) -> String {
    let mut members = vec![
        ("type", string(kind)),
        ("bom-ref", string(&purl(package))),
        ("name", string(&package.name)),
        ("version", string(&package.version)),
        ("scope", string(scope(package.kind))),
    ];
    if let Some(checksum) = &package.checksum {
        let hash = object(&[("alg", string("SHA-256")), ("content", string(checksum))]);
        members.push(("hashes", list([hash])));
    }
    members.push(("licenses", licences(&package.licence)));
    members.push(("purl", string(&purl(package))));
    if !package.repository.is_empty() {
        let reference = object(&[("type", string("vcs")), ("url", string(&package.repository))]);
        members.push(("externalReferences", list([reference])));
    }
    object(&members)
}

fn bundled_component(bundled: &Bundled) -> String {
    object(&[
        ("type", string("library")),
        ("bom-ref", string(&bundled_purl(bundled))),
        ("name", string(bundled.name)),
        ("version", string(&bundled.version)),
        ("scope", string(scope(Kind::Runtime))),
        ("licenses", licences(bundled.licence)),
        ("purl", string(&bundled_purl(bundled))),
    ])
}

/// "excluded" is what is used but not delivered.
fn scope(kind: Kind) -> &'static str {
    match kind {
        Kind::Runtime => "required",
        Kind::Build => "excluded",
    }
}

fn licences(expression: &str) -> String {
    list([object(&[("expression", string(expression))])])
}

/// The package's address in the words of every scanner. A `+` stands for itself in a version alone.
fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version.replace('+', "%2B"))
}

fn bundled_purl(bundled: &Bundled) -> String {
    format!("pkg:generic/{}@{}", bundled.name, bundled.version)
}
