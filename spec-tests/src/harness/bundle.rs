// SPDX-License-Identifier: Apache-2.0
//! A bundle under construction: a directory with a rootfs and a config.json, beginning as runc's `spec` makes it.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::case::Trouble;

/// What runc 1.3's `spec` writes.
const DEFAULT: &str = include_str!("default.json");

/// A bundle, its container's id, and the config.json it will get.
#[derive(Debug, Clone)]
pub struct Bundle {
    pub id: String,
    pub dir: PathBuf,
    pub config: Value,
}

impl Bundle {
    /// A new directory at `dir` whose container reports what it sees, without a terminal.
    pub fn make(dir: PathBuf, id: String, cgroup: &str, program: &Path) -> Result<Self, Trouble> {
        let rootfs = dir.join("rootfs");
        for sub in ["dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(sub))?;
        }
        fs::copy(program, rootfs.join("probe"))?;
        fs::set_permissions(rootfs.join("probe"), fs::Permissions::from_mode(0o755))?;
        let users = "root:x:0:0:root:/root:/probe\nuser:x:1000:1000:User:/home/user:/probe\n";
        fs::write(rootfs.join("etc/passwd"), users)?;
        fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
        Self::without_files(dir, id, cgroup)
    }

    /// The same, of which nothing is there yet.
    pub fn without_files(dir: PathBuf, id: String, cgroup: &str) -> Result<Self, Trouble> {
        let bundle = Self { id, dir, config: serde_json::from_str(DEFAULT)? };
        let bundle = bundle.set("/process/terminal", json!(false)).set("/linux/cgroupsPath", json!(cgroup));
        Ok(bundle.probe("report"))
    }

    /// A host path of something in the rootfs.
    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.dir.join("rootfs").join(path.trim_start_matches('/'))
    }

    /// The container runs this program.
    pub fn args(self, args: &[&str]) -> Self {
        self.set("/process/args", json!(args))
    }

    /// The container runs the probe with these words.
    pub fn probe(self, words: &str) -> Self {
        let args: Vec<_> = ["/probe"].into_iter().chain(words.split_whitespace()).collect();
        self.args(&args)
    }

    /// The container tries these operations in turn (see `probe::ops`).
    pub fn tries<'a>(self, ops: impl IntoIterator<Item = &'a str>) -> Self {
        let words: Vec<_> = ops.into_iter().map(|op| format!("try {op}")).collect();
        self.probe(&words.join(" -- "))
    }

    /// Sets the value at a JSON pointer; objects on the way are made, `-` at the end appends to an array.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        put(&mut self.config, pointer, value);
        self
    }

    /// Appends to the array at a JSON pointer, which is made when absent.
    pub fn push(self, pointer: &str, value: Value) -> Self {
        self.set(&format!("{pointer}/-"), value)
    }

    /// Removes the value at a JSON pointer.
    pub fn remove(mut self, pointer: &str) -> Self {
        if let Some((parent, key)) = pointer.rsplit_once('/') {
            match self.config.pointer_mut(parent) {
                Some(Value::Object(map)) => drop(map.remove(key)),
                Some(Value::Array(list)) => {
                    if let Ok(index) = key.parse::<usize>() {
                        list.remove(index);
                    }
                }
                _ => {}
            }
        }
        self
    }

    /// The rootfs may be written to.
    pub fn writable(self) -> Self {
        self.set("/root/readonly", json!(false))
    }

    /// One more mount.
    pub fn mount(self, kind: &str, source: &str, dest: &str, options: &[&str]) -> Self {
        self.push("/mounts", json!({"type": kind, "source": source, "destination": dest, "options": options}))
    }

    pub fn without_mount(mut self, dest: &str) -> Self {
        if let Some(list) = self.config["mounts"].as_array_mut() {
            list.retain(|mount| mount["destination"] != dest);
        }
        self
    }

    /// A new namespace more, or one joined by path.
    pub fn namespace(self, kind: &str, path: Option<&str>) -> Self {
        let bundle = self.without_namespace(kind);
        match path {
            Some(path) => bundle.push("/linux/namespaces", json!({"type": kind, "path": path})),
            None => bundle.push("/linux/namespaces", json!({"type": kind})),
        }
    }

    pub fn without_namespace(mut self, kind: &str) -> Self {
        if let Some(list) = self.config["linux"]["namespaces"].as_array_mut() {
            list.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// A user namespace in which 0 to 65535 are the host's 100000 to 165535.
    pub fn user_namespace(self) -> Self {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        let bundle = self.namespace("user", None);
        bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    }

    /// These names in the capability set; the prefix `CAP_` is added.
    pub fn capabilities(self, set: &str, names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| format!("CAP_{name}")).collect();
        self.set(&format!("/process/capabilities/{set}"), json!(names))
    }

    /// These names in the bounding, permitted and effective sets.
    pub fn grants(self, names: &[&str]) -> Self {
        let bundle = self.capabilities("bounding", names).capabilities("permitted", names);
        bundle.capabilities("effective", names)
    }

    /// A file in the rootfs.
    pub fn file(self, path: &str, text: &str) -> Result<Self, Trouble> {
        self.parent(path)?;
        fs::write(self.rootfs(path), text)?;
        Ok(self)
    }

    /// A symbolic link in the rootfs, replacing what was there.
    pub fn link(self, path: &str, target: &str) -> Result<Self, Trouble> {
        self.parent(path)?;
        let at = self.rootfs(path);
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&at)?,
            Ok(_) => fs::remove_file(&at)?,
            Err(_) => {}
        }
        std::os::unix::fs::symlink(target, at)?;
        Ok(self)
    }

    /// A directory in the rootfs.
    pub fn dir(self, path: &str, mode: u32) -> Result<Self, Trouble> {
        let at = self.rootfs(path);
        fs::create_dir_all(&at)?;
        fs::set_permissions(at, fs::Permissions::from_mode(mode))?;
        Ok(self)
    }

    fn parent(&self, path: &str) -> Result<(), Trouble> {
        if let Some(parent) = self.rootfs(path).parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(())
    }

    /// Writes config.json, at no moment half.
    pub fn write(&self) -> Result<(), Trouble> {
        let aside = self.dir.join("config.json.new");
        fs::write(&aside, serde_json::to_string_pretty(&self.config)?)?;
        Ok(fs::rename(aside, self.dir.join("config.json"))?)
    }
}

fn put(root: &mut Value, pointer: &str, value: Value) {
    let mut at = root;
    let mut keys = pointer.split('/').skip(1).map(|key| key.replace("~1", "/")).peekable();
    while let Some(key) = keys.next() {
        let list_next = keys.peek().is_some_and(|next| next == "-");
        if let Value::Array(list) = at {
            let index = key.parse().unwrap_or(list.len());
            if index >= list.len() {
                list.push(Value::Null);
            }
            let last = list.len() - 1;
            at = &mut list[index.min(last)];
        } else {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[key];
        }
        if list_next && !at.is_array() {
            *at = json!([]);
        }
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_makes_what_is_missing_and_appends() {
        let mut value = json!({"a": [1]});
        put(&mut value, "/a/-", json!(2));
        put(&mut value, "/b/c/-", json!("x"));
        put(&mut value, "/a/0", json!(0));
        put(&mut value, "/d~1e", json!(true));
        assert_eq!(value, json!({"a": [0, 2], "b": {"c": ["x"]}, "d/e": true}));
    }
}
