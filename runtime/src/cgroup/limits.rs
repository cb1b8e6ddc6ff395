// SPDX-License-Identifier: Apache-2.0
//! THE TABLE OF LIMITS: one row per limit of the specification (config-linux.md#control-groups), saying what it is
//! on cgroup v1, on v2, and to systemd. Its order is the order of the writes. Pure.
//!
//! The drivers know no limit by name; `decide` turns rows into [`Write`](super::Write)s. Device rules are the one
//! thing that is not here, because they are not values (`devices`). The third column belongs to a file: what systemd is
//! told follows from what the file gets (`properties`).
//!
//! Zero means "not set" where runc treats it so (its clients, written in Go, send zeroes for what they leave out).

#![forbid(unsafe_code)]

mod read;
mod values;

use std::borrow::Cow;

use read::{given, hugepages, list, nonzero, priorities, rdma, swap, throttles, unified, weight_devices};
use values::*;

use super::properties::{self as unit, ToUnit};
use crate::spec::Resources;

/// A value found in the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Item {
    /// JSON pointer below /linux/resources, when the row's own has a `*` in it.
    pub at: Option<String>,
    /// What the file's `{}` stands for, or the device, interface or file the value belongs to.
    pub key: String,
    /// The number; booleans are 0 and 1.
    pub number: i128,
    /// The text, for values that are not numbers.
    pub text: String,
}

/// What a row writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileValue {
    /// This.
    Set(String),
    /// This, which is what a new group has anyway.
    KernelDefault(String),
    /// Nothing: not set, or part of another row.
    Skip,
}

/// Why a value is refused.
pub(super) type Why = Cow<'static, str>;

/// A cell of the table.
pub(super) type Convert = fn(&Resources, &Item) -> Result<FileValue, Why>;

/// One file and how its value is made.
pub(super) struct File {
    pub controller: &'static str,
    pub name: &'static str,
    pub value: Convert,
    /// Where to write instead if there is no such file.
    pub or: Option<(&'static str, Convert)>,
    /// Whether a missing file (of a controller that is there) may be passed over.
    pub optional: bool,
    /// The same to systemd, where it has a property for it.
    pub unit: Option<ToUnit>,
}

impl File {
    const fn unit(self, unit: ToUnit) -> File {
        File { unit: Some(unit), ..self }
    }
}

/// What becomes of a limit on one version of cgroups.
pub(super) enum Way {
    /// It is written to these files.
    Files(&'static [File]),
    /// There is no file for it: fine for some values, refused for others.
    Check(fn(&Item) -> Result<(), &'static str>),
    /// It is passed over with this warning.
    Warn(&'static str),
    /// The value is a cgroup v2 file name and its content.
    Unified,
    /// It does not concern creation.
    Later,
}

/// One limit of the specification.
pub(super) struct Limit {
    /// JSON pointer below /linux/resources; `*` is an index or a key.
    pub at: &'static str,
    /// Its values in a configuration.
    pub items: fn(&Resources) -> Vec<Item>,
    pub v1: Way,
    pub v2: Way,
}

const fn file(controller: &'static str, name: &'static str, value: Convert) -> File {
    File { controller, name, value, or: None, optional: false, unit: None }
}

/// The rows.
pub(super) static LIMITS: &[Limit] = &[
    // The limit first: in a new group both are unlimited, and memory+swap may never be below memory. In a used one
    // the kernel may want them the other way round; `apply` tries a refused write again at the end.
    Limit {
        at: "/memory/limit",
        items: |r| nonzero(r.memory.as_ref().and_then(|m| m.limit)),
        v1: Way::Files(&[file("memory", "memory.limit_in_bytes", bytes_v1).unit(unit::memory_limit_v1)]),
        v2: Way::Files(&[file("memory", "memory.max", bytes_v2).unit(unit::memory_max)]),
    },
    Limit {
        at: "/memory/swap",
        items: swap,
        v1: Way::Files(&[file("memory", "memory.memsw.limit_in_bytes", swap_v1)]),
        // Without CONFIG_SWAP there is no such file, and no swap to limit.
        v2: Way::Files(&[File {
            optional: true,
            ..file("memory", "memory.swap.max", swap_v2).unit(unit::swap_max)
        }]),
    },
    Limit {
        at: "/memory/reservation",
        items: |r| nonzero(r.memory.as_ref().and_then(|m| m.reservation)),
        v1: Way::Files(&[file("memory", "memory.soft_limit_in_bytes", bytes_v1)]),
        v2: Way::Files(&[file("memory", "memory.low", low).unit(unit::memory_low)]),
    },
    Limit {
        at: "/memory/kernel",
        items: |r| nonzero(r.memory.as_ref().and_then(|m| m.kernel)),
        v1: Way::Warn(KERNEL_MEMORY),
        v2: Way::Warn(KERNEL_MEMORY),
    },
    Limit {
        at: "/memory/kernelTCP",
        items: |r| nonzero(r.memory.as_ref().and_then(|m| m.kernel_tcp)),
        v1: Way::Warn(KERNEL_MEMORY),
        v2: Way::Warn(KERNEL_MEMORY),
    },
    Limit {
        at: "/memory/swappiness",
        items: |r| given(r.memory.as_ref().and_then(|m| m.swappiness)),
        v1: Way::Files(&[file("memory", "memory.swappiness", swappiness)]),
        v2: Way::Check(|_| Err("cgroup v2 has no swappiness of a group")),
    },
    Limit {
        at: "/memory/disableOOMKiller",
        items: |r| given(r.memory.as_ref().and_then(|m| m.disable_oom_killer)),
        v1: Way::Files(&[file("memory", "memory.oom_control", plain_default_0)]),
        v2: Way::Check(|i| {
            refuse_unless(i.number == 0, "cgroup v2 cannot switch off the OOM killer of a group")
        }),
    },
    Limit {
        at: "/memory/useHierarchy",
        items: |r| given(r.memory.as_ref().and_then(|m| m.use_hierarchy)),
        v1: Way::Files(&[file("memory", "memory.use_hierarchy", plain)]),
        v2: Way::Check(|i| refuse_unless(i.number == 1, "cgroup v2 always accounts for the groups below")),
    },
    Limit {
        at: "/memory/checkBeforeUpdate",
        items: |r| given(r.memory.as_ref().and_then(|m| m.check_before_update)),
        v1: Way::Later,
        v2: Way::Later,
    },
    // Before the shares: an idle group takes none.
    Limit {
        at: "/cpu/idle",
        items: |r| given(r.cpu.as_ref().and_then(|c| c.idle)),
        v1: Way::Files(&[file("cpu", "cpu.idle", idle)]),
        v2: Way::Files(&[file("cpu", "cpu.idle", idle).unit(unit::idle)]),
    },
    Limit {
        at: "/cpu/shares",
        items: |r| nonzero(r.cpu.as_ref().and_then(|c| c.shares)),
        v1: Way::Files(&[file("cpu", "cpu.shares", shares_v1).unit(unit::shares_v1)]),
        v2: Way::Files(&[file("cpu", "cpu.weight", shares_v2).unit(unit::weight)]),
    },
    Limit {
        at: "/cpu/period",
        items: |r| nonzero(r.cpu.as_ref().and_then(|c| c.period)),
        v1: Way::Files(&[file("cpu", "cpu.cfs_period_us", period_v1)]),
        v2: Way::Files(&[file("cpu", "cpu.max", period_v2).unit(unit::cpu_max)]),
    },
    Limit {
        at: "/cpu/quota",
        items: |r| nonzero(r.cpu.as_ref().and_then(|c| c.quota)),
        v1: Way::Files(&[file("cpu", "cpu.cfs_quota_us", quota_v1).unit(unit::quota_v1)]),
        v2: Way::Files(&[file("cpu", "cpu.max", quota_v2).unit(unit::cpu_max)]),
    },
    // After the quota, which it may not exceed.
    Limit {
        at: "/cpu/burst",
        items: |r| given(r.cpu.as_ref().and_then(|c| c.burst)),
        v1: Way::Files(&[file("cpu", "cpu.cfs_burst_us", burst)]),
        v2: Way::Files(&[file("cpu", "cpu.max.burst", burst)]),
    },
    Limit {
        at: "/cpu/realtimePeriod",
        items: |r| nonzero(r.cpu.as_ref().and_then(|c| c.realtime_period)),
        v1: Way::Files(&[file("cpu", "cpu.rt_period_us", plain)]),
        v2: Way::Check(|_| Err(REALTIME)),
    },
    Limit {
        at: "/cpu/realtimeRuntime",
        items: |r| nonzero(r.cpu.as_ref().and_then(|c| c.realtime_runtime)),
        v1: Way::Files(&[file("cpu", "cpu.rt_runtime_us", plain)]),
        v2: Way::Check(|_| Err(REALTIME)),
    },
    Limit {
        at: "/cpu/cpus",
        items: |r| list(r.cpu.as_ref().and_then(|c| c.cpus.as_deref())),
        v1: Way::Files(&[file("cpuset", "cpuset.cpus", cpu_list).unit(unit::cpus)]),
        v2: Way::Files(&[file("cpuset", "cpuset.cpus", cpu_list).unit(unit::cpus)]),
    },
    Limit {
        at: "/cpu/mems",
        items: |r| list(r.cpu.as_ref().and_then(|c| c.mems.as_deref())),
        v1: Way::Files(&[file("cpuset", "cpuset.mems", cpu_list).unit(unit::mems)]),
        v2: Way::Files(&[file("cpuset", "cpuset.mems", cpu_list).unit(unit::mems)]),
    },
    Limit {
        at: "/pids/limit",
        items: |r| given(r.pids.as_ref().and_then(|p| p.limit)),
        v1: Way::Files(&[file("pids", "pids.max", pids).unit(unit::tasks_max)]),
        v2: Way::Files(&[file("pids", "pids.max", pids).unit(unit::tasks_max)]),
    },
    Limit {
        at: "/blockIO/weight",
        items: |r| nonzero(r.block_io.as_ref().and_then(|b| b.weight)),
        v1: Way::Files(&[file("blkio", "blkio.bfq.weight", io_weight_v1).unit(unit::weight_v1)]),
        v2: Way::Files(&[File {
            or: Some(("io.weight", io_weight_v2)),
            ..file("io", "io.bfq.weight", io_weight_v1).unit(unit::bfq_weight)
        }]),
    },
    Limit {
        at: "/blockIO/leafWeight",
        items: |r| nonzero(r.block_io.as_ref().and_then(|b| b.leaf_weight)),
        v1: Way::Check(|_| Err(LEAF_WEIGHT)),
        v2: Way::Check(|_| Err(LEAF_WEIGHT)),
    },
    Limit {
        at: "/blockIO/weightDevice/*/weight",
        items: |r| weight_devices(r, "weight", |w| w.weight),
        v1: Way::Files(&[file("blkio", "blkio.bfq.weight_device", io_weight_v1)]),
        v2: Way::Files(&[File {
            or: Some(("io.weight", io_weight_v2)),
            ..file("io", "io.bfq.weight", io_weight_v1).unit(unit::bfq_weight)
        }]),
    },
    Limit {
        at: "/blockIO/weightDevice/*/leafWeight",
        items: |r| weight_devices(r, "leafWeight", |w| w.leaf_weight),
        v1: Way::Check(|_| Err(LEAF_WEIGHT)),
        v2: Way::Check(|_| Err(LEAF_WEIGHT)),
    },
    Limit {
        at: "/blockIO/throttleReadBpsDevice/*",
        items: |r| throttles(r, "throttleReadBpsDevice", |b| &b.throttle_read_bps_device),
        v1: Way::Files(&[file("blkio", "blkio.throttle.read_bps_device", throttle_v1)]),
        v2: Way::Files(&[file("io", "io.max", |_, i| throttle_v2(i, "rbps")).unit(unit::io_max)]),
    },
    Limit {
        at: "/blockIO/throttleWriteBpsDevice/*",
        items: |r| throttles(r, "throttleWriteBpsDevice", |b| &b.throttle_write_bps_device),
        v1: Way::Files(&[file("blkio", "blkio.throttle.write_bps_device", throttle_v1)]),
        v2: Way::Files(&[file("io", "io.max", |_, i| throttle_v2(i, "wbps")).unit(unit::io_max)]),
    },
    Limit {
        at: "/blockIO/throttleReadIOPSDevice/*",
        items: |r| throttles(r, "throttleReadIOPSDevice", |b| &b.throttle_read_iops_device),
        v1: Way::Files(&[file("blkio", "blkio.throttle.read_iops_device", throttle_v1)]),
        v2: Way::Files(&[file("io", "io.max", |_, i| throttle_v2(i, "riops")).unit(unit::io_max)]),
    },
    Limit {
        at: "/blockIO/throttleWriteIOPSDevice/*",
        items: |r| throttles(r, "throttleWriteIOPSDevice", |b| &b.throttle_write_iops_device),
        v1: Way::Files(&[file("blkio", "blkio.throttle.write_iops_device", throttle_v1)]),
        v2: Way::Files(&[file("io", "io.max", |_, i| throttle_v2(i, "wiops")).unit(unit::io_max)]),
    },
    // The second file bounds reservations as well as pages in use; kernels before 5.7 have none.
    Limit {
        at: "/hugepageLimits/*",
        items: hugepages,
        v1: Way::Files(&[
            file("hugetlb", "hugetlb.{}.limit_in_bytes", hugepage),
            File { optional: true, ..file("hugetlb", "hugetlb.{}.rsvd.limit_in_bytes", hugepage) },
        ]),
        v2: Way::Files(&[
            file("hugetlb", "hugetlb.{}.max", hugepage),
            File { optional: true, ..file("hugetlb", "hugetlb.{}.rsvd.max", hugepage) },
        ]),
    },
    Limit {
        at: "/network/classID",
        items: |r| nonzero(r.network.as_ref().and_then(|n| n.class_id)),
        v1: Way::Files(&[file("net_cls", "net_cls.classid", plain)]),
        v2: Way::Check(|_| Err("cgroup v2 has no net_cls controller")),
    },
    Limit {
        at: "/network/priorities/*",
        items: priorities,
        v1: Way::Files(&[file("net_prio", "net_prio.ifpriomap", keyed)]),
        v2: Way::Check(|_| Err("cgroup v2 has no net_prio controller")),
    },
    Limit {
        at: "/rdma/*",
        items: rdma,
        v1: Way::Files(&[file("rdma", "rdma.max", keyed_text)]),
        v2: Way::Files(&[file("rdma", "rdma.max", keyed_text)]),
    },
    // Last, so that it can correct what stands above.
    Limit {
        at: "/unified/*",
        items: unified,
        v1: Way::Check(|_| Err("unified resources need cgroup v2")),
        v2: Way::Unified,
    },
];

/// What systemd is told of a file of v2 that `unified` names.
pub(super) fn unit_of(name: &str) -> Option<ToUnit> {
    let files = LIMITS.iter().flat_map(|limit| match limit.v2 {
        Way::Files(files) => files,
        _ => &[],
    });
    let own = files.filter(|file| file.name == name).find_map(|file| file.unit);
    own.or_else(|| unit::of_unified(name))
}

const KERNEL_MEMORY: &str = "kernel memory is no longer limited by the kernel; ignored";
const REALTIME: &str = "cgroup v2 has no real-time limits";
const LEAF_WEIGHT: &str = "leaf weights went with the CFQ scheduler in Linux 5.0";

fn refuse_unless(fine: bool, reason: &'static str) -> Result<(), &'static str> {
    if fine { Ok(()) } else { Err(reason) }
}
