// SPDX-License-Identifier: Apache-2.0
//! THE TABLE of checks: what each is about, since when there is what it asks for, and what is lost without. docs/doctor.md has
//! the same rows with the reasons; a test holds the two together.

#![forbid(unsafe_code)]

/// What is said of a check whatever it found.
pub(super) struct CheckRow {
    /// `group.name`.
    pub(super) id: &'static str,
    /// The first version that has it.
    pub(super) since: Option<&'static str>,
    /// What is lost where it is missing.
    pub(super) lost: &'static str,
}

const fn kernel(id: &'static str, since: &'static str, lost: &'static str) -> CheckRow {
    CheckRow { id, since: Some(since), lost }
}

const fn check(id: &'static str, lost: &'static str) -> CheckRow {
    CheckRow { id, since: None, lost }
}

/// The row of a check.
pub(super) fn row(id: &str) -> Option<&'static CheckRow> {
    ROWS.iter().find(|row| row.id == id)
}

/// In the order in which they are told.
pub(super) const ROWS: [CheckRow; 57] = [
    kernel("kernel.version", "Linux 5.10", "what older kernels lack has no other way"),
    kernel("kernel.clone3", "Linux 5.3", "every container"),
    kernel(
        "kernel.clone-into-cgroup",
        "Linux 5.7",
        "time: a process is moved into its group and not born there",
    ),
    kernel("kernel.openat2", "Linux 5.6", "every container: paths inside are looked up by it"),
    kernel("kernel.mount-api", "Linux 5.2", "every container: fsopen, open_tree and move_mount"),
    kernel("kernel.pidfd", "Linux 5.3", "every container: a process is never known by its number alone"),
    kernel("kernel.close-range", "Linux 5.9", "every container: what the host has open is closed by it"),
    kernel("kernel.mount-setattr", "Linux 5.12", "recursive mount options (rro) and id-mapped mounts"),
    kernel("kernel.seccomp", "Linux 3.17", "seccomp profiles: containers that have one are refused"),
    kernel("kernel.seccomp-notify", "Linux 5.0", "SCMP_ACT_NOTIFY: profiles with an agent are refused"),
    kernel("kernel.seccomp-killable", "Linux 5.19", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
    kernel(
        "kernel.memfd-exec",
        "Linux 3.17",
        "the seal: a mount of its own serves as the stage, or the program itself",
    ),
    kernel("kernel.namespaces", "Linux 5.6", "containers that ask for the kind that is missing"),
    check("kernel.filesystems", "the mounts of every container's configuration"),
    kernel("kernel.device-filter", "Linux 4.15", "device rules on cgroup v2: containers are refused"),
    check("kernel.memory-policy", "linux.memoryPolicy"),
    check("kernel.keyring", "a session keyring of its own"),
    kernel(
        "kernel.pidfs",
        "Linux 6.9",
        "certainty: a process is told from a later one by its start time, to a hundredth of a second",
    ),
    kernel(
        "kernel.mount-ids",
        "Linux 6.8",
        "certainty: a mount is told from a later one by its number and file system",
    ),
    check("cgroup.layout", "limits, and the knowledge of what belongs to a container"),
    check("cgroup.controllers", "the limits of the controllers that are missing"),
    check("cgroup.writable", "groups for containers"),
    kernel(
        "cgroup.kill",
        "Linux 5.14",
        "time: a container's processes are killed one by one, while it is frozen",
    ),
    check("cgroup.delegation", "groups, and so limits, for this user's containers"),
    check("cgroup.delegated-controllers", "this user's limits of the controllers that are missing"),
    check("cgroup.systemd", "--systemd-cgroup"),
    check("user.namespaces", "containers without root, and those with a user namespace"),
    check("user.sysctls", "containers without root, and those with a user namespace"),
    check("user.subids", "more than one id in this user's containers"),
    check("user.helpers", "more than one id in this user's containers"),
    check("user.runtime-dir", "a place for the state of this user's containers"),
    check("user.manager", "systemd's groups for this user's containers"),
    check("security.capabilities", "whatever root does with them"),
    check("security.filter", "the calls that it refuses"),
    check("security.no-new-privileges", "newuidmap and newgidmap, for whoever is not root"),
    check("security.proc", "a proc file system of its own for containers with a user namespace"),
    check("security.apparmor", "process.apparmorProfile"),
    check("security.selinux", "labels: process.selinuxLabel and linux.mountLabel"),
    check("files.root", "every container: what lies in the state root is believed"),
    kernel(
        "files.idmap",
        "Linux 5.12",
        "id-mapped mounts from this file system (pods with a user namespace)",
    ),
    check("files.options", "programs, set-user-ID bits or devices in what lies there"),
    check("files.propagation", "mounts that spread between host and containers (rshared, rslave)"),
    check("programs.corten", "the certainty which of them an engine calls"),
    check("programs.shim", "the runtime type io.containerd.corten.v2"),
    kernel("programs.criu", "CRIU 3.17", "checkpoint and restore"),
    check("programs.engine", "whatever depends on the version"),
    check("containerd.config", "what containerd passes over or refuses to start with"),
    check("containerd.handler", "pods and containers by this handler"),
    kernel(
        "containerd.features",
        "containerd 2.3",
        "pods with hostUsers: false and recursive read-only mounts: a kubelet sends none",
    ),
    check("containerd.cgroup-driver", "one manager for each group"),
    check("docker.runtime", "containers by this runtime, or dockerd itself"),
    check("podman.runtime", "containers by this runtime"),
    check("podman.nocgroup", "podman run --cgroups=disabled"),
    check("crio.runtime", "pods by this handler"),
    check("leftovers.containers", "ids, memory and groups, for nothing"),
    check("leftovers.shims", "ids, sockets and mounts, for nothing"),
    check("leftovers.groups", "room, for nothing"),
];
