// SPDX-License-Identifier: Apache-2.0
//! The licences of what is linked, as the file `copyright` of a Debian package has them (DEP 5): for each package who holds the
//! copyright, under which licence, and that licence's text as the package itself brings it. The Apache License stands once.
//!
//! Must never be without a text for a package: one of another licence that brings none is an error.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cyclonedx::Bundled;
use crate::packages::{Kind, Package};

const HEAD: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: corten
Comment: The programs are linked statically. After Corten itself comes what is
 linked into one or both of them, with the licence that each brings; what the
 standard library of Rust consists of is told by rust-library.html beside this
 file.

Files: *
Copyright: The Corten authors
License: Apache-2.0
";

const APACHE: &str = "
License: Apache-2.0
 Licensed under the Apache License, Version 2.0. You may obtain a copy of the
 License at http://www.apache.org/licenses/LICENSE-2.0
 .
 On Debian systems the text is in /usr/share/common-licenses/Apache-2.0,
 elsewhere in the file LICENSE beside this one.
";

/// What the toolchain links into the programs does not come with a file for each licence.
const MIT: &str = include_str!("mit.txt");

/// The files of a package's directory that say what its licence is begin so.
const BEGINNINGS: [&str; 5] = ["licence", "license", "copying", "copyright", "notice"];

/// The directory of each package that cargo resolves here, by name and version.
///
/// # Errors
///
/// One line: what cargo said.
pub fn directories(cargo: &Path) -> Result<BTreeMap<(String, String), PathBuf>, String> {
    let words = ["metadata", "--locked", "--offline", "--format-version", "1"];
    let output =
        Command::new(cargo).args(words).output().map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", output.status));
    }
    let text = String::from_utf8(output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    Ok(manifests(&text))
}

/// `{"name":"…","version":"…","id":"…` is the beginning of a package, of which `"manifest_path":"…/Cargo.toml"` comes next.
fn manifests(text: &str) -> BTreeMap<(String, String), PathBuf> {
    let mut read = BTreeMap::new();
    let mut parts = text.split("\",\"id\":\"").peekable();
    while let (Some(before), Some(after)) = (parts.next(), parts.peek()) {
        let name =
            before.rsplit_once("{\"name\":\"").and_then(|(_, name)| name.split_once("\",\"version\":\""));
        let path = after.split_once("\"manifest_path\":\"").and_then(|(_, path)| path.split_once('"'));
        if let (Some((name, version)), Some((path, _))) = (name, path) {
            let directory = Path::new(path).parent().unwrap_or(Path::new("")).to_path_buf();
            read.insert((name.to_owned(), version.to_owned()), directory);
        }
    }
    read
}

/// The whole file, for all packages that are linked into any of the programs.
///
/// # Errors
///
/// One line: the package, and what it does not tell.
pub fn copyright(
    packages: &[Package],
    directories: &BTreeMap<(String, String), PathBuf>,
    bundled: &[Bundled],
) -> Result<String, String> {
    let mut text = HEAD.to_owned();
    let foreign = packages.iter().filter(|package| package.kind == Kind::Runtime && package.source.is_some());
    let mut stanzas = BTreeMap::new();
    for package in foreign {
        let key = (package.name.clone(), package.version.clone());
        let directory = directories
            .get(&key)
            .ok_or_else(|| format!("cargo metadata: has no {} {}", package.name, package.version))?;
        stanzas.insert(key, stanza(package, &licence_files(directory)?)?);
    }
    text.extend(stanzas.into_values());
    for part in bundled {
        let holder = if part.name == "musl" {
            "2005-2020 Rich Felker, et al."
        } else {
            "The Rust Project contributors"
        };
        text +=
            &paragraph(&format!("{}-{}", part.name, part.version), &[holder.to_owned()], part.licence, MIT);
    }
    Ok(text + APACHE)
}

/// Their texts, in the order of their names.
fn licence_files(directory: &Path) -> Result<Vec<String>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(told)? {
        let entry = entry.map_err(told)?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) && entry.path().is_file() {
            texts.insert(name, std::fs::read_to_string(entry.path()).map_err(told)?);
        }
    }
    Ok(texts.into_values().collect())
}

fn stanza(package: &Package, files: &[String]) -> Result<String, String> {
    let is_apache =
        |text: &&String| text.contains("Apache License") && text.contains("Version 2.0, January 2004");
    let others: Vec<&str> = files.iter().filter(|text| !is_apache(text)).map(String::as_str).collect();
    if others.is_empty() && !package.licence.contains("Apache-2.0") {
        return Err(format!("{} {}: brings no text of {}", package.name, package.version, package.licence));
    }
    let mut holders: Vec<String> = Vec::new();
    for holder in files.iter().flat_map(|text| text.lines()).filter_map(holder) {
        if !holders.contains(&holder) {
            holders.push(holder);
        }
    }
    if holders.is_empty() {
        holders.push(format!("the authors of {}", package.name));
    }
    let name = format!("{}-{}", package.name, package.version);
    Ok(paragraph(&name, &holders, &package.licence, &others.join("\n\n")))
}

/// `Copyright (c) 2014 somebody`, not the form to be filled in that the Apache License ends with.
fn holder(line: &str) -> Option<String> {
    let line = line.trim().strip_prefix("Copyright")?;
    let holder = line.trim_start_matches([' ', ':', '©']).trim_start_matches("(c)").trim_start_matches("(C)");
    let tells = holder.chars().any(|c| c.is_ascii_digit()) || line.contains("(c)") || line.contains('©');
    (tells && !holder.contains(['[', '{'])).then(|| holder.trim().to_owned())
}

fn paragraph(name: &str, holders: &[String], licence: &str, text: &str) -> String {
    let words = licence
        .replace(" OR ", " or ")
        .replace(" AND ", " and ")
        .replace(" WITH LLVM-exception", " with LLVM exception");
    let mut paragraph =
        format!("\nFiles: vendor/{name}/*\nCopyright: {}\nLicense: {words}\n", holders.join("\n "));
    for line in text.trim().lines().map(str::trim_end) {
        paragraph += &if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") };
    }
    paragraph
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_the_copyright() {
        let of = |line: &str| holder(line);
        assert_eq!(of("  Copyright (c) 2014 The Rust Project"), Some("2014 The Rust Project".to_owned()));
        assert_eq!(of("Copyright © 2005 A, et al."), Some("2005 A, et al.".to_owned()));
        assert_eq!(of("Copyright (c) Individual contributors"), Some("Individual contributors".to_owned()));
        for no in ["Copyright [yyyy] [name of copyright owner]", "Copyright notice", "copyright 2014 x"] {
            assert_eq!(of(no), None, "{no}");
        }
    }

    #[test]
    fn a_package_without_a_text_is_an_error() {
        let package = |licence: &str| Package {
            name: "a".into(),
            version: "1.0.0".into(),
            licence: licence.into(),
            repository: String::new(),
            kind: Kind::Runtime,
            root: false,
            source: Some(String::new()),
            checksum: None,
            dependencies: Vec::new(),
        };
        assert_eq!(stanza(&package("MIT"), &[]), Err("a 1.0.0: brings no text of MIT".to_owned()));
        let apache = "Apache License\nVersion 2.0, January 2004".to_owned();
        let whole = "\nFiles: vendor/a-1.0.0/*\nCopyright: the authors of a\nLicense: Apache-2.0\n";
        assert_eq!(stanza(&package("Apache-2.0"), &[apache]).as_deref(), Ok(whole));
        let mit = "Copyright (c) 2014 x\n\nPermission\r\n".to_owned();
        let whole = "\nFiles: vendor/a-1.0.0/*\nCopyright: 2014 x\nLicense: MIT or Apache-2.0\n Copyright (c) 2014 x\n .\n Permission\n";
        assert_eq!(stanza(&package("MIT OR Apache-2.0"), &[mit]).as_deref(), Ok(whole));
    }

    #[test]
    fn where_a_package_lies() {
        let text = r#"{"packages":[{"name":"a","version":"1.0.0","id":"x","dependencies":[{"name":"b","source":"x","req":"1"}],"manifest_path":"/r/a-1.0.0/Cargo.toml"},
            {"name":"b","version":"2.0.0","id":"y","manifest_path":"/r/b-2.0.0/Cargo.toml"}],"resolve":{"nodes":[{"id":"x"}]}}"#;
        let key = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let both = [(key("a", "1.0.0"), "/r/a-1.0.0".into()), (key("b", "2.0.0"), "/r/b-2.0.0".into())];
        assert_eq!(manifests(text), both.into());
    }
}
