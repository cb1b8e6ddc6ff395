// SPDX-License-Identifier: Apache-2.0
//! Writing a plan's limits and device rules into groups that exist, and telling systemd of them.

#![forbid(unsafe_code)]

use super::Group;
use crate::cgroup::decide::{DevicePlan, GroupPlan, Write, missing};
use crate::cgroup::probe::Version;
use crate::cgroup::{systemd, v1, v2};
use crate::error::{Error, Result, WithStep};

impl Group {
    /// Writes the limits of `plan`. To be called before any process is in.
    ///
    /// # Errors
    /// `Kind::Unsupported` for a limit without a file, `Kind::Os` for a value the kernel refuses; both name the
    /// limit's JSON pointer.
    pub fn apply_limits(&self, plan: &GroupPlan) -> Result<()> {
        let mut again = Vec::new();
        for write in &plan.writes {
            match self.write(write) {
                // Some files are refused in one order and taken in the other, depending on what they hold: memory and
                // memory+swap, quota, period and burst.
                Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EBUSY)) => again.push(write),
                other => other?,
            }
        }
        again.into_iter().try_for_each(|write| self.write(write))
    }

    /// Puts device rules on the group that takes them, if there is one. A create calls it before anything of the container's runs
    /// in there.
    ///
    /// # Errors
    /// `Kind::Os` naming the call, at /linux/resources/devices.
    pub fn apply_devices(&self, rules: &DevicePlan) -> Result<()> {
        let group = || self.group_of("devices");
        match rules {
            DevicePlan::None => Ok(()),
            DevicePlan::Lines(lines) => group()?.map_or(Ok(()), |(_, dir)| v1::devices(dir, lines)),
            DevicePlan::Program { policy, insns } => {
                group()?.map_or(Ok(()), |(fresh, dir)| v2::devices(dir, fresh, policy, insns))
            }
        }
    }

    /// Tells systemd the limits and device rules of `plan`, lest it writes older ones one day. Without a unit there is
    /// nothing to tell. They are to be written exactly afterwards.
    ///
    /// # Errors
    /// `Kind::Peer` when systemd refuses or does not answer in time; it then has changed nothing.
    pub(crate) fn set_properties(&self, plan: &GroupPlan) -> Result<()> {
        let (Some(unit), Some(wanted)) = (&self.record.unit, &plan.unit) else { return Ok(()) };
        // On v1 systemd takes all devices away for a moment before it gives some back: the container must not see it.
        let devices =
            self.record.version == Version::V1 && wanted.limits.iter().any(|p| p.name == "DeviceAllow");
        let freeze = devices && self.record.index_of("freezer").is_some() && !self.is_frozen()?;
        if freeze {
            self.freeze(true)?;
        }
        let set = systemd::set_properties(unit, &wanted.limits);
        if freeze {
            self.freeze(false)?;
        }
        set
    }

    fn write(&self, write: &Write) -> Result<()> {
        let Some((fresh, dir)) = self.group_of(&write.controller)? else {
            return Err(missing(write, "it is not mounted"));
        };
        if write.kernel_default && fresh {
            return Ok(());
        }
        let absent = |error: &Error| error.errno() == Some(libc::ENOENT);
        let value = if self.held && needs_room(write) { "2" } else { &write.value };
        let mut written = dir.write(&write.file, value);
        if let (Err(error), Some((file, value))) = (&written, &write.or)
            && absent(error)
        {
            written = dir.write(file, value);
        }
        match written {
            Err(error) if absent(&error) && (write.optional || write.kernel_default) => Ok(()),
            Err(error) if absent(&error) => Err(missing(write, "the kernel has no such file")),
            other => other
                .map_err(|error| error.advise_on(&[libc::EINVAL, libc::ERANGE, libc::EACCES], VALUE_ADVICE))
                .step(|| format!("config.json {}", write.at)),
        }
    }
}

/// What to do about a value that the kernel refuses.
const VALUE_ADVICE: &str =
    "the kernel takes no such value here: see what the host has, and what the group above is allowed";

/// A limit that leaves no room for a holder beside the first process.
pub(super) fn needs_room(write: &Write) -> bool {
    write.file == "pids.max" && write.value == "1"
}
