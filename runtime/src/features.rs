// SPDX-License-Identifier: Apache-2.0
//! `features`: what this build can do (runtime-spec features.md; compatibility J6).
//!
//! Clients decide by it what they may ask for, so a list comes from the table that the code itself reads, and what
//! is not built yet is told as absent.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Serialize;

use crate::plan::{annotations, caps, mempolicy};
use crate::seccomp;
use crate::sys::probe;

/// Least version of the specification that is understood.
pub(crate) const OCI_VERSION_MIN: &str = "1.0.0";
/// Greatest version of the specification that is understood.
pub const OCI_VERSION_MAX: &str = "1.3.0";
/// Our version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit we were built from.
pub const COMMIT: &str = match option_env!("CORTEN_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// What is built. A feature is switched on here by the change that builds it.
mod built {
    pub(crate) const CGROUP_SYSTEMD: bool = true;
    pub(crate) const CGROUP_RDMA: bool = true;
    pub(crate) const APPARMOR: bool = true;
    pub(crate) const SELINUX: bool = true;
    pub(crate) const INTEL_RDT: bool = true;
    pub(crate) const NET_DEVICES: bool = true;
    pub(crate) const CHECKPOINT: bool = true;
    pub(crate) const IDMAPPED_MOUNTS: bool = true;
}

/// features.md
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, String>,
    potentially_unsafe_config_annotations: &'static [&'static str],
}

/// features-linux.md
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: &'static [&'static str],
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: &'static [&'static str],
    operators: &'static [&'static str],
    archs: &'static [&'static str],
    known_flags: &'static [&'static str],
    supported_flags: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MemoryPolicy {
    modes: Vec<&'static str>,
    flags: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

/// What this build can do, on this kernel.
pub fn features() -> Features {
    Features {
        oci_version_min: OCI_VERSION_MIN,
        oci_version_max: OCI_VERSION_MAX,
        hooks: &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        mount_options: crate::plan::mounts::option_names(),
        linux: linux(),
        annotations: BTreeMap::from([
            ("io.containerd.corten.version", VERSION.to_owned()),
            ("io.containerd.corten.commit", COMMIT.to_owned()),
            // Podman asks for this one by runc's name, of every runtime.
            ("org.opencontainers.runc.checkpoint.enabled", built::CHECKPOINT.to_string()),
        ]),
        potentially_unsafe_config_annotations: &annotations::NAMES,
    }
}

fn linux() -> Linux {
    Linux {
        namespaces: &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
        capabilities: capabilities(),
        cgroup: Cgroup {
            v1: true,
            v2: true,
            systemd: built::CGROUP_SYSTEMD,
            systemd_user: built::CGROUP_SYSTEMD,
            rdma: built::CGROUP_RDMA,
        },
        seccomp: Seccomp {
            enabled: true,
            actions: seccomp::known_actions(),
            operators: seccomp::known_operators(),
            archs: seccomp::known_archs(),
            known_flags: seccomp::known_flags(),
            supported_flags: supported_seccomp_flags(),
        },
        apparmor: Enabled { enabled: built::APPARMOR },
        selinux: Enabled { enabled: built::SELINUX },
        intel_rdt: IntelRdt {
            enabled: built::INTEL_RDT,
            schemata: built::INTEL_RDT,
            monitoring: built::INTEL_RDT,
        },
        memory_policy: MemoryPolicy { modes: mempolicy::mode_names(), flags: mempolicy::flag_names() },
        mount_extensions: MountExtensions { idmap: Enabled { enabled: built::IDMAPPED_MOUNTS } },
        net_devices: Enabled { enabled: built::NET_DEVICES },
    }
}

/// By number.
fn capabilities() -> Vec<String> {
    caps::ALL.iter().map(ToString::to_string).collect()
}

/// Those of the known flags that the kernel takes.
fn supported_seccomp_flags() -> Vec<&'static str> {
    let supported = |name: &&str| match *name {
        "SECCOMP_FILTER_FLAG_TSYNC" => probe::seccomp_flags(libc::SECCOMP_FILTER_FLAG_TSYNC),
        "SECCOMP_FILTER_FLAG_LOG" => probe::seccomp_flags(libc::SECCOMP_FILTER_FLAG_LOG),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => probe::seccomp_flags(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        // This one exists only beside a listener.
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => probe::seccomp_flags(
            libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        ),
        _ => false,
    };
    seccomp::known_flags().iter().copied().filter(supported).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own types read what we say (oci-spec as an oracle).
    #[test]
    fn it_reads_as_the_specification_defines_it() {
        let text = serde_json::to_string(&features()).unwrap();
        let read: oci_spec::runtime::Features = serde_json::from_str(&text).unwrap();
        assert_eq!(read.oci_version_max(), OCI_VERSION_MAX);
        let linux = read.linux().as_ref().unwrap();
        assert_eq!(linux.capabilities().as_ref().unwrap().len(), 41);
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 8);
    }

    #[test]
    fn lists_are_sorted_and_without_doubles() {
        let rising = |list: &[&str]| list.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(rising(&crate::plan::mounts::option_names()));
        let Linux { seccomp, namespaces, memory_policy, .. } = linux();
        assert!(rising(&memory_policy.modes) && rising(&memory_policy.flags));
        for list in [seccomp.actions, seccomp.operators, seccomp.archs, seccomp.known_flags, namespaces] {
            assert!(rising(list), "{list:?}");
        }
        assert_eq!(capabilities()[0], "CAP_CHOWN");
        assert_eq!(capabilities()[40], "CAP_CHECKPOINT_RESTORE");
    }

    #[test]
    fn flags_are_probed_in_the_kernel() {
        assert!(supported_seccomp_flags().contains(&"SECCOMP_FILTER_FLAG_LOG"));
        assert!(!probe::seccomp_flags(1 << 30));
    }
}
