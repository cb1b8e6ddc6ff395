// SPDX-License-Identifier: Apache-2.0
//! What is kept about a container, and how it is told.
//!
//! A container is a directory `<root>/<id>`: `state.json` (written whole, to a temporary name, and renamed),
//! `config.json` (the bundle's, byte for byte, as it was at create) and `gate` (the socket at which the stage
//! waits; gone once started). mkdir(2) takes the id; flock(2) on the directory orders the verbs. The state
//! "creating" is written before anything else is made, so that `delete` can undo a create that died at any point.

#![forbid(unsafe_code)]

mod dir;
mod id;
mod whole;

pub(crate) use dir::{Dir, Root};
pub use id::check_id;
pub(crate) use whole::{read_all, write_all};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::error::{Error, Kind, Result};
use crate::spec::Resources;

/// The version of the OCI runtime specification that Corten implements.
pub(crate) const OCI_VERSION: &str = "1.3.0";

/// The directory of the notification socket (sd_notify(3)) below the container's, which is bound into the container.
pub(crate) const NOTIFY_DIRECTORY: &str = "notify";
/// The socket's name in there.
pub(crate) const NOTIFY_SOCKET: &str = "notify.sock";

/// What state.json holds. Unknown fields are ignored, so that an older Corten reads a newer one's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Layout of this file.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// When, RFC 3339.
    pub created: String,
    /// Who, as a user id.
    pub owner: u32,
    /// The configuration's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The control group.
    pub cgroup: cgroup::Record,
    /// Made without pivot_root.
    #[serde(default)]
    pub no_pivot: bool,
    /// Has no session keyring of its own.
    #[serde(default)]
    pub no_keyring: bool,
    /// The name of its session keyring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<String>,
    /// Descriptors kept from 3 on.
    #[serde(default)]
    pub keep_fds: u32,
    /// Of those, the socket-activation ones.
    #[serde(default)]
    pub listen_fds: u32,
    /// The configuration has a process: `start` is possible.
    #[serde(default)]
    pub process: bool,
    /// The configuration has poststart hooks.
    #[serde(default)]
    pub poststart: bool,
    /// The configuration has poststop hooks.
    #[serde(default)]
    pub poststop: bool,
    /// The resources in force, once an `update` has changed them; until then they are those of config.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Its groups in resctrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<ResctrlGroups>,
    /// What it has mounted in the runtime's mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<OwnMount>,
    /// Init; `None` while the container is being created.
    pub init: Option<Identity>,
}

/// What a container has in resctrl, the file system of Intel RDT (Linux: Documentation/filesystems/resctrl.rst).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResctrlGroups {
    /// The directories whose `tasks` its processes are in: the class, then the monitoring group.
    pub groups: Vec<PathBuf>,
    /// Of those, the ones that go with the container.
    pub owned: Vec<PathBuf>,
    /// All that this create makes, to be removed should it fail.
    #[serde(skip)]
    pub made: Vec<PathBuf>,
}

/// The mount that a container without a mount namespace of its own has in the runtime's (`host/own_mount.rs`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnMount {
    /// Where it is attached, absolute.
    pub(crate) path: PathBuf,
    /// Its number in /proc/self/mountinfo, which a later mount may have again.
    pub(crate) number: u64,
    /// Its unique number; 0 before Linux 6.8.
    pub(crate) unique: u64,
    /// Major and minor number of its file system.
    pub(crate) device: (u32, u32),
    /// The boot it belongs to.
    pub(crate) boot_id: String,
}

/// A process, told apart from a later one with the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Pid in the pid namespace of the creator.
    pub pid: i32,
    /// Inode of its pidfd: unique for a boot since Linux 6.9; 0 before that.
    pub inode: u64,
    /// Start time in clock ticks since boot (proc_pid_stat(5), field 22), where there is no such inode.
    pub start_time: u64,
    /// The boot it belongs to.
    pub boot_id: String,
}

/// A container's status as `state` and `list` tell it, in the order of runc's fields (compatibility J1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the specification.
    pub oci_version: &'static str,
    /// The id.
    pub id: String,
    /// Init's pid; 0 when stopped.
    pub pid: i32,
    /// creating, created, running, paused or stopped.
    pub status: &'static str,
    /// The bundle, absolute.
    pub bundle: String,
    /// The root file system, absolute.
    pub rootfs: String,
    /// When, RFC 3339 with nanoseconds.
    pub created: String,
    /// The configuration's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Name of the user who created it, or the uid; `state` leaves it empty, as runc does.
    pub owner: String,
}

impl State {
    /// Reads the bytes of a state.json, and refuses what no `create` writes: verbs kill by it and remove by it.
    ///
    /// # Errors
    /// `Kind::Invalid` with the field.
    pub fn read(bytes: &[u8]) -> Result<State> {
        let wrong =
            |field: &str, text: &str| Err(Error::new(Kind::Invalid, text.to_owned()).at(format!("/{field}")));
        let state: State =
            serde_json::from_slice(bytes).map_err(|error| Error::new(Kind::Invalid, error.to_string()))?;
        if state.version != 1 {
            return wrong("version", &format!("layout {} is not known", state.version));
        }
        if check_id(&state.id).is_err() {
            return wrong("id", "invalid container ID format");
        }
        if state.listen_fds > state.keep_fds {
            return wrong("listenFds", "more than keepFds, which they are part of");
        }
        if state.init.as_ref().is_some_and(|init| init.pid <= 0) {
            return wrong("init/pid", "not the number of a process");
        }
        match state.cgroup.fault() {
            Some(text) => wrong("cgroup", text),
            None => Ok(state),
        }
    }
}

/// The state that a hook reads on stdin (runtime.md#state), without its pid: the text before and after it.
pub fn hook_state(
    id: &str,
    status: &str,
    bundle: &Path,
    annotations: &BTreeMap<String, String>,
) -> (String, String) {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let before =
        format!("{{\"ociVersion\":\"{OCI_VERSION}\",\"id\":{},\"status\":\"{status}\",\"pid\":", quote(id));
    let annotations = serde_json::to_string(annotations).unwrap_or_default();
    let after = format!(",\"bundle\":{},\"annotations\":{annotations}}}", quote(&bundle.to_string_lossy()));
    (before, after)
}

/// Now, as RFC 3339 in UTC with nanoseconds.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_secs(), since.subsec_nanos())
}

/// Seconds since the epoch as a date: the civil calendar counted in eras of 400 years that begin in March.
fn rfc3339(seconds: u64, nanoseconds: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second % 3_600 / 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{nanoseconds:09}Z", second % 60)
}

#[cfg(test)]
mod tests;
