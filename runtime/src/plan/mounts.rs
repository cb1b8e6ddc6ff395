// SPDX-License-Identifier: Apache-2.0
//! Mounts (config.md#mounts, config-linux.md#default-filesystems): from options to kernel words. Counterparts:
//! `host/sources.rs` opens what is bound, the stage's mount operations do the rest.

#![forbid(unsafe_code)]

mod cgroups;
mod idmap;
pub mod options;
mod read;

use std::path::{Path, PathBuf};

use super::namespaces::{Namespaces, NsKind};
use super::process::NOTIFY_INSIDE;
use super::text::{filled, plain};
use crate::cgroup;
use crate::error::{Error, Kind, Result};
use crate::facts::Facts;
use crate::facts::IdMaps;
use crate::spec::{IdMapping, Spec};
use crate::state::NOTIFY_DIRECTORY;

pub(crate) use cgroups::group_owner;
pub use options::option_names;

/// What the mount room may look at.
pub(crate) struct MountContext<'a> {
    pub namespaces: &'a Namespaces,
    /// Decided mappings of a new user namespace.
    pub ids: Option<&'a IdMaps>,
    pub facts: &'a Facts,
    /// The decided control group.
    pub cgroup: &'a cgroup::GroupPlan,
    /// The bundle, absolute: relative bind sources start here.
    pub bundle: &'a Path,
    /// The option of file systems that carries `mountLabel`.
    pub mount_context: &'static str,
}

/// One step of the mount phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountStep {
    Mount(Mount),
    /// Make a symbolic link (co-mounted v1 controllers).
    Symlink {
        /// JSON pointer.
        at: String,
        /// Absolute path inside.
        path: String,
        target: String,
    },
    /// Change the attributes of the mount that is at `target` by then.
    Remount {
        /// JSON pointer.
        at: String,
        /// Absolute path inside.
        target: String,
        attrs: Attrs,
        /// Attributes of the whole tree.
        recursive: Attrs,
        /// Not in its turn but once the devices and links are in place: a read-only /dev, or a read-only tmpfs in
        /// which later mounts still had to find or make their targets. These come last in the list.
        late: bool,
    },
}

impl MountStep {
    /// Whether it is id-mapped.
    #[must_use]
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self, MountStep::Mount(mount) if mount.idmap.is_some())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// JSON pointer, `/mounts/3`.
    pub at: String,
    /// Absolute, lexically clean path inside (`/` is possible).
    pub target: String,
    pub source: MountSource,
    /// Attributes of the top mount (mount_setattr(2): MOUNT_ATTR_* to set and to clear). A new file system has
    /// nothing to clear.
    pub attrs: Attrs,
    /// Attributes applied to the whole tree (`rro`, `rnosuid` …).
    pub recursive: Attrs,
    /// Propagation changes, in order; empty means: as the root's.
    pub propagation: Vec<Propagation>,
    /// Refuse a symbolic link anywhere on the way to the target (proc and sysfs).
    pub nofollow: bool,
    /// Mount over a symbolic link itself (`dest-nofollow`) instead of refusing or following the last name.
    pub over_symlink: bool,
    /// The target may lie in /proc (the mount of /proc itself, and the few files lxcfs covers). Without it, a target
    /// that turns out to be on procfs (through a symbolic link) is to be refused.
    pub in_proc: bool,
    /// Copy what the target directory held into the new tmpfs.
    pub copy_up: bool,
    pub idmap: Option<Idmap>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// An existing file or tree of the host.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// With everything mounted below.
        recursive: bool,
        /// Bind a symbolic link itself (`src-nofollow`).
        nofollow: bool,
        /// If the source is a symbolic link, make the same one at the target instead (`copy-symlink`).
        copy_symlink: bool,
        /// Goes over /proc: the source must be the root of a procfs (CVE-2019-16884).
        procfs: bool,
        /// It lies below the rootfs, at this path from the container's root, and is looked up there when its turn comes.
        inside: Option<String>,
    },
    /// A file system of its own.
    Fs {
        /// Type, `tmpfs`.
        fstype: String,
        /// Device or dummy name; `None` leaves it out.
        source: Option<String>,
        /// Parameters for fsconfig(2): key and, unless it is a flag, value.
        options: Vec<(String, Option<String>)>,
        /// A tmpfs without `mode=`: takes the mode of the directory it covers, if that exists.
        mode_of_target: bool,
    },
}

/// MOUNT_ATTR_* bits (linux/mount.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    pub set: u64,
    pub clear: u64,
    /// To clear as well, but for what a user namespace has locked (docs/mount-flags.md).
    pub implied: u64,
}

impl Attrs {
    /// These set, and nothing else changed.
    #[must_use]
    pub(crate) const fn sets(set: u64) -> Attrs {
        Attrs { set, clear: 0, implied: 0 }
    }
}

/// One propagation change (mount(2): MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// The MS_* flag.
    pub flag: u64,
    /// For the whole tree.
    pub recursive: bool,
}

/// The id mapping of one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idmap {
    /// Of user ids; empty means the container's user namespace.
    pub uid: Vec<IdMapping>,
    /// Of group ids.
    pub gid: Vec<IdMapping>,
    /// For the whole tree (`ridmap`).
    pub recursive: bool,
}

/// `mountLabel`, checked.
///
/// # Errors
/// It holds a NUL.
pub(crate) fn label(spec: &Spec) -> Result<Option<&str>> {
    let label = filled(spec.linux.mount_label.as_deref());
    label.map(|label| plain("/linux/mountLabel", label)).transpose()
}

/// Decides every mount, in the configuration's order; late remounts last.
///
/// # Errors
/// Mounts without a mount namespace, impossible sources, targets in /proc, mappings that do not read.
pub(crate) fn decide_mounts(
    spec: &Spec,
    context: &MountContext,
    warnings: &mut Vec<String>,
) -> Result<Vec<MountStep>> {
    let on_host = on_host(context.namespaces, context.facts);
    if !spec.mounts.is_empty() && !context.namespaces.has(NsKind::Mount) && !on_host {
        let text = "unable to mount without a private MNT namespace, and without power over the runtime's";
        return Err(Error::invalid("/mounts", text));
    }
    let mut steps = Vec::with_capacity(spec.mounts.len());
    for (index, mount) in spec.mounts.iter().enumerate() {
        let reading = read::Reading::new(mount, index, spec, context, warnings)?;
        reading.steps(&mut steps, warnings)?;
    }
    // Stable: everything else stays in its order.
    steps.sort_by_key(|step| matches!(step, MountStep::Remount { late: true, .. }));
    Ok(steps)
}

/// Whether the container's mounts are the runtime's as well: it has no mount namespace of its own, and its first process
/// may mount in the runtime's.
#[must_use]
pub(crate) fn on_host(namespaces: &Namespaces, facts: &Facts) -> bool {
    !namespaces.has(NsKind::Mount) && !namespaces.has(NsKind::User) && facts.is_admin() && facts.copies_mounts
}

/// Mounts that only somebody with power over the file system can make.
///
/// # Errors
/// `Kind::Unsupported` for an id-mapped mount if the stage copies the mounts (`copies_inside`).
pub(crate) fn without_privilege(steps: &[MountStep], copies_inside: bool) -> Result<()> {
    let mapped = |step: &&MountStep| matches!(step, MountStep::Mount(mount) if mount.idmap.is_some());
    match steps.iter().find(mapped) {
        Some(MountStep::Mount(mount)) if copies_inside => {
            let text = "an id-mapped mount needs CAP_SYS_ADMIN over its file system, which is not to be had without root";
            Err(Error::invalid(&mount.at, text).with_kind(Kind::Unsupported))
        }
        _ => Ok(()),
    }
}

/// One more mount, for the notification socket: the directory of it below the container's own, `state`.
pub(crate) fn notify(steps: &mut Vec<MountStep>, state: &Path) {
    let source = MountSource::Bind {
        path: state.join(NOTIFY_DIRECTORY),
        recursive: false,
        nofollow: true,
        copy_symlink: false,
        procfs: false,
        inside: None,
    };
    const SET: u64 =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let mount = Mount {
        at: String::new(),
        target: NOTIFY_INSIDE.to_owned(),
        source,
        attrs: Attrs::sets(SET),
        recursive: Attrs::default(),
        propagation: Vec::new(),
        nofollow: false,
        over_symlink: false,
        in_proc: false,
        copy_up: false,
        idmap: None,
    };
    // Before what has to come last.
    let end = steps.iter().position(|step| matches!(step, MountStep::Remount { late: true, .. }));
    steps.insert(end.unwrap_or(steps.len()), MountStep::Mount(mount));
}

/// Whether the configuration brings its own /dev along, in which nothing is to be made.
#[must_use]
pub(crate) fn binds_dev(steps: &[MountStep]) -> bool {
    let binds = |step: &MountStep| match step {
        MountStep::Mount(mount) => mount.target == "/dev" && matches!(mount.source, MountSource::Bind { .. }),
        _ => false,
    };
    steps.iter().any(binds)
}
