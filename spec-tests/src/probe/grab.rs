// SPDX-License-Identifier: Apache-2.0
//! An attacker in a container that may look at everybody, and grabs the program of each process that comes.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use serde_json::json;

use super::lookout;

/// What was found of the programs that other processes had.
#[derive(Default, PartialEq, Clone)]
struct Loot {
    /// Opened, and not the watcher's own program.
    opened: BTreeSet<(u64, u64)>,
    /// Files of a file system that is mounted somewhere, or was: not anonymous.
    stored: u64,
    /// Anonymous ones that could be changed.
    changed: u64,
}

/// Opens the program of every process but its own as they come, tries to change those that are anonymous, and tells it in `dir`
/// ([`lookout::watch`]). The host's own files it only counts.
pub fn grab(dir: &str) -> Result<(), String> {
    let own = fs::metadata("/proc/self/exe").map_err(|error| error.to_string())?;
    let shown =
        |loot: &Loot| json!({"opened": loot.opened.len(), "stored": loot.stored, "changed": loot.changed});
    lookout::watch(dir, |loot| look((own.dev(), own.ino()), loot), shown)
}

fn look(own: (u64, u64), loot: &mut Loot) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().parse::<u32>().is_err() {
            continue;
        }
        let Ok(held) = File::open(entry.path().join("exe")) else { continue };
        let Ok(meta) = held.metadata() else { continue };
        let file = (meta.dev(), meta.ino());
        if file == own || !loot.opened.insert(file) {
            continue;
        }
        // Only what lies in memory has seals to speak of (memfd_create(2), tmpfs).
        match fcntl(&held, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate) {
            Ok(seals)
                if !seals.contains(SealFlag::F_SEAL_WRITE) || !seals.contains(SealFlag::F_SEAL_SHRINK) =>
            {
                loot.changed += 1;
            }
            Ok(_) => loot.changed += u64::from(changes(&held)),
            Err(_) => loot.stored += 1,
        }
    }
}

/// Every way there is to a file that one may read.
fn changes(held: &File) -> bool {
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let open = |options: &mut OpenOptions| options.open(&path).ok();
    let written = [
        OpenOptions::new().write(true),
        OpenOptions::new().read(true).write(true),
        OpenOptions::new().append(true),
    ]
    .into_iter()
    .filter_map(open)
    .any(|mut file| file.write_all(b"#!/evil\n").is_ok() || file.set_len(0).is_ok());
    let cut = open(OpenOptions::new().write(true).truncate(true))
        .is_some_and(|file| file.metadata().is_ok_and(|meta| meta.len() == 0));
    written || cut
}
