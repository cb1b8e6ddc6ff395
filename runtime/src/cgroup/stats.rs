// SPDX-License-Identifier: Apache-2.0
//! What a container uses: the figures of its groups, each file read once.
//!
//! One set of types for v1 and v2, in the finer unit of the two (nanoseconds, bytes); a controller that the container
//! does not have is absent. Pure reading: the kernel's texts are taken apart here, the files stand in `stats/v1` and
//! `stats/v2`. `events` prints them as runc does, the shim as containerd's metrics.

#![forbid(unsafe_code)]

mod v1;
mod v2;

use std::collections::BTreeMap;

use super::dir::CgroupDir;
use super::group::Group;
use super::probe::Version;
use crate::error::{Error, Kind, Result};

/// The figures of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Which interface they are from: some figures mean something else on the other (see the fields).
    pub version: Version,
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// Which processors and memory nodes.
    pub cpuset: Option<Cpuset>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processes and threads.
    pub pids: Option<Pids>,
    /// Block devices.
    pub io: Option<Io>,
    /// Huge pages, by size (`2MB`).
    pub hugetlb: BTreeMap<String, Counter>,
    /// RDMA resources in use, by device.
    pub rdma: BTreeMap<String, Rdma>,
}

/// Pressure: how much of the time processes had to wait (Documentation/accounting/psi.rst, Linux 4.20; v2 only).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Psi {
    /// Some process waited.
    pub some: Pressure,
    /// All of them waited.
    pub full: Pressure,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Percent of the last ten seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last five minutes.
    pub avg300: f64,
    /// Microseconds in all.
    pub total: u64,
}

/// Processor time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    /// In all.
    pub total: u64,
    /// In user mode (v1: by ticks of 10 ms).
    pub user: u64,
    /// In the kernel (v1: by ticks of 10 ms).
    pub kernel: u64,
    /// v1: each processor.
    pub per_cpu: Vec<PerCpu>,
    /// Periods in which the quota counted.
    pub periods: u64,
    /// Periods in which it was used up.
    pub throttled_periods: u64,
    /// How long processes waited for the next period.
    pub throttled_time: u64,
    /// Periods in which the burst was used.
    pub bursts: u64,
    /// How long.
    pub burst_time: u64,
    /// v2: waiting for a processor.
    pub psi: Option<Psi>,
}

/// Time on one processor, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerCpu {
    /// In all.
    pub total: u64,
    /// In user mode, by ticks.
    pub user: u64,
    /// In the kernel, by ticks.
    pub kernel: u64,
}

/// cpuset(7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpuset {
    /// Processors.
    pub cpus: Vec<u16>,
    /// Memory nodes.
    pub mems: Vec<u16>,
    /// v1: the numbers in its other files, by name without `cpuset.`.
    pub flags: BTreeMap<&'static str, i64>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Memory.
    pub usage: Counter,
    /// v1: memory and swap together; v2: swap alone.
    pub swap: Counter,
    /// v1: kernel memory.
    pub kernel: Counter,
    /// v1: TCP buffers.
    pub kernel_tcp: Counter,
    /// memory.stat as it is.
    pub stat: BTreeMap<String, u64>,
    /// v2: memory.events. v1: `oom_kill` of memory.oom_control, and its other two lines.
    pub events: BTreeMap<String, u64>,
    /// v2: waiting for memory.
    pub psi: Option<Psi>,
}

/// A counted resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    /// In use.
    pub usage: u64,
    /// At most; without a limit it is `u64::MAX` on v2, and the kernel's greatest number of pages on v1.
    pub limit: u64,
    /// The most that was in use; 0 where the kernel does not tell.
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    /// How many.
    pub current: u64,
    /// At most.
    pub limit: Option<u64>,
}

/// Block devices. On v1 some tables are those of the BFQ scheduler.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Io {
    /// Bytes moved.
    pub bytes: Vec<Transfer>,
    /// Operations completed.
    pub operations: Vec<Transfer>,
    /// v1 with BFQ's debugging figures.
    pub bfq: BfqFigures,
    /// v2: waiting for devices.
    pub psi: Option<Psi>,
}

/// What BFQ counts when it is built for debugging (Documentation/block/bfq-iosched.rst): empty elsewhere.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BfqFigures {
    /// Requests that wait.
    pub queued: Vec<Transfer>,
    /// Nanoseconds from dispatch to completion.
    pub service_time: Vec<Transfer>,
    /// Nanoseconds in the queues.
    pub wait_time: Vec<Transfer>,
    /// Requests that were merged into others.
    pub merged: Vec<Transfer>,
    /// Milliseconds of disk time.
    pub time: Vec<Transfer>,
    /// Sectors moved.
    pub sectors: Vec<Transfer>,
}

/// A figure of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`; empty where the kernel makes no difference.
    pub op: String,
    /// The figure.
    pub value: u64,
}

/// RDMA resources of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rdma {
    /// Handles in use.
    pub handles: u64,
    /// Objects in use.
    pub objects: u64,
    /// Handles at most.
    pub handles_limit: Option<u64>,
    /// Objects at most.
    pub objects_limit: Option<u64>,
}

impl Group {
    /// The container's figures.
    ///
    /// # Errors
    /// `Kind::Unsupported` for a container without a control group; `Kind::Os` (ENOENT, ENODEV) when the group is gone.
    pub fn stats(&self) -> Result<Stats> {
        let stats = match self.record().version {
            Version::None => return Err(Error::new(Kind::Unsupported, "the container has no control group")),
            Version::V1 => v1::read(self)?,
            Version::V2 => v2::read(self.needed(0)?)?,
        };
        // In a directory that was removed while we held it every file is missing: those are no figures.
        self.needed(0)?.open_file("cgroup.procs")?;
        Ok(stats)
    }
}

/// The files of one group, each of which may be missing.
struct Files<'a>(&'a CgroupDir);

impl Files<'_> {
    /// A file's text; `None` if there is none (or the kernel has it switched off).
    fn text(&self, file: &str) -> Result<Option<String>> {
        match self.0.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A file's number; `max` is the greatest there is.
    fn read_number(&self, file: &str) -> Result<Option<u64>> {
        Ok(self.text(file)?.map(|text| parse_number(text.trim())))
    }

    /// A file of `name number` lines.
    fn table(&self, file: &str) -> Result<Option<BTreeMap<String, u64>>> {
        Ok(self.text(file)?.map(|text| table(&text)))
    }

    fn psi(&self, file: &str) -> Result<Option<Psi>> {
        Ok(self.text(file)?.and_then(|text| psi(&text)))
    }

    fn rdma(&self) -> Result<BTreeMap<String, Rdma>> {
        let Some(current) = self.text("rdma.current")? else { return Ok(BTreeMap::new()) };
        Ok(rdma(&current, &self.text("rdma.max")?.unwrap_or_default()))
    }
}

fn parse_number(text: &str) -> u64 {
    match text {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

fn table(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, value)| (name.to_owned(), parse_number(value.trim()))).collect()
}

fn psi(text: &str) -> Option<Psi> {
    let line = |kind: &str| {
        let fields = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let field = |name: &str| {
            fields.split(' ').find_map(|f| f.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        let percent = |name| field(name).parse().unwrap_or(0.0);
        Some(Pressure {
            avg10: percent("avg10"),
            avg60: percent("avg60"),
            avg300: percent("avg300"),
            total: parse_number(field("total")),
        })
    };
    Some(Psi { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

fn rdma(current: &str, max: &str) -> BTreeMap<String, Rdma> {
    let mut all: BTreeMap<String, Rdma> = BTreeMap::new();
    for (text, limits) in [(current, false), (max, true)] {
        for (device, fields) in text.lines().filter_map(|line| line.split_once(' ')) {
            let rdma = all.entry(device.to_owned()).or_default();
            for (name, value) in fields.split(' ').filter_map(|field| field.split_once('=')) {
                let value = parse_number(value);
                let limit = (value != u64::MAX).then_some(value);
                match (name, limits) {
                    ("hca_handle", false) => rdma.handles = value,
                    ("hca_object", false) => rdma.objects = value,
                    ("hca_handle", true) => rdma.handles_limit = limit,
                    ("hca_object", true) => rdma.objects_limit = limit,
                    _ => {}
                }
            }
        }
    }
    all
}

/// `0-2,5`, as far as it can be read.
fn list(text: &str) -> Vec<u16> {
    let ranges = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    });
    ranges.flatten().collect()
}

/// The sizes of huge pages that this kernel has, as cgroup files name them.
fn page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| page_size(&name)).collect()
}

/// `hugepages-2048kB` as `2MB`.
fn page_size(name: &str) -> Option<String> {
    let mut size: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    let mut units = ["KB", "MB", "GB", "TB", "PB"].iter();
    let mut unit = units.next()?;
    while size >= 1024 && size.is_multiple_of(1024) {
        size /= 1024;
        unit = units.next()?;
    }
    Some(format!("{size}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_kernel() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=7\n";
        let read = psi(text).unwrap();
        assert_eq!((read.some.avg10, read.some.avg60, read.some.total), (1.5, 0.25, 77));
        assert_eq!((read.full.avg10, read.full.total), (0.5, 7));
        assert!(psi("").is_none());
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert!(list("\n").is_empty());
        assert_eq!(
            table("a 1\nb max\nnonsense\n"),
            BTreeMap::from([("a".into(), 1), ("b".into(), u64::MAX)])
        );
        for (name, size) in
            [("hugepages-64kB", "64KB"), ("hugepages-2048kB", "2MB"), ("hugepages-1048576kB", "1GB")]
        {
            assert_eq!(page_size(name).unwrap(), size);
        }
        let read = rdma("mlx hca_handle=2 hca_object=3\n", "mlx hca_handle=5 hca_object=max\n");
        let expected = Rdma { handles: 2, objects: 3, handles_limit: Some(5), objects_limit: None };
        assert_eq!(read["mlx"], expected);
    }
}
