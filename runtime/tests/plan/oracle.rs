// SPDX-License-Identifier: Apache-2.0
//! `oci-spec` as an oracle: where it reads the specification right (features.md C says where not), our reading and
//! our decisions must agree with it, on every golden configuration.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use corten::plan::Plan;
use corten::plan::mounts::option_names;
use corten::spec::{self, Spec};
use oci_spec::runtime as oci;

use crate::hosts;

/// The golden configurations that oci-spec reads at all.
const NAMES: [&str; 6] = ["default", "containerd", "docker", "podman", "userns", "rootless"];

fn both(name: &str) -> (Spec, Plan, oci::Spec) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/plan/{name}.json"));
    let json = std::fs::read(&path).unwrap();
    let ours: Spec = spec::read("config.json", &json).unwrap();
    let plan = hosts::plan(&ours, &hosts::v2()).unwrap();
    (ours, plan, serde_json::from_slice(&json).unwrap())
}

#[test]
fn reads_as_oci_spec_does() {
    for name in NAMES {
        let (ours, _, theirs) = both(name);
        let linux = theirs.linux().as_ref().unwrap();
        let namespaces: Vec<(String, Option<String>)> = linux
            .namespaces()
            .iter()
            .flatten()
            .map(|n| {
                (
                    serde_json::from_value(serde_json::to_value(n.typ()).unwrap()).unwrap(),
                    n.path().as_ref().map(|p| p.display().to_string()),
                )
            })
            .collect();
        let own: Vec<_> = ours.linux.namespaces.iter().map(|n| (n.kind.clone(), n.path.clone())).collect();
        assert_eq!(own, namespaces, "{name}");
        let mounts: Vec<_> = theirs
            .mounts()
            .iter()
            .flatten()
            .map(|m| {
                (
                    m.destination().display().to_string(),
                    m.typ().clone(),
                    m.options().clone().unwrap_or_default(),
                )
            })
            .collect();
        let own: Vec<_> =
            ours.mounts.iter().map(|m| (m.destination.clone(), m.kind.clone(), m.options.clone())).collect();
        assert_eq!(own, mounts, "{name}");
        assert_eq!(ours.hostname.as_deref(), theirs.hostname().as_deref(), "{name}");
        assert_eq!(ours.linux.masked_paths, linux.masked_paths().clone().unwrap_or_default(), "{name}");
        assert_eq!(ours.linux.readonly_paths, linux.readonly_paths().clone().unwrap_or_default(), "{name}");
        let sysctl = linux.sysctl().clone().unwrap_or_default();
        assert_eq!(ours.linux.sysctl.len(), sysctl.len(), "{name}");
        for (key, value) in &ours.linux.sysctl {
            assert_eq!(value.as_ref(), sysctl.get(key), "{name}");
        }
    }
}

/// The mask of a set of theirs: their names are ours.
fn mask(set: &Option<oci::Capabilities>) -> u64 {
    let number = |cap: &oci::Capability| {
        let name = format!("CAP_{cap}").replace("CAP_CAP_", "CAP_");
        (0..64)
            .find(|n| corten::plan::caps::names(1 << n) == [name.clone()])
            .unwrap_or_else(|| panic!("{name}"))
    };
    set.iter().flatten().fold(0, |mask, cap| mask | 1 << number(cap))
}

#[test]
fn decides_as_oci_spec_reads() {
    for name in NAMES {
        let (_, plan, theirs) = both(name);
        let (ours, theirs) = (plan.process.unwrap(), theirs.process().as_ref().unwrap());
        assert_eq!(&ours.args, theirs.args().as_ref().unwrap(), "{name}");
        assert_eq!(&ours.env, theirs.env().as_ref().unwrap(), "{name}");
        assert_eq!(ours.cwd, theirs.cwd().display().to_string(), "{name}");
        let user = theirs.user();
        let groups = user.additional_gids().clone().unwrap_or_default();
        assert_eq!((ours.uid, ours.gid, ours.gids), (user.uid(), user.gid(), groups), "{name}");
        assert_eq!(ours.umask, user.umask().unwrap_or(0o022), "{name}");
        assert_eq!(ours.oom_score_adj, theirs.oom_score_adj(), "{name}");
        assert_eq!(ours.no_new_privileges, theirs.no_new_privileges().unwrap_or(false), "{name}");
        let rlimits: Vec<_> =
            theirs.rlimits().iter().flatten().map(|l| (l.typ().to_string(), l.soft(), l.hard())).collect();
        let own: Vec<_> = ours.rlimits.iter().map(|l| (l.name.to_owned(), l.soft, l.hard)).collect();
        assert_eq!(own, rlimits, "{name}");
        let caps = theirs.capabilities().clone().unwrap();
        let own = [ours.caps.bounding, ours.caps.effective, ours.caps.permitted];
        assert_eq!(own, [mask(caps.bounding()), mask(caps.effective()), mask(caps.permitted())], "{name}");
        let own = [ours.caps.inheritable, ours.caps.ambient];
        assert_eq!(own, [mask(caps.inheritable()), mask(caps.ambient())], "{name}");
    }
}

/// The features that oci-spec knows of are all option names of ours.
#[test]
fn golden_options_are_known_or_data() {
    for name in NAMES {
        let (ours, ..) = both(name);
        for option in ours.mounts.iter().flat_map(|m| &m.options) {
            let known = option_names().contains(&option.as_str());
            assert!(known || option.contains('=') || option == "newinstance", "{name}: {option}");
        }
    }
}
