// SPDX-License-Identifier: Apache-2.0
//! The systemd column of the table of limits: what is written to a cgroup file, as properties of a unit; device rules
//! likewise; and the properties that an annotation may set. Pure.
//!
//! systemd may write its own belief into the files at any time (`daemon-reload`, `systemctl set-property`), so that and
//! what the kernel has must agree. Each conversion starts from the very text that the file gets; where systemd's unit is
//! coarser (a CPU quota in steps of a hundredth of a CPU), the file gets what systemd would make of it (`kept_quota`).
//! A property that older releases of systemd lack is marked `newer`: a refusal costs that property, not the container.

#![forbid(unsafe_code)]

use corten_dbus::Value;

use super::convert;
use super::devices::{MKNOD, Policy, READ, Rule, Type, WRITE};
use crate::spec::Resources;

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Its name on the bus.
    pub name: &'static str,
    pub value: Value,
    /// Not every systemd of today knows it (in this form): it is done without where it is refused.
    pub newer: bool,
}

/// A cell of the column: the properties for what is written. None for a text that systemd has no words for.
pub(super) type ToUnit = fn(&Resources, &str) -> Vec<Property>;

/// Annotations with this beginning set a property.
pub(super) const ANNOTATION: &str = "org.systemd.property.";
/// systemd's "no limit".
const INFINITY: u64 = u64::MAX;
/// systemd's weight that is not set.
const NO_WEIGHT: u64 = u64::MAX;
/// systemd keeps quotas in hundredths of a CPU: microseconds per second are rounded up to them, as in runc.
const QUOTA_STEP: u64 = 10_000;
/// A second, in microseconds.
const SECOND: u128 = 1_000_000;
/// The kernel's and systemd's period where none is given.
const PERIOD: u64 = 100_000;

fn property(name: &'static str, value: Value) -> Vec<Property> {
    vec![Property { name, value, newer: false }]
}

fn newer_property(name: &'static str, value: Value) -> Vec<Property> {
    vec![Property { name, value, newer: true }]
}

/// `max` and v1's -1 are no limit.
fn limit(text: &str) -> Option<u64> {
    match text.trim() {
        "max" | "-1" => Some(INFINITY),
        number => number.parse().ok(),
    }
}

fn limited(name: &'static str, text: &str) -> Vec<Property> {
    limit(text).map_or_else(Vec::new, |number| property(name, Value::U64(number)))
}

pub(super) fn memory_max(_: &Resources, text: &str) -> Vec<Property> {
    limited("MemoryMax", text)
}
pub(super) fn memory_limit_v1(_: &Resources, text: &str) -> Vec<Property> {
    limited("MemoryLimit", text)
}
pub(super) fn memory_low(_: &Resources, text: &str) -> Vec<Property> {
    limited("MemoryLow", text)
}
pub(super) fn swap_max(_: &Resources, text: &str) -> Vec<Property> {
    limited("MemorySwapMax", text)
}
pub(super) fn tasks_max(_: &Resources, text: &str) -> Vec<Property> {
    limited("TasksMax", text)
}
pub(super) fn shares_v1(_: &Resources, text: &str) -> Vec<Property> {
    limited("CPUShares", text)
}

/// Idle is the weight 0 (systemd 252). Not idle is any other, or none, which a weight that is there replaces.
pub(super) fn idle(_: &Resources, text: &str) -> Vec<Property> {
    match text.trim() {
        "1" => newer_property("CPUWeight", Value::U64(0)),
        _ => property("CPUWeight", Value::U64(NO_WEIGHT)),
    }
}

pub(super) fn weight(r: &Resources, text: &str) -> Vec<Property> {
    // Both at once is what systemd cannot say: idle wins, as in the kernel.
    if r.unified.get("cpu.idle").is_some_and(|idle| idle.trim() == "1") {
        return Vec::new();
    }
    limited("CPUWeight", text)
}

/// `QUOTA [PERIOD]` of v2.
pub(super) fn cpu_max(_: &Resources, text: &str) -> Vec<Property> {
    let mut words = text.split_ascii_whitespace();
    let (Some(quota), period) = (words.next().and_then(limit), words.next()) else { return Vec::new() };
    match period.map(str::parse) {
        None => cpu_quota(quota, None),
        Some(Ok(period)) => cpu_quota(quota, Some(period)),
        Some(Err(_)) => Vec::new(),
    }
}

/// The quota of v1, whose period has a file of its own.
pub(super) fn quota_v1(r: &Resources, text: &str) -> Vec<Property> {
    let period = r.cpu.as_ref().and_then(|cpu| cpu.period).filter(|period| *period != 0);
    limit(text).map_or_else(Vec::new, |quota| cpu_quota(quota, period))
}

fn cpu_quota(quota: u64, period: Option<u64>) -> Vec<Property> {
    let mut properties = Vec::new();
    if let Some(period) = period {
        properties.extend(newer_property("CPUQuotaPeriodUSec", Value::U64(period)));
    }
    properties
        .extend(property("CPUQuotaPerSecUSec", Value::U64(per_second(quota, period.unwrap_or(PERIOD)))));
    properties
}

fn per_second(quota: u64, period: u64) -> u64 {
    if quota == INFINITY {
        return INFINITY;
    }
    let exact = u128::from(quota) * SECOND / u128::from(period.max(1));
    let most = INFINITY - INFINITY % QUOTA_STEP - QUOTA_STEP;
    u64::try_from(exact).unwrap_or(most).min(most).next_multiple_of(QUOTA_STEP)
}

/// What systemd's steps make of a quota that is written to `file`: it would write that at any time. `None` for other files,
/// and for what is no quota.
pub(super) fn kept_quota(r: &Resources, file: &str, text: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    let quota = words.next()?.parse::<u64>().ok()?;
    let period = match file {
        "cpu.max" => words.next().map_or(Some(PERIOD), |word| word.parse().ok())?,
        "cpu.cfs_quota_us" => r.cpu.as_ref().and_then(|cpu| cpu.period).filter(|p| *p != 0).unwrap_or(PERIOD),
        _ => return None,
    };
    let kept = u128::from(per_second(quota, period)) * u128::from(period) / SECOND;
    Some(text.trim_start().replacen(&quota.to_string(), &kept.to_string(), 1))
}

pub(super) fn cpus(_: &Resources, text: &str) -> Vec<Property> {
    bits(text).map_or_else(Vec::new, |bits| newer_property("AllowedCPUs", Value::bytes(&bits)))
}
pub(super) fn mems(_: &Resources, text: &str) -> Vec<Property> {
    bits(text).map_or_else(Vec::new, |bits| newer_property("AllowedMemoryNodes", Value::bytes(&bits)))
}

/// A list such as `0-3,8` as a mask, the lowest bit first; systemd has no strides (`0-9:2/4`).
fn bits(list: &str) -> Option<Vec<u8>> {
    const MOST: usize = 8192;
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        if mask.len() <= last / 8 {
            mask.resize(last / 8 + 1, 0u8);
        }
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    (!mask.is_empty()).then_some(mask)
}

/// `[MAJOR:MINOR ]WEIGHT`, in v1's numbers.
pub(super) fn bfq_weight(_: &Resources, text: &str) -> Vec<Property> {
    let (device, weight) = text.split_once(' ').unwrap_or(("", text));
    weight.trim().parse().map_or_else(|_| Vec::new(), |weight| io_weights(device, convert::io_weight(weight)))
}

/// `[default |MAJOR:MINOR ]WEIGHT`.
fn io_weight(_: &Resources, text: &str) -> Vec<Property> {
    let (device, weight) = text.trim().split_once(' ').unwrap_or(("", text));
    weight.trim().parse().map_or_else(|_| Vec::new(), |weight| io_weights(device, weight))
}

fn io_weights(device: &str, weight: u64) -> Vec<Property> {
    match device {
        "" | "default" => property("IOWeight", Value::U64(weight)),
        device => per_device("IODeviceWeight", device, weight),
    }
}

pub(super) fn weight_v1(_: &Resources, text: &str) -> Vec<Property> {
    limited("BlockIOWeight", text)
}

/// `MAJOR:MINOR KEY=RATE …`
pub(super) fn io_max(_: &Resources, text: &str) -> Vec<Property> {
    let mut words = text.split_ascii_whitespace();
    let Some(device) = words.next() else { return Vec::new() };
    let rates = words.filter_map(|word| {
        let (key, rate) = word.split_once('=')?;
        let name = match key {
            "rbps" => "IOReadBandwidthMax",
            "wbps" => "IOWriteBandwidthMax",
            "riops" => "IOReadIOPSMax",
            "wiops" => "IOWriteIOPSMax",
            _ => return None,
        };
        Some(per_device(name, device, limit(rate)?))
    });
    rates.flatten().collect()
}

fn per_device(name: &'static str, device: &str, number: u64) -> Vec<Property> {
    let device = Value::Text(format!("/dev/block/{device}"));
    property(name, Value::Array("(st)".into(), vec![Value::Tuple(vec![device, Value::U64(number)])]))
}

/// Files that only `unified` names.
static UNIFIED: &[(&str, ToUnit)] = &[
    ("memory.high", |_, text| limited("MemoryHigh", text)),
    ("memory.min", |_, text| limited("MemoryMin", text)),
    ("memory.zswap.max", |_, text| {
        limit(text).map_or_else(Vec::new, |n| newer_property("MemoryZSwapMax", Value::U64(n)))
    }),
    // Scopes have the property since systemd 253.
    ("memory.oom.group", |_, text| match text.trim() {
        "0" => newer_property("OOMPolicy", Value::text("continue")),
        "1" => newer_property("OOMPolicy", Value::text("kill")),
        _ => Vec::new(),
    }),
    ("io.weight", io_weight),
];

/// The column's cell for a file that only `unified` names.
pub(super) fn of_unified(file: &str) -> Option<ToUnit> {
    UNIFIED.iter().find(|(name, _)| *name == file).map(|(_, convert)| *convert)
}

/// The device rules. What systemd allows must not be less than what we do, and it knows fewer forms: where ours has
/// exceptions from an exception, systemd's has the wider one. Ours are enforced besides.
pub(super) fn devices(policy: &Policy) -> Vec<Property> {
    let mut properties =
        property("DevicePolicy", Value::text(if policy.otherwise { "auto" } else { "strict" }));
    // An empty list takes back what was there: an update replaces.
    properties.extend(property("DeviceAllow", Value::Array("(ss)".into(), Vec::new())));
    if !policy.otherwise {
        properties.extend(property("DeviceAllow", Value::Array("(ss)".into(), allowed(policy))));
    }
    properties
}

/// What is allowed, once for each name: of two entries with one name systemd keeps the accesses of the second only. Making nodes always
/// is: systemd's rules hold from the unit's start, ours that refuse nodes come after the container's own (decisions/0038).
fn allowed(policy: &Policy) -> Vec<Value> {
    let mut entries: Vec<(String, u8)> = Vec::new();
    let rules = policy.rules.iter().filter(|rule| rule.allow).map(|rule| (device(rule), rule.access));
    let nodes = ["char-*", "block-*"].map(|name| (name.to_owned(), MKNOD));
    for (name, access) in rules.chain(nodes) {
        match entries.iter_mut().find(|(other, _)| *other == name) {
            Some((_, known)) => *known |= access,
            None => entries.push((name, access)),
        }
    }
    let letters = |access: u8| {
        let all = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        all.iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| *letter).collect()
    };
    let pair = |(name, access)| Value::Tuple(vec![Value::Text(name), Value::Text(letters(access))]);
    entries.into_iter().map(pair).collect()
}

/// A rule's devices as systemd names them.
fn device(rule: &Rule) -> String {
    let class = if rule.devices.kind == Type::Char { "char" } else { "block" };
    match (rule.devices.major, rule.devices.minor) {
        (Some(major), Some(minor)) => format!("/dev/{class}/{major}:{minor}"),
        // A number stands for itself since systemd 240.
        (Some(major), None) => format!("{class}-{major}"),
        // One minor of every major cannot be said.
        (None, _) => format!("{class}-*"),
    }
}

/// What an annotation may set, with the type: what concerns the container's own resources, its end and its place in
/// the order of things. Whoever may write annotations could otherwise have systemd run commands (`ExecStartPre`),
/// start or stop other units (`Wants`, `Conflicts`), reboot (`FailureAction`), or leave the slice (`Slice`).
const ALLOWED: &[(&str, &str)] = &[
    ("After", "as"),
    ("AllowedCPUs", "ay"),
    ("AllowedMemoryNodes", "ay"),
    ("Before", "as"),
    ("CPUQuotaPerSecUSec", "t"),
    ("CPUQuotaPeriodUSec", "t"),
    ("CPUWeight", "t"),
    ("CollectMode", "s"),
    ("CoredumpReceive", "b"),
    ("DefaultDependencies", "b"),
    ("DefaultMemoryLow", "t"),
    ("DefaultMemoryMin", "t"),
    ("Description", "s"),
    ("Documentation", "as"),
    ("FinalKillSignal", "i"),
    ("IOReadBandwidthMax", "a(st)"),
    ("IOReadIOPSMax", "a(st)"),
    ("IOWeight", "t"),
    ("IOWriteBandwidthMax", "a(st)"),
    ("IOWriteIOPSMax", "a(st)"),
    ("IODeviceLatencyTargetUSec", "a(st)"),
    ("IODeviceWeight", "a(st)"),
    ("IPAccounting", "b"),
    ("IPAddressAllow", "a(iayu)"),
    ("IPAddressDeny", "a(iayu)"),
    ("IgnoreOnIsolate", "b"),
    ("JobRunningTimeoutUSec", "t"),
    ("JobTimeoutUSec", "t"),
    ("KillMode", "s"),
    ("KillSignal", "i"),
    ("ManagedOOMMemoryPressure", "s"),
    ("ManagedOOMMemoryPressureDurationUSec", "t"),
    ("ManagedOOMMemoryPressureLimit", "u"),
    ("ManagedOOMPreference", "s"),
    ("ManagedOOMSwap", "s"),
    ("MemoryHigh", "t"),
    ("MemoryLow", "t"),
    ("MemoryMax", "t"),
    ("MemoryMin", "t"),
    ("MemoryPressureThresholdUSec", "t"),
    ("MemoryPressureWatch", "s"),
    ("MemorySwapMax", "t"),
    ("MemoryZSwapMax", "t"),
    ("OOMPolicy", "s"),
    ("RuntimeMaxUSec", "t"),
    ("RuntimeRandomizedExtraUSec", "t"),
    ("SendSIGHUP", "b"),
    ("SendSIGKILL", "b"),
    ("StartupAllowedCPUs", "ay"),
    ("StartupAllowedMemoryNodes", "ay"),
    ("StartupCPUWeight", "t"),
    ("StartupIOWeight", "t"),
    ("SurviveFinalKillSignal", "b"),
    ("TasksMax", "t"),
    ("TimeoutStopUSec", "t"),
];

/// The property that the annotation `org.systemd.property.NAME` sets to the value written as `text`. A name that ends
/// in `Sec` takes seconds and stands for the one in `USec`.
///
/// # Errors
/// The reason, in words.
pub(super) fn of_annotation(name: &str, text: &str) -> Result<Property, String> {
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(format!("{name:?} is no name of a property: letters only, three or more"));
    }
    let seconds = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    let full = seconds.map_or_else(|| name.to_owned(), |stem| format!("{stem}USec"));
    let Some((known, wanted)) = ALLOWED.iter().find(|(allowed, _)| *allowed == full) else {
        return Err(format!("the systemd property {name} may not be set by an annotation"));
    };
    let value = Value::parse(text, if seconds.is_some() { "" } else { wanted });
    let value = value.and_then(|value| if seconds.is_some() { microseconds(&value) } else { Ok(value) })?;
    let got = value.signature();
    if got != *wanted {
        return Err(format!("the systemd property {name} is of type {wanted}, not {got}"));
    }
    Ok(Property { name: known, value, newer: false })
}

fn microseconds(value: &Value) -> Result<Value, String> {
    const MICRO: u64 = 1_000_000;
    let whole = match value {
        Value::Byte(n) => Some(u64::from(*n)),
        Value::U16(n) => Some(u64::from(*n)),
        Value::U32(n) => Some(u64::from(*n)),
        Value::U64(n) => Some(*n),
        Value::I16(n) => u64::try_from(*n).ok(),
        Value::I32(n) => u64::try_from(*n).ok(),
        Value::I64(n) => u64::try_from(*n).ok(),
        Value::Double(bits) => {
            let micro = f64::from_bits(*bits) * 1e6;
            let fits = (0.0..1e18).contains(&micro);
            return if fits { Ok(Value::U64(micro as u64)) } else { Err("is no number of seconds".into()) };
        }
        _ => None,
    };
    let micro = whole.and_then(|seconds| seconds.checked_mul(MICRO));
    micro.map(Value::U64).ok_or_else(|| "it is no number of seconds".to_owned())
}

#[cfg(test)]
mod tests;
