// SPDX-License-Identifier: Apache-2.0
//! `delete`: cleans up after a container without its server, which may be dead.
//!
//! Containers of a group have no `delete` of their own under containerd's version 3: when the server is dead, whoever is
//! deleted takes all of them along. What ends processes comes first, and everything may be done again: containerd kills
//! us after five seconds.

#![forbid(unsafe_code)]

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};
use corten::error::Context;
use corten::host::identity;
use corten::state::Identity;

use super::{socket, start};
use crate::driver::Driver;
use crate::flags::Flags;
use crate::record::{RecordedExit, ShimRecord};
use crate::refusal::Result;
use crate::sandbox::files::PodFiles;
use crate::{clock, log, mounts};

/// A status for a container of which nobody knows how it ended: it was killed.
const KILLED: u32 = 128 + 9;

/// How long a dying server's last descriptors are waited for.
const DYING: Duration = Duration::from_secs(1);

struct Member {
    bundle: PathBuf,
    record: ShimRecord,
    driver: Driver,
}

/// `delete`.
///
/// # Errors
/// What could not be removed; the answer is given all the same.
#[inline(never)]
pub fn delete(flags: &Flags) -> Result<()> {
    corten::state::check_id(&flags.id)?;
    let bundle = bundle(flags);
    let first = Member::of(&bundle, &flags.id, &flags.namespace);
    let RecordedExit { status, at } =
        first.record.exit.unwrap_or(RecordedExit { status: KILLED, at: clock::since_epoch() });
    let pid = first.record.pid;
    let socket = start::path_of(&first.record.address).map(Path::to_owned);
    let dead = socket.as_deref().is_some_and(|socket| is_dead(first.record.server.as_ref(), socket));
    let mut members = vec![first];
    if dead {
        members.extend(other_members(&bundle, &members[0].record, &flags.namespace));
    }
    for member in &members {
        // Everybody dies before anybody is waited for.
        let _ = member.driver.kill(&member.record.id, libc::SIGKILL, true);
    }
    let mut result = Ok(());
    for member in &members {
        let removed = member.driver.delete(&member.record.id);
        mounts::unmount_all(&member.bundle.join("rootfs"));
        let removed = removed.and(member.record.files.as_ref().map_or(Ok(()), PodFiles::remove));
        if removed.is_err() {
            result = removed;
        }
    }
    if dead && let Some(socket) = socket {
        socket::remove(&socket);
    }
    let response = DeleteResponse {
        pid: pid as u32,
        exit_status: status,
        exited_at: MessageField::some(clock::stamp(Some(at))),
        ..Default::default()
    };
    let bytes = response.write_to_bytes().unwrap_or_default();
    std::io::stdout().write_all(&bytes).call(|| "write(stdout)")?;
    result
}

/// Whether the server has died, or is just about to: its connections are closed by then, which is why we are here. Where
/// its process is not recorded (nothing was created, or by an older server), its socket names it.
fn is_dead(server: Option<&Identity>, socket: &Path) -> bool {
    let Some(server) = server else { return !socket::is_served(socket) };
    // Not known, which is not dead.
    let unknown = |error: corten::Error| {
        log::warn(&error.to_string());
        false
    };
    match server.open() {
        Ok(None) => true,
        Ok(Some(pidfd)) => {
            let dying = socket::is_dying(server.pid);
            let patience = if dying { DYING } else { Duration::ZERO };
            identity::wait_for_exit(pidfd.as_fd(), Some(patience)).unwrap_or_else(unknown) || dying
        }
        Err(error) => unknown(error),
    }
}

/// `-bundle`, or the working directory, which may be another container's or gone.
fn bundle(flags: &Flags) -> PathBuf {
    let given = flags.bundle.clone();
    given.unwrap_or_else(|| match std::env::current_dir() {
        Ok(dir) if dir.file_name().is_some_and(|name| *name == *flags.id) => dir,
        Ok(dir) => dir.parent().unwrap_or(Path::new("/")).join(&flags.id),
        Err(_) => PathBuf::from("/nonexistent").join(&flags.id),
    })
}

/// The containers beside this one whose server was the same.
fn other_members(bundle: &Path, first: &ShimRecord, namespace: &str) -> Vec<Member> {
    let entries = bundle.parent().and_then(|parent| std::fs::read_dir(parent).ok());
    let mut found = Vec::new();
    for entry in entries.into_iter().flatten().flatten() {
        let Some(record) = ShimRecord::read(&entry.path()) else { continue };
        if record.id != first.id && record.address == first.address && !first.address.is_empty() {
            found.push(Member::new(entry.path(), record, namespace));
        }
    }
    found
}

impl Member {
    /// What its record says; without one, what can be told without.
    fn of(bundle: &Path, id: &str, namespace: &str) -> Member {
        let mut record = ShimRecord::read(bundle).unwrap_or_default();
        record.id = id.to_owned();
        if record.address.is_empty() {
            let address = std::fs::read_to_string(bundle.join("address")).unwrap_or_default();
            record.address = address.trim().to_owned();
        }
        Member::new(bundle.to_owned(), record, namespace)
    }

    fn new(bundle: PathBuf, record: ShimRecord, namespace: &str) -> Member {
        let driver = Driver::new(&record.options, namespace, record.systemd, &bundle);
        Member { bundle, record, driver }
    }
}
