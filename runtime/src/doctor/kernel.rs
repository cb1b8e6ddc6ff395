// SPDX-License-Identifier: Apache-2.0
//! The kernel: its version, and each feature that Corten uses. The kernel is asked, not its version: distributions carry features
//! back, and filters take calls away.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, MemfdFlags, StatxFlags, memfd_create, statx};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::{Health, HostCheck, Signs, catalogue};
use crate::cgroup::Version;
use crate::error::Words;
use crate::facts::CAP_SYS_ADMIN;
use crate::procfs;
use crate::state::Identity;
use crate::sys::probe::{self, Question};

/// The oldest that all cases are run on (docs/kernels.md).
const OLDEST: (u32, u32) = (5, 10);
/// Those that a container's configuration may ask for.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
/// Those of the default configuration, and what engines' layers are made of.
const FILE_SYSTEMS: [&str; 6] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "overlay"];

/// What the kernel answered.
#[derive(Debug, Clone)]
pub(super) struct KernelSigns {
    /// uname(2)'s release.
    pub(super) release: String,
    /// By question, its errno.
    pub(super) answers: Vec<(Question, i32)>,
    /// Whether notifications can be waited for until a signal kills.
    pub(super) killable: bool,
    /// What a memfd that is to be executed gave: 0, or an errno.
    pub(super) memfd: i32,
    /// Of the kinds of namespaces, those that it has.
    pub(super) namespaces: BTreeSet<String>,
    /// The file systems that are there without a module to be loaded.
    pub(super) file_systems: BTreeSet<String>,
    /// Of the others, those for which there is a module.
    pub(super) modules: BTreeSet<String>,
    /// Pidfds have inodes of their own.
    pub(super) pidfs: bool,
    /// Mounts have numbers that are never used twice.
    pub(super) mount_ids: bool,
}

impl KernelSigns {
    fn errno(&self, question: Question) -> i32 {
        self.answers.iter().find(|(asked, _)| *asked == question).map_or(0, |(_, errno)| *errno)
    }
}

/// A call by which a check asks.
struct CallRow {
    id: &'static str,
    question: Question,
    /// Errnos that mean "no", besides ENOSYS.
    no: &'static [i32],
    /// How bad that is.
    missing: Health,
    advice: &'static str,
}

const NEWER: &str = "use a newer kernel, or the filter around this process is to let it through";

const fn call(id: &'static str, question: Question, missing: Health) -> CallRow {
    CallRow { id, question, no: &[], missing, advice: NEWER }
}

const fn built(id: &'static str, question: Question, missing: Health, advice: &'static str) -> CallRow {
    CallRow { id, question, no: &[], missing, advice }
}

const CALLS: [CallRow; 14] = [
    call("kernel.clone3", Question::Clone3, Health::Fail),
    CallRow {
        no: &[libc::E2BIG],
        ..call("kernel.clone-into-cgroup", Question::CloneIntoCgroup, Health::Warn)
    },
    call("kernel.openat2", Question::Openat2, Health::Fail),
    call("kernel.mount-api", Question::OpenTree, Health::Fail),
    call("kernel.mount-api", Question::Fsopen, Health::Fail),
    call("kernel.mount-api", Question::MoveMount, Health::Fail),
    call("kernel.pidfd", Question::PidfdOpen, Health::Fail),
    call("kernel.close-range", Question::CloseRange, Health::Fail),
    call("kernel.mount-setattr", Question::MountSetattr, Health::Warn),
    built("kernel.seccomp", Question::Seccomp, Health::Warn, "the kernel needs CONFIG_SECCOMP_FILTER"),
    CallRow { no: &[libc::EINVAL], ..call("kernel.seccomp-notify", Question::SeccompNotify, Health::Note) },
    CallRow {
        no: &[libc::EINVAL],
        ..built(
            "kernel.device-filter",
            Question::DeviceFilter,
            Health::Fail,
            "the kernel needs CONFIG_CGROUP_BPF",
        )
    },
    built("kernel.memory-policy", Question::MemoryPolicy, Health::Note, "the kernel needs CONFIG_NUMA"),
    built(
        "kernel.keyring",
        Question::Keyring,
        Health::Note,
        "the kernel needs CONFIG_KEYS; --no-new-keyring does without",
    ),
];

pub(super) fn look() -> KernelSigns {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let file_systems = file_systems(&procfs::read("/proc/filesystems").unwrap_or_default());
    let modules = ["modules.dep", "modules.builtin"]
        .map(|file| std::fs::read_to_string(format!("/lib/modules/{release}/{file}")).unwrap_or_default());
    let has_module = |name: &&&str| modules.iter().any(|text| text.contains(&format!("/{name}.ko")));
    let own = getpid();
    let identity = pidfd_open(own, PidfdFlags::empty())
        .ok()
        .and_then(|pidfd| Identity::of(own.as_raw_nonzero().get(), pidfd.as_fd()).ok());
    KernelSigns {
        answers: CALLS.iter().map(|row| (row.question, probe::ask(row.question))).collect(),
        killable: probe::seccomp_flags(
            libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        ),
        memfd: memfd(),
        namespaces: entries("/proc/self/ns").filter(|name| NAMESPACES.contains(&name.as_str())).collect(),
        modules: FILE_SYSTEMS.iter().filter(has_module).map(|name| (*name).to_owned()).collect(),
        file_systems,
        pidfs: identity.is_some_and(|identity| identity.inode != 0),
        mount_ids: has_mount_ids(),
        release,
    }
}

fn entries(dir: &str) -> impl Iterator<Item = String> {
    let listed = std::fs::read_dir(dir).into_iter().flatten().flatten();
    listed.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// The second column of /proc/filesystems.
fn file_systems(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

/// What the stage's own memfd would meet; this one is empty, and gone at once.
fn memfd() -> i32 {
    let made = |flags| memfd_create("corten-doctor", MemfdFlags::CLOEXEC | flags).map(drop);
    match made(MemfdFlags::EXEC) {
        // Before Linux 6.3 there is no such flag, and all of them can be executed.
        Err(Errno::INVAL) => made(MemfdFlags::empty()),
        other => other,
    }
    .map_or_else(Errno::raw_os_error, |()| 0)
}

fn has_mount_ids() -> bool {
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    let mask = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
    statx(CWD, "/", AtFlags::empty(), mask).is_ok_and(|stat| stat.stx_mask & STATX_MNT_ID_UNIQUE != 0)
}

pub(super) fn examine(signs: &Signs) -> Vec<HostCheck> {
    let kernel = &signs.kernel;
    let mut all = vec![version(&kernel.release)];
    for row in &CALLS {
        let check = answered(row, signs);
        match all.iter_mut().find(|told| told.id == check.id) {
            // Several calls are one feature: the worst of them counts.
            Some(told) if told.health < check.health => *told = check,
            Some(_) => {}
            None => all.push(check),
        }
    }
    all.push(flag("kernel.seccomp-killable", kernel.killable, Health::Note));
    all.push(memfd_exec(kernel.memfd, signs.facts.can(CAP_SYS_ADMIN)));
    all.push(namespaces(&kernel.namespaces));
    all.push(file_systems_there(kernel));
    all.push(flag("kernel.pidfs", kernel.pidfs, Health::Note));
    all.push(flag("kernel.mount-ids", kernel.mount_ids, Health::Note));
    // As in the catalogue.
    all.sort_by_key(|check| catalogue::ROWS.iter().position(|row| row.id == check.id));
    all
}

fn version(release: &str) -> HostCheck {
    let id = "kernel.version";
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => HostCheck::ok(id, release),
        (Some(_), Some(_)) => {
            HostCheck::warn(id, format!("{release} is older than what is tested"), "use Linux 5.10 or newer")
        }
        _ => HostCheck::unknown(id, format!("{release:?} does not read as a version")),
    }
}

fn answered(row: &CallRow, signs: &Signs) -> HostCheck {
    let errno = signs.kernel.errno(row.question);
    let since = catalogue::row(row.id).and_then(|row| row.since).unwrap_or("there");
    if row.question == Question::DeviceFilter {
        if signs.facts.cgroups.version() != Version::V2 {
            return HostCheck::ok(row.id, "not needed: on cgroup v1 the group has files for that");
        }
        if errno == libc::EPERM {
            return HostCheck::unknown(row.id, "only who has CAP_NET_ADMIN over the host may ask");
        }
    }
    let may_mount = signs.facts.is_admin() && signs.facts.copies_mounts;
    // Without privilege over mounts the kernel says so before it looks at anything.
    let refused = errno == libc::EPERM && (may_mount || !is_of_mounts(row.question));
    let no = errno == libc::ENOSYS || refused || row.no.contains(&errno);
    if no {
        return HostCheck::new(row.id, row.missing, format!("missing: {}", Words(errno)), row.advice);
    }
    HostCheck::ok(row.id, since)
}

fn is_of_mounts(question: Question) -> bool {
    matches!(question, Question::OpenTree | Question::Fsopen | Question::MoveMount | Question::MountSetattr)
}

fn flag(id: &'static str, there: bool, missing: Health) -> HostCheck {
    let since = catalogue::row(id).and_then(|row| row.since).unwrap_or("there");
    if there {
        HostCheck::ok(id, since)
    } else {
        HostCheck::new(id, missing, "missing", format!("use {since} or newer"))
    }
}

fn memfd_exec(errno: i32, admin: bool) -> HostCheck {
    let id = "kernel.memfd-exec";
    match errno {
        0 => HostCheck::ok(id, "allowed"),
        libc::EACCES if admin => HostCheck::note(
            id,
            "forbidden (vm.memfd_noexec=2): a mount serves",
            "sysctl vm.memfd_noexec=1, or leave it",
        ),
        libc::EACCES => {
            HostCheck::warn(id, "forbidden (vm.memfd_noexec=2)", "as root: sysctl vm.memfd_noexec=1")
        }
        errno => HostCheck::fail(
            id,
            format!("memfd_create: {}", Words(errno)),
            "the filter around this process is to let memfd_create through",
        ),
    }
}

fn namespaces(there: &BTreeSet<String>) -> HostCheck {
    let id = "kernel.namespaces";
    let missing: Vec<&str> = NAMESPACES.into_iter().filter(|kind| !there.contains(*kind)).collect();
    let advice = "the kernel needs CONFIG_NAMESPACES and the kinds' own options";
    match missing.as_slice() {
        [] => HostCheck::ok(id, "all eight kinds"),
        // Nobody asks for it by default.
        ["time"] => HostCheck::note(id, "missing: time", "use Linux 5.6 or newer with CONFIG_TIME_NS"),
        ["user"] => HostCheck::warn(id, "missing: user", "the kernel needs CONFIG_USER_NS"),
        missing => HostCheck::fail(id, format!("missing: {}", missing.join(", ")), advice),
    }
}

fn file_systems_there(kernel: &KernelSigns) -> HostCheck {
    let id = "kernel.filesystems";
    let missing: Vec<&str> =
        FILE_SYSTEMS.into_iter().filter(|name| !kernel.file_systems.contains(*name)).collect();
    let (to_load, absent): (Vec<&str>, Vec<&str>) =
        missing.into_iter().partition(|name| kernel.modules.contains(*name));
    match absent.as_slice() {
        [] if to_load.is_empty() => HostCheck::ok(id, FILE_SYSTEMS.join(", ")),
        [] => HostCheck::ok(id, format!("{} (a module, loaded when it is mounted)", to_load.join(", "))),
        ["overlay"] => HostCheck::note(
            id,
            "missing: overlay",
            "engines need another snapshotter than overlayfs, or the kernel CONFIG_OVERLAY_FS",
        ),
        absent => HostCheck::fail(
            id,
            format!("missing: {}", absent.join(", ")),
            "the kernel needs their options, or configurations without these mounts",
        ),
    }
}
