// SPDX-License-Identifier: Apache-2.0
//! The map of rooms in docs/ARCHITECTURE.md, held against the code: which top module of a crate uses which others.
//!
//! An import that is not on the map fails, and so does an arrow that no code needs, and a circle. To see the graph as it is:
//! `cargo test -p corten --test rooms -- --nocapture`.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows the functions marked as tests, not their helpers"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// By room, the rooms that it uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The code without comments and without its unit tests, which may look at anything.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first names of what stands after `crate::`: one, or those of a list in braces.
fn names(after: &str) -> Vec<String> {
    let word = |text: &str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(list) = after.strip_prefix('{') else { return vec![word(after)] };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(word(list[start..at].trim()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

/// The file or directory directly below `dir` that `path` is, or is in.
fn room_below(dir: &Path, path: &Path) -> String {
    let first = path.strip_prefix(dir).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Crates of ours that another one uses. They are rooms that use none: cargo forbids circles among crates.
const CRATES: [&str; 1] = ["corten_dbus"];

/// The rooms of a crate: the files and directories of `src`, and those that are elsewhere.
fn graph(src: &Path, elsewhere: &[(&str, PathBuf)]) -> Graph {
    let mut files = Vec::new();
    sources(src, &mut files);
    let room_of = |path: &Path| room_below(src, path);
    let mut all: Vec<(String, PathBuf)> = files.into_iter().map(|path| (room_of(&path), path)).collect();
    for (room, dir) in elsewhere {
        let mut files = Vec::new();
        sources(dir, &mut files);
        all.extend(files.into_iter().map(|path| ((*room).to_owned(), path)));
    }
    all.retain(|(room, _)| !["lib", "main", "cli"].contains(&room.as_str()));
    let rooms: BTreeSet<String> = all.iter().map(|(room, _)| room.clone()).collect();
    let mut graph: Graph = rooms.iter().map(|room| (room.clone(), BTreeSet::new())).collect();
    for (room, path) in &all {
        let code = code(path);
        let used = code.split("crate::").skip(1).flat_map(names);
        let others = used.filter(|name| name != room && rooms.contains(name));
        graph.entry(room.clone()).or_default().extend(others);
        for used in CRATES.iter().filter(|used| code.contains(&format!("{used}::"))) {
            graph.entry(room.clone()).or_default().insert((*used).to_owned());
            graph.entry((*used).to_owned()).or_default();
        }
    }
    graph
}

/// The rooms within one: the files and directories of `src/NAME`, whose own `mod.rs` says where each name comes from that
/// others use as `crate::NAME::Name`.
fn inner_graph(src: &Path, name: &str) -> Graph {
    let dir = src.join(name);
    let mut files = Vec::new();
    sources(&dir, &mut files);
    files.retain(|path| !path.ends_with("tests.rs") && !path.ends_with("mod.rs"));
    let room_of = |path: &Path| room_below(&dir, path);
    let rooms: BTreeSet<String> = files.iter().map(|path| room_of(path)).collect();
    let mut home: BTreeMap<String, String> = rooms.iter().map(|room| (room.clone(), room.clone())).collect();
    for line in code(&dir.join("mod.rs")).split(';') {
        let line = line.trim();
        let used = line.strip_prefix("pub use ").or_else(|| line.strip_prefix("pub(crate) use "));
        let Some((room, list)) = used.and_then(|rest| rest.split_once("::")) else { continue };
        home.extend(
            names(list.split(" as ").last().unwrap_or(list)).into_iter().map(|name| (name, room.to_owned())),
        );
    }
    let mut graph: Graph = rooms.iter().map(|room| (room.clone(), BTreeSet::new())).collect();
    for path in &files {
        let (room, code) = (room_of(path), code(path));
        let up = "super::".repeat(path.strip_prefix(&dir).unwrap().components().count());
        let outer = format!("crate::{name}::");
        let used = [outer.as_str(), up.as_str()].into_iter().flat_map(|prefix| {
            // Not the end of a longer way up.
            code.match_indices(prefix)
                .filter(|(at, _)| !code[..*at].ends_with("super::"))
                .flat_map(|(at, _)| names(&code[at + prefix.len()..]))
                .collect::<Vec<_>>()
        });
        let others = used.filter_map(|name| home.get(&name).cloned()).filter(|other| *other != room);
        graph.entry(room.clone()).or_default().extend(others);
    }
    graph
}

/// The block `rooms NAME` of docs/ARCHITECTURE.md: `room: rooms that it uses` on each line.
fn map(name: &str) -> Graph {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let start = format!("```rooms {name}\n");
    let block = text.split(&start).nth(1).and_then(|rest| rest.split("```").next());
    let block = block.unwrap_or_else(|| panic!("docs/ARCHITECTURE.md has no block `rooms {name}`"));
    let line = |line: &str| {
        let (room, used) = line.split_once(':')?;
        Some((room.trim().to_owned(), used.split_whitespace().map(str::to_owned).collect()))
    };
    block.lines().filter_map(line).collect()
}

fn show(graph: &Graph) -> String {
    let line = |(room, used): (&String, &BTreeSet<String>)| {
        format!("{room}: {}", used.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
            .trim_end()
            .to_owned()
    };
    graph.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Rooms that use each other, directly or through others: what is left when all that lead nowhere have been taken away.
fn circles(graph: &Graph) -> BTreeSet<String> {
    let mut left = graph.clone();
    loop {
        let ends: Vec<String> = left
            .iter()
            .filter(|(_, used)| !used.iter().any(|room| left.contains_key(room)))
            .map(|(room, _)| room.clone())
            .collect();
        if ends.is_empty() {
            return left.into_keys().collect();
        }
        left.retain(|room, _| !ends.contains(room));
    }
}

fn hold(name: &str, graph: &Graph) {
    println!("rooms of {name}:\n{}\n", show(graph));
    let map = map(name);
    let mut wrong = Vec::new();
    for (room, used) in graph {
        let known = map.get(room).cloned().unwrap_or_default();
        wrong.extend(used.difference(&known).map(|other| format!("{room} uses {other}: not on the map")));
        wrong.extend(known.difference(used).map(|other| format!("{room} does not use {other} any more")));
    }
    wrong.extend(map.keys().filter(|room| !graph.contains_key(*room)).map(|room| format!("no room {room}")));
    let circles = circles(graph);
    if !circles.is_empty() {
        wrong.push(format!("a circle among {circles:?}"));
    }
    assert!(wrong.is_empty(), "{}:\n{}", name, wrong.join("\n"));
}

#[test]
fn the_runtime_is_built_as_the_map_says() {
    let src = root().join("runtime/src");
    hold("runtime", &graph(&src, &[("stage", root().join("runtime/stage"))]));
}

#[test]
fn the_cgroup_room_is_built_as_the_map_says() {
    hold("cgroup", &inner_graph(&root().join("runtime/src"), "cgroup"));
}

#[test]
fn the_shim_is_built_as_the_map_says() {
    hold("shim", &graph(&root().join("shim/src"), &[]));
}

#[test]
fn circles_and_lists_are_seen() {
    let graph = |pairs: &[(&str, &[&str])]| -> Graph {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), b.iter().map(|b| (*b).to_owned()).collect())).collect()
    };
    assert!(circles(&graph(&[("a", &["b"]), ("b", &["c"]), ("c", &[])])).is_empty());
    assert_eq!(circles(&graph(&[("a", &["b"]), ("b", &["a"]), ("c", &[])])).len(), 2);
    assert_eq!(names("{a::{b, c}, d, e::f};"), ["a", "d", "e"]);
    assert_eq!(names("state::Dir;"), ["state"]);
}
