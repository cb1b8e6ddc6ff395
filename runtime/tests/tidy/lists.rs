// SPDX-License-Identifier: Apache-2.0
//! Lists that no compiler reads.

use super::{assert_none, root};

/// What a merge cuts off of a list, no compiler misses: each target that the Makefile names has its rule, and a version its changes.
#[test]
fn lists_are_whole() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let phony = makefile.split(".PHONY:").nth(1).unwrap_or_default();
    let names = phony.replace("\\\n", " ");
    let names: Vec<&str> = names.lines().next().unwrap_or_default().split_whitespace().collect();
    let is_rule = |name: &&&str| makefile.lines().any(|line| line.starts_with(&format!("{name}:")));
    let broken: Vec<String> = names
        .iter()
        .filter(|name| !is_rule(name))
        .map(|name| format!("Makefile: {name} has no rule"))
        .collect();
    assert!(names.len() > 30, "Makefile: .PHONY names {} targets alone", names.len());
    assert_none("lists that end early", broken);
    let changes = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let is_there = |heading: &&str| !changes.lines().any(|line| line.starts_with(*heading));
    let missing = ["## [Unreleased]", "### Added", "### Changed", "### Fixed"].into_iter().filter(is_there);
    assert_none("headings of CHANGELOG.md", missing.map(str::to_owned).collect());
}
