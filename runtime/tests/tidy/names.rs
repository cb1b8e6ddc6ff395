// SPDX-License-Identifier: Apache-2.0
//! One noun, one thing: a public type's name is given once in the two programs and the stage.

use std::collections::BTreeMap;

use super::{File, assert_none, tracked};

/// Names that two things share, and why that stays or who still owes the repair. This list may only shrink.
const SHARED: [(&str, &str); 1] = [("Result", "each crate's Result with its own error")];

/// The name of the public type that this line defines.
fn defined(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = if rest.starts_with('(') { rest.split_once(')')?.1 } else { rest };
    let (kind, rest) = rest.strip_prefix(' ')?.split_once(' ')?;
    let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    ["struct", "enum", "trait", "type", "union"].contains(&kind).then_some(&rest[..end])
}

#[test]
fn a_type_name_stands_for_one_thing() {
    let programs = ["runtime/src/", "runtime/stage/", "runtime/dbus/", "shim/src/"];
    let files = tracked();
    if files.is_empty() {
        return;
    }
    let of_programs =
        |file: &&File| file.is_program() && programs.iter().any(|program| file.path.starts_with(program));
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in files.iter().filter(of_programs) {
        let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (line, number) in code.lines().zip(1..) {
            let at = || format!("{}:{number}", file.path);
            defined(line).into_iter().for_each(|name| places.entry(name).or_default().push(at()));
        }
    }
    let shared = |name: &str| SHARED.iter().any(|(known, _)| *known == name);
    let twice = |name: &str| places.get(name).is_some_and(|places| places.len() > 1);
    let mut broken = Vec::new();
    for (name, places) in places.iter().filter(|(name, places)| places.len() > 1 && !shared(name)) {
        broken.push(format!("{name}: {}", places.join(", ")));
    }
    let repaired = SHARED.iter().filter(|(name, _)| !twice(name));
    broken.extend(repaired.map(|(name, _)| format!("{name} is one thing now: take it off the list")));
    println!("yardstick: names {}", places.values().filter(|places| places.len() > 1).count());
    assert_none("public type names that stand for more than one thing", broken);
}

#[test]
fn definitions_are_seen() {
    let name = |line| defined(line);
    assert_eq!(name("pub struct Place<'a> {"), Some("Place"));
    assert_eq!(name("    pub(super) enum Op {"), Some("Op"));
    assert_eq!(name("pub type Result<T> = x;"), Some("Result"));
    assert_eq!((name("struct Private;"), name("pub fn struct_of() {}")), (None, None));
}
