// SPDX-License-Identifier: Apache-2.0
//! The readers of the table of limits: where each limit stands in the configuration. Pure.
//!
//! They only find; what the value becomes is the business of `values`.

#![forbid(unsafe_code)]

use super::Item;
use crate::spec::{BlockIo, Resources, ThrottleDevice, WeightDevice};

pub(super) fn given<T: Into<i128>>(value: Option<T>) -> Vec<Item> {
    value.map(|v| Item { number: v.into(), ..Item::default() }).into_iter().collect()
}

/// As [`given`], where zero means "not set".
pub(super) fn nonzero<T: Into<i128>>(value: Option<T>) -> Vec<Item> {
    given(value.map(Into::into).filter(|&v| v != 0))
}

pub(super) fn list(value: Option<&str>) -> Vec<Item> {
    let value = value.map(str::trim).filter(|v| !v.is_empty());
    value.map(|v| Item { text: v.to_owned(), ..Item::default() }).into_iter().collect()
}

/// Unlimited memory makes memory+swap unlimited too, unless it is set.
pub(super) fn swap(r: &Resources) -> Vec<Item> {
    let Some(memory) = &r.memory else { return Vec::new() };
    match memory.swap.unwrap_or(0) {
        0 if memory.limit == Some(-1) => given(Some(-1)),
        swap => nonzero(Some(swap)),
    }
}

pub(super) fn weight_devices(
    r: &Resources,
    name: &str,
    weight: fn(&WeightDevice) -> Option<u16>,
) -> Vec<Item> {
    let devices = r.block_io.iter().flat_map(|b| b.weight_device.iter().enumerate());
    devices
        .filter_map(|(i, d)| {
            let number = weight(d).filter(|&w| w != 0)?.into();
            let at = Some(format!("/blockIO/weightDevice/{i}/{name}"));
            Some(Item { at, key: format!("{}:{}", d.major, d.minor), number, text: String::new() })
        })
        .collect()
}

pub(super) fn throttles(r: &Resources, name: &str, list: fn(&BlockIo) -> &Vec<ThrottleDevice>) -> Vec<Item> {
    let devices = r.block_io.iter().flat_map(|b| list(b).iter().enumerate());
    devices
        .map(|(i, d)| Item {
            at: Some(format!("/blockIO/{name}/{i}")),
            key: format!("{}:{}", d.major, d.minor),
            number: d.rate.into(),
            text: String::new(),
        })
        .collect()
}

pub(super) fn hugepages(r: &Resources) -> Vec<Item> {
    let limits = r.hugepage_limits.iter().enumerate();
    limits
        .map(|(i, h)| Item {
            at: Some(format!("/hugepageLimits/{i}")),
            key: h.page_size.clone(),
            number: h.limit.into(),
            text: String::new(),
        })
        .collect()
}

pub(super) fn priorities(r: &Resources) -> Vec<Item> {
    let priorities = r.network.iter().flat_map(|n| n.priorities.iter().enumerate());
    priorities
        .map(|(i, p)| Item {
            at: Some(format!("/network/priorities/{i}")),
            key: p.name.clone(),
            number: p.priority.into(),
            text: String::new(),
        })
        .collect()
}

pub(super) fn rdma(r: &Resources) -> Vec<Item> {
    let devices = r.rdma.iter();
    devices
        .map(|(name, limit)| {
            let handles = limit.hca_handles.map(|n| format!(" hca_handle={n}"));
            let objects = limit.hca_objects.map(|n| format!(" hca_object={n}"));
            let text = handles.unwrap_or_default() + &objects.unwrap_or_default();
            Item { at: Some(format!("/rdma/{}", token(name))), key: name.clone(), number: 0, text }
        })
        .collect()
}

pub(super) fn unified(r: &Resources) -> Vec<Item> {
    let files = r.unified.iter();
    files
        .map(|(name, value)| Item {
            at: Some(format!("/unified/{}", token(name))),
            key: name.clone(),
            number: 0,
            text: value.clone(),
        })
        .collect()
}

/// A key as it stands in a JSON pointer (RFC 6901).
fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
