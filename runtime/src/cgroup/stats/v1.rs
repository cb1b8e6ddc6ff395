// SPDX-License-Identifier: Apache-2.0
//! The figures on the v1 hierarchies (Linux, Documentation/admin-guide/cgroup-v1).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::{
    BfqFigures, Counter, Cpu, Cpuset, Files, Io, Memory, PerCpu, Pids, Stats, Transfer, list, page_sizes,
};
use crate::cgroup::Version;
use crate::cgroup::group::Group;
use crate::error::Result;

/// Nanoseconds of a tick of USER_HZ, which is 100 everywhere.
const TICK: u64 = 10_000_000;

/// The numbers of cpuset that runc tells.
const FLAGS: [&str; 9] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
];

pub(super) fn read(group: &Group) -> Result<Stats> {
    let of = |controller| Ok(group.group_of(controller)?.map(|(_, dir)| Files(dir)));
    Ok(Stats {
        version: Version::V1,
        cpu: cpu(of("cpuacct")?, of("cpu")?)?,
        cpuset: of("cpuset")?.map(|files| cpuset(&files)).transpose()?,
        memory: of("memory")?.map(|files| memory(&files)).transpose()?,
        pids: of("pids")?.map(|files| pids(&files)).transpose()?,
        io: of("blkio")?.map(|files| io(&files)).transpose()?,
        hugetlb: of("hugetlb")?.map(|files| hugetlb(&files)).transpose()?.unwrap_or_default(),
        rdma: of("rdma")?.map(|files| files.rdma()).transpose()?.unwrap_or_default(),
    })
}

fn cpu(accounting: Option<Files<'_>>, cpu: Option<Files<'_>>) -> Result<Option<Cpu>> {
    let mut all = Cpu::default();
    if let Some(files) = &accounting {
        all.total = files.read_number("cpuacct.usage")?.unwrap_or(0);
        let stat = files.table("cpuacct.stat")?.unwrap_or_default();
        let time = |name: &str| stat.get(name).copied().unwrap_or(0).saturating_mul(TICK);
        (all.user, all.kernel) = (time("user"), time("system"));
        let totals = files.text("cpuacct.usage_percpu")?.unwrap_or_default();
        all.per_cpu = totals
            .split_ascii_whitespace()
            .map(|total| PerCpu { total: super::parse_number(total), ..PerCpu::default() })
            .collect();
        // `cpu user system`, then a line for each.
        let text = files.text("cpuacct.usage_all")?.unwrap_or_default();
        for (cpu, line) in all.per_cpu.iter_mut().zip(text.lines().skip(1)) {
            let mut numbers = line.split(' ').skip(1).map(super::parse_number);
            cpu.user = numbers.next().unwrap_or(0);
            cpu.kernel = numbers.next().unwrap_or(0);
        }
    }
    if let Some(files) = &cpu {
        let stat = files.table("cpu.stat")?.unwrap_or_default();
        let count = |name: &str| stat.get(name).copied().unwrap_or(0);
        all.periods = count("nr_periods");
        all.throttled_periods = count("nr_throttled");
        all.throttled_time = count("throttled_time");
        all.bursts = count("nr_bursts");
        all.burst_time = count("burst_time");
    }
    Ok((accounting.is_some() || cpu.is_some()).then_some(all))
}

fn cpuset(files: &Files<'_>) -> Result<Cpuset> {
    let text = |file| files.text(file).map(Option::unwrap_or_default);
    let mut set = Cpuset {
        cpus: list(&text("cpuset.cpus")?),
        mems: list(&text("cpuset.mems")?),
        flags: BTreeMap::new(),
    };
    for name in FLAGS {
        if let Some(text) = files.text(&format!("cpuset.{name}"))? {
            set.flags.insert(name, text.trim().parse().unwrap_or(0));
        }
    }
    Ok(set)
}

fn memory(files: &Files<'_>) -> Result<Memory> {
    let counter = |what: &str| {
        let number =
            |file: &str| files.read_number(&format!("memory.{what}{file}")).map(Option::unwrap_or_default);
        Ok(Counter {
            usage: number("usage_in_bytes")?,
            limit: number("limit_in_bytes")?,
            max: number("max_usage_in_bytes")?,
            failcnt: number("failcnt")?,
        })
    };
    Ok(Memory {
        usage: counter("")?,
        swap: counter("memsw.")?,
        kernel: counter("kmem.")?,
        kernel_tcp: counter("kmem.tcp.")?,
        stat: files.table("memory.stat")?.unwrap_or_default(),
        events: files.table("memory.oom_control")?.unwrap_or_default(),
        psi: None,
    })
}

fn pids(files: &Files<'_>) -> Result<Pids> {
    let limit = files.read_number("pids.max")?.filter(|&limit| limit != u64::MAX);
    Ok(Pids { current: files.read_number("pids.current")?.unwrap_or(0), limit })
}

/// BFQ counts what goes through it; where it schedules nothing, the throttling layer has counted.
fn io(files: &Files<'_>) -> Result<Io> {
    let table = |file: &str| Ok(transfers(&files.text(file)?.unwrap_or_default()));
    let mut io = Io { bytes: table("blkio.bfq.io_service_bytes_recursive")?, ..Io::default() };
    if io.bytes.is_empty() {
        io.bytes = table("blkio.throttle.io_service_bytes_recursive")?;
        io.operations = table("blkio.throttle.io_serviced_recursive")?;
        return Ok(io);
    }
    io.operations = table("blkio.bfq.io_serviced_recursive")?;
    let bfq = |name: &str| table(&format!("blkio.bfq.{name}_recursive"));
    io.bfq = BfqFigures {
        queued: bfq("io_queued")?,
        service_time: bfq("io_service_time")?,
        wait_time: bfq("io_wait_time")?,
        merged: bfq("io_merged")?,
        time: bfq("time")?,
        sectors: bfq("sectors")?,
    };
    Ok(io)
}

/// `8:0 Read 4096`, or `8:0 4096`; the sum over all devices is left out.
fn transfers(text: &str) -> Vec<Transfer> {
    let line = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
        Some(Transfer {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.trim().parse().ok()?,
        })
    };
    text.lines().filter_map(line).collect()
}

fn hugetlb(files: &Files<'_>) -> Result<BTreeMap<String, Counter>> {
    let mut all = BTreeMap::new();
    for size in page_sizes() {
        let number = |file: &str| files.read_number(&format!("hugetlb.{size}.{file}"));
        let Some(usage) = number("usage_in_bytes")? else { continue };
        let counter = Counter {
            usage,
            limit: number("limit_in_bytes")?.unwrap_or(u64::MAX),
            max: number("max_usage_in_bytes")?.unwrap_or(0),
            failcnt: number("failcnt")?.unwrap_or(0),
        };
        all.insert(size, counter);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_io() {
        let lines = transfers("8:0 Read 4096\n8:0 Total 4096\nTotal 4096\n8:16 7\n");
        let lines: Vec<_> = lines.iter().map(|t| (t.minor, t.op.as_str(), t.value)).collect();
        assert_eq!(lines, [(0, "Read", 4096), (0, "Total", 4096), (16, "", 7)]);
    }
}
