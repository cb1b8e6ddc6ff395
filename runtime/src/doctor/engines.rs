// SPDX-License-Identifier: Apache-2.0
//! Engines' configurations: which of them call Corten, and where that goes wrong. This file reads all of them and judges Docker's and
//! CRI-O's; `containerd.rs` and `podman.rs` have the others.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::toml::{self, TomlEntry};
use super::{HostCheck, Signs, containerd, podman, programs};
use crate::facts::Facts;

/// More than any configuration has; what is longer is none.
const LARGEST: u64 = 1 << 20;
const CONTAINERD: [&str; 2] =
    ["/etc/containerd/config.toml", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"];
const CRIO: &str = "/etc/crio/crio.conf";
const KUBELET: &str = "/var/lib/kubelet/config.yaml";

/// A file and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct EngineSigns {
    /// Each with what it imports after it.
    pub(super) containerd: Vec<Vec<ConfigFile>>,
    pub(super) docker: Option<ConfigFile>,
    /// containers.conf and what stands beside it: what comes later counts.
    pub(super) podman: Vec<ConfigFile>,
    pub(super) crio: Vec<ConfigFile>,
    /// `cgroupDriver` of the kubelet's configuration.
    pub(super) kubelet_driver: Option<String>,
    /// Of the paths that stand in all of these, those that can be executed.
    pub(super) executable: BTreeSet<String>,
}

impl EngineSigns {
    pub(super) fn can_execute(&self, path: &str) -> bool {
        self.executable.contains(path)
    }
}

pub(super) fn look(facts: &Facts) -> EngineSigns {
    let mut signs = EngineSigns {
        containerd: CONTAINERD.iter().filter_map(|path| read(Path::new(path))).map(with_imports).collect(),
        docker: read(Path::new("/etc/docker/daemon.json")),
        podman: podman_files(facts.euid),
        crio: read(Path::new(CRIO))
            .into_iter()
            .chain(read_all(Path::new("/etc/crio/crio.conf.d"), ".conf"))
            .collect(),
        kubelet_driver: kubelet_driver(),
        executable: BTreeSet::new(),
    };
    let files =
        signs.containerd.iter().flatten().chain(&signs.docker).chain(&signs.podman).chain(&signs.crio);
    // Between quotes: of which key it is, is the judgement's to say.
    let quoted =
        files.flat_map(|file| file.text.split(['"', '\'', '\n'])).filter(|word| word.starts_with('/'));
    signs.executable =
        quoted.filter(|path| programs::is_program(Path::new(path))).map(str::to_owned).collect();
    signs
}

fn read(path: &Path) -> Option<ConfigFile> {
    path.metadata().ok().filter(|meta| meta.is_file() && meta.len() <= LARGEST)?;
    let bytes = std::fs::read(path).ok()?;
    Some(ConfigFile { path: path.display().to_string(), text: String::from_utf8_lossy(&bytes).into_owned() })
}

/// The files of a directory with this ending, by name.
fn read_all(dir: &Path, end: &str) -> Vec<ConfigFile> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(end));
    paths.sort();
    paths.iter().filter_map(|path| read(path)).collect()
}

/// `imports = ["/etc/containerd/conf.d/*.toml"]`
pub(crate) fn with_imports(file: ConfigFile) -> Vec<ConfigFile> {
    let entries = toml::read(&file.text).unwrap_or_default();
    let imports =
        entries.iter().filter(|entry| entry.path == ["imports"]).flat_map(|entry| entry.value.list());
    let beside = Path::new(&file.path).parent().unwrap_or(Path::new("/")).to_owned();
    let imported: Vec<ConfigFile> = imports
        .flat_map(|import| match import.split_once('*') {
            Some((dir, end)) => read_all(&beside.join(dir), end),
            None => read(&beside.join(import)).into_iter().collect(),
        })
        .collect();
    std::iter::once(file).chain(imported).collect()
}

/// In the order of containers.conf(5).
pub(crate) fn podman_files(euid: u32) -> Vec<ConfigFile> {
    let mut all = Vec::new();
    let home = std::env::var_os("HOME")
        .filter(|_| euid != 0)
        .map(|home| Path::new(&home).join(".config/containers"));
    for dir in
        [Path::new("/usr/share/containers"), Path::new("/etc/containers")].into_iter().chain(home.as_deref())
    {
        all.extend(read(&dir.join("containers.conf")));
        all.extend(read_all(&dir.join("containers.conf.d"), ".conf"));
    }
    all
}

/// `cgroupDriver` of the kubelet's configuration.
pub(crate) fn kubelet_driver() -> Option<String> {
    read(Path::new(KUBELET)).and_then(|file| yaml_value(&file.text, "cgroupDriver"))
}

/// A key at the beginning of a line, which is all that is asked of a kubelet's configuration.
fn yaml_value(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(value.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned())
}

pub(super) fn examine(signs: &Signs) -> Vec<HostCheck> {
    let mut all = containerd::examine(signs);
    all.extend(signs.engines.docker.iter().flat_map(|file| docker(file, signs)));
    all.extend(podman::examine(signs));
    all.extend(crio(signs));
    all
}

/// All entries of several files, one after the other.
///
/// # Errors
/// The file, the line, and what is wrong there.
pub(crate) fn entries(files: &[ConfigFile]) -> Result<Vec<TomlEntry>, String> {
    let mut all = Vec::new();
    for file in files {
        all.extend(toml::read(&file.text).map_err(|what| format!("{}: {what}", file.path))?);
    }
    Ok(all)
}

/// Whether a path leads to a program of this name, or of one that begins so.
pub(crate) fn is_called(path: &str, name: &str) -> bool {
    path.rsplit('/').next().unwrap_or_default().starts_with(name)
}

fn docker(file: &ConfigFile, signs: &Signs) -> Vec<HostCheck> {
    let id = "docker.runtime";
    let config: serde_json::Value = match serde_json::from_str(&file.text) {
        Ok(config) => config,
        Err(error) => {
            let check = HostCheck::fail(
                id,
                format!("not JSON: {error}"),
                "dockerd does not start with it: correct it",
            );
            return vec![check.of(&file.path)];
        }
    };
    let runtimes = config.get("runtimes").and_then(|all| all.as_object()).cloned().unwrap_or_default();
    let mut all = Vec::new();
    if let Some(default) = config.get("default-runtime").and_then(|name| name.as_str())
        && !runtimes.contains_key(default)
        && default != "runc"
        && !default.starts_with("io.containerd.")
    {
        let found = format!("default-runtime {default:?} is not among runtimes");
        all.push(
            HostCheck::fail(id, found, "dockerd does not start with it: name one that is").of(&file.path),
        );
    }
    let text = |runtime: &serde_json::Value, key: &str| {
        runtime.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let ours = runtimes.iter().map(|(name, value)| (name, text(value, "runtimeType"), text(value, "path")));
    let ours = ours.filter(|(_, kind, path)| {
        kind.contains("corten") || is_called(path, "corten") || is_called(path, programs::SHIM)
    });
    all.extend(ours.map(|(name, kind, path)| docker_runtime(&kind, &path, signs).of(name)));
    if all.is_empty() {
        let advice = r#"{"runtimes": {"corten": {"runtimeType": "io.containerd.corten.v2"}}}"#;
        all.push(HostCheck::note(id, "no runtime is Corten's", advice).of(&file.path));
    }
    all
}

fn docker_runtime(kind: &str, path: &str, signs: &Signs) -> HostCheck {
    let id = "docker.runtime";
    let version = signs.programs.dockerd.as_ref().and_then(programs::FoundProgram::version);
    let by_type = r#"{"runtimeType": "io.containerd.corten.v2"}"#;
    match (kind, path) {
        ("", path) if is_called(path, programs::SHIM) => {
            HostCheck::fail(id, format!("path {path} is the shim, which is no command line"), by_type)
        }
        ("", path) if path.starts_with('/') && !signs.engines.can_execute(path) => HostCheck::fail(
            id,
            format!("path {path} is no program"),
            "name where corten is, or install it there",
        ),
        ("", path) => HostCheck::ok(id, path),
        (_, path) if !path.is_empty() => HostCheck::fail(
            id,
            "it has a path and a runtimeType: dockerd takes one of them",
            "leave path out",
        ),
        _ if version.is_some_and(|version| version < (23, 0)) => HostCheck::fail(
            id,
            "Docker before 23 knows no runtimeType",
            r#"{"path": "/usr/local/bin/corten"}"#,
        ),
        (kind, _) if kind.starts_with('/') && !signs.engines.can_execute(kind) => HostCheck::fail(
            id,
            format!("runtimeType {kind} is no program"),
            "name where the shim is, or its type",
        ),
        (kind, _) if !kind.starts_with('/') => match wrong_type(kind, signs) {
            Some((found, advice)) => HostCheck::fail(id, found, advice),
            None => HostCheck::ok(id, kind),
        },
        (kind, _) => HostCheck::ok(id, kind),
    }
}

/// What is wrong with a runtime type of ours: containerd makes a program's name of it.
pub(super) fn wrong_type(kind: &str, signs: &Signs) -> Option<(String, &'static str)> {
    if kind != "io.containerd.corten.v2" {
        return Some((format!("{kind} is no type of Corten's"), "io.containerd.corten.v2 is"));
    }
    let none = format!("{} is neither in PATH nor beside containerd", programs::SHIM);
    signs.programs.shim.is_empty().then_some((none, "install it in containerd's PATH"))
}

fn crio(signs: &Signs) -> Vec<HostCheck> {
    let id = "crio.runtime";
    let files = &signs.engines.crio;
    if files.is_empty() {
        return Vec::new();
    }
    let entries = match entries(files) {
        Ok(entries) => entries,
        Err(what) => return vec![HostCheck::fail(id, what, "CRI-O does not start with it: correct it")],
    };
    let at = |entry: &TomlEntry, key: &str| matches!(entry.path.as_slice(), [a, b, c, _, last] if [a, b, c] == ["crio", "runtime", "runtimes"] && last == key);
    let handlers: BTreeSet<&String> =
        entries.iter().filter(|entry| at(entry, "")).filter_map(|entry| entry.path.get(3)).collect();
    let mut all = Vec::new();
    let default = entries
        .iter()
        .rfind(|entry| entry.path == ["crio", "runtime", "default_runtime"])
        .and_then(|entry| entry.value.text());
    if let Some(default) =
        default.filter(|default| *default == "corten" && !handlers.contains(&(*default).to_owned()))
    {
        let found = format!("default_runtime {default:?} has no table");
        all.push(HostCheck::fail(
            id,
            found,
            "[crio.runtime.runtimes.corten] runtime_path = \"/usr/local/bin/corten\"",
        ));
    }
    for entry in entries.iter().filter(|entry| at(entry, "runtime_path")) {
        let Some(path) =
            entry.value.text().filter(|path| is_called(path, "corten") || is_called(path, programs::SHIM))
        else {
            continue;
        };
        let check = match () {
            () if is_called(path, programs::SHIM) => HostCheck::fail(
                id,
                format!("{path} is containerd's shim"),
                "name the command: /usr/local/bin/corten",
            ),
            () if !signs.engines.can_execute(path) => HostCheck::fail(
                id,
                format!("{path} is no program"),
                "name where corten is, or install it there",
            ),
            () => HostCheck::ok(id, path),
        };
        all.push(check.of(entry.path.get(3).cloned().unwrap_or_default()));
    }
    if all.is_empty() {
        all.push(HostCheck::note(
            id,
            "no runtime is Corten's",
            "[crio.runtime.runtimes.corten] runtime_path = \"/usr/local/bin/corten\"",
        ));
    }
    all
}
