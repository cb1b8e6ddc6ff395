// SPDX-License-Identifier: Apache-2.0
//! podman's containers.conf: where Corten is found, and whether it may be asked for containers without groups.

#![forbid(unsafe_code)]

use super::engines::{entries, is_called};
use super::toml::TomlEntry;
use super::{HostCheck, Signs, programs};

pub(super) fn examine(signs: &Signs) -> Vec<HostCheck> {
    let files = &signs.engines.podman;
    if files.is_empty() && signs.programs.podman.is_none() {
        return Vec::new();
    }
    let entries = match entries(files) {
        Ok(entries) => entries,
        Err(what) => {
            return vec![HostCheck::fail(
                "podman.runtime",
                what,
                "podman does not start with it: correct it",
            )];
        }
    };
    // The last file that says it counts.
    let last = |path: &[&str]| entries.iter().rfind(|entry| entry.path == path);
    let default = last(&["engine", "runtime"]).and_then(|entry| entry.value.text()).unwrap_or_default();
    let runtime = last(&["engine", "runtimes", "corten"]);
    let supports = last(&["engine", "runtime_supports_nocgroup"]);
    let mut all = vec![place(default, runtime, signs)];
    if runtime.is_some() || is_called(default, "corten") {
        all.push(nocgroup(supports));
    }
    all
}

fn place(default: &str, runtime: Option<&TomlEntry>, signs: &Signs) -> HostCheck {
    let id = "podman.runtime";
    let table = "[engine.runtimes] corten = [\"/usr/local/bin/corten\"]";
    let there = |path: &str| signs.engines.can_execute(path);
    match (default, runtime.map(|entry| entry.value.list())) {
        ("corten", None) => {
            HostCheck::fail(id, "runtime = \"corten\" has no entry in [engine.runtimes]", table)
        }
        (path, _) if path.starts_with('/') && is_called(path, programs::SHIM) => HostCheck::fail(
            id,
            format!("runtime {path} is containerd's shim"),
            "name the command: /usr/local/bin/corten",
        ),
        (path, _) if path.starts_with('/') && is_called(path, "corten") && !there(path) => HostCheck::fail(
            id,
            format!("runtime {path} is no program"),
            "name where corten is, or install it there",
        ),
        (_, Some(paths)) => match paths.iter().find(|path| there(path)) {
            Some(path) => HostCheck::ok(id, path),
            None => {
                let found = format!("none of {} is a program", paths.join(", "));
                HostCheck::fail(id, found, "name where corten is, or install it there")
            }
        },
        (path, None) if is_called(path, "corten") => HostCheck::ok(id, path),
        _ => HostCheck::note(id, "no containers.conf names Corten: podman --runtime PATH finds it", table),
    }
}

fn nocgroup(supports: Option<&TomlEntry>) -> HostCheck {
    let id = "podman.nocgroup";
    // What a file says takes the place of podman's own list.
    let listed = supports.map_or(&[][..], |entry| entry.value.list());
    match listed.iter().any(|name| name == "corten") {
        true => HostCheck::ok(id, listed.join(", ")),
        false => HostCheck::warn(
            id,
            "corten is not in runtime_supports_nocgroup",
            "[engine] runtime_supports_nocgroup = [\"crun\", \"krun\", \"corten\"]",
        ),
    }
}
