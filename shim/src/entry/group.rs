// SPDX-License-Identifier: Apache-2.0
//! Which containers share a server: those whose configuration names the same group.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// The first that is there counts: containerd's own, the CRI plugin's, CRI-O's.
const ANNOTATIONS: [&str; 3] =
    ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Configuration {
    annotations: Option<BTreeMap<String, String>>,
}

/// The group of the bundle's container; `id` alone when its configuration names none, is not there or does not read
/// (that is told when the container is created).
pub fn of(bundle: &Path, id: &str) -> String {
    let bytes = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    let configuration: Configuration = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut annotations = configuration.annotations.unwrap_or_default();
    let group =
        ANNOTATIONS.iter().find_map(|name| annotations.remove(*name).filter(|group| !group.is_empty()));
    group.unwrap_or_else(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_annotation_counts() {
        let bundle = std::env::temp_dir().join(format!("corten-group-{}", std::process::id()));
        std::fs::create_dir_all(&bundle).unwrap();
        assert_eq!(of(&bundle, "c"), "c");
        for (json, group) in [
            ("{", "c"),
            ("{}", "c"),
            (r#"{"annotations":null}"#, "c"),
            (r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"s"}}"#, "s"),
            (
                r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"s","io.containerd.runc.v2.group":"g"}}"#,
                "g",
            ),
            (r#"{"annotations":{"io.kubernetes.cri-o.SandboxID":"o"}}"#, "o"),
        ] {
            std::fs::write(bundle.join("config.json"), json).unwrap();
            assert_eq!(of(&bundle, "c"), group, "{json}");
        }
        std::fs::remove_dir_all(&bundle).unwrap();
    }
}
