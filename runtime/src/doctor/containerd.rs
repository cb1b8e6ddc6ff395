// SPDX-License-Identifier: Apache-2.0
//! containerd's configuration: handlers of Corten's, and the traps of docs/engines/containerd.md and docs/engines/kubernetes.md.

#![forbid(unsafe_code)]

use super::engines::{ConfigFile, entries, is_called, wrong_type};
use super::programs::FoundProgram;
use super::toml::{TomlEntry, TomlValue};
use super::{HostCheck, Signs, programs};

pub(crate) const CRI_V2: &str = "io.containerd.grpc.v1.cri";
pub(crate) const CRI_V3: &str = "io.containerd.cri.v1.runtime";
pub(crate) const TYPE: &str = "io.containerd.corten.v2";
const BY_PATH: &str = "runtime_type = \"io.containerd.runc.v2\" and runtime_path = \"/usr/local/bin/containerd-shim-corten-v2\", \
                       in the handler's table";

/// A table `…containerd.runtimes.NAME`.
#[derive(Debug, Default)]
pub(crate) struct Handler<'a> {
    pub(crate) name: &'a str,
    pub(crate) plugin: &'a str,
    kind: &'a str,
    path: &'a str,
    sandboxer: &'a str,
    /// `BinaryName` of its options.
    binary: &'a str,
    /// `SystemdCgroup` of its options.
    pub(crate) systemd: bool,
    /// It has a table of options.
    options: bool,
}

impl Handler<'_> {
    pub(crate) fn is_ours(&self) -> bool {
        let is_shim = |path| is_called(path, "containerd-shim-corten");
        self.kind.starts_with("io.containerd.corten")
            || is_shim(self.path)
            || is_shim(self.binary)
            || is_called(self.binary, "corten")
    }
}

pub(super) fn examine(signs: &Signs) -> Vec<HostCheck> {
    signs.engines.containerd.iter().flat_map(|files| examine_one(files, signs)).collect()
}

fn examine_one(files: &[ConfigFile], signs: &Signs) -> Vec<HostCheck> {
    let path = files.first().map(|file| file.path.clone()).unwrap_or_default();
    let entries = match entries(files) {
        Ok(entries) => entries,
        Err(what) => {
            return vec![HostCheck::fail(
                "containerd.config",
                what,
                "containerd does not start with it: correct it",
            )];
        }
    };
    let handlers = handlers(&entries);
    let version = signs.programs.containerd.as_ref().and_then(FoundProgram::version);
    let mut all = vec![config(&entries, &handlers, version).of(&path)];
    if !handlers.iter().any(Handler::is_ours) {
        let advice = format!(
            "[plugins.\"{CRI_V3}\".containerd.runtimes.corten] runtime_type = \"{TYPE}\" (ctr and Docker need none)"
        );
        all.push(HostCheck::note("containerd.handler", "no handler is Corten's", advice).of(path));
    }
    for handler in handlers.iter().filter(|handler| handler.is_ours()) {
        all.push(works(handler, version, signs).of(handler.name));
        all.push(features(handler, version).of(handler.name));
    }
    if let Some(driver) = &signs.engines.kubelet_driver {
        all.push(cgroup_driver(&handlers, driver));
    }
    all
}

pub(crate) fn handlers(entries: &[TomlEntry]) -> Vec<Handler<'_>> {
    let mut all: Vec<Handler<'_>> = Vec::new();
    for entry in entries {
        let path: Vec<&str> = entry.path.iter().map(String::as_str).collect();
        let ["plugins", plugin, "containerd", "runtimes", name, rest @ ..] = path.as_slice() else {
            continue;
        };
        let at = all.iter().position(|handler| (handler.name, handler.plugin) == (*name, *plugin));
        let at = at.unwrap_or_else(|| {
            all.push(Handler { name, plugin, ..Handler::default() });
            all.len() - 1
        });
        let Some(handler) = all.get_mut(at) else { continue };
        let text = entry.value.text().unwrap_or_default();
        match rest {
            ["runtime_type"] => handler.kind = text,
            // 1.7 has it as `runtime_path`, too; 1.x besides as an option of the type.
            ["runtime_path"] => handler.path = text,
            ["sandboxer"] => handler.sandboxer = text,
            ["options", key, ..] => {
                handler.options = true;
                match *key {
                    "BinaryName" => handler.binary = text,
                    "SystemdCgroup" => handler.systemd = entry.value.is_true(),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    all
}

fn config(entries: &[TomlEntry], handlers: &[Handler<'_>], program: Option<(u32, u32)>) -> HostCheck {
    let id = "containerd.config";
    let said = entries.iter().find(|entry| entry.path == ["version"]).map(|entry| &entry.value);
    let version = match said {
        Some(TomlValue::Bare(number)) => number.as_str(),
        _ => "1",
    };
    if version == "3" && program.is_some_and(|program| program < (2, 0)) {
        return HostCheck::fail(
            id,
            "version 3, which containerd 1.x refuses",
            "write version = 2, and its names of plugins",
        );
    }
    let (read, other) = match version {
        // 4 is 3 but for what containerd's own sockets are told (containerd 2.3).
        "3" | "4" => (CRI_V3, CRI_V2),
        "2" => (CRI_V2, CRI_V3),
        _ => ("cri", "none"),
    };
    let passed_over = handlers.iter().find(|handler| handler.is_ours() && handler.plugin != read);
    if let Some(Handler { name, plugin, .. }) = passed_over {
        let found = format!(
            "handler {name} stands in the table of {plugin:?}, which version {version} does not read"
        );
        let advice = match *plugin == other {
            true => format!("put it below [plugins.\"{read}\".containerd.runtimes]"),
            false => format!("write version = {} at the top", if *plugin == CRI_V3 { 3 } else { 2 }),
        };
        return HostCheck::fail(id, found, advice);
    }
    let disabled = entries
        .iter()
        .filter(|entry| entry.path == ["disabled_plugins"])
        .flat_map(|entry| entry.value.list());
    if let Some(cri) = disabled.into_iter().find(|name| ["cri", CRI_V2, CRI_V3].contains(&name.as_str()))
        && !handlers.is_empty()
    {
        let found =
            format!("there are handlers, and disabled_plugins has {cri:?}: the kubelet gets no answer");
        return HostCheck::warn(
            id,
            found,
            format!("take {cri:?} out of disabled_plugins (Docker's package puts it there)"),
        );
    }
    HostCheck::ok(id, format!("version {version}"))
}

/// Whether containerd finds what the handler names.
fn works(handler: &Handler<'_>, program: Option<(u32, u32)>, signs: &Signs) -> HostCheck {
    let id = "containerd.handler";
    let there = |path: &str| !path.starts_with('/') || signs.engines.can_execute(path);
    let before = |version: (u32, u32)| program.is_some_and(|program| program < version);
    if !handler.path.is_empty() && !there(handler.path) {
        return HostCheck::fail(
            id,
            format!("runtime_path {} is no program", handler.path),
            "name where the shim is, or install it there",
        );
    }
    if !handler.binary.is_empty() && !there(handler.binary) {
        return HostCheck::fail(
            id,
            format!("BinaryName {} is no program", handler.binary),
            "name where corten is, or install it there",
        );
    }
    if is_called(handler.binary, programs::SHIM) {
        return HostCheck::fail(
            id,
            format!("BinaryName {} is the shim, which is no command line", handler.binary),
            BY_PATH,
        );
    }
    if handler.path.is_empty()
        && handler.kind.starts_with("io.containerd.corten")
        && let Some((found, advice)) = wrong_type(handler.kind, signs)
    {
        return HostCheck::fail(id, found, advice);
    }
    if !handler.path.is_empty() && before((1, 7)) {
        return HostCheck::warn(
            id,
            "containerd 1.6 knows no runtime_path: the handler is runc's",
            format!("runtime_type = \"{TYPE}\""),
        );
    }
    match (handler.sandboxer, handler.path) {
        ("shim", _) if before((2, 1)) => HostCheck::warn(
            id,
            "sandboxer = \"shim\" is known from containerd 2.1 on",
            "leave the line out, or update containerd",
        ),
        ("shim", path) if !path.is_empty() && program.is_none_or(|program| program == (2, 1)) => {
            HostCheck::warn(
                id,
                "where the sandboxer is the shim, containerd 2.1 passes over runtime_path",
                format!(
                    "runtime_type = \"{TYPE}\", or a link containerd-shim-runc-v2 to Corten's shim, first in its PATH"
                ),
            )
        }
        _ => HostCheck::ok(id, if handler.path.is_empty() { handler.kind } else { handler.path }),
    }
}

/// What a kubelet is told that the handler can do: by type nothing in containerd 2.0 to 2.2 (docs/engines/kubernetes.md).
fn features(handler: &Handler<'_>, program: Option<(u32, u32)>) -> HostCheck {
    let id = "containerd.features";
    let by_type = handler.kind == TYPE;
    match program {
        _ if by_type && handler.options => HostCheck::warn(
            id,
            "it has options: containerd takes only runc's for pods with a user namespace, and refuses those",
            format!("take the options away, or {BY_PATH}"),
        ),
        Some(program) if program < (2, 0) => HostCheck::note(
            id,
            "containerd 1.x tells a kubelet of no features, whatever the handler",
            "update to containerd 2",
        ),
        Some(program) if by_type && program < (2, 3) => HostCheck::warn(
            id,
            format!(
                "containerd {}.{} asks only the type of runc for features: a kubelet is told of none",
                program.0, program.1
            ),
            BY_PATH,
        ),
        None if by_type => HostCheck::unknown(
            id,
            "which containerd reads this is not known; 2.0 to 2.2 tell a kubelet of no features by type",
        ),
        _ => HostCheck::ok(id, "a kubelet is told"),
    }
}

/// Kubelet and handlers must agree, as with every runtime. Ours go by the form of the path that they get.
fn cgroup_driver(handlers: &[Handler<'_>], driver: &str) -> HostCheck {
    let id = "containerd.cgroup-driver";
    let systemd = driver == "systemd";
    let of_runc = |handler: &&Handler<'_>| handler.kind == "io.containerd.runc.v2" || handler.is_ours();
    let wrong = handlers.iter().filter(of_runc).find(|handler| match systemd {
        true => !handler.systemd && !handler.is_ours(),
        false => handler.systemd,
    });
    match wrong {
        None => HostCheck::ok(id, format!("{driver}, as the kubelet's")),
        Some(handler) => {
            let found = format!(
                "the kubelet has {driver}, handler {} SystemdCgroup = {}",
                handler.name, handler.systemd
            );
            HostCheck::warn(
                id,
                found,
                format!(
                    "SystemdCgroup = {systemd} in its options, or cgroupDriver in {}",
                    "/var/lib/kubelet/config.yaml"
                ),
            )
        }
    }
}
