// SPDX-License-Identifier: Apache-2.0
//! What this host is and can do, as plain data: the second input of the plan.
//!
//! Probing is cheap (a handful of system calls) and never fails for lack of a feature. Only what one configuration names is
//! looked at for it alone, and last: `mounts`, `within`.

#![forbid(unsafe_code)]

pub mod ids;
mod mounted;
pub(crate) mod paths;
mod permitted;
mod within;

pub use ids::IdMaps;
pub use permitted::Permitted;
pub(crate) use within::is_bind;

use std::collections::BTreeMap;
use std::path::Path;

use crate::cgroup::Hierarchies;
use crate::error::Result;
use crate::procfs;
use crate::spec::Spec;

/// What `Plan::new` may know about the host.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Effective user id of this process.
    pub euid: u32,
    /// This process is in a user namespace other than the initial one.
    pub in_userns: bool,
    /// Effective group id of this process.
    pub egid: u32,
    /// The effective capabilities, bit n = capability n: over this process's own user namespace.
    pub effective: u64,
    /// This process may copy mounts: CAP_SYS_ADMIN over its mount namespace, which root of a user namespace has only
    /// if the mount namespace is that user namespace's as well (`unshare -Ur` alone makes none).
    pub copies_mounts: bool,
    /// setgroups(2) is denied in this process's user namespace, and so in all that it makes (user_namespaces(7)).
    pub setgroups_denied: bool,
    /// The mappings of this process's user namespace; `None` in the initial one.
    pub ids: Option<IdMaps>,
    /// The directories, absolute, in which this process may make control groups and place processes in them; `None`
    /// for root of the initial user namespace, which may in all. Only those are looked at where a group goes by default.
    pub delegated: Option<Vec<String>>,
    /// The signals that this process ignores, bit n - 1 = signal n: execve(2) would keep them so. All where it cannot be known.
    pub ignored: u64,
    /// The kernel's last capability number (`CAP_LAST_CAP`).
    pub last_cap: u32,
    /// The capabilities that this process can hand on, bit n = capability n.
    pub grantable: u64,
    /// AppArmor is enabled.
    pub apparmor: bool,
    pub selinux: bool,
    /// The mounted control groups and our place in them.
    pub cgroups: Hierarchies,
    /// The kernel has mount_setattr(2) (Linux 5.12).
    pub mount_setattr: bool,
    /// Mount points below /sys, each after those that it lies in; probed only where `mount_setattr` is missing, and one
    /// mount after the other has to be changed.
    pub below_sys: Vec<String>,
    /// Mount points that lie in no other mount but the root, one entry for each mount: what is to be taken away where
    /// the host's tree stays below (`--no-pivot`). Probed only then.
    pub mounts: Vec<String>,
    /// Bind sources that lie below the rootfs, by the index of the mount: as paths from the container's root.
    pub within: BTreeMap<usize, String>,
    /// What the host's administrator lets annotations do. Looked up only for a configuration that has some which need it.
    pub permitted: Permitted,
}

impl Facts {
    /// Probes the host.
    ///
    /// # Errors
    /// Only when /proc cannot be read at all.
    pub(crate) fn probe() -> Result<Self> {
        Self::beside(Hierarchies::probe()?)
    }

    /// The same without a look at the control groups: for a process that goes into some that are known.
    ///
    /// # Errors
    /// As [`Facts::probe`].
    pub(crate) fn of_process() -> Result<Self> {
        Self::beside(Hierarchies::unseen())
    }

    fn beside(cgroups: Hierarchies) -> Result<Self> {
        let euid = rustix::process::geteuid();
        let in_userns = crate::sys::ns::in_user_namespace();
        let unprivileged = cgroups.user.is_some();
        let mount_setattr = crate::sys::mount::has_set_attr();
        Ok(Facts {
            euid: euid.as_raw(),
            egid: rustix::process::getegid().as_raw(),
            in_userns,
            effective: rustix::thread::capabilities(None).map_or(0, |sets| sets.effective.bits()),
            copies_mounts: !unprivileged || crate::sys::mount::may_copy(),
            setgroups_denied: in_userns && ids::setgroups_denied("self")?,
            ids: in_userns.then(ids::own).transpose()?,
            delegated: unprivileged.then(|| cgroups.delegated()),
            ignored: ignored_signals(),
            last_cap: last_cap(),
            grantable: grantable(),
            apparmor: std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|on| on.starts_with(b"Y")),
            selinux: rustix::fs::access("/sys/fs/selinux/status", rustix::fs::Access::EXISTS).is_ok(),
            cgroups,
            mount_setattr,
            below_sys: if mount_setattr { Vec::new() } else { mounted::below_sys()? },
            mounts: Vec::new(),
            within: BTreeMap::new(),
            permitted: Permitted::default(),
        })
    }

    /// Also looks where groups may be made if `rootless` (`--rootless=true`) says that this is to be taken into account.
    #[must_use]
    pub(crate) fn for_rootless(mut self, rootless: Option<bool>) -> Self {
        if rootless == Some(true) && self.delegated.is_none() {
            self.delegated = Some(self.cgroups.delegated());
        }
        self
    }

    /// Whether a process of this one's may do what root may with the mounts and namespaces around it.
    #[must_use]
    pub(crate) fn is_admin(&self) -> bool {
        self.can(CAP_SYS_ADMIN)
    }

    /// Whether the capability is in force.
    #[must_use]
    pub(crate) fn can(&self, capability: u32) -> bool {
        self.effective >> capability & 1 == 1
    }

    /// Looks where the sources of its binds are: nothing, unless it has one that is not the first mount.
    pub(crate) fn probe_sources(&mut self, spec: &Spec, bundle: &Path) {
        self.within = within::sources(spec, bundle);
    }

    /// Probes what only a container without pivot_root(2) needs to know.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub(crate) fn probe_mounts(&mut self) -> Result<()> {
        self.mounts = mounted::outermost(&procfs::read("/proc/thread-self/mountinfo")?);
        Ok(())
    }
}

/// capabilities(7), by their numbers in linux/capability.h.
pub(crate) const CAP_SETGID: u32 = 6;
/// See [`CAP_SETGID`].
pub(crate) const CAP_SETUID: u32 = 7;
/// See [`CAP_SETGID`].
pub(crate) const CAP_SYS_ADMIN: u32 = 21;

/// proc_pid_status(5): four calls in place of one for each signal.
fn ignored_signals() -> u64 {
    let status = procfs::read("/proc/self/status").unwrap_or_default();
    let ignored = |line: &str| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok();
    status.lines().find_map(ignored).unwrap_or(u64::MAX)
}

/// capabilities(7): PR_CAPBSET_READ answers EINVAL beyond the last one. CAP_CHECKPOINT_RESTORE (40) has been the
/// last since Linux 5.9, so this asks twice on every kernel so far.
fn last_cap() -> u32 {
    let known = |cap| crate::sys::prctl::bounding_set_has(cap).is_some();
    let mut last = 40;
    while last < 63 && known(last + 1) {
        last += 1;
    }
    while last > 0 && !known(last) {
        last -= 1;
    }
    last
}

/// What root holds, it can hand on; for everybody else (`corten plan`) nothing is ruled out.
fn grantable() -> u64 {
    match rustix::thread::capabilities(None) {
        Ok(sets) if rustix::process::geteuid().is_root() => sets.permitted.bits(),
        _ => u64::MAX,
    }
}
