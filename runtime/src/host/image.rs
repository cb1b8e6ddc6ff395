// SPDX-License-Identifier: Apache-2.0
//! The stage's executable as a sealed memfd, and the memfd of its program.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// The stage, built by build.rs.
static STAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stage"));

/// The stage's executable, sealed against every change; `None` where memfds cannot be executed
/// (`vm.memfd_noexec=2`): the interpreter linked into this binary serves then.
///
/// # Errors
/// ENOMEM and its like.
pub fn stage() -> Result<Option<OwnedFd>> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match memfd_create("corten-stage", flags | MemfdFlags::EXEC) {
        // Linux before 6.3 does not know the flag and always allows the exec.
        Err(Errno::INVAL) => memfd_create("corten-stage", flags),
        other => other,
    };
    match memfd {
        Err(Errno::ACCESS) => Ok(None),
        memfd => filled(memfd.call(|| "memfd_create(corten-stage)")?, STAGE).map(Some),
    }
}

/// The encoded program.
///
/// # Errors
/// ENOMEM and its like.
pub fn program(words: &[u64]) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match memfd_create("corten-program", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("corten-program", flags),
        other => other,
    };
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    filled(memfd.call(|| "memfd_create(corten-program)")?, &bytes)
}

fn filled(memfd: OwnedFd, mut bytes: &[u8]) -> Result<OwnedFd> {
    while !bytes.is_empty() {
        let count = rustix::io::write(&memfd, bytes).call(|| "write(memfd)")?;
        bytes = &bytes[count..];
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&memfd, seals).call(|| "fcntl(memfd, F_ADD_SEALS)")?;
    Ok(memfd)
}
