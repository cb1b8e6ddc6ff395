// SPDX-License-Identifier: Apache-2.0
//! io.containerd.cgroups.v1.Metrics.

#![forbid(unsafe_code)]

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
    Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use containerd_shim_protos::protobuf::MessageField;
use corten::cgroup::stats::{Counter, Cpu, Io, Memory, Stats, Transfer};

/// The message.
pub fn metrics(stats: &Stats) -> Metrics {
    let mut metrics = Metrics::new();
    let pages = stats.hugetlb.iter().map(|(size, counter)| HugetlbStat {
        usage: counter.usage,
        max: counter.max,
        failcnt: counter.failcnt,
        pagesize: size.clone(),
        ..Default::default()
    });
    metrics.hugetlb = pages.collect();
    metrics.pids = MessageField::from_option(stats.pids.map(|pids| PidsStat {
        current: pids.current,
        limit: pids.limit.unwrap_or(0),
        ..Default::default()
    }));
    metrics.cpu = MessageField::from_option(stats.cpu.as_ref().map(cpu));
    metrics.memory = MessageField::from_option(stats.memory.as_ref().map(memory));
    metrics.memory_oom_control = MessageField::from_option(stats.memory.as_ref().map(oom_control));
    metrics.blkio = MessageField::from_option(stats.io.as_ref().map(io));
    if !stats.rdma.is_empty() {
        metrics.rdma = MessageField::some(rdma(stats));
    }
    metrics
}

fn cpu(cpu: &Cpu) -> CPUStat {
    let usage = CPUUsage {
        total: cpu.total,
        kernel: cpu.kernel,
        user: cpu.user,
        per_cpu: cpu.per_cpu.iter().map(|cpu| cpu.total).collect(),
        ..Default::default()
    };
    let throttling = Throttle {
        periods: cpu.periods,
        throttled_periods: cpu.throttled_periods,
        throttled_time: cpu.throttled_time,
        ..Default::default()
    };
    CPUStat {
        usage: MessageField::some(usage),
        throttling: MessageField::some(throttling),
        ..Default::default()
    }
}

fn memory(memory: &Memory) -> MemoryStat {
    let stat = |name: &str| memory.stat.get(name).copied().unwrap_or(0);
    MemoryStat {
        cache: stat("cache"),
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: stat("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        total_inactive_file: stat("total_inactive_file"),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: entry(&memory.usage),
        swap: entry(&memory.swap),
        kernel: entry(&memory.kernel),
        kernel_tcp: entry(&memory.kernel_tcp),
        ..Default::default()
    }
}

fn entry(counter: &Counter) -> MessageField<MemoryEntry> {
    MessageField::some(MemoryEntry {
        limit: counter.limit,
        usage: counter.usage,
        max: counter.max,
        failcnt: counter.failcnt,
        ..Default::default()
    })
}

fn oom_control(memory: &Memory) -> MemoryOomControl {
    let event = |name: &str| memory.events.get(name).copied().unwrap_or(0);
    MemoryOomControl {
        oom_kill_disable: event("oom_kill_disable"),
        under_oom: event("under_oom"),
        oom_kill: event("oom_kill"),
        ..Default::default()
    }
}

fn io(io: &Io) -> BlkIOStat {
    let entry = |transfer: &Transfer| BlkIOEntry {
        op: transfer.op.clone(),
        major: transfer.major,
        minor: transfer.minor,
        value: transfer.value,
        ..Default::default()
    };
    let all = |transfers: &[Transfer]| transfers.iter().map(entry).collect();
    BlkIOStat {
        io_service_bytes_recursive: all(&io.bytes),
        io_serviced_recursive: all(&io.operations),
        io_queued_recursive: all(&io.bfq.queued),
        io_service_time_recursive: all(&io.bfq.service_time),
        io_wait_time_recursive: all(&io.bfq.wait_time),
        io_merged_recursive: all(&io.bfq.merged),
        io_time_recursive: all(&io.bfq.time),
        sectors_recursive: all(&io.bfq.sectors),
        ..Default::default()
    }
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
