// SPDX-License-Identifier: Apache-2.0
//! `hold`: the namespaces of a pod, kept by a process that waits in them. For shims; there is no subcommand.
//!
//! What it makes is a container to the other verbs: `kill` and `delete` find it by its id.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::create::first_state;
use crate::ask::{Create, Hold, Home, Stdio};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::host::{Launch, LaunchPurpose, Launched, Subject};
use crate::plan::Plan;
use crate::plan::namespaces::NsKind;
use crate::program::{check, compile};
use crate::spec::{self, Spec};
use crate::state::Dir;

/// Makes the namespaces of `ask`'s configuration, with its names and kernel parameters, and the process. It has no control
/// groups of its own: the caller's.
#[doc = include_str!("examples/hold.md")]
/// # Errors
/// After an error nothing is left behind. `Kind::Invalid` for a configuration with anything else in it.
pub fn hold(home: &Home, ask: Hold) -> Result<Launched> {
    let spec: Spec = spec::read("the pod's configuration", &ask.config)?;
    refuse_more(&spec)?;
    let facts = Facts::probe()?.for_rootless(home.rootless);
    let create = Create { id: ask.id, bundle: ask.bundle.clone(), no_new_keyring: true, ..Create::default() };
    let plan = Plan::new(&spec, &facts, home, &create, ask.bundle)?;
    if let Some(join) = [NsKind::Pid, NsKind::Mount].iter().find_map(|kind| plan.namespaces.join_of(*kind)) {
        return Err(Error::invalid(&join.at, "what holds namespaces is in no such one of others"));
    }
    let program = compile::hold(&plan, facts.last_cap);
    check::check(&program)?;
    plan.warnings.iter().for_each(|warning| (home.warn)(warning));
    let dir = Dir::create(&home.root, &plan.id)?;
    let state = Box::new(first_state(&plan, facts.euid));
    let subject = Subject {
        id: &plan.id,
        bundle: &plan.bundle,
        process: None,
        listener: None,
        stdio: Stdio::Inherit,
        pid_file: None::<PathBuf>,
        pidfd_socket: None,
    };
    let purpose = LaunchPurpose::Create { plan: &plan, dir: &dir, state, config: &ask.config };
    Launch { home, program: &program, purpose, subject, restoration: None }.run()
}

/// A plan has more than is done here; none of it is to be passed over.
fn refuse_more(spec: &Spec) -> Result<()> {
    let given = [
        ("/process", spec.process.is_some()),
        ("/mounts", !spec.mounts.is_empty()),
        ("/linux/resources", spec.linux.resources.is_some()),
        ("/linux/cgroupsPath", spec.linux.cgroups_path.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((at, _)) => Err(Error::invalid(at, "there is none in what holds namespaces")),
        None => Ok(()),
    }
}
