// SPDX-License-Identifier: Apache-2.0
//! User namespaces, the settings that forbid them, and what somebody who is not root needs besides.

#![forbid(unsafe_code)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{HostCheck, Signs};
use crate::container::owner;
use crate::error::{Result, Words};
use crate::facts::Facts;
use crate::host::idtool;
use crate::procfs;
use crate::sys::probe::{UserNamespaceTry, try_user_namespace};

/// As many ids as an image may use (login.defs(5), SUB_UID_COUNT).
const ENOUGH: u64 = 65_536;

/// A setting that forbids user namespaces to some or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forbidding {
    /// As sysctl(8) calls it.
    pub(super) name: &'static str,
    /// What it is set to.
    pub(super) value: u64,
}

/// The settings, what of each forbids, and whether root is concerned as well.
const SETTINGS: [(&str, u64, bool); 3] = [
    ("user.max_user_namespaces", 0, true),
    ("kernel.unprivileged_userns_clone", 0, false),
    ("kernel.apparmor_restrict_unprivileged_userns", 1, false),
];

#[derive(Debug, Clone)]
pub(super) struct UserSigns {
    /// What came of an attempt.
    pub(super) tried: Result<UserNamespaceTry>,
    /// Those of [`SETTINGS`] that forbid.
    pub(super) forbidding: Vec<Forbidding>,
    /// The user's name, or number.
    pub(super) name: String,
    /// How many ids /etc/subuid and /etc/subgid give the user.
    pub(super) subids: [u64; 2],
    /// newuidmap and newgidmap: where they are, and whether they have the rights they need.
    pub(super) helpers: [Option<(PathBuf, bool)>; 2],
    /// $XDG_RUNTIME_DIR and what is wrong with it.
    pub(super) runtime_dir: Option<(String, Option<&'static str>)>,
    /// The user's processes outlive the session (loginctl enable-linger).
    pub(super) lingers: bool,
}

pub(super) fn look(facts: &Facts) -> UserSigns {
    let name = owner(facts.euid);
    let subids = ["subuid", "subgid"].map(|file| {
        let text = std::fs::read_to_string(format!("/etc/{file}")).unwrap_or_default();
        subids(&text, &name, facts.euid)
    });
    UserSigns {
        tried: try_user_namespace(),
        forbidding: SETTINGS.iter().filter_map(|(name, value, _)| forbids(name, *value)).collect(),
        subids,
        helpers: ["newuidmap", "newgidmap"].map(helper),
        runtime_dir: std::env::var("XDG_RUNTIME_DIR").ok().filter(|dir| !dir.is_empty()).map(|dir| {
            let wrong = wrong_with(Path::new(&dir), facts.euid);
            (dir, wrong)
        }),
        lingers: Path::new("/var/lib/systemd/linger").join(&name).exists(),
        name,
    }
}

fn helper(tool: &str) -> Option<(PathBuf, bool)> {
    let path = idtool::find(tool, std::env::var_os("PATH").as_deref())?;
    let privileged = idtool::is_privileged(&path);
    Some((path, privileged))
}

fn forbids(name: &'static str, forbidding: u64) -> Option<Forbidding> {
    let text = procfs::read(&format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    let value = text.trim().parse().ok()?;
    (value == forbidding).then_some(Forbidding { name, value })
}

/// subuid(5): `NAME-OR-NUMBER:FIRST:COUNT`.
pub(super) fn subids(text: &str, name: &str, uid: u32) -> u64 {
    let count = |line: &str| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        (whose == name || whose.parse() == Ok(uid)).then(|| fields.nth(1)?.parse::<u64>().ok()).flatten()
    };
    text.lines().filter_map(count).sum()
}

fn wrong_with(dir: &Path, uid: u32) -> Option<&'static str> {
    match dir.metadata() {
        Err(_) => Some("it is not there"),
        Ok(meta) if !meta.is_dir() => Some("it is no directory"),
        Ok(meta) if meta.uid() != uid => Some("it is somebody else's"),
        Ok(meta) if meta.permissions().mode() & 0o022 != 0 => Some("others may write to it"),
        Ok(_) => None,
    }
}

pub(super) fn examine(signs: &Signs) -> Vec<HostCheck> {
    let mut all = vec![namespaces(signs), sysctls(signs)];
    if !signs.is_host_root() && signs.facts.euid != 0 {
        all.extend([
            subids_enough(&signs.users),
            helpers(&signs.users),
            runtime_dir(&signs.users),
            manager(signs),
        ]);
    }
    all
}

fn namespaces(signs: &Signs) -> HostCheck {
    let id = "user.namespaces";
    let bad = |found: String, advice: &str| match signs.is_host_root() {
        // Root's containers need none unless they ask for one.
        true => HostCheck::warn(id, found, advice),
        false => HostCheck::fail(id, found, advice),
    };
    match &signs.users.tried {
        Ok(UserNamespaceTry::Made) => HostCheck::ok(id, "can be made"),
        Ok(UserNamespaceTry::Refused(errno)) => {
            let advice = match *errno {
                libc::ENOSPC => "raise user.max_user_namespaces",
                libc::EUSERS => "they are nested too deep: leave some",
                _ if signs.users.forbidding.is_empty() => {
                    "the filter around this process (a container's seccomp profile) is to let unshare and clone through"
                }
                _ => "see user.sysctls",
            };
            bad(format!("refused: {}", Words(*errno)), advice)
        }
        Ok(UserNamespaceTry::Powerless(errno)) => bad(
            format!("can be made, but give no power: {}", Words(*errno)),
            "AppArmor restricts them: a profile with `userns,` for this program, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        Err(error) => HostCheck::unknown(id, error.to_string()),
    }
}

fn sysctls(signs: &Signs) -> HostCheck {
    let id = "user.sysctls";
    let all = &signs.users.forbidding;
    let for_all = |name: &str| SETTINGS.iter().any(|(one, _, root)| *one == name && *root);
    let Some(worst) = all.iter().find(|one| for_all(one.name)).or(all.first()) else {
        return HostCheck::ok(id, "none forbids them");
    };
    let found = all.iter().map(|one| format!("{}={}", one.name, one.value)).collect::<Vec<_>>().join(", ");
    let allowed = match worst.name {
        "user.max_user_namespaces" => "sysctl user.max_user_namespaces=15000",
        "kernel.unprivileged_userns_clone" => "sysctl kernel.unprivileged_userns_clone=1",
        _ => "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with `userns,`",
    };
    match signs.is_host_root() {
        true if !for_all(worst.name) => {
            HostCheck::note(id, found, format!("users cannot have containers: {allowed}"))
        }
        _ => HostCheck::warn(id, found, allowed),
    }
}

fn subids_enough(users: &UserSigns) -> HostCheck {
    let id = "user.subids";
    let [uids, gids] = users.subids;
    let advice =
        format!("as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}", users.name);
    match uids.min(gids) {
        0 => HostCheck::warn(id, format!("/etc/subuid and /etc/subgid give {} no ids", users.name), advice),
        few if few < ENOUGH => {
            HostCheck::warn(id, format!("only {few} ids; images may use {ENOUGH}"), advice)
        }
        enough => HostCheck::ok(id, format!("{enough} ids")),
    }
}

fn helpers(users: &UserSigns) -> HostCheck {
    let id = "user.helpers";
    let tools = ["newuidmap", "newgidmap"];
    if let Some((tool, _)) = tools.iter().zip(&users.helpers).find(|(_, found)| found.is_none()) {
        return HostCheck::warn(
            id,
            format!("{tool} is not in PATH"),
            "install uidmap (Debian) or shadow-utils (Fedora)",
        );
    }
    match users.helpers.iter().flatten().find(|(_, privileged)| !privileged) {
        Some((path, _)) => {
            let path = path.display();
            let found = format!("{path} has neither the set-user-ID bit nor a capability");
            HostCheck::warn(id, found, format!("as root: chmod u+s {path}"))
        }
        None => HostCheck::ok(id, "newuidmap, newgidmap"),
    }
}

fn runtime_dir(users: &UserSigns) -> HostCheck {
    let id = "user.runtime-dir";
    let advice = "log in by a session of systemd-logind, or make a directory of your own (mode 700) and set XDG_RUNTIME_DIR";
    match &users.runtime_dir {
        None => HostCheck::warn(
            id,
            "XDG_RUNTIME_DIR is not set: the state goes to /run/corten, which is root's",
            advice,
        ),
        Some((dir, Some(wrong))) => HostCheck::warn(id, format!("{dir}: {wrong}"), advice),
        Some((dir, None)) => HostCheck::ok(id, dir),
    }
}

fn manager(signs: &Signs) -> HostCheck {
    let id = "user.manager";
    if !signs.cgroups.systemd {
        return HostCheck::unknown(id, "systemd is not process 1 here");
    }
    let linger = format!("loginctl enable-linger {}", signs.users.name);
    match (&signs.cgroups.socket, signs.users.lingers) {
        (None, _) => HostCheck::warn(id, "this user has no manager that runs", linger),
        (Some(_), false) => {
            HostCheck::note(id, "runs until the last session ends, and containers with it", linger)
        }
        (Some(_), true) => HostCheck::ok(id, "runs, also without a session"),
    }
}
