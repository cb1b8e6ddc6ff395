// SPDX-License-Identifier: Apache-2.0
//! The root file system that containerd wants mounted: `Create`'s list of mounts, on the bundle's `rootfs`.
//!
//! In the host's mount namespace, where tools of containerd's look for it; taken away by Delete, and by `delete` when
//! the shim has died.

#![forbid(unsafe_code)]

mod helper;
mod mapped;
mod options;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use containerd_shim_protos::types::mount::Mount;
use corten::error::{Context, Error};
use corten::procfs;
use corten::sys::loopdev;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, mount_remount, move_mount, unmount,
};

use self::mapped::Layers;
use self::options::{MountArguments, read};
use crate::log;
use crate::refusal::{Refusal, Result};

/// mount(2) takes one page of options, its last byte a zero.
const PAGE: usize = 4095;

/// Mounts `mounts` in order; after an error none of them is left.
///
/// # Errors
/// InvalidArgument for what the kernel does not mount by itself, else the failed call, naming the mount.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    match std::fs::create_dir(rootfs) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::os(format!("mkdir({})", rootfs.display()), error).into());
        }
        _ => {}
    }
    for (wanted, index) in mounts.iter().zip(0..) {
        if let Err(refusal) = mount_one(wanted, rootfs) {
            unmount_all(rootfs);
            return Err(refusal.at(&format!("rootfs[{index}] ({} on {})", wanted.type_, rootfs.display())));
        }
    }
    Ok(())
}

/// Unmounts whatever is mounted on or below `rootfs`, the last one first; what is busy is detached. Also layers that
/// were mapped for it by a shim that died over it.
pub fn unmount_all(rootfs: &Path) {
    unmount_below(rootfs);
    Layers::remove(rootfs);
}

fn unmount_below(place: &Path) {
    let place = std::fs::canonicalize(place).unwrap_or_else(|_| place.to_owned());
    let table = match procfs::read("/proc/self/mountinfo") {
        Ok(table) => table,
        Err(error) => {
            log::warn(&format!("{error}; {} is unmounted unseen", place.display()));
            return unmount_unseen(&place);
        }
    };
    let mut points = points(&table);
    points.retain(|point| point.starts_with(&place));
    while let Some(point) = points.pop() {
        if unmount(&point, UnmountFlags::NOFOLLOW).is_err() {
            let _ = unmount(&point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        }
    }
}

/// Without a mount table: what is mounted there goes with all that is mounted in it, one after the other until nothing is.
fn unmount_unseen(place: &Path) {
    for _ in 0..64 {
        if unmount(place, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH).is_err() {
            return;
        }
    }
}

/// The mount points of a mount table, in the order in which they were mounted.
fn points(table: &str) -> Vec<PathBuf> {
    procfs::mounts(table).map(|mount| mount.point().into()).collect()
}

fn mount_one(wanted: &Mount, rootfs: &Path) -> Result<()> {
    if wanted.type_.contains('/') {
        return Err(Refusal::invalid(format!(
            "mount type {:?} was to be resolved by containerd",
            wanted.type_
        )));
    }
    if let Some(program) = helper::program_for(&wanted.type_) {
        return helper::mount(program, wanted, &target(rootfs, &wanted.target)?);
    }
    let mut parsed = read(&wanted.options)?;
    // Held until the overlay holds them itself.
    let _layers = Layers::map(&mut parsed, &wanted.type_, rootfs)?;
    let target = target(rootfs, &wanted.target)?;
    // By the descriptor: a symbolic link of the image leads nowhere.
    let point = format!("/proc/self/fd/{}", target.as_raw_fd());
    let flags = MountFlags::from_bits_retain(parsed.flags);
    let source = wanted.source.as_str();
    if parsed.bind || wanted.type_ == "bind" {
        let kind = if parsed.recursive { MountFlags::BIND | MountFlags::REC } else { MountFlags::BIND };
        mount(source, &point, c"", kind, None).call(|| format!("mount({source}, bind)"))?;
        if parsed.flags != 0 {
            // The mount itself, not what it covers: through the path once more.
            let over = self::target(rootfs, &wanted.target)?;
            let point = format!("/proc/self/fd/{}", over.as_raw_fd());
            mount_remount(&point, MountFlags::BIND | flags, c"")
                .call(|| format!("mount({source}, remount)"))?;
        }
        return propagate(&parsed, rootfs, &wanted.target);
    }
    // Held until the mount holds it itself: then it goes with the mount.
    let device = if parsed.looped { Some(attach(source, &parsed)?) } else { None };
    let source = device.as_ref().map_or(Path::new(source), |(_, path)| path);
    let data = parsed.data.join(",");
    if data.len() > PAGE {
        large(&wanted.type_, source, &parsed, &target)?;
        return propagate(&parsed, rootfs, &wanted.target);
    }
    let data = CString::new(data).map_err(|_| Refusal::invalid("an option holds a zero byte"))?;
    let kind = wanted.type_.as_str();
    mount(source, &point, kind, flags, data.as_c_str())
        .call(|| format!("mount({kind}, {})", source.display()))?;
    propagate(&parsed, rootfs, &wanted.target)
}

/// The loop device over the file `source`.
fn attach(source: &str, wanted: &MountArguments) -> Result<(OwnedFd, PathBuf)> {
    let read_only = wanted.flags & libc::MS_RDONLY as u32 != 0;
    let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let file = open(source, access | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .call(|| format!("open({source})"))?;
    Ok(loopdev::attach(file.as_fd(), Path::new(source), read_only)
        .map_err(|error| error.at("option loop"))?)
}

/// `private`, `rslave` and their like: a step of their own.
fn propagate(wanted: &MountArguments, rootfs: &Path, below: &str) -> Result<()> {
    if wanted.propagation == 0 {
        return Ok(());
    }
    // The mount itself, not what it covers: through the path once more.
    let over = target(rootfs, below)?;
    let point = format!("/proc/self/fd/{}", over.as_raw_fd());
    let flags = MountPropagationFlags::from_bits_retain(wanted.propagation);
    Ok(mount_change(&point, flags).call(|| format!("mount({}, propagation)", rootfs.display()))?)
}

/// Options beyond a page: one by one, which Linux 6.5 allows for overlay's many lower layers.
fn large(kind: &str, source: &Path, wanted: &MountArguments, target: &OwnedFd) -> Result<()> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).call(|| format!("fsopen({kind})"))?;
    fsconfig_set_string(&fs, "source", source).call(|| format!("fsconfig({kind}, source)"))?;
    for option in &wanted.data {
        let call = |key: &str, value: &str| format!("fsconfig({kind}, {key}, {value})");
        match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                for layer in layers.split(':') {
                    fsconfig_set_string(&fs, "lowerdir+", layer).call(|| call("lowerdir+", layer))?;
                }
            }
            Some((key, value)) => fsconfig_set_string(&fs, key, value).call(|| call(key, value))?,
            None => fsconfig_set_flag(&fs, option.as_str()).call(|| call(option, ""))?,
        }
    }
    if wanted.flags & libc::MS_RDONLY as u32 != 0 {
        fsconfig_set_flag(&fs, "ro").call(|| "fsconfig(ro)")?;
    }
    fsconfig_create(&fs).call(|| format!("fsconfig({kind}, create)"))?;
    let attributes = MountAttrFlags::from_bits_truncate(
        wanted.flags & (libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC) as u32,
    );
    let made = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).call(|| format!("fsmount({kind})"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(&made, c"", target, c"", flags).call(|| "move_mount(rootfs)")?)
}

/// The mount point: `rootfs`, or a path below it that the image cannot lead astray.
fn target(rootfs: &Path, below: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = openat2(CWD, rootfs, flags | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::empty())
        .call(|| format!("open({})", rootfs.display()))?;
    if below.is_empty() || below == "/" {
        return Ok(root);
    }
    loop {
        match openat2(&root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
        {
            Err(Errno::AGAIN) => {}
            found => return Ok(found.call(|| format!("openat2({below})"))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_in_order_with_their_escapes() {
        let table =
            "1 0 0:1 / / rw - a b c\n2 1 0:1 / /a\\040b rw - a b c\n3 2 0:1 / /a\\040b/c\\134 rw - x y z\n";
        let read = points(table);
        assert_eq!(read, [Path::new("/"), Path::new("/a b"), Path::new("/a b/c\\")]);
    }

    #[test]
    fn a_type_that_containerd_left_is_refused() {
        let mount = Mount { type_: "format/overlay".into(), ..Default::default() };
        assert!(mount_one(&mount, Path::new("/")).unwrap_err().text.contains("format/overlay"));
    }
}
