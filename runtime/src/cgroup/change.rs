// SPDX-License-Identifier: Apache-2.0
//! The decision about an `update`: which of a container's limits are written anew, and what would bring back what was
//! there. Pure; `update` does it.
//!
//! Everything that is in force afterwards is decided as for a create, and so is everything that was in force before. What
//! is written is what differs between the two (a raised memory limit changes the swap that is left of memory+swap,
//! a period the line that also holds the quota) and what was asked for by name, even if nothing of it is new: somebody
//! else may have changed the file meanwhile.

#![forbid(unsafe_code)]

use super::decide::{GroupPlan, Line, RESOURCES, Write};
use super::devices::Policy;
use super::limits::LIMITS;
use super::merge::merged;
use super::record::Record;
use crate::error::Result;
use crate::spec::Resources;

/// Everything that an update does to the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is in force afterwards: for State, and for a driver that sets properties instead of files.
    pub resources: Resources,
    /// The groups, and what is written into them, in this order.
    pub plan: GroupPlan,
    /// What stays as it is, where systemd may write its own way of saying it: with one property it writes a controller's other files.
    pub kept: Vec<Write>,
    /// Everything that was in force before; `None` if that is not to be had any more (a controller has gone).
    pub before: Option<GroupPlan>,
    /// Whether the meaning of the device rules changes.
    pub devices: bool,
    /// `checkBeforeUpdate`: these limits must not be below the usage.
    pub check: Option<Check>,
}

/// Limits in bytes that the usage must not exceed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    pub memory: Option<u64>,
    /// Of memory and swap together.
    pub memory_and_swap: Option<u64>,
}

/// Decides what `ask` changes in the groups of `record`, whose resources are `before`.
///
/// # Errors
/// As [`decide_groups`](super::decide_groups); the pointers are those of `ask`, from `resources` on.
pub fn change(record: &Record, before: &Resources, ask: &Resources) -> Result<Change> {
    let named = named(ask);
    let resources = without_older(record, merged(before, ask), ask, &named)?;
    let mut plan = planned(record, &resources)?;
    let devices = Policy::of(&resources.devices)? != Policy::of(&before.devices)?;
    let before = GroupPlan::of(record.clone(), before).ok();
    let old = before.as_ref().map(|plan| plan.writes.as_slice()).unwrap_or_default();
    let same = |a: &Write, b: &Write| (&a.file, &a.value, &a.or) == (&b.file, &b.value, &b.or);
    let (writes, mut kept): (Vec<Write>, Vec<Write>) = std::mem::take(&mut plan.writes)
        .into_iter()
        .partition(|write| named.contains(&write.at) || !old.iter().any(|old| same(old, write)));
    plan.writes = writes;
    kept.retain(|kept| record.unit.is_some() && !plan.writes.iter().any(|write| meet(write, kept)));
    plan.warnings.retain(|(at, _)| named.contains(at));
    let check = check(&resources, ask);
    Ok(Change { resources, plan, kept, before, devices, check })
}

/// Whether both are values of one file, and of one device where it has a line for each.
fn meet(a: &Write, b: &Write) -> bool {
    let files =
        |write: &Write| [Some(write.file.clone()), write.or.as_ref().map(|(file, _)| (*file).to_owned())];
    let device = |write: &Write| {
        let first = write.value.split(' ').next().filter(|word| word.contains(':'));
        first.map(str::to_owned)
    };
    let others = files(b);
    files(a).iter().flatten().any(|file| others.iter().flatten().any(|other| file == other))
        && device(a) == device(b)
}

/// What these resources are to the groups, with the pointers of an update.
fn planned(record: &Record, resources: &Resources) -> Result<GroupPlan> {
    GroupPlan::of(record.clone(), resources)
        .map_err(|e| e.relocated("config.json /linux/resources", "resources "))
}

/// Without what `unified` once said of a file that `ask` speaks of by a limit's name: the later word counts. Files with a line for
/// each device keep theirs, and so does a file that `ask` names in `unified`, too.
fn without_older(
    record: &Record,
    mut all: Resources,
    ask: &Resources,
    named: &[String],
) -> Result<Resources> {
    if all.unified.keys().all(|file| ask.unified.contains_key(file)) {
        return Ok(all);
    }
    let unified = std::mem::take(&mut all.unified);
    let plan = planned(record, &all)?;
    let told = |file: &str| {
        let mut writes = plan.writes.iter().filter(|write| named.contains(&write.at));
        writes.any(|write| write.file == file || write.or.as_ref().is_some_and(|(or, _)| *or == file))
    };
    let stays = |file: &str| ask.unified.contains_key(file) || file == "io.max" || !told(file);
    all.unified = unified.into_iter().filter(|(file, _)| stays(file)).collect();
    Ok(all)
}

/// The JSON pointers of everything in `ask`, as a plan has them.
fn named(ask: &Resources) -> Vec<String> {
    let of = |limit: &super::limits::Limit| {
        let items = (limit.items)(ask).into_iter();
        items.map(|item| format!("{RESOURCES}{}", item.at.as_deref().unwrap_or(limit.at))).collect::<Vec<_>>()
    };
    LIMITS.iter().flat_map(of).collect()
}

fn check(all: &Resources, ask: &Resources) -> Option<Check> {
    let (all, ask) = (all.memory.as_ref()?, ask.memory.as_ref()?);
    let size =
        |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok()).filter(|&limit| limit > 0);
    let check = Check { memory: size(ask.limit), memory_and_swap: size(ask.swap) };
    (all.check_before_update == Some(true) && (check.memory, check.memory_and_swap) != (None, None))
        .then_some(check)
}

/// The lines that turn a v1 devices group from `old` to `new` while processes use it: what is allowed before and after
/// is allowed all the time, and nothing is allowed in between that is allowed in neither.
pub(super) fn transition(old: &[Line], new: &[Line]) -> Vec<Line> {
    let (Some((old_all, old)), Some((new_all, new))) = (old.split_first(), new.split_first()) else {
        return new.to_vec();
    };
    if old_all != new_all {
        // Between "all but" and "none but" there is no way without the turning point.
        return [std::slice::from_ref(new_all), new].concat();
    }
    // An exception is added by its file, and taken away by the other one.
    let (add, remove) = match new_all.file {
        "devices.deny" => ("devices.allow", "devices.deny"),
        _ => ("devices.deny", "devices.allow"),
    };
    let lines = |from: &[Line], less: &[Line], file: &'static str| {
        let line = |line: &Line| {
            let (devices, access) = split(&line.value);
            let known =
                less.iter().map(|l| split(&l.value)).find(|(d, _)| *d == devices).map_or("", |(_, a)| a);
            let rest: String = access.chars().filter(|letter| !known.contains(*letter)).collect();
            (!rest.is_empty()).then(|| Line {
                file,
                value: format!("{devices} {rest}"),
                builtin: line.builtin,
            })
        };
        from.iter().filter_map(line).collect::<Vec<_>>()
    };
    // What narrows an "all but" comes first, and so does what widens a "none but".
    [lines(new, old, add), lines(old, new, remove)].concat()
}

/// `c 1:3` and `rwm`.
fn split(rule: &str) -> (&str, &str) {
    rule.rsplit_once(' ').unwrap_or((rule, ""))
}

/// The lines that bring `before`, the content of `file`, back after `written` was written: one for each write(2).
pub(super) fn restoring(file: &str, before: &str, written: &str) -> Vec<String> {
    let first = before.lines().next().unwrap_or_default();
    if file == "memory.oom_control" {
        return vec![first.trim_start_matches("oom_kill_disable ").to_owned()];
    }
    // Files with a line for each device, interface or resource take one of these lines back.
    if let Some((key, _)) = written.split_once(' ') {
        if let Some(line) = before.lines().find(|line| line.split(' ').next() == Some(key)) {
            return vec![line.to_owned()];
        }
        if key.contains(':') {
            let nothing = match file {
                "io.max" => "rbps=max wbps=max riops=max wiops=max",
                file if file.ends_with("weight") || file.ends_with("weight_device") => "default",
                _ => "0",
            };
            return vec![format!("{key} {nothing}")];
        }
    }
    // An empty list (cpuset.cpus) is written as an empty line: nothing at all would be no write.
    vec![if first.is_empty() { "\n".to_owned() } else { first.to_owned() }]
}

#[cfg(test)]
#[path = "change/tests.rs"]
mod tests;
