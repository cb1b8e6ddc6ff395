// SPDX-License-Identifier: Apache-2.0
//! The library's public surface, item by item, as tests/data/surface has it: what is not marked `doc(hidden)`. It cannot grow, shrink or change unseen;
//! a change that is meant is written by CORTEN_BLESS=1, and said in CHANGELOG.md.
//!
//! It reads the sources as rustfmt leaves them. What they say is public and cannot be reached from outside is no harm here.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};

/// Where the surface is, and what of a file's is on it: everything, or the types of these names.
const PLACES: [(&str, &str, &[&str]); 16] = [
    ("", "lib.rs", &[]),
    ("", "error.rs", &["Error", "Kind", "Result"]),
    ("", "container.rs", &["Container"]),
    ("ask", "ask.rs", &[]),
    ("features", "features.rs", &[]),
    ("spec", "spec.rs", &[]),
    ("verbs", "verbs", &[]),
    ("verbs", "host/launch.rs", &["Launched"]),
    ("verbs", "host/notify.rs", &["Notify"]),
    ("verbs", "state.rs", &["Status"]),
    ("verbs", "sys/wait.rs", &["Exit"]),
    ("verbs::usage", "cgroup/oom.rs", &["OomWatch", "News"]),
    ("verbs::usage", "cgroup/probe.rs", &["Version"]),
    ("verbs::usage", "cgroup/stats.rs", &[]),
    ("verbs::usage", "host/rdt/figures.rs", &[]),
    ("with oci-spec", "oci.rs", &[]),
];

fn crate_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// What stands in the braces of the type or the implementation that is being read.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Fields,
    Variants,
    Methods,
    Nothing,
}

/// The items of one file, one line each.
fn items(module: &str, text: &str, only: &[&str]) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let (mut found, mut hidden, mut owner, mut inside) = (Vec::new(), false, String::new(), Inside::Nothing);
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let (indent, words) = (line.len() - line.trim_start().len(), line.trim_start());
        if words.starts_with("#[") || words.starts_with("//") || words.is_empty() {
            hidden |= words.starts_with("#[doc(hidden)]");
            continue;
        }
        let hidden = std::mem::take(&mut hidden);
        // A signature, a list of names or a condition goes on to its end.
        let mut whole = words.to_owned();
        while indent <= 4 && open_end(&whole) {
            let Some(more) = lines.next() else { break };
            whole =
                format!("{whole} {}", more.trim()).replace("( ", "(").replace(", )", ")").replace(",)", ")");
        }
        let head = whole.trim_end_matches(['{', ';', ',']).trim_end();
        if indent == 0 {
            (owner, inside) = begun(head);
            let wanted = only.is_empty() || only.contains(&owner.as_str());
            if hidden || !wanted {
                inside = Inside::Nothing;
            } else if head.starts_with("pub ") || module == "with oci-spec" && head.contains(" for ") {
                found.push(format!("{module}: {head}"));
            }
            if whole.ends_with('}') || whole.ends_with(';') {
                inside = Inside::Nothing;
            }
        } else if indent == 4 && !hidden && is_member(inside, head) {
            found.push(format!("{module}: {owner}: {head}"));
        }
    }
    found
}

fn open_end(text: &str) -> bool {
    let is_item =
        ["pub fn ", "pub use ", "impl", "pub const fn "].iter().any(|start| text.starts_with(start));
    is_item && !text.ends_with(['{', '}', ';'])
}

/// Whose members follow, and of which sort.
fn begun(head: &str) -> (String, Inside) {
    let rest = head.strip_prefix("pub ").unwrap_or(head);
    let name = |text: &str| text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
    let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    match kind {
        "struct" => (name(rest), Inside::Fields),
        "enum" => (name(rest), Inside::Variants),
        _ if kind.starts_with("impl") && !rest.contains(" for ") => (name(rest), Inside::Methods),
        "json::lenient!" => ("spec".into(), Inside::Variants),
        _ => (name(rest), Inside::Nothing),
    }
}

fn is_member(inside: Inside, head: &str) -> bool {
    match inside {
        Inside::Fields => head.starts_with("pub ") && head.contains(':'),
        Inside::Methods => head.starts_with("pub "),
        Inside::Variants => head.starts_with(char::is_uppercase),
        Inside::Nothing => false,
    }
}

fn surface() -> String {
    let source = crate_root().join("src");
    let mut all = Vec::new();
    for (module, place, only) in PLACES {
        let path = source.join(place);
        let mut files = vec![path.clone()];
        if path.is_dir() {
            files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.retain(|file| file.extension().is_some_and(|end| end == "rs"));
        }
        for file in files {
            all.extend(items(module, &fs::read_to_string(file).unwrap(), only));
        }
    }
    all.sort();
    all.into_iter().map(|line| line.trim_start_matches(": ").to_owned() + "\n").collect()
}

#[test]
fn the_surface_is_what_it_is_said_to_be() {
    let path = crate_root().join("tests/data/surface");
    let now = surface();
    if std::env::var_os("CORTEN_BLESS").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    let lacks = |one: &str, other: &str| -> Vec<String> {
        one.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
    };
    let (new, gone) = (lacks(&now, &known), lacks(&known, &now));
    assert!(
        new.is_empty() && gone.is_empty(),
        "new: {new:#?}, gone: {gone:#?}; if that is meant: CORTEN_BLESS=1, and a line in CHANGELOG.md"
    );
    assert_eq!(now, known);
}

/// What the crate's root shows is these modules, and what it names itself.
#[test]
fn the_root_is_small() {
    let text = fs::read_to_string(crate_root().join("src/lib.rs")).unwrap();
    let found = items("", &text, &[]);
    let modules: Vec<&str> = found.iter().filter_map(|line| line.strip_prefix(": pub mod ")).collect();
    assert_eq!(modules, ["ask", "features", "spec", "verbs"]);
}

#[test]
fn items_are_seen() {
    let text = "#[doc(hidden)]\npub mod inner;\npub fn long(\n    a: u8,\n    b: u8,\n) -> u8 {\n    a\n}\npub struct Known {\n    /// It.\n    pub seen: u8,\n    #[doc(hidden)]\n    pub not: u8,\n    own: u8,\n}\nimpl Known {\n    pub fn get(&self) -> u8 {\n        self.own\n    }\n    pub(crate) fn no(&self) {}\n}\npub enum Way {\n    One,\n    Two(u8),\n}\n";
    let expected = [
        "m: pub fn long(a: u8, b: u8) -> u8",
        "m: pub struct Known",
        "m: Known: pub seen: u8",
        "m: Known: pub fn get(&self) -> u8",
        "m: pub enum Way",
        "m: Way: One",
        "m: Way: Two(u8)",
    ];
    assert_eq!(items("m", text, &[]), expected);
    assert_eq!(items("m", text, &["Way"]), expected[4..]);
}
