// SPDX-License-Identifier: Apache-2.0
//! Id-mapped layers of an overlay: `uidmap=` and `gidmap=` among its options, as containerd's snapshotter asks for when the
//! container has a user namespace and the image's files are to be seen through it.
//!
//! overlayfs takes layers that are id-mapped already (Linux 5.19), and holds copies of its own: each lower layer is copied,
//! mapped and attached beside the rootfs for as long as the overlay takes to be mounted.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use corten::error::Context;
use corten::host::userns;
use corten::spec::IdMapping;
use corten::sys::mount::{MountAttrChange, set_attr};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::{MountArguments, unmount_below};
use crate::refusal::{Refusal, Result};

/// What the options say of ids.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Maps {
    uid: Vec<IdMapping>,
    gid: Vec<IdMapping>,
}

impl Maps {
    /// Reads `option` if it is one of ours.
    ///
    /// # Errors
    /// InvalidArgument for a mapping that is not `container:host:size[,…]`.
    pub fn read_option(&mut self, option: &str) -> Result<bool> {
        let (map, text) = match option.split_once('=') {
            Some(("uidmap", text)) => (&mut self.uid, text),
            Some(("gidmap", text)) => (&mut self.gid, text),
            _ => return Ok(false),
        };
        let wrong = || Refusal::invalid(format!("option {option}: not container:host:size"));
        for range in text.split(',') {
            let numbers: Result<Vec<u32>, _> = range.split(':').map(str::parse).collect();
            let [container_id, host_id, size] = numbers.map_err(|_| wrong())?[..] else {
                return Err(wrong());
            };
            map.push(IdMapping { container_id, host_id, size });
        }
        Ok(true)
    }
}

/// The directory in which the layers are attached. Dropped, they are gone.
pub struct Layers(PathBuf);

impl Layers {
    fn place(rootfs: &Path) -> PathBuf {
        rootfs.with_file_name("layers")
    }

    /// Maps the lower layers of `wanted`, and names the mapped ones in their place.
    ///
    /// # Errors
    /// InvalidArgument for another file system than overlay, else the failed call.
    pub fn map(wanted: &mut MountArguments, kind: &str, rootfs: &Path) -> Result<Option<Layers>> {
        if wanted.maps == Maps::default() {
            return Ok(None);
        }
        let lower =
            wanted.data.iter_mut().find_map(|option| option.strip_prefix("lowerdir=").map(str::to_owned));
        let Some(lower) = lower.filter(|_| kind == "overlay") else {
            return Err(Refusal::invalid(format!("uidmap and gidmap: {kind} has no lower layers")));
        };
        let userns = userns(&wanted.maps.uid, &wanted.maps.gid)?;
        let layers = Layers(Layers::place(rootfs));
        let mut mapped = Vec::new();
        for (layer, number) in lower.split(':').zip(0..) {
            let point = layers.0.join(format!("{number}"));
            std::fs::create_dir_all(&point).call(|| format!("mkdir({})", point.display()))?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = open_tree(CWD, layer, flags).call(|| format!("open_tree({layer})"))?;
            let change = MountAttrChange { userns: Some(userns.as_fd()), ..MountAttrChange::default() };
            set_attr(tree.as_fd(), &change).call(|| format!("mount_setattr({layer}, idmap)"))?;
            move_mount(&tree, c"", CWD, &point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .call(|| format!("move_mount({})", point.display()))?;
            mapped.push(point.display().to_string());
        }
        wanted.data.retain(|option| !option.starts_with("lowerdir="));
        wanted.data.insert(0, format!("lowerdir={}", mapped.join(":")));
        Ok(Some(layers))
    }

    pub fn remove(rootfs: &Path) {
        drop(Layers(Layers::place(rootfs)));
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return };
        unmount_below(&self.0);
        // Not with what is in them: should a mount be left, it is somebody's layer.
        for entry in entries.flatten() {
            let _ = std::fs::remove_dir(entry.path());
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}
