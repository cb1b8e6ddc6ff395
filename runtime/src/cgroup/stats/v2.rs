// SPDX-License-Identifier: Apache-2.0
//! The figures on the unified hierarchy (Linux, Documentation/admin-guide/cgroup-v2.rst).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::{Counter, Cpu, Cpuset, Files, Io, Memory, Pids, Stats, Transfer, list, page_sizes};
use crate::cgroup::Version;
use crate::cgroup::dir::CgroupDir;
use crate::error::Result;

pub(super) fn read(dir: &CgroupDir) -> Result<Stats> {
    let files = Files(dir);
    Ok(Stats {
        version: Version::V2,
        cpu: cpu(&files)?,
        cpuset: cpuset(&files)?,
        memory: memory(&files)?,
        pids: pids(&files)?,
        io: io(&files)?,
        hugetlb: hugetlb(&files)?,
        rdma: files.rdma()?,
    })
}

fn cpu(files: &Files<'_>) -> Result<Option<Cpu>> {
    let Some(stat) = files.table("cpu.stat")? else { return Ok(None) };
    let count = |name: &str| stat.get(name).copied().unwrap_or(0);
    let time = |name: &str| count(name).saturating_mul(1000);
    Ok(Some(Cpu {
        total: time("usage_usec"),
        user: time("user_usec"),
        kernel: time("system_usec"),
        per_cpu: Vec::new(),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_time: time("throttled_usec"),
        bursts: count("nr_bursts"),
        burst_time: time("burst_usec"),
        psi: files.psi("cpu.pressure")?,
    }))
}

fn cpuset(files: &Files<'_>) -> Result<Option<Cpuset>> {
    let Some(cpus) = files.text("cpuset.cpus.effective")? else { return Ok(None) };
    let mems = files.text("cpuset.mems.effective")?.unwrap_or_default();
    Ok(Some(Cpuset { cpus: list(&cpus), mems: list(&mems), flags: BTreeMap::new() }))
}

fn memory(files: &Files<'_>) -> Result<Option<Memory>> {
    let Some(usage) = files.read_number("memory.current")? else { return Ok(None) };
    let events = files.table("memory.events")?.unwrap_or_default();
    let number = |file| files.read_number(file).map(Option::unwrap_or_default);
    Ok(Some(Memory {
        usage: Counter {
            usage,
            limit: number("memory.max")?,
            max: number("memory.peak")?,
            failcnt: events.get("max").copied().unwrap_or(0),
        },
        swap: Counter {
            usage: number("memory.swap.current")?,
            limit: number("memory.swap.max")?,
            max: number("memory.swap.peak")?,
            failcnt: 0,
        },
        stat: files.table("memory.stat")?.unwrap_or_default(),
        events,
        psi: files.psi("memory.pressure")?,
        ..Memory::default()
    }))
}

fn pids(files: &Files<'_>) -> Result<Option<Pids>> {
    let Some(current) = files.read_number("pids.current")? else { return Ok(None) };
    let limit = files.read_number("pids.max")?.filter(|&limit| limit != u64::MAX);
    Ok(Some(Pids { current, limit }))
}

fn io(files: &Files<'_>) -> Result<Option<Io>> {
    let psi = files.psi("io.pressure")?;
    let Some(text) = files.text("io.stat")? else {
        return Ok(psi.map(|psi| Io { psi: Some(psi), ..Io::default() }));
    };
    Ok(Some(Io { psi, ..transfers(&text) }))
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn transfers(text: &str) -> Io {
    let mut io = Io::default();
    for (device, fields) in text.lines().filter_map(|line| line.split_once(' ')) {
        let Some((major, minor)) = device.split_once(':') else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (name, value) in fields.split(' ').filter_map(|field| field.split_once('=')) {
            let (table, op) = match name {
                "rbytes" => (&mut io.bytes, "Read"),
                "wbytes" => (&mut io.bytes, "Write"),
                "dbytes" => (&mut io.bytes, "Discard"),
                "rios" => (&mut io.operations, "Read"),
                "wios" => (&mut io.operations, "Write"),
                "dios" => (&mut io.operations, "Discard"),
                _ => continue,
            };
            table.push(Transfer { major, minor, op: op.to_owned(), value: super::parse_number(value) });
        }
    }
    io
}

fn hugetlb(files: &Files<'_>) -> Result<BTreeMap<String, Counter>> {
    let mut all = BTreeMap::new();
    for size in page_sizes() {
        let Some(usage) = files.read_number(&format!("hugetlb.{size}.current"))? else { continue };
        let limit = files.read_number(&format!("hugetlb.{size}.max"))?.unwrap_or(u64::MAX);
        let events = files.table(&format!("hugetlb.{size}.events"))?.unwrap_or_default();
        let failcnt = events.get("max").copied().unwrap_or(0);
        all.insert(size, Counter { usage, limit, max: 0, failcnt });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_stat() {
        let io = transfers(
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0 cost.wait=9\n254:16 rbytes=5\n7:0 \n",
        );
        let bytes: Vec<_> = io.bytes.iter().map(|t| (t.major, t.minor, t.op.as_str(), t.value)).collect();
        assert_eq!(
            bytes,
            [(8, 0, "Read", 1), (8, 0, "Write", 2), (8, 0, "Discard", 0), (254, 16, "Read", 5)]
        );
        assert_eq!(io.operations.len(), 3);
    }
}
