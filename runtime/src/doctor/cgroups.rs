// SPDX-License-Identifier: Apache-2.0
//! Control groups: how they are mounted, which controllers there are, and what is delegated to a user.

#![forbid(unsafe_code)]

use std::path::Path;

use rustix::fs::{Access, access};

use super::{Health, HostCheck, Signs};
use crate::cgroup::{Hierarchy, Version};
use crate::facts::Facts;

/// Controllers without which common limits are refused, and those that few ask for.
const COMMON: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];
/// See [`COMMON`]. On v1 it is called blkio.
const IO: &str = "io";

/// What was seen of control groups besides the facts.
#[derive(Debug, Clone, Default)]
pub(super) struct CgroupSigns {
    /// The controllers: on v2 those of our own group (of the whole hierarchy for root), on v1 those that are mounted.
    pub(super) controllers: Vec<String>,
    /// Groups may be made where the containers of this root go.
    pub(super) writable: bool,
    /// A group has `cgroup.kill`; `None`: there is no group to look at.
    pub(super) kill: Option<bool>,
    /// systemd is process 1, by its own sign (sd_booted(3)).
    pub(super) systemd: bool,
    /// Where it may be spoken to.
    pub(super) sockets: Vec<String>,
    /// The first of these that is there.
    pub(super) socket: Option<String>,
}

pub(super) fn look(facts: &Facts) -> CgroupSigns {
    let version = facts.cgroups.version();
    let whole = match version {
        Version::V2 => facts.cgroups.v2.as_ref(),
        _ => facts.cgroups.v1.first(),
    };
    let delegated = facts.delegated.as_ref().and_then(|all| all.first().cloned());
    let place = delegated.or(whole.map(|hierarchy| hierarchy.mount.clone()));
    let controllers = match (version, &place) {
        (Version::V2, Some(place)) => words(&format!("{place}/cgroup.controllers")),
        _ => facts.cgroups.v1.iter().flat_map(|h| h.controllers.clone()).collect(),
    };
    let writable = place.is_some_and(|dir| access(dir, Access::WRITE_OK).is_ok());
    let sockets: Vec<String> = corten_dbus::addresses(facts.cgroups.user.is_some())
        .into_iter()
        .map(|address| address.name)
        .collect();
    CgroupSigns {
        controllers,
        writable,
        kill: facts.cgroups.v2.as_ref().and_then(has_kill),
        systemd: Path::new("/run/systemd/system").is_dir(),
        socket: sockets.iter().find(|path| Path::new(path).exists()).cloned(),
        sockets,
    }
}

fn words(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// The root has none of the files that are only in groups: the first group below tells.
fn has_kill(v2: &Hierarchy) -> Option<bool> {
    let groups = std::fs::read_dir(&v2.mount).ok()?.flatten();
    let group = groups.map(|entry| entry.path()).find(|path| path.join("cgroup.events").exists())?;
    Some(group.join("cgroup.kill").exists())
}

pub(super) fn examine(signs: &Signs) -> Vec<HostCheck> {
    let mut all = vec![layout(signs), controllers(signs)];
    if signs.facts.delegated.is_some() {
        all.push(delegation(signs));
        all.push(delegated_controllers(signs));
    } else {
        all.push(writable(signs));
    }
    all.push(kill(signs));
    all.push(systemd(signs));
    all
}

fn layout(signs: &Signs) -> HostCheck {
    let id = "cgroup.layout";
    let cgroups = &signs.facts.cgroups;
    let advice = "boot with systemd.unified_cgroup_hierarchy=1 (and without cgroup_no_v1) for v2";
    match (cgroups.version(), &cgroups.v2) {
        (Version::V2, Some(v2)) => {
            HostCheck::ok(id, format!("v2 at {}, this process in {}", v2.mount, v2.own))
        }
        (Version::V1, Some(_)) => {
            HostCheck::note(id, "hybrid: controllers on v1, an empty v2 beside them", advice)
        }
        (Version::V1, None) => HostCheck::note(id, "v1", advice),
        _ => HostCheck::warn(
            id,
            "none is mounted",
            "mount -t cgroup2 none /sys/fs/cgroup, or run with --cgroup-manager=disabled",
        ),
    }
}

fn controllers(signs: &Signs) -> HostCheck {
    let id = "cgroup.controllers";
    let there = &signs.cgroups.controllers;
    let version = signs.facts.cgroups.version();
    if version == Version::None {
        return HostCheck::unknown(id, "no control groups");
    }
    let has = |name: &str| there.iter().any(|controller| controller == name);
    let mut missing: Vec<&str> = COMMON.into_iter().filter(|name| !has(name)).collect();
    if !has(if version == Version::V1 { "blkio" } else { IO }) {
        missing.push(IO);
    }
    if missing.is_empty() {
        return HostCheck::ok(id, there.join(" "));
    }
    let advice = match (missing.contains(&"memory"), signs.facts.delegated.is_some()) {
        (_, true) => "see cgroup.delegated-controllers",
        (true, _) => {
            "boot with cgroup_enable=memory, or find who has the controller (another hierarchy, a parent's cgroup.subtree_control)"
        }
        (false, _) => {
            "find who has the controller: another hierarchy, a parent's cgroup.subtree_control, or the kernel lacks it"
        }
    };
    let health = if missing == [IO] { Health::Note } else { Health::Warn };
    HostCheck::new(id, health, format!("missing: {}", missing.join(", ")), advice)
}

fn writable(signs: &Signs) -> HostCheck {
    let id = "cgroup.writable";
    match (signs.facts.cgroups.version(), signs.cgroups.writable) {
        (Version::None, _) => HostCheck::unknown(id, "no control groups"),
        (_, true) => HostCheck::ok(id, "groups can be made"),
        (_, false) => HostCheck::fail(
            id,
            "mounted read-only: no group can be made",
            "mount it writable (a container: with a cgroup namespace and a mount that is not ro)",
        ),
    }
}

fn kill(signs: &Signs) -> HostCheck {
    let id = "cgroup.kill";
    match (signs.facts.cgroups.version(), signs.cgroups.kill) {
        (Version::V2, Some(true)) => HostCheck::ok(id, "Linux 5.14"),
        (Version::V2, Some(false)) => HostCheck::note(id, "missing", "use Linux 5.14 or newer"),
        (Version::V2, None) => HostCheck::unknown(id, "there is no group to look at"),
        _ => HostCheck::ok(id, "not needed: v1 never had it"),
    }
}

fn delegation(signs: &Signs) -> HostCheck {
    let id = "cgroup.delegation";
    match signs.facts.delegated.as_deref().unwrap_or_default() {
        [] => HostCheck::warn(
            id,
            "no group is delegated to this user: containers have none",
            "run below `systemd-run --user --scope -p Delegate=yes`, or with --systemd-cgroup and a user manager",
        ),
        all => HostCheck::ok(id, all.join(", ")),
    }
}

fn delegated_controllers(signs: &Signs) -> HostCheck {
    let id = "cgroup.delegated-controllers";
    let there = &signs.cgroups.controllers;
    if signs.facts.delegated.as_ref().is_none_or(Vec::is_empty) {
        return HostCheck::unknown(id, "no group is delegated");
    }
    let missing: Vec<&str> = COMMON.into_iter().filter(|name| !there.iter().any(|one| one == name)).collect();
    if missing.is_empty() {
        return HostCheck::ok(id, there.join(" "));
    }
    let advice =
        "systemctl edit user@.service: [Service] Delegate=cpu cpuset io memory pids; then log in again";
    HostCheck::warn(id, format!("missing: {}", missing.join(", ")), advice)
}

fn systemd(signs: &Signs) -> HostCheck {
    let id = "cgroup.systemd";
    let CgroupSigns { systemd, sockets, socket, .. } = &signs.cgroups;
    match (systemd, socket) {
        (false, _) => {
            HostCheck::note(id, "systemd is not process 1 here", "use the cgroupfs driver, the default")
        }
        (true, Some(socket)) => HostCheck::ok(id, socket),
        (true, None) if sockets.is_empty() => HostCheck::note(
            id,
            "XDG_RUNTIME_DIR is not set",
            "log in by a session of systemd-logind (ssh, machinectl shell USER@), not by su",
        ),
        (true, None) => HostCheck::warn(
            id,
            format!("none of {} is there", sockets.join(", ")),
            "start the user manager (loginctl enable-linger); in a container, bind the host's /run/systemd",
        ),
    }
}
