// SPDX-License-Identifier: Apache-2.0
//! A container's figures as runc's `events` prints them (runc types/events.go; compatibility J3): the names, their order,
//! what is left out when it is zero. Clients read it into Go structures, runc's own tests match it as text.

use std::collections::BTreeMap;

use corten::cgroup::Version;
use corten::cgroup::stats::{self, Counter, Pressure, Stats, Transfer};
use corten::host::rdt::Figures;
use corten::verbs::Usage;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Debug, Serialize)]
struct Data {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    /// Not runc's: left out where there is none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rdma: BTreeMap<String, Rdma>,
    intel_rdt: Figures,
    network_interfaces: Option<()>,
}

#[derive(Debug, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "zero")]
    periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_time: u64,
}

#[derive(Debug, Serialize)]
struct Psi {
    some: PsiLine,
    full: PsiLine,
}

#[derive(Debug, Serialize)]
struct PsiLine {
    avg10: Average,
    avg60: Average,
    avg300: Average,
    total: u64,
}

/// As Go prints it: a whole number has no fraction.
#[derive(Debug)]
struct Average(f64);

impl Serialize for Average {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 { s.serialize_u64(self.0 as u64) } else { s.serialize_f64(self.0) }
    }
}

#[derive(Debug, Default, Serialize)]
struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    mem_hardwall: i64,
    mem_exclusive: i64,
    memory_migrate: i64,
    memory_spread_page: i64,
    memory_spread_slab: i64,
    memory_pressure: i64,
    sched_load_balance: i64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    #[serde(skip_serializing_if = "zero")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "zero")]
    current: u64,
    #[serde(skip_serializing_if = "zero")]
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    io_queued_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "zero")]
    major: u64,
    #[serde(skip_serializing_if = "zero")]
    minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(skip_serializing_if = "zero")]
    value: u64,
}

#[derive(Debug, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Serialize)]
struct Rdma {
    handles: u64,
    objects: u64,
}

fn zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Event<'a> {
    /// The figures.
    pub fn stats(id: &'a str, usage: &Usage) -> Self {
        Event { kind: "stats", id, data: Some(Data::of(&usage.cgroup, &usage.resctrl)) }
    }

    /// A process was killed for want of memory.
    pub fn oom(id: &'a str) -> Self {
        Event { kind: "oom", id, data: None }
    }
}

impl Data {
    fn of(stats: &Stats, resctrl: &Figures) -> Self {
        let hugetlb = |(size, c): (&String, &Counter)| {
            (size.clone(), Hugetlb { usage: c.usage, max: c.max, failcnt: c.failcnt })
        };
        let rdma = |(device, r): (&String, &stats::Rdma)| {
            (device.clone(), Rdma { handles: r.handles, objects: r.objects })
        };
        Data {
            cpu: cpu(&stats.cpu.clone().unwrap_or_default()),
            cpuset: stats.cpuset.as_ref().map(cpuset).unwrap_or_default(),
            memory: stats
                .memory
                .as_ref()
                .map(|memory| self::memory(memory, stats.version))
                .unwrap_or_default(),
            pids: stats.pids.map_or_else(Pids::default, |pids| Pids {
                current: pids.current,
                limit: pids.limit.unwrap_or(0),
            }),
            blkio: stats.io.as_ref().map(blkio).unwrap_or_default(),
            hugetlb: stats.hugetlb.iter().map(hugetlb).collect(),
            rdma: stats.rdma.iter().map(rdma).collect(),
            intel_rdt: resctrl.clone(),
            network_interfaces: None,
        }
    }
}

fn cpu(cpu: &stats::Cpu) -> Cpu {
    let per = |value: fn(&stats::PerCpu) -> u64| cpu.per_cpu.iter().map(value).collect();
    Cpu {
        usage: CpuUsage {
            total: cpu.total,
            percpu: per(|cpu| cpu.total),
            percpu_kernel: per(|cpu| cpu.kernel),
            percpu_user: per(|cpu| cpu.user),
            kernel: cpu.kernel,
            user: cpu.user,
        },
        throttling: Throttling {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_time,
        },
        psi: psi(cpu.psi),
    }
}

fn psi(psi: Option<stats::Psi>) -> Option<Psi> {
    let line = |p: Pressure| PsiLine {
        avg10: Average(p.avg10),
        avg60: Average(p.avg60),
        avg300: Average(p.avg300),
        total: p.total,
    };
    psi.map(|psi| Psi { some: line(psi.some), full: line(psi.full) })
}

fn cpuset(set: &stats::Cpuset) -> Cpuset {
    let flag = |name| set.flags.get(name).copied().unwrap_or(0);
    Cpuset {
        cpus: set.cpus.clone(),
        cpu_exclusive: flag("cpu_exclusive"),
        mems: set.mems.clone(),
        mem_hardwall: flag("mem_hardwall"),
        mem_exclusive: flag("mem_exclusive"),
        memory_migrate: flag("memory_migrate"),
        memory_spread_page: flag("memory_spread_page"),
        memory_spread_slab: flag("memory_spread_slab"),
        memory_pressure: flag("memory_pressure"),
        sched_load_balance: flag("sched_load_balance"),
        sched_relax_domain_level: flag("sched_relax_domain_level"),
    }
}

/// On v2, swap is told with memory, as v1 has it; so its maximum is unknown.
fn memory(memory: &stats::Memory, version: Version) -> Memory {
    let entry = |c: Counter| MemoryEntry { limit: c.limit, usage: c.usage, max: c.max, failcnt: c.failcnt };
    let unified = version == Version::V2;
    let both = Counter {
        usage: memory.swap.usage.saturating_add(memory.usage.usage),
        limit: memory.swap.limit.saturating_add(memory.usage.limit),
        ..Counter::default()
    };
    Memory {
        cache: memory.stat.get(if unified { "file" } else { "cache" }).copied().unwrap_or(0),
        usage: entry(memory.usage),
        swap: entry(if unified { both } else { memory.swap }),
        kernel: entry(memory.kernel),
        kernel_tcp: entry(memory.kernel_tcp),
        raw: memory.stat.clone(),
        psi: psi(memory.psi),
    }
}

fn blkio(io: &stats::Io) -> Blkio {
    let table = |transfers: &[Transfer]| {
        let entry =
            |t: &Transfer| BlkioEntry { major: t.major, minor: t.minor, op: t.op.clone(), value: t.value };
        transfers.iter().map(entry).collect()
    };
    Blkio {
        io_service_bytes_recursive: table(&io.bytes),
        io_serviced_recursive: table(&io.operations),
        io_queued_recursive: table(&io.bfq.queued),
        io_service_time_recursive: table(&io.bfq.service_time),
        io_wait_time_recursive: table(&io.bfq.wait_time),
        io_merged_recursive: table(&io.bfq.merged),
        io_time_recursive: table(&io.bfq.time),
        sectors_recursive: table(&io.bfq.sectors),
        psi: psi(io.psi),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_runcs() {
        assert_eq!(serde_json::to_string(&Event::oom("a")).unwrap(), r#"{"type":"oom","id":"a"}"#);
        let stats = Stats {
            version: Version::V2,
            cpu: Some(stats::Cpu {
                total: 5,
                psi: Some(stats::Psi {
                    some: Pressure { avg10: 1.5, avg60: 0.0, avg300: 2.0, total: 3 },
                    full: Pressure::default(),
                }),
                ..stats::Cpu::default()
            }),
            memory: Some(stats::Memory {
                usage: Counter { usage: 5, limit: 100, max: 7, failcnt: 1 },
                swap: Counter { usage: 1, limit: u64::MAX, max: 2, failcnt: 0 },
                stat: BTreeMap::from([("file".to_owned(), 9)]),
                ..stats::Memory::default()
            }),
            pids: Some(stats::Pids { current: 3, limit: None }),
            ..Stats::default()
        };
        let text =
            serde_json::to_string(&Event::stats("a", &Usage { cgroup: stats, ..Usage::default() })).unwrap();
        let parts = [
            r#"{"type":"stats","id":"a","data":{"cpu":{"usage":{"total":5,"kernel":0,"user":0},"throttling":{},"#,
            r#""psi":{"some":{"avg10":1.5,"avg60":0,"avg300":2,"total":3},"full":{"avg10":0,"avg60":0,"avg300":0,"total":0}}},"#,
            r#""cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"#,
            r#""memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},"#,
            r#""memory":{"cache":9,"usage":{"limit":100,"usage":5,"max":7,"failcnt":1},"#,
            r#""swap":{"limit":18446744073709551615,"usage":6,"failcnt":0},"kernel":{"limit":0,"failcnt":0},"#,
            r#""kernelTCP":{"limit":0,"failcnt":0},"raw":{"file":9}},"pids":{"current":3},"blkio":{},"hugetlb":{},"#,
            r#""intel_rdt":{},"network_interfaces":null}}"#,
        ];
        assert_eq!(text, parts.concat());
    }
}
