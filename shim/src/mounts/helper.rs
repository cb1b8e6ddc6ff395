// SPDX-License-Identifier: Apache-2.0
//! File systems that a program mounts: FUSE, by mount(8)'s helpers, as containerd's own shim has them mounted.
//!
//! The helper's file system goes on as a process of its own, a child of ours, until it is unmounted.

#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use containerd_shim_protos::types::mount::Mount;
use corten::error::{Context, RawErrno};
use rustix::fs::{MemfdFlags, memfd_create, readlink};

use crate::refusal::{Refusal, Result};

/// How much of a helper's words is told.
const MOST: usize = 512;

/// The helper for a mount of this type, and the type that it is told: `fuse3.fuse-overlayfs` is a `fuse-overlayfs`,
/// mounted by `mount.fuse3`.
pub fn program_for(kind: &str) -> Option<(&'static str, &str)> {
    let fuse = kind.strip_prefix("fuse.").map(|kind| ("mount.fuse", kind));
    fuse.or_else(|| kind.strip_prefix("fuse3.").map(|kind| ("mount.fuse3", kind)))
}

/// Runs it.
///
/// # Errors
/// With the helper's words when it fails.
pub fn mount((program, kind): (&str, &str), wanted: &Mount, target: &OwnedFd) -> Result<()> {
    // It takes a path; this is the one that the descriptor has.
    let link = format!("/proc/self/fd/{}", target.as_raw_fd());
    let point = readlink(&link, Vec::new()).call(|| format!("readlink({link})"))?;
    let point = String::from_utf8_lossy(point.as_bytes()).into_owned();
    // Not a pipe: the file system keeps what it is given, and the end of a pipe would never come.
    let words = memfd_create("words", MemfdFlags::CLOEXEC).call(|| "memfd_create(words)")?;
    let copy = || words.try_clone().map(Stdio::from).call(|| "dup(words)");
    let mut command = Command::new(program);
    command.arg(&wanted.source).arg(&point);
    for option in &wanted.options {
        command.args(["-o", option]);
    }
    command.args(["-t", kind]).stdin(Stdio::null()).stdout(copy()?).stderr(copy()?);
    let status = command.status().map_err(|error| {
        Refusal::from(corten::Error::os(format!("execve({program})"), RawErrno::from(error)))
    })?;
    if status.success() {
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}", words.as_raw_fd());
    let said = std::fs::read(path).unwrap_or_default();
    let said = String::from_utf8_lossy(said.get(..MOST).unwrap_or(&said)).trim().replace('\n', "; ");
    Err(Refusal::unknown(format!("{program}: {status}: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_names_the_helper() {
        assert_eq!(program_for("fuse3.fuse-overlayfs"), Some(("mount.fuse3", "fuse-overlayfs")));
        assert_eq!(program_for("fuse.x.y"), Some(("mount.fuse", "x.y")));
        assert_eq!(program_for("fuse"), None);
        assert_eq!(program_for("fuseblk"), None);
    }
}
