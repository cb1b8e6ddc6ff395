// SPDX-License-Identifier: Apache-2.0
//! The writers of the table of limits: what a limit of the configuration becomes in a cgroup file. Pure.
//!
//! Each function is one cell of the table; those of v1 and v2 stand together where they differ.

#![forbid(unsafe_code)]

use super::{FileValue, Item, Why};
use crate::cgroup::convert;
use crate::spec::Resources;

fn invalid<T>(reason: impl Into<Why>) -> Result<T, Why> {
    Err(reason.into())
}

/// `value` is what a new group has if `number` is `default`.
fn default_if(default: i128, number: i128, value: String) -> FileValue {
    if number == default { FileValue::KernelDefault(value) } else { FileValue::Set(value) }
}
pub(super) fn plain(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    Ok(FileValue::Set(item.number.to_string()))
}
pub(super) fn plain_default_0(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    Ok(default_if(0, item.number, item.number.to_string()))
}

fn at_least_unlimited(number: i128) -> Result<(), Why> {
    if number < -1 { invalid(format!("{number} is neither a size nor -1 (unlimited)")) } else { Ok(()) }
}

pub(super) fn bytes_v1(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    at_least_unlimited(item.number)?;
    Ok(default_if(-1, item.number, item.number.to_string()))
}

pub(super) fn bytes_v2(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    at_least_unlimited(item.number)?;
    Ok(default_if(-1, item.number, or_max(item.number)))
}

/// As runc maps it: the soft limit becomes the best-effort protection, whose default is 0.
pub(super) fn low(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    at_least_unlimited(item.number)?;
    Ok(FileValue::Set(or_max(item.number)))
}

fn or_max(number: i128) -> String {
    if number < 0 { "max".to_owned() } else { number.to_string() }
}

pub(super) fn swap_v1(r: &Resources, item: &Item) -> Result<FileValue, Why> {
    swap_v2(r, item)?;
    // The kernel takes no memory+swap below memory.
    if memory_limit(r) == Some(-1) && item.number != -1 {
        return invalid("memory+swap limit should be >= memory limit");
    }
    Ok(default_if(-1, item.number, item.number.to_string()))
}

pub(super) fn swap_v2(r: &Resources, item: &Item) -> Result<FileValue, Why> {
    at_least_unlimited(item.number)?;
    match convert::swap_alone(item.number, memory_limit(r)) {
        Ok(None) => Ok(FileValue::KernelDefault("max".to_owned())),
        Ok(Some(swap)) => Ok(FileValue::Set(swap.to_string())),
        Err(reason) => match memory_limit(r) {
            Some(limit) => {
                invalid(format!("{reason}: {} < {limit} (memory included, -1 for no limit)", item.number))
            }
            None => invalid(reason),
        },
    }
}

fn memory_limit(r: &Resources) -> Option<i128> {
    r.memory.as_ref()?.limit.map(Into::into)
}

pub(super) fn swappiness(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    if item.number > 100 {
        return invalid("swappiness lies between 0 and 100");
    }
    Ok(FileValue::Set(item.number.to_string()))
}

pub(super) fn idle(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    if !(0..=1).contains(&item.number) {
        return invalid("idle is 0 or 1");
    }
    Ok(default_if(0, item.number, item.number.to_string()))
}

/// The kernel refuses a weight for a SCHED_IDLE group, and idle says all there is to say.
fn is_idle(r: &Resources) -> bool {
    r.cpu.as_ref().is_some_and(|c| c.idle == Some(1))
}
pub(super) fn shares_v1(r: &Resources, item: &Item) -> Result<FileValue, Why> {
    Ok(if is_idle(r) { FileValue::Skip } else { default_if(1024, item.number, item.number.to_string()) })
}
pub(super) fn shares_v2(r: &Resources, item: &Item) -> Result<FileValue, Why> {
    if is_idle(r) {
        return Ok(FileValue::Skip);
    }
    let weight = convert::weight_of_shares(u64::try_from(item.number).unwrap_or(u64::MAX));
    Ok(default_if(100, weight.into(), weight.to_string()))
}

/// What kernel/sched accepts: one millisecond to one second.
fn period(item: &Item) -> Result<i128, Why> {
    match item.number {
        1_000..=1_000_000 => Ok(item.number),
        other => invalid(format!("{other} is no CPU period: 1000 to 1000000 microseconds")),
    }
}

/// -1 is unlimited; so is any negative number, as in runc.
fn quota(item: &Item) -> Result<i128, Why> {
    match item.number {
        0..1_000 => invalid(format!("{} is no CPU quota: at least 1000 microseconds, or -1", item.number)),
        number => Ok(number.max(-1)),
    }
}

pub(super) fn period_v1(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    let period = period(item)?;
    Ok(default_if(100_000, period, period.to_string()))
}

pub(super) fn quota_v1(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    let quota = quota(item)?;
    Ok(default_if(-1, quota, quota.to_string()))
}

/// One file holds both; the quota's row writes it when there is a quota.
pub(super) fn period_v2(r: &Resources, item: &Item) -> Result<FileValue, Why> {
    let period = period(item)?;
    let quota = r.cpu.as_ref().and_then(|c| c.quota).is_some_and(|q| q != 0);
    Ok(if quota { FileValue::Skip } else { default_if(100_000, period, format!("max {period}")) })
}

pub(super) fn quota_v2(r: &Resources, item: &Item) -> Result<FileValue, Why> {
    let quota = quota(item)?;
    // 0 is "not set" for the period too. Its own row has checked it.
    match r.cpu.as_ref().and_then(|c| c.period).filter(|&p| p != 0) {
        Some(period) if quota < 0 && period == 100_000 => {
            Ok(FileValue::KernelDefault(format!("max {period}")))
        }
        Some(period) => Ok(FileValue::Set(format!("{} {period}", or_max(quota)))),
        // The period stays what it is.
        None => Ok(default_if(-1, quota, or_max(quota))),
    }
}

pub(super) fn burst(r: &Resources, item: &Item) -> Result<FileValue, Why> {
    let quota = r.cpu.as_ref().and_then(|c| c.quota).filter(|&q| q > 0);
    match quota {
        Some(quota) if item.number > quota.into() => invalid("the burst exceeds the quota"),
        _ => plain_default_0(r, item),
    }
}

pub(super) fn cpu_list(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    // The kernel parses it; it must only be one list, on one line.
    if item.text.contains(|c: char| !(c.is_ascii_alphanumeric() || "-,:/ ".contains(c))) {
        return invalid(format!("{:?} is no list of numbers", item.text));
    }
    Ok(FileValue::Set(item.text.clone()))
}

/// Zero is a limit: no further process. The kernel counts the container's own init, and birth in a group whose limit
/// is 0 is refused, so 1 says the same (runc writes 1 as well).
pub(super) fn pids(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    Ok(match item.number {
        ..0 => FileValue::KernelDefault("max".to_owned()),
        0 => FileValue::Set("1".to_owned()),
        number => FileValue::Set(number.to_string()),
    })
}

/// `8:0 ` before the value of one device; `default ` is understood where the value is for all.
fn of_device(item: &Item) -> Result<String, Why> {
    match item.key.as_str() {
        "" => Ok(String::new()),
        key if key.contains('-') => invalid("device numbers are not negative"),
        key => Ok(format!("{key} ")),
    }
}

fn io_weight_in_range(item: &Item) -> Result<u64, Why> {
    match u64::try_from(item.number) {
        Ok(weight @ 10..=1000) => Ok(weight),
        _ => invalid(format!("{} is no block I/O weight: 10 to 1000", item.number)),
    }
}

pub(super) fn io_weight_v1(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    Ok(FileValue::Set(format!("{}{}", of_device(item)?, io_weight_in_range(item)?)))
}

pub(super) fn io_weight_v2(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    Ok(FileValue::Set(format!("{}{}", of_device(item)?, convert::io_weight(io_weight_in_range(item)?))))
}

pub(super) fn throttle_v1(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    Ok(default_if(0, item.number, format!("{}{}", of_device(item)?, item.number)))
}

pub(super) fn throttle_v2(item: &Item, what: &str) -> Result<FileValue, Why> {
    let rate = if item.number == 0 { "max".to_owned() } else { item.number.to_string() };
    Ok(default_if(0, item.number, format!("{}{what}={rate}", of_device(item)?)))
}

/// `2MB`, `1GB`: what stands in the name of the file.
pub(super) fn hugepage(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    let digits = item.key.trim_end_matches(|c: char| c.is_ascii_uppercase());
    let sized = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if !sized || !matches!(&item.key[digits.len()..], "KB" | "MB" | "GB" | "TB" | "PB" | "EB") {
        return invalid(format!("invalid pagesize {:?}", item.key));
    }
    Ok(default_if(u64::MAX.into(), item.number, item.number.to_string()))
}

fn one_word(item: &Item) -> Result<(), Why> {
    if item.key.is_empty() || item.key.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return invalid(format!("{:?} is no name", item.key));
    }
    Ok(())
}

pub(super) fn keyed(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    one_word(item)?;
    Ok(FileValue::Set(format!("{} {}", item.key, item.number)))
}

pub(super) fn keyed_text(_: &Resources, item: &Item) -> Result<FileValue, Why> {
    one_word(item)?;
    Ok(if item.text.is_empty() {
        FileValue::Skip
    } else {
        FileValue::Set(format!("{}{}", item.key, item.text))
    })
}
