// SPDX-License-Identifier: Apache-2.0
//! The plan: everything that was decided about a container, before anything is done.
//!
//! [`Plan::new`] is pure: it reads no file, no clock and no id of this process; its inputs are the configuration,
//! the [`Facts`] and what was asked. Each room below decides one subject and validates it; `program/` puts the
//! decisions in order, `host/` and `stage/` carry them out. A decision keeps the JSON pointer of the value that
//! caused it (`field`), for messages and for `corten plan`.

#![forbid(unsafe_code)]

pub(crate) mod annotations;
pub mod caps;
pub mod devices;
pub mod external;
pub mod hooks;
pub mod ids;
pub mod mempolicy;
pub mod mounts;
pub mod namespaces;
pub(crate) mod netdev;
pub mod process;
pub(crate) mod rdt;
pub(crate) mod rlimits;
pub(crate) mod rootfs;
pub(crate) mod sched;
pub mod sysctl;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::ask::{Create, Home, Manager};
use crate::cgroup;
use crate::error::{Error, Result, printable};
use crate::facts::{Facts, IdMaps};
use crate::seccomp;
use crate::spec::Spec;
pub use annotations::AnnotationSettings;
use namespaces::NsKind;

/// A decided value and the JSON pointer of what caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<T> {
    /// JSON pointer into config.json, `/linux/maskedPaths/0`; empty when it is a default of ours.
    pub at: String,
    pub value: T,
}

/// Everything decided about one container.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The container's id.
    pub id: String,
    /// Absolute.
    pub bundle: PathBuf,
    /// Which namespaces are made and which are joined.
    pub namespaces: namespaces::Namespaces,
    /// The new user namespace's mappings; `None` when none is made.
    pub ids: Option<IdMaps>,
    /// What the configuration believes about the mappings of a joined user namespace: the host compares them with
    /// the real ones first of all, and refuses if they differ.
    pub expected_ids: Option<IdMaps>,
    pub writers: Option<ids::Writers>,
    /// This process has no privilege: the user namespace comes before everything that needs some.
    pub user_first: bool,
    /// This process may not copy mounts: the stage does that, inside, where it is root.
    pub copies_inside: bool,
    /// The caller's supplementary groups can be dropped before a user namespace is joined that may deny that.
    pub drops_groups: bool,
    /// The signals that the caller ignores ([`Facts::ignored`]).
    pub ignored: u64,
    /// The root file system.
    pub rootfs: rootfs::Rootfs,
    /// Mounts and what belongs to them, in order.
    pub mounts: Vec<mounts::MountStep>,
    /// Device nodes; empty when the configuration binds its own /dev.
    pub devices: Vec<devices::Device>,
    /// Symbolic links in /dev, `(path, target)`; empty when the configuration binds its own /dev.
    pub dev_links: Vec<(&'static str, &'static str)>,
    pub mount_label: Option<String>,
    /// Absolute paths to hide.
    pub masked: Vec<Field<String>>,
    /// Absolute paths to make read-only.
    pub readonly: Vec<Field<String>>,
    /// sethostname(2).
    pub hostname: Option<String>,
    /// setdomainname(2).
    pub domainname: Option<String>,
    /// Kernel parameters: path below /proc/sys and value, in the configuration's order.
    pub sysctl: Vec<Field<(String, String)>>,
    /// The user's process; `None` when the configuration has none (allowed until `start`).
    pub process: Option<process::Process>,
    pub seccomp: Option<seccomp::Filter>,
    pub hooks: hooks::Hooks,
    pub cgroup: cgroup::GroupPlan,
    /// Groups in resctrl.
    pub rdt: Option<rdt::Rdt>,
    /// Network devices to move in.
    pub netdevs: Vec<netdev::NetDevice>,
    /// Its mounts are made in the runtime's mount namespace, inside of one that `delete` takes away.
    pub mounts_on_host: bool,
    /// The user of the container that the control group is given to, and the mount on whose account.
    pub group_owner: Option<Field<u32>>,
    /// The kernel has mount_setattr(2).
    pub set_attr: bool,
    /// The host may make a network namespace by going there: it can come back (setns(2) wants power over where it came
    /// from, which root of a user namespace has not).
    pub host_network: bool,
    /// What annotations ask for.
    pub obeyed: annotations::AnnotationSettings,
    /// The configuration's annotations.
    pub annotations: BTreeMap<String, String>,
    /// What was asked with the verb.
    pub ask: Asked,
    /// To be shown to the user, one line each.
    pub warnings: Vec<String>,
}

/// The verb's flags that shape the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// MS_MOVE and chroot instead of pivot_root.
    pub no_pivot: bool,
    /// The name of its session keyring; `None`: the caller's.
    pub keyring: Option<String>,
    /// Descriptors kept from 3 on, LISTEN_FDS included.
    pub keep_fds: u32,
    /// Of those, the socket-activation ones.
    pub listen_fds: u32,
    /// Start without a gate.
    pub run: bool,
}

impl Plan {
    /// Decides everything, or says what cannot be.
    ///
    /// # Errors
    /// `Kind::Invalid` with the JSON pointer of the offending value; `Kind::Unsupported` when the host cannot.
    pub fn new(spec: &Spec, facts: &Facts, home: &Home, ask: &Create, bundle: PathBuf) -> Result<Plan> {
        let mut warnings = Vec::new();
        version(spec, &mut warnings)?;
        let namespaces = namespaces::decide_namespaces(spec)?;
        let ids = ids::decide_id_maps(spec, &namespaces)?;
        let expected_ids = ids::maps_of_joined(spec, &namespaces)?;
        let known_ids =
            ids::maps_of_configuration(&namespaces, ids.as_ref().or(expected_ids.as_ref()), facts);
        let cgroup = groups(spec, facts, home, &ask.id, &mut warnings)?;
        warnings.extend(cgroup.warnings.iter().map(|(at, text)| format!("config.json {at}: {text}")));
        let obeyed = annotations::read(&spec.annotations, &facts.permitted)?;
        warnings.extend(obeyed.warnings());
        let context = mounts::MountContext {
            mount_context: obeyed.mount_context,
            namespaces: &namespaces,
            ids: known_ids,
            facts,
            cgroup: &cgroup,
            bundle: &bundle,
        };
        let mut mounts = mounts::decide_mounts(spec, &context, &mut warnings)?;
        let copies_inside = !facts.copies_mounts && (facts.euid == 0 || namespaces.has(NsKind::User));
        mounts::without_privilege(&mounts, copies_inside)?;
        let setgroups = ids::setgroups(&namespaces, ids.as_ref(), facts);
        let mut process = process::decide_process(spec, facts, (known_ids, setgroups), ask, &mut warnings)?;
        let notifies = ask.notify.is_some() && namespaces.has(NsKind::Mount);
        if let Some(process) = process.as_mut().filter(|_| notifies) {
            process.notify();
            mounts::notify(&mut mounts, &home.root.join(&ask.id));
        }
        Ok(Plan {
            rootfs: rootfs::decide_rootfs(spec, &bundle, ask.no_pivot, &facts.mounts)?,
            devices: devices::decide_devices(spec, &namespaces, facts, known_ids, &mounts)?,
            dev_links: devices::links(&mounts),
            mount_label: mounts::label(spec)?.map(str::to_owned),
            masked: rootfs::paths(&spec.linux.masked_paths, "/linux/maskedPaths", &namespaces)?,
            readonly: rootfs::paths(&spec.linux.readonly_paths, "/linux/readonlyPaths", &namespaces)?,
            hostname: namespaces::uts_name(spec.hostname.as_deref(), "/hostname", &namespaces)?,
            domainname: namespaces::uts_name(spec.domainname.as_deref(), "/domainname", &namespaces)?,
            sysctl: sysctl::decide_sysctls(spec, &namespaces)?,
            mounts_on_host: mounts::on_host(&namespaces, facts),
            group_owner: mounts::group_owner(&mounts, &namespaces, &cgroup, process.as_ref()),
            process,
            seccomp: process::seccomp(spec, &obeyed, &mut warnings)?,
            rdt: rdt::decide_rdt(spec.linux.intel_rdt.as_ref())?,
            netdevs: netdev::decide_network_devices(spec, &namespaces)?,
            set_attr: facts.mount_setattr,
            host_network: facts.is_admin() && !facts.in_userns,
            hooks: hooks::decide_hooks(&spec.hooks, &obeyed.hook_output)?,
            drops_groups: setgroups == ids::Setgroups::Unknown
                && ids::may_drop_groups(facts)
                && !obeyed.keep_groups,
            ignored: facts.ignored,
            obeyed,
            annotations: spec
                .annotations
                .iter()
                .map(|(k, v)| (k.clone(), v.clone().unwrap_or_default()))
                .collect(),
            ask: Asked {
                no_pivot: ask.no_pivot,
                keyring: (!ask.no_new_keyring).then(|| keyring_name(&ask.id, &ask.keyring_suffix)),
                keep_fds: ask.listen_fds.saturating_add(ask.preserve_fds),
                listen_fds: ask.listen_fds,
                run: ask.run,
            },
            id: ask.id.clone(),
            writers: ids.as_ref().map(|ids| ids::writers(ids, facts)),
            user_first: !facts.is_admin() && namespaces.has(NsKind::User),
            copies_inside,
            bundle,
            namespaces,
            ids,
            expected_ids,
            mounts,
            cgroup,
            warnings: warnings.iter().map(|line| printable(line).into_owned()).collect(),
        })
    }
}

/// The name of a container's session keyring: the kernel finds one by it for whoever may search it, so the suffix is
/// what nobody can guess.
fn keyring_name(id: &str, suffix: &str) -> String {
    let dot = if suffix.is_empty() { "" } else { "." };
    format!("_ses.{id}{dot}{suffix}")
}

impl Plan {
    /// The process has a notification socket.
    #[must_use]
    pub(crate) fn notifies(&self) -> bool {
        let bound = |step: &mounts::MountStep| matches!(step, mounts::MountStep::Mount(m) if m.at.is_empty());
        self.mounts.iter().any(bound)
    }
}

/// The control group; without one where nobody named it and there is no permission for it.
fn groups(
    spec: &Spec,
    facts: &Facts,
    home: &Home,
    id: &str,
    warnings: &mut Vec<String>,
) -> Result<cgroup::GroupPlan> {
    let path = spec.linux.cgroups_path.as_deref().filter(|path| !path.is_empty());
    if let Some(long) = path.filter(|path| path.len() >= libc::PATH_MAX as usize) {
        let text = format!("{} bytes are more than a path may have", long.len());
        return Err(Error::invalid("/linux/cgroupsPath", text));
    }
    if home.manager == Manager::Cgroupfs {
        warnings.extend(path.and_then(cgroup::reads_like_a_unit));
    }
    let mut plan =
        cgroup::decide_groups(&facts.cgroups, home.manager, id, path, spec.linux.resources.as_ref())?;
    plan.annotate(&spec.annotations)?;
    // systemd makes its units as it is asked, whatever we may do in the file system.
    let tolerant = home.rootless != Some(false) && plan.unit.is_none();
    match (&facts.delegated, path) {
        (Some(delegated), None) if tolerant => {
            let (plan, warning) = plan.where_delegated(&facts.cgroups, delegated)?;
            warnings.extend(warning.map(str::to_owned));
            Ok(plan)
        }
        _ => Ok(plan),
    }
}

/// The specification's versions that are understood: 1.x, of which later ones only add (config.md: ociVersion).
const VERSION: (u32, u32) = (1, 3);

fn version(spec: &Spec, warnings: &mut Vec<String>) -> Result<()> {
    let version = spec.oci_version.as_str();
    let mut numbers = version.split(['.', '-', '+']).map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    match (major, minor) {
        // Absent reads as whatever the fields say, as runc does.
        _ if version.is_empty() => Ok(()),
        (Some(major), Some(minor)) if major == VERSION.0 => {
            if minor > VERSION.1 {
                warnings.push(format!(
                    "config.json /ociVersion: {version:?} is newer than {}.{}",
                    VERSION.0, VERSION.1
                ));
            }
            Ok(())
        }
        _ => {
            Err(Error::invalid("/ociVersion", format!("{version:?} is not a version 1 of the specification")))
        }
    }
}
