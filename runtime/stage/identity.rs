// SPDX-License-Identifier: Apache-2.0
//! Who the process is: ids and capabilities (credentials(7), capabilities(7)).

use super::sys::{self, Fault, Result};
use super::wire::{Rec, RlimitRec, kind};
use super::{Stage, fault};

/// Sets all group ids, then all user ids, keeping the permitted set until capset(2).
pub(super) fn set_ids(uid: u32, gid: u32) -> Result<()> {
    const PR_SET_KEEPCAPS: u32 = 8;
    sys::prctl(PR_SET_KEEPCAPS, 1, 0)?;
    sys::setresgid(gid)?;
    sys::setresuid(uid)
}

/// Drops from the bounding set whatever is not in `keep`.
#[inline(never)]
pub(super) fn bound(keep: u64, last: u32) -> Result<()> {
    const PR_CAPBSET_DROP: u32 = 24;
    for capability in 0..=last {
        if keep >> capability & 1 == 0 {
            sys::prctl(PR_CAPBSET_DROP, u64::from(capability), 0)?;
        }
    }
    Ok(())
}

/// CAP_SYS_ADMIN's bit.
pub(super) const ADMIN: u64 = 1 << 21;

/// capset(2) of the record's sets, and what is lent besides.
pub(super) fn capset(rec: &Rec, lent: u64) -> Result<()> {
    sys::capset(rec.a | lent, rec.b | lent, u64::from(rec.s) | u64::from(rec.t) << 32)
}

/// CAP_SYS_ADMIN and nothing else.
pub(super) fn only_admin() -> Result<()> {
    sys::capset(ADMIN, ADMIN, 0)
}

impl Stage {
    /// Sets the supplementary groups. Where a user namespace denies that, the caller's stay, if so it must be (y).
    pub(super) fn groups(&self, rec: &Rec) -> Result<()> {
        match sys::setgroups(self.program.slice(rec.s, rec.x as usize)?) {
            Err(Fault { errno: sys::EPERM, .. }) if rec.y != 0 => Ok(()),
            other => other,
        }
    }

    /// First (with the privileges of root) hard limits are raised where they are too low; what is refused, because
    /// that takes CAP_SYS_RESOURCE in the initial user namespace, is left to the host. Second, just before the exec,
    /// the limits are set: lowering is everybody's right, and nothing of ours runs into them any more.
    #[inline(never)]
    pub(super) fn rlimits(&mut self, rec: &Rec) -> Result<()> {
        const RAISE: u16 = 1;
        let limits = self.program.slice::<RlimitRec>(rec.s, rec.x as usize)?;
        for (index, limit) in limits.iter().enumerate() {
            if rec.y != RAISE {
                // What is left to the host, it sets.
                if self.deferred >> index & 1 == 1 {
                    continue;
                }
                sys::rlimit(limit.resource, Some([limit.soft, limit.hard]))?;
                continue;
            }
            let [soft, hard] = sys::rlimit(limit.resource, None)?;
            if limit.hard <= hard {
                continue;
            }
            match sys::rlimit(limit.resource, Some([soft, limit.hard])) {
                Err(Fault { errno: sys::EPERM, .. }) => self.deferred |= 1 << index,
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Raises ambient capabilities; one that cannot be raised is a warning (config.md: SHOULD NOT fail).
    #[inline(never)]
    pub(super) fn ambient(&self, set: u64) -> Result<()> {
        const PR_CAP_AMBIENT: u32 = 47;
        const RAISE: u64 = 2;
        const CLEAR_ALL: u64 = 4;
        sys::prctl(PR_CAP_AMBIENT, CLEAR_ALL, 0)?;
        for capability in (0..64).filter(|capability| set >> capability & 1 == 1) {
            if let Err(Fault { errno, .. }) = sys::prctl(PR_CAP_AMBIENT, RAISE, capability) {
                let _ = self.tell(kind::WARNING, fault(errno, capability as u32), &[]);
            }
        }
        Ok(())
    }
}
