// SPDX-License-Identifier: Apache-2.0
//! The feature `oci-spec`: what comes through oci-spec's types is what the JSON says, on every golden configuration that oci-spec reads.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};

use corten::ask::Create;
use corten::features::features;
use corten::spec::{self, Process, Resources, Spec};
use corten::verbs::Status;
use oci_spec::runtime as oci;

/// The golden configurations, and the one that `corten spec` writes.
fn configurations() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all: Vec<PathBuf> =
        fs::read_dir(root.join("tests/data/plan")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|end| end == "json"));
    all.extend(["default.json", "rootless.json"].map(|name| root.join("src/cli").join(name)));
    all.sort();
    all
}

/// What oci-spec loses or puts in, by the configuration: nothing else may differ.
const DIFFERENT: &[(&str, &str)] = &[];

/// The five sets of capabilities are sets to oci-spec: their order is lost, and means nothing.
fn in_order(mut process: Process) -> Process {
    if let Some(caps) = &mut process.capabilities {
        let sets = [
            &mut caps.bounding,
            &mut caps.effective,
            &mut caps.permitted,
            &mut caps.inheritable,
            &mut caps.ambient,
        ];
        sets.into_iter().for_each(|set| set.sort());
    }
    process
}

fn spec_in_order(spec: Spec) -> Spec {
    Spec { process: spec.process.map(in_order), ..spec }
}

#[test]
fn a_configuration_is_what_its_json_says() {
    let (mut same, mut unread) = (Vec::new(), Vec::new());
    for path in configurations() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let json = fs::read(&path).unwrap();
        let Ok(by_json) = spec::read::<Spec>("config.json", &json) else { continue };
        let by_json = spec_in_order(by_json);
        let theirs: oci::Spec = match serde_json::from_slice(&json) {
            Ok(theirs) => theirs,
            Err(error) => {
                unread.push(format!("{name}: {error}"));
                continue;
            }
        };
        let by_types = spec_in_order(Spec::try_from(&theirs).unwrap());
        if DIFFERENT.iter().any(|(known, _)| *known == name) {
            assert_ne!(by_types, by_json, "{name} is the same now: take it off the list");
            continue;
        }
        assert_eq!(by_types, by_json, "{name}");
        let asked = Create::default().with_spec(&theirs).unwrap();
        let document = asked.document.unwrap();
        let asked: Spec = spec::read("config.json", &document).unwrap();
        assert_eq!(spec_in_order(asked), by_json, "{name}");
        let process = theirs.process().as_ref().map(|process| in_order(Process::try_from(process).unwrap()));
        assert_eq!(process, by_json.process, "{name}");
        let resources = theirs.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let resources = resources.map(|resources| Resources::try_from(resources).unwrap());
        assert_eq!(resources, by_json.linux.resources, "{name}");
        same.push(name);
    }
    println!("the same: {same:?}; not read by oci-spec: {unread:#?}");
    assert!(same.len() > 5, "{same:?}");
}

fn status(status: &'static str) -> Status {
    Status {
        oci_version: "1.3.0",
        id: "one".into(),
        pid: 42,
        status,
        bundle: "/srv/bundle".into(),
        rootfs: "/srv/bundle/rootfs".into(),
        created: "2026-12-01T00:00:00.000000000Z".into(),
        annotations: [("key".to_owned(), "value".to_owned())].into(),
        owner: "root".into(),
    }
}

#[test]
fn a_state_is_what_its_json_says() {
    for word in ["creating", "created", "running", "stopped"] {
        let ours = status(word);
        let by_json: oci::State = serde_json::from_str(&serde_json::to_string(&ours).unwrap()).unwrap();
        let by_types = oci::State::try_from(&ours).unwrap();
        assert_eq!(by_types, by_json);
        assert_eq!((by_types.status().to_string(), *by_types.pid()), (word.to_owned(), Some(42)));
        assert_eq!(by_types.bundle(), Path::new("/srv/bundle"));
    }
    let paused = oci::State::try_from(&status("paused")).unwrap_err();
    assert_eq!(paused.kind(), corten::Kind::Unsupported);
    assert!(paused.to_string().starts_with("state: oci-spec cannot say it: "), "{paused}");
}

#[test]
fn features_are_what_their_json_says() {
    let text = serde_json::to_string(&features()).unwrap();
    let by_json: oci::Features = serde_json::from_str(&text).unwrap();
    assert_eq!(oci::Features::try_from(&features()).unwrap(), by_json);
}
