// SPDX-License-Identifier: Apache-2.0
//! What `cargo metadata` and Cargo.lock say of a program: what the lists of packages are compared with, which come from
//! `cargo tree`. Of the tests here, and of runtime/tests/packages.rs.
//!
//! `cargo metadata` resolves the features of the whole workspace, so that an optional dependency may be there that the
//! program has not: so it gives two bounds.

#![allow(dead_code, reason = "not each test uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Name and version.
pub type Key = (String, String);

pub struct Resolved {
    packages: BTreeMap<String, Value>,
    nodes: BTreeMap<String, Value>,
    locked: BTreeMap<Key, Option<String>>,
}

/// What must be in a list, and what may be.
pub struct Bounds {
    least: BTreeSet<Key>,
    most: BTreeSet<Key>,
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn key(package: &Value) -> Key {
    (text(&package["name"]), text(&package["version"]))
}

pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

impl Bounds {
    #[track_caller]
    pub fn hold(&self, found: &BTreeSet<Key>) {
        let (missing, foreign) = (self.least.difference(found), found.difference(&self.most));
        let (missing, foreign): (Vec<_>, Vec<_>) = (missing.collect(), foreign.collect());
        assert!(missing.is_empty() && foreign.is_empty(), "missing: {missing:?}, foreign: {foreign:?}");
    }
}

impl Resolved {
    pub fn read(target: &str) -> Resolved {
        let words =
            ["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", target];
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo).args(words).current_dir(workspace()).output().unwrap();
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let by_id =
            |values: &Value| list(values).iter().map(|value| (text(&value["id"]), value.clone())).collect();
        Resolved {
            packages: by_id(&metadata["packages"]),
            nodes: by_id(&metadata["resolve"]["nodes"]),
            locked: locked(),
        }
    }

    /// What is linked: neither macros nor what only runs while the program is built.
    pub fn linked(&self, program: &str) -> Bounds {
        let linked = |id: &str, kind: &Value| kind.is_null() && !self.is_macro(id);
        Bounds { least: self.closure(program, false, linked), most: self.closure(program, true, linked) }
    }

    /// What is linked, and what runs while the program is built.
    pub fn needed(&self, program: &str) -> Bounds {
        let needed = |_: &str, kind: &Value| kind != "dev";
        Bounds { least: self.closure(program, false, needed), most: self.closure(program, true, needed) }
    }

    /// What a package may need.
    pub fn needs(&self, package: &Key) -> BTreeSet<Key> {
        let id = self.packages.iter().find(|(_, value)| key(value) == *package).unwrap().0;
        list(&self.nodes[id]["deps"]).iter().map(|to| key(&self.packages[&text(&to["pkg"])])).collect()
    }

    /// The package's checksum; none for what is in this tree. Fails for what Cargo.lock has not.
    pub fn checksum(&self, package: &Key) -> Option<&str> {
        self.locked[package].as_deref()
    }

    /// Of a package of this tree.
    pub fn version(&self, name: &str) -> String {
        let value = self.packages.values().find(|value| value["name"] == name && value["source"].is_null());
        text(&value.unwrap()["version"])
    }

    pub fn licence(&self, package: &Key) -> String {
        let value = self.packages.values().find(|value| key(value) == *package).unwrap();
        text(&value["license"]).replace('/', " OR ")
    }

    fn is_macro(&self, id: &str) -> bool {
        let targets = list(&self.packages[id]["targets"]);
        targets.iter().any(|target| list(&target["kind"]).contains(&"proc-macro".into()))
    }

    fn closure(&self, program: &str, optional: bool, wanted: impl Fn(&str, &Value) -> bool) -> BTreeSet<Key> {
        let mut left: Vec<&String> = self
            .packages
            .iter()
            .filter(|(_, package)| package["name"] == program)
            .map(|(id, _)| id)
            .collect();
        assert_eq!(left.len(), 1, "packages of the name {program}");
        let mut found = BTreeSet::new();
        while let Some(id) = left.pop() {
            if !found.insert(id) {
                continue;
            }
            for to in list(&self.nodes[id]["deps"]) {
                let (other, _) = self.packages.get_key_value(to["pkg"].as_str().unwrap()).unwrap();
                let name = &self.packages[other]["name"];
                // It may be declared once more for other targets.
                let declared = list(&self.packages[id]["dependencies"]).iter().filter(|d| d["name"] == *name);
                let always = |kind: &Value| {
                    let mut of_kind = declared.clone().filter(|d| d["kind"] == *kind).peekable();
                    of_kind.peek().is_some() && of_kind.all(|d| d["optional"] == false)
                };
                let mut kinds = list(&to["dep_kinds"]).iter().map(|kind| &kind["kind"]);
                if kinds.any(|kind| wanted(other, kind) && (optional || always(kind))) {
                    left.push(other);
                }
            }
        }
        found.into_iter().map(|id| key(&self.packages[id])).collect()
    }
}

/// Everything in Cargo.lock, with its checksum.
fn locked() -> BTreeMap<Key, Option<String>> {
    let text = std::fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
    let value = |block: &str, key: &str| {
        Some(block.split(&format!("\n{key} = \"")).nth(1)?.split('"').next()?.to_owned())
    };
    let blocks = text.split("[[package]]").skip(1);
    blocks
        .map(|block| {
            let key = (value(block, "name").unwrap(), value(block, "version").unwrap());
            (key, value(block, "checksum"))
        })
        .collect()
}
