// SPDX-License-Identifier: Apache-2.0
//! What this process may do: capabilities, the filter it is under, the security modules, and the proc file system around it.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::{HostCheck, Signs};
use crate::criu::in_path;
use crate::plan::caps;
use crate::procfs;

/// What a launch as root makes use of.
const NEEDED: [&str; 9] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
];

#[derive(Debug, Clone, Default)]
pub(super) struct SecuritySigns {
    /// `Seccomp:` of /proc/self/status: 0, 1 or 2 (a filter).
    pub(super) seccomp: u32,
    /// `NoNewPrivs:`.
    pub(super) no_new_privileges: bool,
    /// Mount points below /proc that hide something of it.
    pub(super) over_proc: Vec<String>,
    /// securityfs is mounted, through which profiles are loaded.
    pub(super) securityfs: bool,
    /// apparmor_parser is in PATH.
    pub(super) apparmor_parser: bool,
    /// SELinux refuses, and does not only log.
    pub(super) enforcing: bool,
    /// The label of this process.
    pub(super) label: String,
}

pub(super) fn look() -> SecuritySigns {
    let read = |path: &str| procfs::read(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<u32>().ok()).unwrap_or(0)
    };
    let mounts = read("/proc/self/mountinfo");
    let points: BTreeSet<String> = procfs::mounts(&mounts).map(|mount| mount.point()).collect();
    // A mount on a directory that is always empty hides nothing (proc_create_mount_point in the kernel).
    let empty = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd"];
    SecuritySigns {
        seccomp: field("Seccomp:"),
        no_new_privileges: field("NoNewPrivs:") == 1,
        over_proc: points
            .iter()
            .filter(|at| at.starts_with("/proc/") && !empty.contains(&at.as_str()))
            .cloned()
            .collect(),
        securityfs: procfs::mounts(&mounts).any(|mount| mount.fstype == "securityfs"),
        apparmor_parser: in_path("apparmor_parser").is_some()
            || std::path::Path::new("/sbin/apparmor_parser").exists(),
        enforcing: read("/sys/fs/selinux/enforce").trim() == "1",
        label: read("/proc/self/attr/current").trim_end_matches(['\0', '\n']).to_owned(),
    }
}

pub(super) fn examine(signs: &Signs) -> Vec<HostCheck> {
    let mut all = Vec::new();
    if signs.facts.euid == 0 {
        all.push(capabilities(signs));
    }
    all.push(filter(signs.security.seccomp));
    if !signs.is_host_root() {
        all.push(no_new_privileges(signs));
        all.push(proc_whole(signs));
    }
    all.push(apparmor(signs));
    all.push(selinux(signs));
    all
}

fn capabilities(signs: &Signs) -> HostCheck {
    let id = "security.capabilities";
    let has = |name: &str| {
        let all = caps::ALL.iter().position(|cap| cap.to_string() == name);
        all.is_some_and(|number| signs.facts.effective >> number & 1 == 1)
    };
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !has(name)).collect();
    let advice = "give them to the container that this is (docker: --privileged or --cap-add), or run as a user, without root";
    match missing.as_slice() {
        [] => HostCheck::ok(id, "all that a launch makes use of"),
        missing if missing.contains(&"CAP_SYS_ADMIN") => {
            HostCheck::fail(id, format!("missing: {}", missing.join(", ")), advice)
        }
        missing => HostCheck::warn(id, format!("missing: {}", missing.join(", ")), advice),
    }
}

fn filter(mode: u32) -> HostCheck {
    let id = "security.filter";
    match mode {
        0 => HostCheck::ok(id, "this process is under no filter"),
        _ => HostCheck::note(
            id,
            "this process is under a seccomp filter, and so are its containers",
            "if a call is refused: another profile for the container that this is (docker: --security-opt seccomp=…)",
        ),
    }
}

fn no_new_privileges(signs: &Signs) -> HostCheck {
    let id = "security.no-new-privileges";
    match signs.security.no_new_privileges {
        false => HostCheck::ok(id, "not set"),
        true => HostCheck::warn(
            id,
            "set: programs with the set-user-ID bit do not get their rights",
            "start without it (systemd: NoNewPrivileges=no; kubernetes: allowPrivilegeEscalation: true)",
        ),
    }
}

/// A new procfs in a user namespace may show no more than the one that is there (mount_too_revealing in the kernel).
fn proc_whole(signs: &Signs) -> HostCheck {
    let id = "security.proc";
    match signs.security.over_proc.as_slice() {
        [] => HostCheck::ok(id, "/proc is whole"),
        some => HostCheck::warn(
            id,
            format!(
                "parts of /proc are covered ({} mounts, {} first): a new one is refused",
                some.len(),
                some[0]
            ),
            "in a container: an unmasked /proc (docker: --security-opt systempaths=unconfined; kubernetes: procMount: Unmasked)",
        ),
    }
}

fn apparmor(signs: &Signs) -> HostCheck {
    let id = "security.apparmor";
    let SecuritySigns { securityfs, apparmor_parser, .. } = &signs.security;
    match (signs.facts.apparmor, securityfs, apparmor_parser) {
        (false, ..) => HostCheck::ok(id, "not enabled: profiles are refused, and engines ask for none"),
        (true, false, _) => HostCheck::warn(
            id,
            "enabled, but securityfs is not mounted: no profile can be loaded",
            "mount -t securityfs none /sys/kernel/security",
        ),
        (true, true, false) => HostCheck::note(
            id,
            "enabled, but apparmor_parser is not there: engines load no profile of their own",
            "install apparmor (the tools)",
        ),
        (true, true, true) => HostCheck::ok(id, "enabled"),
    }
}

fn selinux(signs: &Signs) -> HostCheck {
    let id = "security.selinux";
    let SecuritySigns { enforcing, label, .. } = &signs.security;
    if !signs.facts.selinux {
        return HostCheck::ok(id, "not enabled");
    }
    let domain = label.split(':').nth(2).unwrap_or_default();
    let known =
        ["container_runtime_t", "unconfined_t", "spc_t", "kernel_t", "initrc_t", "unconfined_service_t"];
    match (enforcing, known.contains(&domain)) {
        (false, _) => HostCheck::note(
            id,
            "permissive: it logs and refuses nothing",
            "setenforce 1 when its log is clean",
        ),
        (true, false) => HostCheck::warn(
            id,
            format!("enforcing, and this process is {domain}: transitions to container_t may be refused"),
            "install container-selinux and: chcon -t container_runtime_exec_t on corten and the shim",
        ),
        (true, true) => HostCheck::ok(id, format!("enforcing; this process is {domain}")),
    }
}
