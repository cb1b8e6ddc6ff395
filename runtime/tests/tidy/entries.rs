// SPDX-License-Identifier: Apache-2.0
//! Each fuzz target has its entry for cargo-fuzz (docs/how-to/fuzz-target.md).

use std::collections::BTreeMap;

use super::{File, assert_none, tracked};

/// By name, the constant that each target is: of lines like `fuzz_config: targets::config::TARGET,`.
fn targets(main: &str) -> BTreeMap<&str, &str> {
    fn target(line: &str) -> Option<(&str, &str)> {
        let (name, constant) = line.trim().strip_prefix("fuzz_")?.split_once(": targets::")?;
        Some((name, constant.strip_suffix(',')?))
    }
    main.lines().filter_map(target).collect()
}

/// What our own fuzzer has and the entries have not, and the other way about.
fn missing<'a>(text: impl Fn(&str) -> &'a str, entries: &[&str]) -> Vec<String> {
    let targets = targets(text("runtime/tests/fuzz/main.rs"));
    assert!(targets.len() > 10, "runtime/tests/fuzz/main.rs: {} targets alone", targets.len());
    let mut broken = Vec::new();
    for (name, constant) in &targets {
        let path = format!("fuzz/fuzz_targets/{name}.rs");
        let needed = [
            (path.as_str(), format!("corten_fuzz::entry!({constant});")),
            ("fuzz/Cargo.toml", format!("[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n")),
            ("fuzz/src/lib.rs", format!("    targets::{constant},\n")),
        ];
        let lacks = needed.iter().filter(|(path, words)| !text(path).contains(words));
        broken.extend(lacks.map(|(path, words)| format!("{path} lacks {words:?}")));
    }
    let known = |path: &&&str| {
        let name = path.trim_start_matches("fuzz/fuzz_targets/").trim_end_matches(".rs");
        !targets.contains_key(name)
    };
    broken.extend(entries.iter().filter(known).map(|path| format!("{path} is of no target")));
    broken
}

#[test]
fn each_fuzz_target_has_an_entry() {
    let files = tracked();
    if files.is_empty() {
        return;
    }
    let text = |path: &str| {
        let found = files.iter().find(|file| file.path == path);
        found.map_or("", |file| file.text.as_str())
    };
    let is_entry = |file: &&File| file.path.starts_with("fuzz/fuzz_targets/");
    let entries: Vec<&str> = files.iter().filter(is_entry).map(|file| file.path.as_str()).collect();
    assert_none("fuzz targets without their entry", missing(text, &entries));
}

#[test]
fn what_is_missing_is_told() {
    let main: String = (0..12).map(|n| format!("    fuzz_a{n}: targets::a::T{n},\n")).collect();
    let text = |path: &str| if path == "runtime/tests/fuzz/main.rs" { main.as_str() } else { "" };
    let broken = missing(text, &["fuzz/fuzz_targets/a3.rs", "fuzz/fuzz_targets/other.rs"]);
    assert_eq!(broken.len(), 3 * 12 + 1);
    assert_eq!(broken[36], "fuzz/fuzz_targets/other.rs is of no target");
}
