// SPDX-License-Identifier: Apache-2.0
//! `restore`: a container out of a checkpoint.
//!
//! What it is stands in config.json, as for a `create`; what its processes were doing, in the images. Those come from anywhere:
//! they are checked before CRIU reads them, and what it has made of them before it goes on.

#![forbid(unsafe_code)]

use super::checkpoint::common;
use super::create::launch;
use crate::ask::{CgroupMode, Create, Home, Restore};
use crate::criu::CriuOptions;
use crate::criu::images::RestoreImages;
use crate::error::{Error, Kind, Result};
use crate::facts::Facts;
use crate::host::restore::LOG;
use crate::host::{Launched, Restoration};
use crate::plan::Plan;
use crate::plan::namespaces::NsKind;

/// `restore`: the processes run on when it returns.
///
/// Source: runc-restore(8), criu(8).
#[doc = include_str!("examples/restore.md")]
/// # Errors
/// `Kind::Invalid` for images that are none, or not of such a container; `Kind::Unsupported` without a CRIU that can;
/// `Kind::Peer` with CRIU's own words. Nothing is left behind then.
pub fn restore(home: &Home, mut ask: Create, how: &Restore) -> Result<Launched> {
    // Keys stay with the kernel that they were made in.
    ask.no_new_keyring = true;
    ask.run = true;
    launch(home, ask, Some(how))
}

/// What can be said before anything is done.
pub(super) fn prepare(plan: &Plan, how: &Restore) -> Result<Restoration> {
    suits(plan)?;
    can_be_had(how)?;
    let program = super::criu_of_host()?;
    let images = RestoreImages::open(&how.criu.image_path, how.criu.work_path.as_deref())?;
    let joined: Vec<&str> = plan.namespaces.join.iter().map(|join| join.kind.name()).collect();
    let mounts: Vec<&str> = plan.external_mounts().iter().map(|mount| mount.target).collect();
    images.check_against(&mounts, &joined)?;
    let options = options(plan, how);
    Ok(Restoration { program, images, options })
}

/// What CRIU cannot restore into.
fn suits(plan: &Plan) -> Result<()> {
    if plan.mounts_on_host {
        let text = "CRIU restores only into a mount namespace of the container's own";
        return Err(Error::invalid("/linux/namespaces", text));
    }
    let kinds = [NsKind::Mount, NsKind::Cgroup, NsKind::User];
    match kinds.into_iter().find_map(|kind| plan.namespaces.join_of(kind)) {
        Some(join) => Err(Error::invalid(
            &join.at,
            format!("CRIU does not restore into an existing {} namespace", join.kind.name()),
        )),
        None => Ok(()),
    }
}

/// What no restore can give, or none on this kernel.
fn can_be_had(how: &Restore) -> Result<()> {
    if how.criu.cgroups == CgroupMode::Strict {
        let text = "CRIU restores into no group that exists, and the container's is made before";
        return Err(Error::new(Kind::Unsupported, text).at("--manage-cgroups-mode strict"));
    }
    let Some(profile) = &how.lsm_profile else { return Ok(()) };
    let facts = Facts::probe()?;
    let (there, module) = match profile.split_once(':') {
        Some(("apparmor", _)) => (facts.apparmor, "AppArmor"),
        Some(("selinux", _)) => (facts.selinux, "SELinux"),
        _ => {
            return Err(Error::new(Kind::Invalid, "is apparmor:PROFILE or selinux:LABEL").at("--lsm-profile"));
        }
    };
    match there {
        true => Ok(()),
        false => {
            Err(Error::new(Kind::Unsupported, format!("no {module} on this kernel")).at("--lsm-profile"))
        }
    }
}

fn options(plan: &Plan, how: &Restore) -> CriuOptions {
    let mut options = CriuOptions::default();
    options.tell(LOG);
    options.evasive_devices();
    options.restore_sibling();
    common(&mut options, &how.criu, &plan.obeyed);
    options.tcp_close(how.tcp_close);
    if let Some(profile) = &how.lsm_profile {
        options.lsm_profile(profile);
    }
    if let Some(context) = &how.lsm_mount_context {
        options.lsm_mount_context(context);
    }
    options
}
