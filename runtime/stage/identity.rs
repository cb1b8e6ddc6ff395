// SPDX-License-Identifier: Apache-2.0
//! Who the process is: ids and capabilities (credentials(7), capabilities(7)).

use super::sys::{self, Fault, Result};
use super::wire::kind;
use super::{Stage, fault};

/// Sets all group ids, then all user ids, keeping the permitted set until capset(2).
pub(super) fn set_ids(uid: u32, gid: u32) -> Result<()> {
    const PR_SET_KEEPCAPS: u32 = 8;
    sys::prctl(PR_SET_KEEPCAPS, 1, 0)?;
    sys::setresgid(gid)?;
    sys::setresuid(uid)
}

/// Drops from the bounding set whatever is not in `keep`.
pub(super) fn bound(keep: u64, last: u32) -> Result<()> {
    const PR_CAPBSET_DROP: u32 = 24;
    for capability in 0..=last {
        if keep >> capability & 1 == 0 {
            sys::prctl(PR_CAPBSET_DROP, u64::from(capability), 0)?;
        }
    }
    Ok(())
}

impl Stage {
    /// Raises ambient capabilities; one that cannot be raised is a warning (config.md: SHOULD NOT fail).
    pub(super) fn ambient(&self, set: u64) -> Result<()> {
        const PR_CAP_AMBIENT: u32 = 47;
        const RAISE: u64 = 2;
        const CLEAR_ALL: u64 = 4;
        sys::prctl(PR_CAP_AMBIENT, CLEAR_ALL, 0)?;
        for capability in (0..64).filter(|capability| set >> capability & 1 == 1) {
            if let Err(Fault { errno, .. }) = sys::prctl(PR_CAP_AMBIENT, RAISE, capability) {
                self.tell(kind::WARNING, fault(errno, capability as u32), &[]);
            }
        }
        Ok(())
    }
}
