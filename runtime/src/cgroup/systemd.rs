// SPDX-License-Identifier: Apache-2.0
//! systemd as the maker of groups: a transient unit is started, changed, and stopped. What the unit is stands in `unit`.
//!
//! A scope cannot be without a process, and a container's must exist before anything is born in it: its limits are to
//! hold from the first instruction, and mounts may name it. So a [`Holder`] keeps it until then (decisions/0015). One
//! StartTransientUnit with everything in it, and the end of its job, is all that is said at a create: no property is read,
//! none is set before an `update` changes a limit, and the group's path is asked of the kernel.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use corten_dbus::{Address, Answer, Argument, Bus, BusError, Value, addresses};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::probe::Version;
use super::properties::Property;
use super::record;
use super::unit::Unit;
use crate::error::{Error, Kind, Result};
use crate::procfs;
use crate::sys;

/// What systemd calls a unit that is there already, or is not.
const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const MISSING: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// How it refuses a property that it does not know, or a value that is new to it.
const REFUSED_PROPERTY: [&str; 3] = [
    "org.freedesktop.DBus.Error.PropertyReadOnly",
    "org.freedesktop.DBus.Error.UnknownProperty",
    "org.freedesktop.DBus.Error.InvalidArgs",
];

/// runc's words: clients and its own tests look for them.
const ABSENT: &str = "systemd not running on this host, cannot use systemd cgroups manager";

/// A connection to systemd, whose errors are ours.
#[derive(Debug)]
struct Systemd(Bus);

impl Systemd {
    /// As who we are; in a user namespace, as whom the kernel says that we are.
    fn connect(addresses: &[Address]) -> Result<Systemd> {
        let uid = (!sys::ns::in_user_namespace()).then(|| rustix::process::geteuid().as_raw());
        Bus::connect(addresses, uid).map(Systemd).map_err(no_answer)
    }

    fn call(&mut self, member: &'static str, arguments: &[Argument<'_>]) -> Result<Answer> {
        self.0.call(member, arguments).map_err(no_answer)
    }

    fn job(&mut self, path: &str) -> Result<String> {
        self.0.job(path).map_err(no_answer)
    }
}

fn no_answer(error: BusError) -> Error {
    match error {
        BusError::Absent { .. } => Error::new(Kind::Unsupported, error.to_string()).at(ABSENT),
        BusError::Peer { name, text } => Error::new(Kind::Peer, text).at(name),
        BusError::Call { call, errno: errno @ Errno::TIMEDOUT } => {
            Error::os(call, errno).with_kind(Kind::Peer).at("systemd does not answer")
        }
        BusError::Call { call, errno } => Error::os(call, errno),
    }
}

fn pairs(properties: &[Property]) -> Vec<(&str, &Value)> {
    properties.iter().map(|property| (property.name, &property.value)).collect()
}

/// A process that keeps a scope until the container is in it: it only sleeps, and ends with this object or this process.
#[derive(Debug)]
pub(super) struct Holder {
    pid: i32,
    pidfd: OwnedFd,
}

impl Holder {
    fn new() -> Result<Holder> {
        let (pid, pidfd) = sys::clone::sleeper(0)?;
        Ok(Holder { pid, pidfd })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have been killed with the group; it is to be reaped in any case.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = sys::wait::reap(self.pidfd.as_fd());
    }
}

/// Starts `unit`; a scope with a holder in it, and the path of its group as the kernel tells it.
///
/// # Errors
/// `Kind::Unsupported` without systemd; `Kind::Peer` when it refuses or does not answer in time.
pub(super) fn start(unit: &Unit, version: Version) -> Result<Option<(Holder, String)>> {
    start_at(&addresses(unit.record.user), unit, version)
}

fn start_at(addresses: &[Address], unit: &Unit, version: Version) -> Result<Option<(Holder, String)>> {
    let mut bus = Systemd::connect(addresses)?;
    let holder = unit.is_scope().then(Holder::new).transpose()?;
    let pids = holder.as_ref().map(|holder| Property {
        name: "PIDs",
        value: Value::Array("u".into(), vec![Value::U32(holder.pid.unsigned_abs())]),
        newer: false,
    });
    let properties = pids.iter().chain(&unit.base).chain(&unit.limits).cloned().collect();
    if let Err(error) = start_transient_unit(&mut bus, &unit.record.name, properties) {
        // Without its process the unit ends by itself; failed, it would hold the name. Who does not answer is not asked.
        drop(holder);
        if error.errno().is_none() {
            let _ = bus.call("ResetFailedUnit", &[Argument::Text(&unit.record.name)]);
        }
        return Err(error);
    }
    match holder {
        Some(holder) => {
            let path = group_of(holder.pid, &unit.record.name, version)?;
            Ok(Some((holder, path)))
        }
        None => Ok(None),
    }
}

fn start_transient_unit(bus: &mut Systemd, name: &str, mut properties: Vec<Property>) -> Result<()> {
    let (mut reset, mut without) = (false, false);
    loop {
        let pairs = pairs(&properties);
        let arguments = [
            Argument::Text(name),
            Argument::Text("replace"),
            Argument::Properties(&pairs),
            Argument::NoUnits,
        ];
        match bus.call("StartTransientUnit", &arguments)? {
            Answer::Done(job) => return wait_for_job(bus, name, &job, "StartTransientUnit"),
            // A failed one of an earlier container, or one that is just about to go.
            Answer::Refused { name: error, .. } if error == EXISTS && !reset => {
                reset = true;
                bus.call("ResetFailedUnit", &[Argument::Text(name)])?;
            }
            // An older systemd: the files say the same afterwards.
            Answer::Refused { name: error, .. } if may_be_older(&error, &properties) && !without => {
                without = true;
                properties.retain(|property| !property.newer);
            }
            Answer::Refused { name: error, text } => {
                return Err(refusal_error("StartTransientUnit", name, &error, &text));
            }
        }
    }
}

fn may_be_older(error: &str, properties: &[Property]) -> bool {
    REFUSED_PROPERTY.contains(&error) && properties.iter().any(|property| property.newer)
}

fn wait_for_job(bus: &mut Systemd, name: &str, job: &str, call: &str) -> Result<()> {
    match bus.job(job)?.as_str() {
        "done" => Ok(()),
        result => {
            let text = format!("systemd: {call}({name}): the job ended with {result:?}");
            Err(Error::new(Kind::Peer, text))
        }
    }
}

fn refusal_error(call: &str, name: &str, error: &str, text: &str) -> Error {
    Error::new(Kind::Peer, format!("systemd: {call}({name}): {error}: {text}"))
}

/// Where the holder is: that is the unit's group, whatever was expected.
fn group_of(pid: i32, name: &str, version: Version) -> Result<String> {
    let text = procfs::read(&format!("/proc/{pid}/cgroup"))?;
    let path = path_in(&text, version).unwrap_or_default();
    match path.strip_suffix(name).is_some_and(|slice| slice.ends_with('/')) {
        true => Ok(path.to_owned()),
        false => {
            Err(Error::new(Kind::Peer, format!("systemd has started {name}, but its process is in {path:?}")))
        }
    }
}

/// The path in /proc/PID/cgroup: of the unified hierarchy, or of systemd's own one.
fn path_in(text: &str, version: Version) -> Option<&str> {
    let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
    let named = text.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path));
    if version == Version::V2 { unified } else { named.or(unified) }
}

/// Tells systemd what an update changes.
///
/// # Errors
/// As [`start`].
pub(super) fn set_properties(unit: &record::UnitRecord, properties: &[Property]) -> Result<()> {
    let mut bus = Systemd::connect(&addresses(unit.user))?;
    let mut properties = properties.to_vec();
    loop {
        // At run time: the unit has no file that could be changed.
        let pairs = pairs(&properties);
        let arguments =
            [Argument::Text(&unit.name), Argument::Value(&Value::Bool(true)), Argument::Properties(&pairs)];
        match bus.call("SetUnitProperties", &arguments)? {
            Answer::Done(_) => return Ok(()),
            Answer::Refused { name, .. } if may_be_older(&name, &properties) => {
                properties.retain(|property| !property.newer);
            }
            Answer::Refused { name, text } => {
                return Err(refusal_error("SetUnitProperties", &unit.name, &name, &text));
            }
        }
    }
}

/// Stops a unit whose processes are gone, and waits until its name is free. One that has gone by itself is fine.
///
/// # Errors
/// As [`start`].
pub(super) fn stop(unit: &record::UnitRecord) -> Result<()> {
    let mut bus = Systemd::connect(&addresses(unit.user))?;
    match bus.call("StopUnit", &[Argument::Text(&unit.name), Argument::Text("replace")])? {
        // However the job ended: what is left shows when the group is removed.
        Answer::Done(job) => drop(bus.job(&job)?),
        Answer::Refused { name, .. } if name == MISSING => return Ok(()),
        Answer::Refused { name, text } => return Err(refusal_error("StopUnit", &unit.name, &name, &text)),
    }
    if unit.keeps_failed {
        bus.call("ResetFailedUnit", &[Argument::Text(&unit.name)])?;
    }
    Ok(())
}

/// Makes systemd forget that the unit, which has ended by itself, has failed.
///
/// # Errors
/// When systemd cannot be asked.
pub(super) fn reset_failed(unit: &record::UnitRecord) -> Result<()> {
    let mut bus = Systemd::connect(&addresses(unit.user))?;
    bus.call("ResetFailedUnit", &[Argument::Text(&unit.name)]).map(drop)
}

/// Has systemd move a process into the unit's group, or into `below` it: a user may not move one from a group that is
/// not his, his manager can have it done.
///
/// # Errors
/// As [`start`].
pub(super) fn attach_process(unit: &record::UnitRecord, below: &str, pid: i32) -> Result<()> {
    let mut bus = Systemd::connect(&addresses(unit.user))?;
    let pids = Value::Array("u".into(), vec![Value::U32(pid.unsigned_abs())]);
    let below = if below.is_empty() { String::new() } else { format!("/{}", below.trim_matches('/')) };
    let arguments = [Argument::Text(&unit.name), Argument::Text(&below), Argument::Value(&pids)];
    match bus.call("AttachProcessesToUnit", &arguments)? {
        Answer::Done(_) => Ok(()),
        Answer::Refused { name, text } => {
            Err(refusal_error("AttachProcessesToUnit", &unit.name, &name, &text))
        }
    }
}

#[cfg(test)]
mod tests;
