// SPDX-License-Identifier: Apache-2.0
//! `update`: what the resources in force and those asked for make together. Pure.
//!
//! A field that is not asked for stays; zero means "not asked for" where the table of limits (`cgroup/limits`) takes it
//! for "not set", since clients written in Go send zeroes for what they leave out. Entries of lists and maps
//! replace those of the same device, size, interface or file; the list of device rules is replaced as a whole, because
//! its order is its meaning.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use crate::spec::{BlockIo, Cpu, Memory, Network, Resources};

/// The resources that are in force after `ask` was applied to `before`.
#[must_use]
pub(crate) fn merged(before: &Resources, ask: &Resources) -> Resources {
    let mut all = before.clone();
    if !ask.devices.is_empty() {
        all.devices.clone_from(&ask.devices);
    }
    if let Some(ask) = &ask.memory {
        memory(all.memory.get_or_insert_default(), ask);
    }
    if let Some(ask) = &ask.cpu {
        cpu(all.cpu.get_or_insert_default(), ask);
    }
    if let Some(ask) = &ask.pids {
        given(&mut all.pids.get_or_insert_default().limit, ask.limit);
    }
    if let Some(ask) = &ask.block_io {
        block_io(all.block_io.get_or_insert_default(), ask);
    }
    entries(&mut all.hugepage_limits, &ask.hugepage_limits, |h| h.page_size.clone());
    if let Some(ask) = &ask.network {
        let network: &mut Network = all.network.get_or_insert_default();
        nonzero(&mut network.class_id, ask.class_id);
        entries(&mut network.priorities, &ask.priorities, |p| p.name.clone());
    }
    for (device, limit) in &ask.rdma {
        let all = all.rdma.entry(device.clone()).or_default();
        given(&mut all.hca_handles, limit.hca_handles);
        given(&mut all.hca_objects, limit.hca_objects);
    }
    all.unified.extend(ask.unified.iter().map(|(file, value)| (file.clone(), value.clone())));
    all
}

fn memory(all: &mut Memory, ask: &Memory) {
    nonzero(&mut all.limit, ask.limit);
    nonzero(&mut all.reservation, ask.reservation);
    nonzero(&mut all.swap, ask.swap);
    // A swap limit without a memory limit means nothing: it goes with it, unless it is asked for.
    if ask.limit == Some(-1) && ask.swap.unwrap_or(0) == 0 {
        all.swap = Some(-1);
    }
    nonzero(&mut all.kernel, ask.kernel);
    nonzero(&mut all.kernel_tcp, ask.kernel_tcp);
    given(&mut all.swappiness, ask.swappiness);
    given(&mut all.disable_oom_killer, ask.disable_oom_killer);
    given(&mut all.use_hierarchy, ask.use_hierarchy);
    given(&mut all.check_before_update, ask.check_before_update);
}

fn cpu(all: &mut Cpu, ask: &Cpu) {
    nonzero(&mut all.shares, ask.shares);
    nonzero(&mut all.quota, ask.quota);
    given(&mut all.burst, ask.burst);
    nonzero(&mut all.period, ask.period);
    nonzero(&mut all.realtime_runtime, ask.realtime_runtime);
    nonzero(&mut all.realtime_period, ask.realtime_period);
    for (all, ask) in [(&mut all.cpus, &ask.cpus), (&mut all.mems, &ask.mems)] {
        if ask.as_ref().is_some_and(|list| !list.trim().is_empty()) {
            all.clone_from(ask);
        }
    }
    given(&mut all.idle, ask.idle);
}

fn block_io(all: &mut BlockIo, ask: &BlockIo) {
    nonzero(&mut all.weight, ask.weight);
    nonzero(&mut all.leaf_weight, ask.leaf_weight);
    entries(&mut all.weight_device, &ask.weight_device, |d| (d.major, d.minor));
    entries(&mut all.throttle_read_bps_device, &ask.throttle_read_bps_device, |d| (d.major, d.minor));
    entries(&mut all.throttle_write_bps_device, &ask.throttle_write_bps_device, |d| (d.major, d.minor));
    entries(&mut all.throttle_read_iops_device, &ask.throttle_read_iops_device, |d| (d.major, d.minor));
    entries(&mut all.throttle_write_iops_device, &ask.throttle_write_iops_device, |d| (d.major, d.minor));
}

fn given<T: Copy>(all: &mut Option<T>, ask: Option<T>) {
    *all = ask.or(*all);
}

fn nonzero<T: Copy + Default + PartialEq>(all: &mut Option<T>, ask: Option<T>) {
    given(all, ask.filter(|value| *value != T::default()));
}

/// Those asked for come first, so that an error's pointer counts as the asker does.
fn entries<T: Clone, K: Ord>(all: &mut Vec<T>, ask: &[T], key: impl Fn(&T) -> K) {
    let asked: BTreeSet<K> = ask.iter().map(&key).collect();
    all.retain(|old| !asked.contains(&key(old)));
    all.splice(0..0, ask.iter().cloned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Resources {
        crate::spec::read("test", json.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_not_asked_for_stays() {
        for (before, ask, after) in [
            (r#"{"memory":{"limit":5}}"#, "{}", r#"{"memory":{"limit":5}}"#),
            (
                r#"{"cpu":{"quota":5000}}"#,
                r#"{"cpu":{"period":7000}}"#,
                r#"{"cpu":{"quota":5000,"period":7000}}"#,
            ),
            (
                r#"{"memory":{"limit":5,"swap":6}}"#,
                r#"{"memory":{"limit":0,"swap":0,"reservation":3}}"#,
                r#"{"memory":{"limit":5,"swap":6,"reservation":3}}"#,
            ),
            (
                r#"{"memory":{"limit":5,"swap":6}}"#,
                r#"{"memory":{"limit":-1}}"#,
                r#"{"memory":{"limit":-1,"swap":-1}}"#,
            ),
            (r#"{"pids":{"limit":5}}"#, r#"{"pids":{"limit":0}}"#, r#"{"pids":{"limit":0}}"#),
            (r#"{"cpu":{"idle":1}}"#, r#"{"cpu":{"cpus":"","idle":0}}"#, r#"{"cpu":{"idle":0}}"#),
            (
                r#"{"devices":[{"allow":true}],"unified":{"a.b":"1","c.d":"2"}}"#,
                r#"{"unified":{"c.d":"3"}}"#,
                r#"{"devices":[{"allow":true}],"unified":{"a.b":"1","c.d":"3"}}"#,
            ),
        ] {
            assert_eq!(merged(&read(before), &read(ask)), read(after), "{before} + {ask}");
        }
    }

    #[test]
    fn entries_replace_those_of_the_same_device() {
        let before = r#"{"blockIO":{"throttleReadBpsDevice":[
            {"major":8,"minor":0,"rate":1},{"major":8,"minor":16,"rate":2}]},
            "hugepageLimits":[{"pageSize":"2MB","limit":4}]}"#;
        let ask = r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":16,"rate":9}]},
            "hugepageLimits":[{"pageSize":"1GB","limit":8}]}"#;
        let after = merged(&read(before), &read(ask));
        let rates: Vec<_> =
            after.block_io.unwrap().throttle_read_bps_device.iter().map(|d| (d.minor, d.rate)).collect();
        assert_eq!(rates, [(16, 9), (0, 1)]);
        let sizes: Vec<_> = after.hugepage_limits.iter().map(|h| h.page_size.as_str()).collect();
        assert_eq!(sizes, ["1GB", "2MB"]);
    }

    #[test]
    fn the_result_survives_the_state_file() {
        let all = read(
            r#"{"memory":{"limit":5,"kernelTCP":7,"disableOOMKiller":true},"cpu":{"cpus":"0-1","idle":0},
            "blockIO":{"weight":10,"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":18446744073709551615}]},
            "network":{"classID":3},"rdma":{"a":{"hcaHandles":1}},"unified":{"a.b":"c"},"pids":{}}"#,
        );
        assert_eq!(read(&serde_json::to_string(&all).unwrap()), all);
    }
}
