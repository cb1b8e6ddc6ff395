// SPDX-License-Identifier: Apache-2.0
//! What this host is and can do, as plain data: the second input of the plan.
//!
//! Probing is cheap (a handful of system calls) and never fails for lack of a feature. Nothing here depends on a
//! container.

#![forbid(unsafe_code)]

use crate::cgroup::Hierarchies;
use crate::error::Result;

/// What `Plan::new` may know about the host.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Effective user id of this process.
    pub euid: u32,
    /// This process is in a user namespace other than the initial one.
    pub in_userns: bool,
    /// The kernel's last capability number (`CAP_LAST_CAP`).
    pub last_cap: u32,
    /// The capabilities that this process can hand on, bit n = capability n.
    pub grantable: u64,
    /// AppArmor is enabled.
    pub apparmor: bool,
    /// SELinux is enabled.
    pub selinux: bool,
    /// The mounted control groups and our place in them.
    pub cgroups: Hierarchies,
}

impl Facts {
    /// Probes the host.
    ///
    /// # Errors
    /// Only when /proc cannot be read at all.
    pub fn probe() -> Result<Self> {
        Ok(Facts {
            euid: rustix::process::geteuid().as_raw(),
            in_userns: crate::sys::ns::in_user_namespace(),
            last_cap: last_cap(),
            grantable: grantable(),
            apparmor: std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|on| on.starts_with(b"Y")),
            selinux: rustix::fs::access("/sys/fs/selinux/status", rustix::fs::Access::EXISTS).is_ok(),
            cgroups: Hierarchies::probe()?,
        })
    }
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
