// SPDX-License-Identifier: Apache-2.0
//! The licences of what is linked, against what `cargo metadata` says is linked.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

mod resolved;

use resolved::{Key, Resolved, workspace};

const TARGET: &str = "x86_64-unknown-linux-musl";
const PROGRAM: &str = "containerd-shim-corten-v2";

/// Has it written for the shim, which has the runtime in it.
fn written() -> String {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("copyright");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sbom"));
    let output = command.arg(&directory).args([TARGET, PROGRAM]).current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(directory.join("copyright")).unwrap()
}

/// Its stanzas by what they are for.
fn stanzas(text: &str) -> BTreeMap<&str, &str> {
    text.split("\n\n").filter_map(|part| part.strip_prefix("Files: ")?.split_once('\n')).collect()
}

#[test]
fn each_package_that_is_linked_has_its_licence() {
    let resolved = Resolved::read(TARGET);
    let text = written();
    let stanzas = stanzas(&text);
    let foreign: BTreeMap<Key, &&str> = stanzas
        .iter()
        .filter_map(|(files, stanza)| {
            let (name, version) = files.strip_prefix("vendor/")?.strip_suffix("/*")?.rsplit_once('-')?;
            Some(((name.to_owned(), version.to_owned()), stanza))
        })
        .collect();
    let bundled = ["musl", "rust-std"];
    assert_eq!(foreign.keys().filter(|key| bundled.contains(&key.0.as_str())).count(), 2, "the toolchain's");
    let mut listed: BTreeSet<Key> =
        foreign.keys().filter(|key| !bundled.contains(&key.0.as_str())).cloned().collect();
    for (name, stanza) in &foreign {
        assert!(stanza.starts_with("Copyright: ") && stanza.contains("\nLicense: "), "{name:?}: {stanza}");
        let says_more = stanza.lines().count() > 3;
        assert!(says_more || stanza.contains("\nLicense: Apache-2.0"), "{name:?} has no text: {stanza}");
        let mit = stanza.lines().any(|line| line.starts_with("License: ") && line.contains("MIT"));
        let permits = stanza.contains("Permission is hereby granted") || !mit;
        assert!(permits, "{name:?} has no text of its MIT licence: {stanza}");
    }
    // What is in this tree is of the first stanza.
    listed.extend([PROGRAM, "corten", "corten-dbus"].map(|name| (name.to_owned(), resolved.version(name))));
    resolved.linked(PROGRAM).hold(&listed);
}

#[test]
fn it_is_the_same_every_time() {
    assert_eq!(written(), written());
}
