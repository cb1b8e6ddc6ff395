// SPDX-License-Identifier: Apache-2.0
//! io.containerd.cgroups.v2.Metrics.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat,
    RdmaEntry, RdmaStat,
};
use containerd_shim_protos::protobuf::MessageField;
use corten::cgroup::stats::{Cpu, Io, Memory, Pressure, Psi, Stats, Transfer};

/// The message.
pub fn metrics(stats: &Stats) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.pids = MessageField::from_option(stats.pids.map(|pids| PidsStat {
        current: pids.current,
        limit: pids.limit.unwrap_or(0),
        ..Default::default()
    }));
    metrics.cpu = MessageField::from_option(stats.cpu.as_ref().map(cpu));
    metrics.memory = MessageField::from_option(stats.memory.as_ref().map(memory));
    metrics.memory_events =
        MessageField::from_option(stats.memory.as_ref().map(|memory| events(&memory.events)));
    metrics.io = MessageField::from_option(stats.io.as_ref().map(io));
    let pages = stats.hugetlb.iter().map(|(size, counter)| HugeTlbStat {
        current: counter.usage,
        max: counter.limit,
        pagesize: size.clone(),
        failcnt: counter.failcnt,
        ..Default::default()
    });
    metrics.hugetlb = pages.collect();
    if !stats.rdma.is_empty() {
        metrics.rdma = MessageField::some(rdma(stats));
    }
    metrics
}

fn cpu(cpu: &Cpu) -> CPUStat {
    CPUStat {
        usage_usec: cpu.total / 1000,
        user_usec: cpu.user / 1000,
        system_usec: cpu.kernel / 1000,
        nr_periods: cpu.periods,
        nr_throttled: cpu.throttled_periods,
        throttled_usec: cpu.throttled_time / 1000,
        psi: psi(cpu.psi),
        nr_bursts: cpu.bursts,
        burst_usec: cpu.burst_time / 1000,
        ..Default::default()
    }
}

fn psi(psi: Option<Psi>) -> MessageField<PSIStats> {
    let data = |pressure: Pressure| {
        MessageField::some(PSIData {
            avg10: pressure.avg10,
            avg60: pressure.avg60,
            avg300: pressure.avg300,
            total: pressure.total,
            ..Default::default()
        })
    };
    MessageField::from_option(psi.map(|psi| PSIStats {
        some: data(psi.some),
        full: data(psi.full),
        ..Default::default()
    }))
}

fn memory(memory: &Memory) -> MemoryStat {
    let stat = |name: &str| memory.stat.get(name).copied().unwrap_or(0);
    // Since Linux 5.9 these two are told for anonymous memory and files apart.
    let both = |name: &str| stat(name) + stat(&format!("{name}_anon")) + stat(&format!("{name}_file"));
    MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_refault: both("workingset_refault"),
        workingset_activate: both("workingset_activate"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: memory.usage.usage,
        usage_limit: memory.usage.limit,
        swap_usage: memory.swap.usage,
        swap_limit: memory.swap.limit,
        max_usage: memory.usage.max,
        swap_max_usage: memory.swap.max,
        psi: psi(memory.psi),
        ..Default::default()
    }
}

fn events(events: &BTreeMap<String, u64>) -> MemoryEvents {
    let event = |name: &str| events.get(name).copied().unwrap_or(0);
    MemoryEvents {
        low: event("low"),
        high: event("high"),
        max: event("max"),
        oom: event("oom"),
        oom_kill: event("oom_kill"),
        oom_group_kill: event("oom_group_kill"),
        ..Default::default()
    }
}

/// One entry for each device, from a line for each figure.
fn io(io: &Io) -> IOStat {
    let mut devices: BTreeMap<(u64, u64), IOEntry> = BTreeMap::new();
    let mut add =
        |transfer: &Transfer, read: fn(&mut IOEntry) -> &mut u64, write: fn(&mut IOEntry) -> &mut u64| {
            let key = (transfer.major, transfer.minor);
            let entry = devices.entry(key).or_insert_with(|| IOEntry {
                major: transfer.major,
                minor: transfer.minor,
                ..Default::default()
            });
            match transfer.op.to_ascii_lowercase().as_str() {
                "read" => *read(entry) += transfer.value,
                "write" => *write(entry) += transfer.value,
                _ => {}
            }
        };
    io.bytes.iter().for_each(|transfer| add(transfer, |entry| &mut entry.rbytes, |entry| &mut entry.wbytes));
    io.operations.iter().for_each(|transfer| add(transfer, |entry| &mut entry.rios, |entry| &mut entry.wios));
    IOStat { usage: devices.into_values().collect(), psi: psi(io.psi), ..Default::default() }
}

fn rdma(stats: &Stats) -> RdmaStat {
    let (current, limit) = super::rdma(stats, |device, hca_handles, hca_objects| RdmaEntry {
        device,
        hca_handles,
        hca_objects,
        ..Default::default()
    });
    RdmaStat { current, limit, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_find_their_fields() {
        let transfer = |op: &str, value| Transfer { major: 8, minor: 0, op: op.into(), value };
        let mut memory = Memory::default();
        memory.stat.insert("workingset_refault_file".into(), 3);
        memory.events.insert("oom_kill".into(), 2);
        let stats = Stats {
            cpu: Some(Cpu { total: 5000, ..Default::default() }),
            memory: Some(memory),
            io: Some(Io {
                bytes: vec![transfer("Read", 10), transfer("Write", 20)],
                operations: vec![transfer("Read", 1)],
                ..Default::default()
            }),
            ..Default::default()
        };
        let metrics = metrics(&stats);
        assert_eq!(metrics.cpu.usage_usec, 5);
        assert_eq!((metrics.memory.workingset_refault, metrics.memory_events.oom_kill), (3, 2));
        let [entry] = &metrics.io.usage[..] else { panic!("one device") };
        assert_eq!((entry.major, entry.rbytes, entry.wbytes, entry.rios, entry.wios), (8, 10, 20, 1, 0));
        assert!(metrics.pids.is_none());
    }
}
