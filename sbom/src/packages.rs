// SPDX-License-Identifier: Apache-2.0
//! The packages of a program: which, from `cargo tree`; whence, from Cargo.lock.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Of which program, for which target, the packages are asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The program `cargo`.
    pub cargo: &'a Path,
    /// The directory of Cargo.lock.
    pub workspace: &'a Path,
    /// The package that is the program.
    pub program: &'a str,
    /// The target's triple.
    pub target: &'a str,
}

/// What a package is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is linked.
    Runtime,
    /// It runs while the program is built: a macro, a build script, and what these need.
    Build,
}

/// A package that a program is made of, or with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// As Cargo.lock names it.
    pub name: String,
    /// As Cargo.lock names it.
    pub version: String,
    /// An expression of SPDX licences.
    pub licence: String,
    /// Where it is developed; empty if it does not say.
    pub repository: String,
    /// What it is there for.
    pub kind: Kind,
    /// Whether it is the program.
    pub root: bool,
    /// Whence it comes, as Cargo.lock has it; none for what is in this tree.
    pub source: Option<String>,
    /// SHA-256 of its archive, in hexadecimal digits; none for what is in this tree.
    pub checksum: Option<String>,
    /// Which of the packages it needs, by their indices.
    pub dependencies: Vec<usize>,
}

/// Name and version.
type Key = (String, String);

/// A line of `cargo tree`.
struct Line {
    depth: usize,
    key: Key,
    licence: String,
    repository: String,
}

/// All packages of the program, by name and version.
///
/// # Errors
///
/// One line: the command or the file, and why it could not be read.
pub fn packages(asked: &Asked) -> Result<Vec<Package>, String> {
    let linked: BTreeSet<Key> =
        tree(asked, "normal,no-proc-macro")?.into_iter().map(|line| line.key).collect();
    let lines = tree(asked, "normal,build")?;
    let path = asked.workspace.join("Cargo.lock");
    let locked = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let locked = lock(&locked);
    let keys: BTreeSet<&Key> = lines.iter().map(|line| &line.key).collect();
    let index: BTreeMap<&Key, usize> = keys.into_iter().zip(0..).collect();
    let mut needs = vec![BTreeSet::new(); index.len()];
    // The way from the program to the line.
    let mut way: Vec<usize> = Vec::new();
    let mut first: BTreeMap<&Key, &Line> = BTreeMap::new();
    for line in &lines {
        let at = index[&line.key];
        way.truncate(line.depth);
        if let Some(parent) = way.last() {
            needs[*parent].insert(at);
        }
        way.push(at);
        first.entry(&line.key).or_insert(line);
    }
    let package = |(key, line): (&Key, &Line)| {
        let (source, checksum) = locked
            .get(key)
            .cloned()
            .ok_or_else(|| format!("{}: has no {} {}", path.display(), key.0, key.1))?;
        Ok(Package {
            name: key.0.clone(),
            version: key.1.clone(),
            licence: line.licence.clone(),
            repository: line.repository.clone(),
            kind: if linked.contains(key) { Kind::Runtime } else { Kind::Build },
            root: line.depth == 0,
            source,
            checksum,
            dependencies: needs[index[key]].iter().copied().collect(),
        })
    };
    first.into_iter().map(package).collect()
}

/// What cargo resolves: the edges of these kinds, from the program down.
fn tree(asked: &Asked, edges: &str) -> Result<Vec<Line>, String> {
    // Not --offline: where another workspace has the runtime as a library (fuzz/), nobody has fetched what this one's lockfile
    // names. Otherwise all of it is there, and nothing is asked of anybody.
    let words = ["tree", "--locked", "--color", "never", "--prefix", "depth", "--format", "|{p}|{l}|{r}|"];
    let mut command = Command::new(asked.cargo);
    command.args(words).args(["--edges", edges, "--package", asked.program, "--target", asked.target]);
    let output =
        command.current_dir(asked.workspace).output().map_err(|error| format!("cargo tree: {error}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo tree: {}: {}", output.status, words.trim().replace('\n', "; ")));
    }
    let text = String::from_utf8(output.stdout).map_err(|error| format!("cargo tree: {error}"))?;
    text.lines().filter(|line| !line.is_empty()).map(read_line).collect()
}

/// `2|name v1.0.0 (proc-macro)|MIT OR Apache-2.0|address| (*)`
fn read_line(line: &str) -> Result<Line, String> {
    let wrong = || format!("cargo tree: a line that is not understood: {line}");
    let mut fields = line.split('|');
    let mut next = || fields.next().ok_or_else(wrong);
    let depth = next()?.parse().map_err(|_| wrong())?;
    let (name, version) = next()?.split_once(" v").ok_or_else(wrong)?;
    let version = version.split(' ').next().unwrap_or(version);
    // Until 2019 alternatives were separated by a slash.
    let licence = next()?.replace('/', " OR ");
    let key = (name.to_owned(), version.to_owned());
    Ok(Line { depth, key, licence, repository: next()?.to_owned() })
}

/// Source and checksum of each package of a Cargo.lock.
fn lock(text: &str) -> BTreeMap<Key, (Option<String>, Option<String>)> {
    let value = |block: &str, key: &str| {
        let start = format!("{key} = \"");
        block.lines().find_map(|line| Some(line.strip_prefix(&start)?.strip_suffix('"')?.to_owned()))
    };
    let entry = |block: &str| {
        let key = (value(block, "name")?, value(block, "version")?);
        Some((key, (value(block, "source"), value(block, "checksum"))))
    };
    text.split("[[package]]").filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_tree() {
        let line = read_line("12|bitflags v1.3.2 (proc-macro) (/x y)|MIT/Apache-2.0|there| (*)").unwrap();
        assert_eq!((line.depth, line.key), (12, ("bitflags".to_owned(), "1.3.2".to_owned())));
        assert_eq!((line.licence.as_str(), line.repository.as_str()), ("MIT OR Apache-2.0", "there"));
        for wrong in ["", "x", "[build-dependencies]", "1|name|MIT|", "x|a v1|MIT|"] {
            assert!(read_line(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sources_and_checksums_of_a_lock() {
        let text = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry\"\nchecksum = \"00\"\n\
            dependencies = [\n \"b\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n";
        let read = lock(text);
        let of = |name: &str, version: &str| read[&(name.to_owned(), version.to_owned())].clone();
        assert_eq!(of("a", "1.0.0"), (Some("registry".to_owned()), Some("00".to_owned())));
        assert_eq!(of("b", "2.0.0"), (None, None));
        assert_eq!(read.len(), 2);
    }
}
