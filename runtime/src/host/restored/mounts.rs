// SPDX-License-Identifier: Apache-2.0
//! Whether a restored container's mounts show and allow no more than the configuration's.
//!
//! Asked of a container that cannot mount: with CAP_SYS_ADMIN it may have come to any mounts by itself. What is mounted is looked up
//! in its root as the stage would, and told by the kernel: statfs(2) for flags, statx(2) for which mount it is.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, StatFs, StatxAttributes, StatxFlags, fstatfs, makedev, statx,
};
use rustix::io::Errno;

use crate::error::{Context, Error, Result, printable};
use crate::facts::CAP_SYS_ADMIN;
use crate::host::mount_points::inside;
use crate::host::restore::NULL_DEVICE;
use crate::plan::devices::Via;
use crate::plan::mounts::{Attrs, Mount, MountSource, MountStep};
use crate::plan::namespaces::NsKind;
use crate::plan::{Field, Plan};
use crate::procfs::{self, MountinfoEntry, mounts};

/// linux/magic.h
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// File systems that begin empty and show nothing of the host's: more of them (a hook's, say) give nobody anything.
const HARMLESS: [&str; 3] = ["tmpfs", "devpts", "mqueue"];
/// What the attributes are called, by mount_setattr(2), by statfs(2) and in a configuration.
const FLAGS: [(u64, u64, &str); 5] = [
    (libc::MOUNT_ATTR_RDONLY, libc::ST_RDONLY, "ro"),
    (libc::MOUNT_ATTR_NOSUID, libc::ST_NOSUID, "nosuid"),
    (libc::MOUNT_ATTR_NODEV, libc::ST_NODEV, "nodev"),
    (libc::MOUNT_ATTR_NOEXEC, libc::ST_NOEXEC, "noexec"),
    // statfs(2): ST_NOSYMFOLLOW, Linux 5.10
    (libc::MOUNT_ATTR_NOSYMFOLLOW, 0x2000, "nosymfollow"),
];

/// Whether the container's processes can have changed nothing about its mounts.
pub(super) fn are_fixed(plan: &Plan) -> bool {
    let process = plan.process.as_ref();
    plan.namespaces.has_new(NsKind::Mount)
        && process.is_some_and(|process| process.caps.bounding >> CAP_SYS_ADMIN & 1 == 0)
}

/// Compares the mounts of the process with the configuration's.
///
/// # Errors
/// `Kind::Invalid` with the pointer of what the images lack, or with a mount that the configuration lacks.
pub(super) fn compare(plan: &Plan, init: i32) -> Result<()> {
    if !are_fixed(plan) {
        return Ok(());
    }
    let table = procfs::read(&format!("/proc/{init}/mountinfo"))?;
    let path = format!("/proc/{init}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&*path, flags, Mode::empty()).call(|| format!("open({path})"))?;
    let mut restored = RestoredMounts { root, entries: mounts(&table).collect(), known: Vec::new() };
    restored.root(plan)?;
    restored.configured(plan)?;
    restored.devices(plan)?;
    plan.readonly.iter().try_for_each(|field| restored.readonly(field))?;
    plan.masked.iter().try_for_each(|field| restored.masked(field))?;
    restored.others(plan)
}

struct RestoredMounts<'a> {
    root: OwnedFd,
    entries: Vec<MountinfoEntry<'a>>,
    /// The numbers of those that the configuration has.
    known: Vec<u64>,
}

/// What is at a path.
struct Found {
    file: OwnedFd,
    kind: FileType,
    /// What a device's node is for.
    rdev: u64,
    /// The numbers of its file system and inode.
    identity: (u64, u64),
    /// The mount that it is on.
    mount: u64,
    /// It is the root of that mount.
    is_mount_point: bool,
}

impl Found {
    fn file_system(&self) -> Result<StatFs> {
        fstatfs(&self.file).call(|| "fstatfs")
    }
}

impl RestoredMounts<'_> {
    /// `None` where there is nothing.
    fn find(&self, path: &str, nofollow: bool) -> Result<Option<Found>> {
        let call = || format!("openat2({})", printable(path));
        let relative = path.trim_start_matches('/');
        let relative = if relative.is_empty() { "." } else { relative };
        let flags = if nofollow { OFlags::NOFOLLOW } else { OFlags::empty() };
        let file = match inside(self.root.as_fd(), relative, flags) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            other => other.call(call)?,
        };
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let stat = statx(&file, "", AtFlags::EMPTY_PATH, wanted).call(|| "statx")?;
        Ok(Some(Found {
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            rdev: makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
            identity: (makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino),
            mount: stat.stx_mnt_id,
            is_mount_point: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            file,
        }))
    }

    fn root(&mut self, plan: &Plan) -> Result<()> {
        let Some(found) = self.find("/", false)? else { return Ok(()) };
        self.known.push(found.mount);
        let set = if plan.rootfs.readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
        lacks("/root/readonly", "/", set, &found)
    }

    fn configured(&mut self, plan: &Plan) -> Result<()> {
        for (index, step) in plan.mounts.iter().enumerate() {
            let MountStep::Mount(mount) = step else { continue };
            let later = plan.mounts.get(index + 1..).unwrap_or_default();
            if !is_link(mount)? && !is_covered(mount, later, plan) {
                self.one(mount, later)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, mount: &Mount, later: &[MountStep]) -> Result<()> {
        let target = printable(&mount.target);
        let found = self.find(&mount.target, mount.over_symlink)?.filter(|found| found.is_mount_point);
        let entry = found.as_ref().and_then(|found| self.entry(found.mount));
        let (Some(found), Some(entry)) = (found, entry) else {
            return Err(Error::invalid(&mount.at, format!("the checkpoint has no mount at {target}")));
        };
        let other = match &mount.source {
            MountSource::Fs { fstype, options, .. } => {
                entry.fstype != fstype || (fstype == "proc" && shows_more(options, entry.options))
            }
            MountSource::Bind { inside: Some(_), .. } => false,
            MountSource::Bind { path, nofollow, .. } => !is_same(path, *nofollow, &found)?,
        };
        if other {
            let text = format!("the checkpoint has another mount at {target}: {}", printable(entry.fstype));
            return Err(Error::invalid(&mount.at, text));
        }
        self.known.push(found.mount);
        lacks(&mount.at, &mount.target, wanted(mount, later), &found)
    }

    fn entry(&self, number: u64) -> Option<MountinfoEntry<'_>> {
        self.entries.iter().find(|entry| entry.number == number).copied()
    }

    /// Those that are no nodes of the container's /dev but the host's.
    fn devices(&mut self, plan: &Plan) -> Result<()> {
        for device in plan.devices.iter().filter(|device| device.via != Via::Mknod) {
            let found = self.find(&device.path, false)?.filter(|found| found.is_mount_point);
            match found {
                Some(found) if found.rdev == device.rdev => self.known.push(found.mount),
                _ => {
                    let text = format!("the checkpoint lacks the device {}", printable(&device.path));
                    return Err(Error::invalid(&device.at, text));
                }
            }
        }
        Ok(())
    }

    fn readonly(&mut self, field: &Field<String>) -> Result<()> {
        let Some(found) = self.find(&field.value, false)? else { return Ok(()) };
        if found.is_mount_point {
            self.known.push(found.mount);
        }
        lacks(&field.at, &field.value, libc::MOUNT_ATTR_RDONLY, &found)
    }

    /// A file by the null device, a directory by an empty file system that nobody can write to.
    fn masked(&mut self, field: &Field<String>) -> Result<()> {
        let Some(found) = self.find(&field.value, false)? else { return Ok(()) };
        let hidden = match found.kind {
            FileType::CharacterDevice => found.rdev == NULL_DEVICE,
            FileType::Directory => {
                let told = found.file_system()?;
                told.f_type == TMPFS_MAGIC && told.f_flags as u64 & libc::ST_RDONLY != 0
            }
            _ => false,
        };
        if !hidden || !found.is_mount_point {
            let text = format!("the checkpoint does not hide {}", printable(&field.value));
            return Err(Error::invalid(&field.at, text));
        }
        self.known.push(found.mount);
        Ok(())
    }

    /// What the configuration does not name: it is harmless, or comes with one of its binds, or lies below one of its mounts.
    fn others(&self, plan: &Plan) -> Result<()> {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.number)) {
            let point = entry.point();
            if !HARMLESS.contains(&entry.fstype)
                && !self.is_known_twice(entry, &point)
                && !self.came_along(plan, &point)?
                && !is_covered_step(plan, entry, &point)
            {
                let text = format!(
                    "the checkpoint has a mount at {} ({}), and config.json has none",
                    printable(&point),
                    printable(entry.fstype)
                );
                return Err(Error::invalid("/mounts", text));
            }
        }
        Ok(())
    }

    /// The same once more, as a container with hooks has its masks: it shows nothing more.
    fn is_known_twice(&self, entry: &MountinfoEntry<'_>, point: &str) -> bool {
        let same = |known: &MountinfoEntry<'_>| {
            (known.device, known.attributes, known.root()) == (entry.device, entry.attributes, entry.root())
        };
        self.known
            .iter()
            .filter_map(|number| self.entry(*number))
            .any(|known| same(&known) && known.point() == point)
    }

    /// Something is mounted below the source of a bind, and it is that.
    fn came_along(&self, plan: &Plan, point: &str) -> Result<bool> {
        let Some(found) = self.find(point, true)? else { return Ok(false) };
        for step in &plan.mounts {
            let MountStep::Mount(Mount {
                target,
                source: MountSource::Bind { path, recursive: true, .. },
                ..
            }) = step
            else {
                continue;
            };
            let rest = Path::new(point).strip_prefix(target).ok();
            if let Some(rest) = rest.filter(|rest| !rest.as_os_str().is_empty())
                && is_same(&path.join(rest), true, &found)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A link of the host's that is to be made again is no mount.
fn is_link(mount: &Mount) -> Result<bool> {
    let MountSource::Bind { path, copy_symlink: true, .. } = &mount.source else { return Ok(false) };
    let stat = rustix::fs::lstat(path).call(|| format!("stat({})", path.display()))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Something that is mounted later, or hidden, lies over it.
fn is_covered(mount: &Mount, later: &[MountStep], plan: &Plan) -> bool {
    let target = Path::new(&mount.target);
    let over =
        |step: &MountStep| matches!(step, MountStep::Mount(other) if target.starts_with(&other.target));
    later.iter().any(over) || plan.masked.iter().any(|field| target.starts_with(&field.value))
}

/// One of the configuration's that is covered: nothing but its place and kind can be told.
fn is_covered_step(plan: &Plan, entry: &MountinfoEntry<'_>, point: &str) -> bool {
    plan.mounts.iter().enumerate().any(|(index, step)| {
        let MountStep::Mount(mount) = step else { return false };
        let later = plan.mounts.get(index + 1..).unwrap_or_default();
        let alike = match &mount.source {
            MountSource::Fs { fstype, .. } => entry.fstype == fstype,
            MountSource::Bind { .. } => entry.root() != "/" || entry.fstype != "proc",
        };
        mount.target == point && alike && is_covered(mount, later, plan)
    })
}

/// What the mount has in the end: its own, and what later steps change.
fn wanted(mount: &Mount, later: &[MountStep]) -> u64 {
    let with = |set: u64, attrs: &Attrs| (set & !attrs.clear) | attrs.set;
    let mut set = with(with(0, &mount.attrs), &mount.recursive);
    for step in later {
        if let MountStep::Remount { target, attrs, recursive, .. } = step
            && *target == mount.target
        {
            set = with(with(set, attrs), recursive);
        }
    }
    set
}

/// # Errors
/// A flag of `set` is not there.
fn lacks(at: &str, target: &str, set: u64, found: &Found) -> Result<()> {
    let has = found.file_system()?.f_flags as u64;
    let missing: Vec<&str> = FLAGS
        .iter()
        .filter(|(attribute, flag, _)| set & attribute != 0 && has & flag == 0)
        .map(|(_, _, name)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("the checkpoint's {} is not {}", printable(target), missing.join(", "));
    Err(Error::invalid(at, text))
}

/// Whether the host's file is the one that was found.
fn is_same(path: &PathBuf, nofollow: bool, found: &Found) -> Result<bool> {
    let stat = if nofollow { rustix::fs::lstat(path) } else { rustix::fs::stat(path) };
    match stat {
        Ok(stat) => Ok((stat.st_dev, stat.st_ino) == found.identity),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error).call(|| format!("stat({})", path.display())),
    }
}

/// proc(5): `hidepid` and `subset` narrow what a procfs shows.
fn shows_more(asked: &[(String, Option<String>)], has: &str) -> bool {
    let narrows = |key: &str| key == "subset" || key == "hidepid";
    asked.iter().any(|(key, value)| {
        let value = value.as_deref();
        narrows(key)
            && value != Some("0")
            && !has.split(',').any(|option| option.starts_with(&format!("{key}=")))
    })
}
