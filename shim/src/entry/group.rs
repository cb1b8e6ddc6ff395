// SPDX-License-Identifier: Apache-2.0
//! Which containers share a server: those whose configuration names the same group.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::refusal::{Refusal, Result};

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
///
/// # Errors
/// InvalidArgument for a name that could not be an id: it becomes a part of the socket's name, and with a `/` in it would
/// lead to a server of another namespace.
pub fn of_bundle(bundle: &Path, id: &str) -> Result<String> {
    let bytes = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    let configuration: Configuration = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut annotations = configuration.annotations.unwrap_or_default();
    for name in ANNOTATIONS {
        let Some(group) = annotations.remove(name).filter(|group| !group.is_empty()) else { continue };
        corten::state::check_id(&group)
            .map_err(|_| Refusal::invalid(format!("annotation {name}: {group:?} names no group")))?;
        return Ok(group);
    }
    Ok(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_annotation_counts() {
        let bundle = std::env::temp_dir().join(format!("corten-group-{}", std::process::id()));
        std::fs::create_dir_all(&bundle).unwrap();
        assert_eq!(of_bundle(&bundle, "c").unwrap(), "c");
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
            assert_eq!(of_bundle(&bundle, "c").unwrap(), group, "{json}");
        }
        for group in ["/run/containerd/containerd.sock/n/c", "../n/c", "a/b", "..", "a\\u0000"] {
            let json = format!(r#"{{"annotations":{{"io.kubernetes.cri.sandbox-id":"{group}"}}}}"#);
            std::fs::write(bundle.join("config.json"), json).unwrap();
            let told = of_bundle(&bundle, "c").unwrap_err().text;
            assert!(told.starts_with("annotation io.kubernetes.cri.sandbox-id: "), "{told}");
        }
        std::fs::remove_dir_all(&bundle).unwrap();
    }
}
