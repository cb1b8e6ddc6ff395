// SPDX-License-Identifier: Apache-2.0
//! Golden plans: whole configurations in, the key decisions out as text, compared with what was reviewed once.
//!
//! `tests/data/plan/NAME.json` is the configuration, `NAME.HOST.plan` the decisions on that host. With
//! `CORTEN_BLESS=1` in the environment the latter are written anew: read the diff before committing it.

#![forbid(unsafe_code)]
// All of this is test; clippy's exception knows only functions marked so.
#![allow(clippy::unwrap_used, clippy::panic)]

mod decisions;
mod errors;
mod exec;
mod hosts;
mod nasty;
mod options;
mod oracle;
mod rootless;
mod show;

use std::path::PathBuf;

use corten::facts::Facts;
use corten::plan::Plan;
use corten::spec::{self, Spec};

/// Plans one configuration for one host and compares the decisions.
fn check(name: &str, host: &str, facts: &Facts) {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/plan");
    let json = std::fs::read(data.join(format!("{name}.json"))).unwrap();
    let spec: Spec = spec::read("config.json", &json).unwrap();
    let golden = data.join(format!("{name}.{host}.plan"));
    let shown = show::plan(&hosts::plan(&spec, facts).unwrap());
    if std::env::var_os("CORTEN_BLESS").is_some() {
        std::fs::write(&golden, &shown).unwrap();
    }
    let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(shown == wanted, "{name} on {host} differs from {}:\n{shown}", golden.display());
}

#[test]
fn golden_plans() {
    for name in ["default", "containerd", "docker", "podman", "userns", "rootless", "odd"] {
        check(name, "v2", &hosts::v2());
    }
    for name in ["default", "docker"] {
        check(name, "v1", &hosts::v1());
    }
    check("default", "nested", &hosts::nested());
}

/// The plan is a function of its inputs: the same twice, whatever happened in between.
#[test]
fn planning_is_pure() {
    let json = include_bytes!("../data/plan/docker.json");
    let spec: Spec = spec::read("config.json", json).unwrap();
    let once = show::plan(&hosts::plan(&spec, &hosts::v2()).unwrap());
    let _: Plan = hosts::plan(&spec, &hosts::v1()).unwrap();
    assert_eq!(once, show::plan(&hosts::plan(&spec, &hosts::v2()).unwrap()));
}
