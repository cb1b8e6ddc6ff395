// SPDX-License-Identifier: Apache-2.0
//! podman's lines, in a file of their own among those that it reads after containers.conf: where Corten is, what it can do, and
//! the default. They are those of docs/engines/podman.md.

#![forbid(unsafe_code)]

use super::puts::TomlPut;
use super::{SetupHost, SetupPlan};
use crate::doctor::toml::{TomlEntry, TomlValue};

/// podman's own lists, which the keys of this name take the place of.
const NOCGROUP: (&str, &[&str]) = ("runtime_supports_nocgroup", &["crun", "krun"]);
const JSON: (&str, &[&str]) = ("runtime_supports_json", &["crun", "runc", "kata", "runsc", "youki", "krun"]);

/// The keys that the file is to have. `base` is what it says, `others` what podman's other files do, in their order.
pub(super) fn puts(base: &[TomlEntry], others: &[TomlEntry], default: bool, host: &SetupHost) -> SetupPlan {
    let put = |table: &[&str], key, value, replace| TomlPut {
        table: table.iter().map(|name| (*name).to_owned()).collect(),
        key,
        value,
        replace,
    };
    let mut puts = Vec::new();
    if default {
        puts.push(put(&["engine"], "runtime", TomlValue::Text("corten".into()), true));
    }
    for (key, own) in [NOCGROUP, JSON] {
        let said = others.iter().chain(base).rfind(|entry| entry.path == ["engine", key]);
        let mut names: Vec<String> = match said {
            Some(entry) => entry.value.list().to_vec(),
            None => own.iter().map(|name| (*name).to_owned()).collect(),
        };
        if !names.iter().any(|name| name == "corten") {
            names.push("corten".into());
        }
        puts.push(put(&["engine"], key, TomlValue::List(names), true));
    }
    let place = TomlValue::List(vec![host.corten.clone()]);
    puts.push(put(&["engine", "runtimes"], "corten", place, false));
    SetupPlan { puts, default_key: "runtime" }
}
