// SPDX-License-Identifier: Apache-2.0
//! Opening what the stage inherits: mount trees, files, namespaces. The host does it, in its own namespaces, before the
//! container's exist (docs/ARCHITECTURE.md, "Why this order", 3). What a descriptor names cannot be exchanged any more.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::idmap;
use crate::error::{Context, Error, Kind, Result, WithStep};
use crate::facts::IdMaps;
use crate::plan::mounts::{Attrs, Idmap, Propagation};
use crate::plan::namespaces::NsKind;
use crate::procfs;
use crate::program::op::{FsTree, Must, Node, Source, Tree};
use crate::stage::locks;
use crate::sys::mount::{MountAttrChange, set_attr};

/// PROC_SUPER_MAGIC (linux/magic.h).
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// A detached copy of the tree, with its attributes set. `ids` are the mappings of the container's user namespace.
pub(super) fn tree(tree: &Tree, ids: Option<&IdMaps>) -> Result<OwnedFd> {
    let path = tree.path.display();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if tree.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if tree.nofollow {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    if tree.must == Must::LinkOrTree {
        // The stage makes the same link (`copy-symlink`).
        let link = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::open(&tree.path, link, Mode::empty()).call(|| format!("open({path})"))?;
        let kind = rustix::fs::fstat(&found).call(|| "fstat")?.st_mode;
        if FileType::from_raw_mode(kind) == FileType::Symlink {
            return Ok(found);
        }
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    let mount = open_tree(CWD, &tree.path, flags).call(|| format!("open_tree({path})"))?;
    check(tree, &mount)?;
    attributes(&mount, &path.to_string(), &tree.propagation, tree.all_attrs, tree.attrs)?;
    if let Some(map) = &tree.idmap {
        id_map(&mount, map, ids).step(|| format!("id-mapped mount of {path}"))?;
    }
    Ok(mount)
}

/// Propagation in order, then attributes of the whole tree and of its top.
fn attributes(
    mount: &OwnedFd,
    path: &str,
    propagation: &[Propagation],
    all: Attrs,
    top: Attrs,
) -> Result<()> {
    let mut changes = propagation.iter().map(|change| MountAttrChange {
        propagation: change.flag,
        recursive: change.recursive,
        ..MountAttrChange::default()
    });
    // The first propagation change and the attributes of the whole tree are one call.
    let mut first = changes.next().unwrap_or_default();
    if first.recursive || all.set | all.clear == 0 {
        (first.set, first.clear) = (all.set, all.clear);
    }
    let mut rest: Vec<MountAttrChange> = changes.collect();
    if !first.recursive && all.set | all.clear != 0 {
        rest.push(MountAttrChange {
            set: all.set,
            clear: all.clear,
            recursive: true,
            ..MountAttrChange::default()
        });
    }
    let needed = |change: &&MountAttrChange| change.set | change.clear | change.propagation != 0;
    for change in [first].iter().chain(&rest).filter(needed) {
        apply(mount, path, *change, 0)?;
    }
    match top.set | top.clear | top.implied {
        0 => Ok(()),
        _ => apply(
            mount,
            path,
            MountAttrChange { set: top.set, clear: top.clear, ..MountAttrChange::default() },
            top.implied,
        ),
    }
}

/// One change; flags that nobody asked for, `implied`, are cleared unless they are locked.
fn apply(mount: &OwnedFd, path: &str, change: MountAttrChange<'_>, mut implied: u64) -> Result<()> {
    loop {
        let with = MountAttrChange { clear: change.clear | implied, ..change };
        let Err(errno) = set_attr(mount.as_fd(), &with) else { return Ok(()) };
        implied = match locks::implied_after(errno.0, implied) {
            Some(left) => left,
            None => {
                let error = Error::os(format!("mount_setattr({path})"), errno);
                let held = match errno.0 {
                    libc::EPERM => rustix::fs::fstatvfs(mount).map_or(0, |fs| fs.f_flag.bits()),
                    _ => return Err(error),
                };
                return Err(locked(error, locks::locked(held, change.set, change.clear, change.recursive)));
            }
        };
    }
}

/// The error with the names of the flags that it is about (`stage::locks`), if it is about any.
pub(super) fn locked(error: Error, flags: u64) -> Error {
    const NAMES: [(u64, &str); 6] = [
        (libc::MOUNT_ATTR_RDONLY, "ro"),
        (libc::MOUNT_ATTR_NOSUID, "nosuid"),
        (libc::MOUNT_ATTR_NODEV, "nodev"),
        (libc::MOUNT_ATTR_NOEXEC, "noexec"),
        (locks::ATIME, "the access time"),
        (locks::NODIRATIME, "nodiratime"),
    ];
    let names = NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name);
    match names.collect::<Vec<_>>().join(", ") {
        names if names.is_empty() => error,
        names => error.at(format!("{names}: locked by a user namespace")),
    }
}

/// A file system of its own with an id mapping, detached. It is mounted here because the mapping's user namespace is
/// ours to have power over, not the container's.
pub(super) fn file_system(fs: &FsTree, ids: Option<&IdMaps>) -> Result<OwnedFd> {
    let name = fs.fstype.as_str();
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).call(|| format!("fsopen({name})"))?;
    if let Some(source) = &fs.source {
        fsconfig_set_string(&context, "source", source.as_str())
            .call(|| format!("fsconfig(source={source})"))?;
    }
    for (key, value) in &fs.options {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str())
                .call(|| format!("fsconfig({key}={value})"))?,
            None => fsconfig_set_flag(&context, key.as_str()).call(|| format!("fsconfig({key})"))?,
        }
    }
    fsconfig_create(&context).call(|| format!("fsconfig({name}, CREATE)"))?;
    let attrs = u32::try_from(fs.attrs).unwrap_or_default();
    let attrs = MountAttrFlags::from_bits_retain(attrs);
    let mount =
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs).call(|| format!("fsmount({name})"))?;
    attributes(&mount, name, &fs.propagation, fs.all_attrs, Attrs::default())?;
    id_map(&mount, &fs.idmap, ids).step(|| format!("id-mapped mount of a {name}"))?;
    Ok(mount)
}

/// A tmpfs for nodes that are one container's alone, on top of the root directory of the mount namespace that this thread
/// is in: one that nobody else is in, and that goes away. Attached, because before Linux 6.15 open_tree(2) copies nothing
/// out of a mount that is attached nowhere.
fn nodes_directory() -> Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).call(|| "fsopen(tmpfs)")?;
    fsconfig_create(&context).call(|| "fsconfig(tmpfs, CREATE)")?;
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let fs = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs).call(|| "fsmount(tmpfs)")?;
    move_mount(&fs, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).call(|| "move_mount(tmpfs, /)")?;
    Ok(fs)
}

/// A device node that is the container's alone: one file in `directory`, under `name`. Where no node can be made
/// (no CAP_MKNOD), the host's is bound.
fn node(node: &Node, directory: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let path = node.path.display();
    let (kind, mode) = (FileType::from_raw_mode(node.mode), Mode::from_raw_mode(node.mode & 0o7777));
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match rustix::fs::mknodat(directory, name, kind, mode, node.rdev) {
        Err(rustix::io::Errno::PERM) => {
            open_tree(CWD, &node.path, clone).call(|| format!("open_tree({path})"))
        }
        made => {
            let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
            made.call(|| format!("mknod({path})"))?;
            // Whatever our umask is; the owner last, who could change it.
            rustix::fs::chmodat(directory, name, mode, AtFlags::empty()).call(|| format!("chmod({path})"))?;
            rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .call(|| format!("chown({path}, {}:{})", node.uid, node.gid))?;
            open_tree(directory, name, clone).call(|| format!("open_tree({path})"))
        }
    }
}

/// All trees and device nodes of a container with a user namespace, by source; one that cannot be had is its own error.
///
/// Trees are copied where another user namespace's process sees them: there the kernel has locked their read-only and
/// nosuid flags and what is mounted below, so that the container's root cannot take them off (mount_namespaces(7),
/// "Restrictions on mount namespaces"). A copy made here would have no locks.
pub(super) fn locked_trees(sources: &[Source], ids: Option<&IdMaps>) -> Result<Vec<Option<Result<OwnedFd>>>> {
    let (pid, pidfd) = crate::sys::clone::sleeper_in_userns(NsKind::Mount.flag())?;
    let copied = crate::sys::ns::among_mounts_of(pid, pidfd.as_fd(), || Ok(copies(sources, ids)));
    super::identity::end(pidfd.as_fd())?;
    let mut copied: Vec<Option<Result<OwnedFd>>> = copied.step(|| "copying mounts")?;
    for (copy, source) in copied.iter_mut().zip(sources) {
        // A tree without what is mounted below it, or behind a descriptor of ours: only to be had unlocked.
        if let (Some(Err(error)), Source::Tree(tree)) = (&copy, source)
            && error.errno() == Some(libc::EINVAL)
        {
            *copy = Some(self::tree(tree, ids));
        }
    }
    Ok(copied)
}

/// What of `sources` this thread's mount namespace, which is nobody else's, has or can make.
fn copies(sources: &[Source], ids: Option<&IdMaps>) -> Vec<Option<Result<OwnedFd>>> {
    // One directory for all nodes, made for the first.
    let mut directory = None;
    let copy = |(index, source): (usize, &Source)| match source {
        Source::Tree(tree) => Some(self::tree(tree, ids)),
        Source::Node(node) => Some(match directory.get_or_insert_with(nodes_directory) {
            Ok(directory) => self::node(node, directory, &index.to_string()),
            Err(error) => Err(error.clone()),
        }),
        _ => None,
    };
    sources.iter().enumerate().map(copy).collect()
}

fn id_map(mount: &OwnedFd, map: &Idmap, ids: Option<&IdMaps>) -> Result<()> {
    let (uid, gid) = match ids {
        // Without mappings of its own a mount takes the container's (config.md, `idmap`).
        Some(ids) if map.uid.is_empty() => (&ids.uid, &ids.gid),
        _ => (&map.uid, &map.gid),
    };
    let userns = idmap::userns(uid, gid)?;
    let change = MountAttrChange {
        userns: Some(userns.as_fd()),
        recursive: map.recursive,
        ..MountAttrChange::default()
    };
    set_attr(mount.as_fd(), &change).call(|| "mount_setattr(MOUNT_ATTR_IDMAP)")
}

fn check(tree: &Tree, mount: &OwnedFd) -> Result<()> {
    match tree.must {
        Must::Anything | Must::LinkOrTree => Ok(()),
        Must::Directory => {
            let stat = rustix::fs::fstat(mount).call(|| "fstat")?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Ok(()),
                _ => Err(Error::os(format!("open_tree({})", tree.path.display()), libc::ENOTDIR)),
            }
        }
        Must::Proc => match rustix::fs::fstatfs(mount) {
            Ok(fs) if fs.f_type == PROC_SUPER_MAGIC => Ok(()),
            _ => Err(Error::new(
                Kind::Invalid,
                format!("{} is no procfs: /proc must be one", tree.path.display()),
            )),
        },
    }
}

/// A namespace file, checked to be of its kind, and (for the parameter at `foreign`) not to be the runtime's own.
pub(super) fn namespace(path: &str, kind: NsKind, foreign: Option<&str>) -> Result<OwnedFd> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open({path})"))?;
    match crate::sys::ns::kind(file.as_fd()) {
        Ok(found) if found == kind.flag() => {}
        Ok(_) => {
            let text = format!("{path} is a namespace of another type than {}", kind.name());
            return Err(Error::new(Kind::Invalid, text));
        }
        Err(_) => return Err(Error::new(Kind::Invalid, format!("{path} is no namespace"))),
    }
    let Some(at) = foreign else { return Ok(file) };
    let own = format!("/proc/thread-self/ns/{}", kind.file());
    let (found, own) =
        (rustix::fs::fstat(&file).call(|| "fstat")?, rustix::fs::stat(&own).call(|| format!("stat({own})"))?);
    if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino) {
        let text = format!("not allowed in host {} namespace, which {path} is", kind.name());
        return Err(Error::invalid(at, text));
    }
    Ok(file)
}

/// A directory by path only.
pub(super) fn directory(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).call(|| format!("open({path})"))
}

/// The pid behind a pidfd, in our pid namespace (proc_pid_fdinfo(5), `Pid:`).
pub(super) fn pid_of(pidfd: &OwnedFd) -> Result<i32> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = procfs::read(&path)?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|pid| pid.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or_else(|| Error::new(Kind::Os, "no pid").at(path))
}
