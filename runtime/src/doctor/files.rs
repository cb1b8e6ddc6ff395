// SPDX-License-Identifier: Apache-2.0
//! File systems: the state root, whether mounts of what engines keep can be id-mapped, and how they are mounted.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{Health, HostCheck, Signs};
use crate::error::Words;
use crate::facts::{CAP_SYS_ADMIN, Facts};
use crate::host::userns;
use crate::procfs;
use crate::spec::IdMapping;
use crate::state::Root;
use crate::sys::mount::{MountAttrChange, set_attr};

/// Where engines keep root file systems and volumes.
const STORES: [&str; 4] =
    ["/var/lib/containerd", "/var/lib/docker", "/var/lib/containers", "/var/lib/kubelet"];
/// Since when mounts of a file system can be id-mapped, for those where it was not from the beginning (FS_ALLOW_IDMAP).
const SINCE: [(&str, &str); 8] = [
    ("btrfs", "Linux 5.15"),
    ("f2fs", "Linux 5.18"),
    ("erofs", "Linux 5.19"),
    ("squashfs", "Linux 6.2"),
    ("tmpfs", "Linux 6.3"),
    ("ceph", "Linux 6.7"),
    ("virtiofs", "Linux 6.12"),
    ("zfs", "OpenZFS 2.2"),
];
/// Those whose mounts were from the beginning.
const ALWAYS: [&str; 3] = ["ext4", "xfs", "vfat"];

/// A file system that something of ours, or of an engine's, lies in.
#[derive(Debug, Clone)]
pub(super) struct FileSystem {
    /// The directory for which it was looked at.
    pub(super) path: String,
    /// Its type.
    pub(super) kind: String,
    /// How it is mounted: `rw,noexec`.
    pub(super) attributes: String,
    /// An engine's store, whose programs are executed.
    pub(super) store: bool,
    /// What an id-mapped mount gave: `None` where it could not be tried, 0 or an errno else.
    pub(super) idmap: Option<i32>,
}

#[derive(Debug, Clone)]
pub(super) struct FileSigns {
    /// The state root.
    pub(super) root: PathBuf,
    /// It is there, and what is wrong with it.
    pub(super) root_state: Option<Result<(), String>>,
    /// One of each.
    pub(super) all: Vec<FileSystem>,
    /// What is mounted below `/` spreads to whoever has a copy.
    pub(super) shared: bool,
}

pub(super) fn look(facts: &Facts, root: &Path) -> FileSigns {
    let table = procfs::read("/proc/self/mountinfo").unwrap_or_default();
    let root_state = match Root::open(root) {
        Ok(_) => Some(Ok(())),
        Err(error) if error.errno() == Some(libc::ENOENT) => None,
        Err(error) => Some(Err(error.to_string())),
    };
    FileSigns {
        root: root.to_owned(),
        root_state,
        all: file_systems(facts, root, &table),
        shared: is_shared(&table),
    }
}

/// By directory, each mount once.
fn file_systems(facts: &Facts, root: &Path, table: &str) -> Vec<FileSystem> {
    let home = std::env::var_os("HOME").filter(|_| facts.euid != 0).map(PathBuf::from);
    let state = root.ancestors().find(|dir| dir.exists()).map(Path::to_owned);
    let stores = STORES.iter().map(PathBuf::from).chain(home).map(|path| (path, true));
    let others = state.into_iter().chain([PathBuf::from("/tmp")]).map(|path| (path, false));
    // A range that every host has, for a moment and nobody's files.
    let range = [IdMapping { container_id: 0, host_id: 100_000, size: 65_536 }];
    let userns = facts.can(CAP_SYS_ADMIN).then(|| userns(&range, &range).ok()).flatten();
    let (mut points, mut all) = (Vec::new(), Vec::new());
    for (path, store) in stores.chain(others) {
        let Ok(real) = path.canonicalize() else { continue };
        let Some(mount) = mount_of(table, &real) else { continue };
        if points.contains(&mount.number) {
            continue;
        }
        points.push(mount.number);
        let change =
            MountAttrChange { userns: userns.as_ref().map(AsFd::as_fd), ..MountAttrChange::default() };
        all.push(FileSystem {
            path: path.display().to_string(),
            kind: mount.fstype.to_owned(),
            attributes: mount.attributes.to_owned(),
            store,
            idmap: userns.is_some().then(|| try_idmap(&real, &change)).flatten(),
        });
    }
    all
}

/// On a copy of the mount that is attached nowhere. `None` where there can be no copy.
fn try_idmap(path: &Path, change: &MountAttrChange<'_>) -> Option<i32> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).ok()?;
    Some(set_attr(tree.as_fd(), change).map_or_else(|errno| errno.0, |()| 0))
}

/// The mount that a path lies in: of those with the longest mount point the last one, which lies over the others.
fn mount_of<'a>(table: &'a str, path: &Path) -> Option<procfs::MountinfoEntry<'a>> {
    let above = procfs::mounts(table).filter(|mount| path.starts_with(mount.point()));
    above.max_by_key(|mount| mount.point().trim_end_matches('/').len())
}

/// proc_pid_mountinfo(5): the optional fields stand between the options and ` - `.
fn is_shared(table: &str) -> bool {
    let of_root = |line: &&str| line.split(' ').nth(4) == Some("/");
    let last = table.lines().rfind(of_root).unwrap_or_default();
    last.split(" - ").next().unwrap_or_default().split(' ').skip(6).any(|tag| tag.starts_with("shared:"))
}

pub(super) fn examine(signs: &Signs) -> Vec<HostCheck> {
    let files = &signs.files;
    let mut all = vec![root(files)];
    // A kernel that has none is told once.
    match files.all.iter().find(|one| one.idmap == Some(libc::ENOSYS)) {
        Some(_) => all.push(HostCheck::note("files.idmap", "the kernel has none", "use Linux 5.12 or newer")),
        None => all.extend(files.all.iter().map(|one| idmap(one, signs))),
    }
    all.extend(files.all.iter().filter(|one| one.store).map(options));
    all.push(propagation(files.shared));
    all
}

fn root(files: &FileSigns) -> HostCheck {
    let id = "files.root";
    let path = files.root.display().to_string();
    let check = match &files.root_state {
        None => HostCheck::ok(id, "not there yet: the first container makes it"),
        Some(Ok(())) => HostCheck::ok(id, "nobody else may write to it"),
        Some(Err(wrong)) => HostCheck::fail(
            id,
            wrong,
            "give it to the user who runs corten, with mode 700, or name another by --root",
        ),
    };
    check.of(path)
}

fn idmap(one: &FileSystem, signs: &Signs) -> HostCheck {
    let id = "files.idmap";
    let since = SINCE.iter().find(|(kind, _)| *kind == one.kind).map(|(_, since)| *since);
    let check = match one.idmap {
        None if !signs.is_host_root() => {
            HostCheck::unknown(id, format!("{}: only the host's root may", one.kind))
        }
        None => HostCheck::unknown(id, format!("{}: only who has CAP_SYS_ADMIN over the host may", one.kind)),
        Some(0) => HostCheck::ok(id, &one.kind),
        Some(errno) => {
            let found = format!("{}: {}", one.kind, Words(errno));
            let advice = match (one.kind.as_str(), since) {
                ("overlay", _) => {
                    "none of its mounts can be, its layers can: keep root file systems elsewhere".to_owned()
                }
                (kind, Some(since)) => format!("{kind} can from {since} on"),
                (kind, None) if ALWAYS.contains(&kind) => {
                    "the mount is id-mapped itself, or not ours to copy".to_owned()
                }
                (kind, None) => {
                    format!("{kind} cannot: keep what is to be id-mapped on ext4, xfs, btrfs or tmpfs")
                }
            };
            // Pods with user namespaces have their layers and volumes here.
            HostCheck::new(id, if one.store { Health::Warn } else { Health::Note }, found, advice)
        }
    };
    check.of(&one.path)
}

fn options(one: &FileSystem) -> HostCheck {
    let id = "files.options";
    let has = |name: &&str| one.attributes.split(',').any(|attribute| attribute == *name);
    let found: Vec<&str> = ["noexec", "nosuid", "nodev"].into_iter().filter(has).collect();
    let advice = format!("mount -o remount,{} {}", found.join(",").replace("no", ""), one.path);
    let check = match found.as_slice() {
        [] => HostCheck::ok(id, &one.attributes),
        found if found.contains(&"noexec") => {
            HostCheck::warn(id, format!("{}: no program in it can be executed", found.join(",")), advice)
        }
        found => HostCheck::note(id, found.join(","), advice),
    };
    check.of(&one.path)
}

fn propagation(shared: bool) -> HostCheck {
    let id = "files.propagation";
    match shared {
        true => HostCheck::ok(id, "/ is shared"),
        false => HostCheck::note(
            id,
            "/ is private: what a container mounts in an rshared volume does not reach the host",
            "mount --make-rshared /",
        ),
    }
}
