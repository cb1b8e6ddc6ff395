// SPDX-License-Identifier: Apache-2.0
//! The types of the oci-spec crate, taken and given (feature `oci-spec`).
//!
//! All of it goes through JSON, which both sides are held to (runtime/tests/oci_spec.rs), and `spec` stays the only reader of
//! configurations. Their Default and builders put in capabilities and masked paths: nothing here makes a value of theirs but by reading.

#![forbid(unsafe_code)]

use oci_spec::runtime as oci;
use serde::{Deserialize, Serialize};

use crate::ask::Create;
use crate::error::{Error, Kind, Result};
use crate::features::Features;
use crate::spec::{self, Process, Resources, Spec};
use crate::verbs::Status;

/// What oci-spec calls by this name, as JSON.
fn written(name: &'static str, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::new(Kind::Invalid, error.to_string()).at(name))
}

/// What we say, as oci-spec reads it.
fn theirs<T: for<'de> Deserialize<'de>>(name: &'static str, value: &impl Serialize) -> Result<T> {
    let read = serde_json::to_value(value).and_then(serde_json::from_value);
    read.map_err(|error| Error::new(Kind::Unsupported, format!("oci-spec cannot say it: {error}")).at(name))
}

impl Create {
    /// The same, of a container with this configuration; no file is read. What oci-spec does not know (docs/embedding.md) is not in it.
    ///
    /// ```no_run
    /// # fn main() -> corten::Result<()> {
    /// use corten::ask::Create;
    ///
    /// let spec = oci_spec::runtime::Spec::load("/srv/bundle/config.json").expect("a configuration");
    /// let ask = Create { id: "one".into(), bundle: "/srv/bundle".into(), ..Create::default() }.with_spec(&spec)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Kind::Invalid` for what cannot be written as JSON: a path that is not UTF-8.
    pub fn with_spec(self, spec: &oci::Spec) -> Result<Create> {
        Ok(Create { document: Some(written("config.json", spec)?), ..self })
    }
}

impl TryFrom<&oci::Spec> for Spec {
    type Error = Error;

    fn try_from(theirs: &oci::Spec) -> Result<Spec> {
        spec::read("config.json", &written("config.json", theirs)?)
    }
}

/// For `Exec::object`.
impl TryFrom<&oci::Process> for Process {
    type Error = Error;

    fn try_from(theirs: &oci::Process) -> Result<Process> {
        spec::read("process", &written("process", theirs)?)
    }
}

/// For `Update::resources`.
impl TryFrom<&oci::LinuxResources> for Resources {
    type Error = Error;

    fn try_from(theirs: &oci::LinuxResources) -> Result<Resources> {
        spec::read("resources", &written("resources", theirs)?)
    }
}

/// `Kind::Unsupported` while the container is paused, for which oci-spec has no word.
impl TryFrom<&Status> for oci::State {
    type Error = Error;

    fn try_from(ours: &Status) -> Result<oci::State> {
        theirs("state", ours)
    }
}

impl TryFrom<&Features> for oci::Features {
    type Error = Error;

    fn try_from(ours: &Features) -> Result<oci::Features> {
        theirs("features", ours)
    }
}
