// SPDX-License-Identifier: Apache-2.0
//! Scheduling of the process: scheduler, I/O priority, personality, CPU affinity (config.md#linux-process).

#![forbid(unsafe_code)]

use super::Field;
use crate::error::{Error, Result};
use crate::spec;
use crate::sys::sched::SchedAttr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduler {
    /// What the kernel is told.
    pub attr: SchedAttr,
    /// A deadline task in a container with a CPU list: it has to be allowed on every CPU of its root domain (sched(7)), which
    /// only the kernel knows.
    pub confined: bool,
}

/// Policies by name (linux/sched.h; SCHED_ISO is reserved and not implemented by any kernel).
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const FIFO: u32 = 1;
const RR: u32 = 2;
const DEADLINE: u32 = 6;

/// Flags by name, as the specification spells them.
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// The scheduler of a process object whose pointer is `at`. `cpus` is the container's CPU list.
///
/// # Errors
/// Unknown names and combinations that sched_setattr(2) refuses.
pub(crate) fn scheduler(
    asked: Option<&spec::Scheduler>,
    at: &str,
    cpus: Option<&str>,
) -> Result<Option<Field<Scheduler>>> {
    let Some(asked) = asked else { return Ok(None) };
    let at = format!("{at}/scheduler");
    let wrong = |field: &str, text: String| Error::invalid(format_args!("{at}/{field}"), text);
    if asked.policy.is_empty() {
        return Err(wrong("policy", "scheduler policy is required".into()));
    }
    let Some(policy) = named(&POLICIES, &asked.policy) else {
        return Err(wrong("policy", format!("invalid scheduler policy: {:?}", asked.policy)));
    };
    if !(-20..=19).contains(&asked.nice) {
        return Err(wrong("nice", format!("invalid scheduler.nice: {}", asked.nice)));
    }
    let priority = priority(policy, asked).map_err(|text| wrong("priority", text))?;
    deadline(policy, asked).map_err(|(field, text)| wrong(field, text.into()))?;
    let mut flags = 0;
    for (index, name) in asked.flags.iter().enumerate() {
        let Some(flag) = named(&FLAGS, name) else {
            return Err(wrong(&format!("flags/{index}"), format!("invalid scheduler flag: {name:?}")));
        };
        flags |= flag;
    }
    let (nice, runtime, deadline, period) = (asked.nice, asked.runtime, asked.deadline, asked.period);
    let confined = policy == DEADLINE && cpus.is_some_and(|cpus| !cpus.is_empty());
    let attr = SchedAttr { policy, flags, nice, priority, runtime, deadline, period };
    Ok(Some(Field { value: Scheduler { attr, confined }, at }))
}

/// sched(7): the real-time policies have priorities 1 to 99, the others none.
fn priority(policy: u32, asked: &spec::Scheduler) -> Result<u32, String> {
    match (policy, u32::try_from(asked.priority)) {
        (FIFO | RR, Ok(priority @ 1..=99)) => Ok(priority),
        (FIFO | RR, _) => Err(format!("priority {} is not between 1 and 99", asked.priority)),
        (_, Ok(0)) => Ok(0),
        _ => Err("scheduler.priority can only be specified for SchedFIFO or SchedRR policy".to_owned()),
    }
}

/// sched(7): runtime <= deadline <= period, all in nanoseconds; a period of 0 means the deadline.
fn deadline(policy: u32, asked: &spec::Scheduler) -> Result<(), (&'static str, &'static str)> {
    let (runtime, deadline, period) = (asked.runtime, asked.deadline, asked.period);
    if policy != DEADLINE {
        let only = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
        return match [("runtime", runtime), ("deadline", deadline), ("period", period)]
            .iter()
            .find(|f| f.1 != 0)
        {
            Some((field, _)) => Err((field, only)),
            None => Ok(()),
        };
    }
    // The kernel's DL_SCALE.
    if runtime < 1 << 10 {
        return Err(("runtime", "a runtime below 1024 ns is too short for SCHED_DEADLINE"));
    }
    if deadline < runtime {
        return Err(("deadline", "the deadline is before the runtime's end"));
    }
    if period != 0 && period < deadline {
        return Err(("period", "the period is shorter than the deadline"));
    }
    Ok(())
}

/// The I/O priority of a process object whose pointer is `at`, as ioprio_set(2) takes it: class << 13 | level.
///
/// # Errors
/// Unknown class, level outside 0 to 7.
pub(crate) fn io_priority(asked: Option<&spec::IoPriority>, at: &str) -> Result<Option<Field<i32>>> {
    const CLASSES: [(&str, i32); 3] =
        [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
    let Some(asked) = asked else { return Ok(None) };
    let at = format!("{at}/ioPriority");
    let Some(class) = named(&CLASSES, &asked.class) else {
        let text = format!("invalid ioPriority class: {:?}", asked.class);
        return Err(Error::invalid(format_args!("{at}/class"), text));
    };
    match i32::try_from(asked.priority) {
        Ok(level @ 0..=7) => Ok(Some(Field { at, value: class << 13 | level })),
        _ => {
            let text = format!("invalid ioPriority priority: {} is not between 0 and 7", asked.priority);
            Err(Error::invalid(format_args!("{at}/priority"), text))
        }
    }
}

/// The execution domain, as personality(2) takes it.
///
/// # Errors
/// Another domain than LINUX and LINUX32; any flag, since the specification defines none.
pub(crate) fn personality(asked: Option<&spec::Personality>) -> Result<Option<Field<u32>>> {
    const AT: &str = "/linux/personality";
    const DOMAINS: [(&str, u32); 2] = [("LINUX", 0), ("LINUX32", 8)];
    let Some(asked) = asked else { return Ok(None) };
    let Some(value) = named(&DOMAINS, &asked.domain) else {
        let text = format!("invalid personality domain {:?}", asked.domain);
        return Err(Error::invalid(format_args!("{AT}/domain"), text));
    };
    if let Some(flag) = asked.flags.first() {
        let text = format!("{flag:?}: the specification defines no personality flags");
        return Err(Error::invalid(format_args!("{AT}/flags/0"), text));
    }
    Ok(Some(Field { at: AT.to_owned(), value }))
}

/// CPUs as sched_setaffinity(2) takes them: bit n of word n / 64 is CPU n.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuSet(pub Vec<u64>);

/// Where a process of `exec` runs (config.md: execCPUAffinity).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affinity {
    /// Before it joins its cgroup.
    pub initial: Option<CpuSet>,
    /// Before the exec of the user's program.
    pub last: Option<CpuSet>,
}

/// The affinity of a process object whose pointer is `at`.
///
/// # Errors
/// Lists that do not read.
pub(crate) fn affinity(asked: Option<&spec::CpuAffinity>, at: &str) -> Result<Option<Field<Affinity>>> {
    let Some(asked) = asked else { return Ok(None) };
    let at = format!("{at}/execCPUAffinity");
    let set = |list: &str, field: &str| {
        if list.is_empty() {
            return Ok(None);
        }
        let wrong =
            |part| Error::invalid(format_args!("{at}/{field}"), format!("invalid CPU list: {part:?}"));
        cpu_list(list).map(Some).map_err(wrong)
    };
    let value = Affinity { initial: set(&asked.initial, "initial")?, last: set(&asked.last, "final")? };
    Ok(Some(Field { value, at }))
}

/// More CPUs than any kernel is built for; keeps a typing error from allocating gigabytes.
const MOST_CPUS: usize = 1 << 16;

/// Reads `0-3, 7`. The part that does not read is the error.
pub(super) fn cpu_list(list: &str) -> Result<CpuSet, String> {
    let mut words = Vec::new();
    for part in list.split(',').map(str::trim) {
        let wrong = || part.to_owned();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().ok().filter(|cpu: &usize| *cpu < MOST_CPUS).ok_or_else(wrong),
            false => Err(wrong()),
        };
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        if last < first {
            return Err(wrong());
        }
        if words.len() <= last / 64 {
            words.resize(last / 64 + 1, 0_u64);
        }
        for cpu in first..=last {
            words[cpu / 64] |= 1 << (cpu % 64);
        }
    }
    Ok(CpuSet(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_list("0-3,7").unwrap().0, [0x8f]);
        assert_eq!(cpu_list(" 1 , 64 - 65 ").unwrap().0, [2, 3]);
        assert_eq!(cpu_list("1025").unwrap().0.len(), 17);
        assert_eq!(cpu_list("65535").unwrap().0.len(), 1024);
        for wrong in ["65536", "", "a", "3-1", "1,", "-1", "1-", "+1", "1-2-3", "99999999", "0x1"] {
            assert!(cpu_list(wrong).is_err(), "{wrong}");
        }
    }
}
