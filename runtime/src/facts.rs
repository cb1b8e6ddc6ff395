// SPDX-License-Identifier: Apache-2.0
//! What this host is and can do, as plain data: the second input of the plan.
//!
//! Probing is cheap (a handful of system calls) and never fails for lack of a feature. Nothing here depends on a
//! container.

#![forbid(unsafe_code)]

use crate::cgroup::Hierarchies;
use crate::error::{Context, Result};

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
    /// The kernel has mount_setattr(2) (Linux 5.12).
    pub mount_setattr: bool,
    /// Mount points that lie in no other mount but the root, one entry for each mount: what is to be taken away where
    /// the host's tree stays below (`--no-pivot`). Probed only then.
    pub mounts: Vec<String>,
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
            mount_setattr: crate::sys::mount::has_set_attr(),
            mounts: Vec::new(),
        })
    }

    /// Probes what only a container without pivot_root(2) needs to know.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn probe_mounts(&mut self) -> Result<()> {
        let path = "/proc/thread-self/mountinfo";
        let table = std::fs::read_to_string(path).call(|| format!("read({path})"))?;
        self.mounts = outermost(&table);
        Ok(())
    }
}

/// The mount points of a mountinfo table that have none but `/` above them.
fn outermost(table: &str) -> Vec<String> {
    let mut points: Vec<String> =
        table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect();
    points.retain(|point| point != "/");
    points.sort();
    let mut top: Vec<String> = Vec::new();
    for point in points {
        let below = |top: &String| point.strip_prefix(top.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if !top.iter().any(below) {
            top.push(point);
        }
    }
    top
}

/// proc_pid_mountinfo(5) writes blanks, tabs, newlines and backslashes as three octal digits.
pub(crate) fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let octal = text.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal.filter(|_| byte == b'\\') {
            Some(value) => {
                plain.push(value);
                at += 4;
            }
            None => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outermost_mounts_once_for_each() {
        let line = |at: &str| format!("1 1 0:1 / {at} rw - tmpfs tmpfs rw\n");
        let table: String =
            ["/", "/sys/fs/cgroup", "/proc", "/sys", "/sys-x", "/proc", "/a\\040b", "/proc/sys"]
                .map(line)
                .concat();
        assert_eq!(outermost(&table), ["/a b", "/proc", "/proc", "/sys", "/sys-x"]);
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
