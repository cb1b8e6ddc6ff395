// SPDX-License-Identifier: Apache-2.0
//! The stage's executable as a sealed memfd, and the memfd of its program.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fchmod, fcntl_add_seals, memfd_create, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::error::{Context, Result};

/// The stage, built by build.rs.
static STAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stage"));
/// The same, which logs when each of its operations and system calls began and ended.
static TRACED_STAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stage-traced"));

/// The stage's executable, sealed against every change. Where memfds cannot be executed (`vm.memfd_noexec=2`) it is
/// [`private`]; `None` where that is refused as well (no CAP_SYS_ADMIN): the interpreter linked into this binary
/// serves then, and /proc/self/exe is this binary while it runs (CVE-2019-5736), which only its owner can write to.
///
/// # Errors
/// ENOMEM and its like.
pub(crate) fn stage(traced: bool) -> Result<Option<OwnedFd>> {
    let image = if traced { TRACED_STAGE } else { STAGE };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match memfd_create("corten-stage", flags | MemfdFlags::EXEC) {
        // Linux before 6.3 does not know the flag and always allows the exec.
        Err(Errno::INVAL) => memfd_create("corten-stage", flags),
        other => other,
    };
    match memfd {
        Err(Errno::ACCESS) => Ok(private(image).ok()),
        memfd => write_and_seal(memfd.call(|| "memfd_create(corten-stage)")?, image).map(Some),
    }
}

/// The stage in a tmpfs that is mounted nowhere and is this launch's alone: not sealed, but whoever changes it changes
/// nothing that anybody will run. So it must never be kept for a second launch.
fn private(image: &[u8]) -> Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).call(|| "fsopen(tmpfs)")?;
    fsconfig_create(&fs).call(|| "fsconfig(tmpfs)")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).call(|| "fsmount(tmpfs)")?;
    let open = |flags| openat(&mount, "stage", flags | OFlags::CLOEXEC, Mode::RUSR);
    let file = open(OFlags::WRONLY | OFlags::CREATE).call(|| "open(stage)")?;
    // For everybody, whatever our umask: the root of a user namespace executes it.
    fchmod(&file, Mode::from_raw_mode(0o555)).call(|| "fchmod(stage)")?;
    // Closed before the exec, which refuses files that are open for writing (ETXTBSY).
    drop(written(file, image)?);
    open(OFlags::RDONLY).call(|| "open(stage)")
}

/// The encoded program.
///
/// # Errors
/// ENOMEM and its like.
pub(crate) fn program(bytes: &[u8]) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match memfd_create("corten-program", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("corten-program", flags),
        other => other,
    };
    write_and_seal(memfd.call(|| "memfd_create(corten-program)")?, bytes)
}

fn write_and_seal(memfd: OwnedFd, bytes: &[u8]) -> Result<OwnedFd> {
    let memfd = written(memfd, bytes)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&memfd, seals).call(|| "fcntl(memfd, F_ADD_SEALS)")?;
    Ok(memfd)
}

fn written(file: OwnedFd, mut bytes: &[u8]) -> Result<OwnedFd> {
    while !bytes.is_empty() {
        let count = rustix::io::write(&file, bytes).call(|| "write(stage)")?;
        bytes = &bytes[count..];
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    /// Both documents say how large it is.
    #[test]
    fn the_stage_is_as_large_as_is_said() {
        for name in ["README.md", "docs/SECURITY.md"] {
            let path = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let said = text.split(" KB").next().and_then(|before| before.rsplit("some ").next());
            let said: usize = said.unwrap().parse().unwrap();
            let size = super::STAGE.len() / 1000;
            assert!(size.abs_diff(said) <= said / 10, "{name} says {said} KB, it has {size}");
        }
    }
}
