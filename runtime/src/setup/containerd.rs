// SPDX-License-Identifier: Apache-2.0
//! containerd's lines: a handler of the CRI plugin in the table that the file's version has, by type or by path, and the default.
//! They are those of docs/engines/containerd.md and docs/engines/kubernetes.md. In the main file: an imported one takes the place of
//! the plugin's whole table in containerd 1.x.

#![forbid(unsafe_code)]

use super::puts::{self, TomlPut};
use super::{SetupHost, SetupPlan};
use crate::doctor::containerd::{CRI_V2, CRI_V3, Handler, TYPE, handlers};
use crate::doctor::engines::{ConfigFile, with_imports};
use crate::doctor::toml::{self, TomlEntry, TomlValue};

/// What containerd 1.x calls the plugin in a file of version 1.
const CRI_V1: &str = "cri";

/// How the file is without setup's lines, and with the imported ones.
struct ContainerdFile {
    entries: Vec<TomlEntry>,
    /// Of the files that it imports.
    imported: Vec<(String, Vec<TomlEntry>)>,
    /// The plugin's name in it.
    plugin: &'static str,
    /// It says of which version it is, or says nothing at all and becomes one of version 2, which every containerd reads.
    versioned: bool,
}

/// The keys that the file is to have.
///
/// # Errors
/// What is in the way.
pub(super) fn puts(
    base: Option<&str>,
    path: &str,
    default: bool,
    host: &SetupHost,
) -> Result<SetupPlan, String> {
    let looked = look(base.unwrap_or_default(), path)?;
    let mut puts = Vec::new();
    if !looked.versioned {
        puts.push(put(&[], "version", TomlValue::Bare("2".into()), false));
    }
    let plugin = looked.plugin;
    let table = ["plugins", plugin, "containerd", "runtimes", "corten"];
    let all = || looked.imported.iter().map(|(_, entries)| entries).chain([&looked.entries]);
    let found: Vec<Handler<'_>> = all().flat_map(|entries| handlers(entries)).collect();
    let there = found.iter().find(|handler| handler.name == "corten" && handler.plugin == plugin);
    let systemd = host.kubelet_systemd || found.iter().any(|handler| handler.systemd);
    let wanted = lines(&table, systemd, host);
    match there {
        Some(handler) if handler.is_ours() => {}
        Some(_) => {
            let lines: Vec<String> = wanted.iter().map(TomlPut::line).collect();
            return Err(format!(
                "{} is another runtime's; to be said by hand, under another name: {}",
                puts::header(&table.map(str::to_owned)),
                lines.join("; ")
            ));
        }
        None => puts.extend(wanted),
    }
    replaced_by_an_import(&looked, host)?;
    if default {
        let table = &table[..3];
        puts.push(put(table, "default_runtime_name", TomlValue::Text("corten".into()), true));
    }
    Ok(SetupPlan { puts, default_key: "default_runtime_name" })
}

fn put(table: &[&str], key: &'static str, value: TomlValue, replace: bool) -> TomlPut {
    TomlPut { table: table.iter().map(|name| (*name).to_owned()).collect(), key, value, replace }
}

/// The handler's lines. containerd 2.0 to 2.2 tell a kubelet of features for runc's type alone; what the kubelet is told of
/// the cgroup driver comes from that type's options, too.
fn lines(table: &[&str; 5], systemd: bool, host: &SetupHost) -> Vec<TomlPut> {
    let text = |text: &str| TomlValue::Text(text.to_owned());
    let by_path = host.containerd.is_some_and(|version| ((2, 0)..(2, 3)).contains(&version));
    if !by_path {
        return vec![put(table, "runtime_type", text(TYPE), false)];
    }
    let mut all = vec![
        put(table, "runtime_type", text("io.containerd.runc.v2"), false),
        put(table, "runtime_path", text(&host.shim), false),
    ];
    if systemd {
        let options = [table.as_slice(), &["options"]].concat();
        all.push(put(&options, "SystemdCgroup", TomlValue::Bare("true".into()), false));
    }
    all
}

fn look(base: &str, path: &str) -> Result<ContainerdFile, String> {
    let entries = toml::read(base)?;
    let files = with_imports(ConfigFile { path: path.to_owned(), text: base.to_owned() });
    let mut imported = Vec::new();
    for file in files.into_iter().skip(1) {
        let entries = toml::read(&file.text).map_err(|what| format!("{}: {what}", file.path))?;
        imported.push((file.path, entries));
    }
    let said = entries.iter().find(|entry| entry.path == ["version"]).map(|entry| &entry.value);
    let (plugin, versioned) = match said {
        Some(TomlValue::Bare(number)) if number == "3" || number == "4" => (CRI_V3, true),
        Some(TomlValue::Bare(number)) if number == "2" => (CRI_V2, true),
        Some(TomlValue::Bare(number)) if number == "1" => (CRI_V1, true),
        Some(value) => {
            return Err(format!(
                "version {value:?} is not known here (1 to 4 are): its lines are to be added by hand"
            ));
        }
        None if entries.is_empty() => (CRI_V2, false),
        None => (CRI_V1, true),
    };
    Ok(ContainerdFile { entries, imported, plugin, versioned })
}

/// containerd 1.x takes the whole of a plugin from the file that is read last.
fn replaced_by_an_import(looked: &ContainerdFile, host: &SetupHost) -> Result<(), String> {
    let has = |entries: &[TomlEntry]| {
        entries
            .iter()
            .any(|entry| matches!(entry.path.as_slice(), [a, b, ..] if a == "plugins" && b == looked.plugin))
    };
    let by = looked.imported.iter().find(|(_, entries)| has(entries));
    match by {
        Some((path, _)) if host.containerd.is_none_or(|version| version < (2, 0)) => Err(format!(
            "it imports {path}, whose table of {:?} takes the place of this file's (containerd 1.x): name that by --config",
            looked.plugin
        )),
        _ => Ok(()),
    }
}
