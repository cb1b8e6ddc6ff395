// SPDX-License-Identifier: Apache-2.0
//! Whether restored processes may do no more than the configuration allows: images come from anywhere.
//!
//! Asked while they are stopped. A container of the same configuration could have come to each of these states by itself, or it
//! is refused.

#![forbid(unsafe_code)]

mod mounts;

use std::os::unix::fs::MetadataExt;

use super::idmap;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::Plan;
use crate::plan::namespaces::NsKind;
use crate::plan::process::Process;
use crate::procfs;

/// linux/capability.h
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;

/// Compares init and everything that descends from it.
///
/// # Errors
/// `Kind::Invalid` with the first process that may do more, and what.
pub(super) fn compare(plan: &Plan, init: i32) -> Result<()> {
    // Its ids are the host's that the configuration says, whatever the images say.
    if let Some(ids) = &plan.ids
        && let Some(field) = idmap::difference(ids, &idmap::of_process(init)?)
    {
        let text = "the checkpoint's user namespace has other mappings";
        return Err(Error::invalid(format_args!("/linux/{field}"), text));
    }
    mounts::compare(plan, init)?;
    let fixed = mounts::are_fixed(plan).then(|| namespace_of(init, NsKind::Mount)).transpose()?;
    let allowed = Allowed::of(plan)?;
    for pid in descendants(init)? {
        let path = format!("/proc/{pid}/status");
        let text = match procfs::read(&path) {
            Err(error) if error.errno() == Some(libc::ENOENT) => continue,
            other => other?,
        };
        // One that has ended already can do nothing.
        if field(&text, "State:").is_some_and(|state| state.starts_with(['Z', 'X'])) {
            continue;
        }
        if let Some(more) = wider(plan, &text).or(namespaces(&allowed, pid)?).or(elsewhere(fixed, pid)?) {
            let name = field(&text, "Name:").unwrap_or_default();
            let text =
                format!("the checkpoint's process {pid} ({name}) {more}, which config.json does not allow");
            return Err(Error::new(Kind::Invalid, crate::error::printable(&text).into_owned()));
        }
    }
    Ok(())
}

/// A process and all that descend from it, by what their threads say: the list is whole, because none of them runs (proc_pid_task(5);
/// CRIU needs CONFIG_PROC_CHILDREN itself).
fn descendants(init: i32) -> Result<Vec<i32>> {
    let mut found = vec![init];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let path = format!("/proc/{pid}/task");
        let threads = match std::fs::read_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.call(|| format!("open({path})"))?,
        };
        for thread in threads {
            let thread = thread.call(|| format!("read({path})"))?.file_name();
            let children = procfs::read(&format!("{path}/{}/children", thread.to_string_lossy()))?;
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    Ok(found)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// What the process may do that the configuration's may not come to.
fn wider(plan: &Plan, status: &str) -> Option<String> {
    let process = plan.process.as_ref()?;
    let mask =
        |name: &str| u64::from_str_radix(field(status, name).unwrap_or_default(), 16).unwrap_or(u64::MAX);
    let number = |name: &str| field(status, name).and_then(|value| value.parse::<u32>().ok());
    for name in ["CapBnd:", "CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
        let allowed = match name {
            "CapInh:" => process.caps.bounding | process.caps.inheritable,
            _ => process.caps.bounding,
        };
        let more = mask(name) & !allowed;
        if more != 0 {
            let names = crate::plan::caps::names(more).join(", ");
            return Some(format!("has {names} ({})", name.trim_end_matches(':')));
        }
    }
    if process.no_new_privileges && number("NoNewPrivs:") != Some(1) {
        return Some("lacks no_new_privs".into());
    }
    if plan.seccomp.is_some() && number("Seccomp:") != Some(2) {
        return Some("has no seccomp filter".into());
    }
    other_ids(process, plan, status)
}

/// A process that could never change its ids has those of the configuration.
fn other_ids(process: &Process, plan: &Plan, status: &str) -> Option<String> {
    let fixed = |capability: u32| process.no_new_privileges && process.caps.bounding >> capability & 1 == 0;
    // What is mapped is another number here.
    if plan.namespaces.has(NsKind::User) {
        return None;
    }
    let differs = |name: &str, wanted: u32| {
        let ids = field(status, name).unwrap_or_default();
        ids.split_whitespace().find(|id| id.parse() != Ok(wanted)).map(|id| format!("runs as {name}{id}"))
    };
    let uid = fixed(CAP_SETUID).then(|| differs("Uid:", process.uid)).flatten();
    uid.or_else(|| fixed(CAP_SETGID).then(|| differs("Gid:", process.gid)).flatten())
}

/// The number of its namespace of this kind; `None` of one that has ended.
fn namespace_of(pid: i32, kind: NsKind) -> Result<Option<u64>> {
    match inode(&format!("/proc/{pid}/ns/{}", kind.file())) {
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        other => other.map(Some),
    }
}

fn inode(path: &str) -> Result<u64> {
    std::fs::metadata(path).map(|meta| meta.ino()).call(|| format!("stat({path})"))
}

/// A container that cannot mount cannot make a mount namespace either.
fn elsewhere(fixed: Option<Option<u64>>, pid: i32) -> Result<Option<String>> {
    let Some(wanted) = fixed else { return Ok(None) };
    let differs = namespace_of(pid, NsKind::Mount)?.is_some_and(|number| Some(number) != wanted);
    Ok(differs.then(|| "is in a mount namespace of its own".to_owned()))
}

/// What its namespaces may be, of each kind that the configuration speaks of: a namespace of the host's where it has one of the
/// container's, or the other way round, is none of them. A user namespace that it does not have would come with mappings that
/// nobody has asked for. Any other, a process may have made for itself.
struct Allowed(Vec<(NsKind, Whose)>);

enum Whose {
    /// This one.
    This(u64),
    /// Any but this one.
    Another(u64),
}

impl Allowed {
    fn of(plan: &Plan) -> Result<Allowed> {
        let kinds = NsKind::ALL.into_iter();
        let spoken_of = kinds.filter(|kind| plan.namespaces.has(*kind) || *kind == NsKind::User);
        let whose = spoken_of.map(|kind| {
            let whose = match plan.namespaces.join_of(kind) {
                Some(join) => Whose::This(inode(&join.path)?),
                None => {
                    let own = inode(&format!("/proc/self/ns/{}", kind.file()))?;
                    if plan.namespaces.has(kind) { Whose::Another(own) } else { Whose::This(own) }
                }
            };
            Ok((kind, whose))
        });
        whose.collect::<Result<_>>().map(Allowed)
    }
}

fn namespaces(allowed: &Allowed, pid: i32) -> Result<Option<String>> {
    for (kind, whose) in &allowed.0 {
        let Some(theirs) = namespace_of(pid, *kind)? else { return Ok(None) };
        let right = match whose {
            Whose::This(this) => theirs == *this,
            Whose::Another(own) => theirs != *own,
        };
        if !right {
            return Ok(Some(format!("is in another {} namespace", kind.name())));
        }
    }
    Ok(None)
}
