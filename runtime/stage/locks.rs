// SPDX-License-Identifier: Apache-2.0
//! Flags of a mount that a user namespace has locked (mount_namespaces(7)): what is tried without them, and which one it
//! was. Pure; used by the stage and by the host's side (`host/sources.rs`), which change mounts by the same rule
//! (docs/mount-flags.md).

/// An access time that cannot be had, as a bit beside the flags': MOUNT_ATTR_NOATIME.
pub const ATIME: u64 = 0x10;
/// MOUNT_ATTR_NODIRATIME.
pub const NODIRATIME: u64 = 0x80;

/// MOUNT_ATTR__ATIME: all values of the access time.
const ATIMES: u64 = 0x70;
/// Read-only, nosuid, nodev and noexec: the same bits for mount_setattr(2) and statfs(2).
const FLAGS: u64 = 0xf;
/// MOUNT_ATTR_NOSYMFOLLOW (Linux 5.14), which is never locked.
const NOSYMFOLLOW: u64 = 0x20_0000;

/// After mount_setattr(2) has failed with `errno`: which of the flags that nobody asked for, and that were to be cleared
/// all the same (`implied`), are left to try with. `None`: it was not them.
pub const fn implied_after(errno: i32, implied: u64) -> Option<u64> {
    let left = match errno {
        1 /* EPERM */ => implied & NOSYMFOLLOW,
        22 /* EINVAL */ => implied & !NOSYMFOLLOW,
        _ => return None,
    };
    if left == implied { None } else { Some(left) }
}

/// Which flags of a mount that has `held` (ST_* of statfs(2)) a change may not have, as MOUNT_ATTR_* bits. For a whole
/// tree all that the change would take away: the mount in question may be anywhere in it.
pub const fn locked(held: u64, set: u64, clear: u64, tree: bool) -> u64 {
    const ST_NOATIME: u64 = 0x400;
    const ST_NODIRATIME: u64 = 0x800;
    const ST_RELATIME: u64 = 0x1000;
    if tree {
        return clear & (FLAGS | NODIRATIME) | if clear & ATIMES == 0 { 0 } else { ATIME };
    }
    let atime = match (held & ST_NOATIME, held & ST_RELATIME) {
        (0, 0) => 0x20,
        (0, _) => 0,
        _ => 0x10,
    };
    let other_atime = clear & ATIMES != 0 && set & ATIMES != atime;
    let nodiratime = held & ST_NODIRATIME != 0;
    let other_nodiratime = if nodiratime { clear & NODIRATIME != 0 } else { set & NODIRATIME != 0 };
    held & clear & FLAGS | if other_atime { ATIME } else { 0 } | if other_nodiratime { NODIRATIME } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_is_given_up_and_nothing_else() {
        assert_eq!(implied_after(1, 0xf), Some(0));
        assert_eq!(implied_after(1, 0x20_000f), Some(NOSYMFOLLOW));
        assert_eq!(implied_after(1, NOSYMFOLLOW), None);
        assert_eq!(implied_after(1, 0), None);
        assert_eq!(implied_after(22, 0x20_000f), Some(0xf));
        assert_eq!(implied_after(22, 0xf), None);
        assert_eq!(implied_after(2, 0xf), None);
    }

    #[test]
    fn the_flag_is_named() {
        // held, set, clear, named
        for (held, set, clear, want) in [
            (0x1003, 0, 0x1, 0x1),
            (0x1003, 0, 0xf, 0x3),
            (0x1000, 0x10, 0x70, ATIME),
            (0x0400, 0, 0x70, ATIME),
            (0x0000, 0x20, 0x70, 0),
            (0x1000, 0x80, 0x70, NODIRATIME),
            (0x1c00, 0, 0x80, NODIRATIME),
            (0x1000, 0, 0x80, 0),
        ] {
            assert_eq!(locked(held, set, clear, false), want, "{held:#x} {set:#x} {clear:#x}");
        }
        assert_eq!(locked(0, 0x10, 0x71, true), 0x11);
    }
}
