// SPDX-License-Identifier: Apache-2.0
//! `Stats`: the figures of a container's control groups, in containerd's messages: one for v1, one for v2.

#![forbid(unsafe_code)]

mod v1;
mod v2;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use corten::cgroup::stats::Stats;
use corten::cgroup::{Group, Version};

use crate::refusal::{Refusal, Result};

/// The figures as they are now.
///
/// # Errors
/// NotFound when the group is gone, or there is none: the CRI plugin then goes on with the next container.
pub fn collect(group: &Group) -> Result<Any> {
    let stats = group.stats().map_err(|error| match error.errno() {
        Some(libc::ENOENT | libc::ENODEV) | None => Refusal::not_found(format!("{error}: not found")),
        Some(_) => error.into(),
    })?;
    Ok(match stats.version {
        Version::V2 => pack_any("io.containerd.cgroups.v2.Metrics", &v2::metrics(&stats)),
        _ => pack_any("io.containerd.cgroups.v1.Metrics", &v1::metrics(&stats)),
    })
}

/// The URL is the bare name, which is how containerd registers them.
fn pack_any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: name.to_owned(),
        value: message.write_to_bytes().unwrap_or_default(),
        ..Default::default()
    }
}

/// What each device has in use and may have, as entries of either message: both have 32 bits for it.
fn rdma<E>(stats: &Stats, entry: fn(String, u32, u32) -> E) -> (Vec<E>, Vec<E>) {
    let clamp = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let limit = |limit: Option<u64>| limit.map_or(u32::MAX, clamp);
    let each = || stats.rdma.iter().map(|(device, rdma)| (device.clone(), rdma));
    let current = each().map(|(device, rdma)| entry(device, clamp(rdma.handles), clamp(rdma.objects)));
    let limits =
        each().map(|(device, rdma)| entry(device, limit(rdma.handles_limit), limit(rdma.objects_limit)));
    (current.collect(), limits.collect())
}
