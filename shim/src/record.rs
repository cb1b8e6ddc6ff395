// SPDX-License-Identifier: Apache-2.0
//! What the shim keeps about a container in its bundle, for the `delete` that comes after the shim's death: written
//! before anything is made, written anew when init is there and when it has ended, each time whole or not at all, and
//! without needing more room than it took at first.
//!
//! How to find and end the processes stands in the runtime's own state; here is what leads there.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use corten::error::{Context, Error, Kind};
use corten::state::Identity;
use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, fstat, open, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::process::ProcessExit;

const NAME: &str = "corten.json";
/// As large, for the next one.
const SPARE: &str = ".corten.json.next";
/// What a pid and an exit add at most, and some.
const ROOM: usize = 192;

/// The file. Fields that are not known are ignored, so that an older `delete` reads what a newer server wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShimRecord {
    /// Layout; 1.
    pub version: u32,
    /// The container.
    pub id: String,
    /// The server's socket: what the members of a group have in common.
    pub address: String,
    /// The server's process: whether it lives is not told by the socket, which takes connections while the kernel
    /// closes what a dead process had open.
    pub server: Option<Identity>,
    /// The runtime's options.
    pub options: Options,
    /// systemd manages the groups.
    pub systemd: bool,
    /// Init; 0 before there is one.
    pub pid: i32,
    /// How init ended.
    pub exit: Option<RecordedExit>,
    /// It is no container but a pod, and these are its files.
    pub files: Option<crate::sandbox::files::PodFiles>,
}

/// An end as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedExit {
    pub status: u32,
    /// When, since the epoch.
    pub at: Duration,
}

impl ShimRecord {
    /// Reads a bundle's; `None` when there is none, or none that reads: `delete` then goes by what it was told.
    pub fn read(bundle: &Path) -> Option<ShimRecord> {
        let bytes = std::fs::read(bundle.join(NAME)).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|record: &ShimRecord| record.version == 1)
    }

    /// Writes it into `bundle`, and takes the room for what will be known later.
    ///
    /// # Errors
    /// The failed call.
    pub fn begin(&self, bundle: &Path) -> corten::Result<()> {
        let bytes = self.bytes(ROOM)?;
        let dir = directory(bundle)?;
        write_spare(&dir, &bytes)?;
        renameat(&dir, SPARE, &dir, NAME).call(|| format!("rename({SPARE}, {NAME})"))?;
        write_spare(&dir, &bytes)
    }

    /// Writes it into the room that `begin` has taken: a file system that is full by now loses nothing.
    ///
    /// # Errors
    /// The failed call.
    pub fn replace(&self, bundle: &Path) -> corten::Result<()> {
        let dir = directory(bundle)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(next) = openat(&dir, SPARE, flags, Mode::empty()) else { return self.begin(bundle) };
        let room = fstat(&next).call(|| format!("fstat({SPARE})"))?.st_size as usize;
        let mut bytes = self.bytes(0)?;
        if bytes.len() > room {
            return self.begin(bundle);
        }
        // Over all that is there, so that nothing of it remains; blocks and page are its own already.
        bytes.resize(room, b' ');
        File::from(next).write_all(&bytes).call(|| format!("write({SPARE})"))?;
        // Exchanged, so that the room stays for the next time.
        match renameat_with(&dir, SPARE, &dir, NAME, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS) => renameat(&dir, SPARE, &dir, NAME),
            other => other,
        }
        .call(|| format!("rename({SPARE}, {NAME})"))
    }

    fn bytes(&self, room: usize) -> corten::Result<Vec<u8>> {
        let mut bytes =
            serde_json::to_vec(self).map_err(|error| Error::new(Kind::Invalid, error.to_string()))?;
        bytes.resize(bytes.len() + room, b' ');
        Ok(bytes)
    }

    /// With init's end.
    pub fn ended(&mut self, ended: ProcessExit) {
        self.exit = ended.at.map(|at| RecordedExit { status: ended.status, at });
    }
}

fn directory(bundle: &Path) -> corten::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(bundle, flags, Mode::empty()).call(|| format!("open({})", bundle.display()))
}

/// A new file of these bytes under the other name.
fn write_spare(dir: &OwnedFd, bytes: &[u8]) -> corten::Result<()> {
    match unlinkat(dir, SPARE, AtFlags::empty()) {
        Err(Errno::NOENT) | Ok(()) => {}
        Err(errno) => return Err(errno).call(|| format!("unlink({SPARE})")),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, SPARE, flags, Mode::from_raw_mode(0o600)).call(|| format!("open({SPARE})"))?;
    let written = File::from(file).write_all(bytes).call(|| format!("write({SPARE})"));
    if written.is_err() {
        let _ = unlinkat(dir, SPARE, AtFlags::empty());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_survives_rubbish() {
        let bundle = std::env::temp_dir().join(format!("corten-record-{}", std::process::id()));
        std::fs::create_dir_all(&bundle).unwrap();
        assert_eq!(ShimRecord::read(&bundle), None);
        let mut record = ShimRecord { version: 1, id: "c".into(), ..Default::default() };
        record.begin(&bundle).unwrap();
        let sizes = || [NAME, SPARE].map(|name| std::fs::metadata(bundle.join(name)).unwrap().len());
        let taken = sizes();
        record.pid = i32::MAX;
        record.replace(&bundle).unwrap();
        record.ended(ProcessExit { status: u32::MAX, at: Some(Duration::new(u64::MAX, 999_999_999)) });
        record.replace(&bundle).unwrap();
        assert_eq!(ShimRecord::read(&bundle).as_ref(), Some(&record));
        assert_eq!(sizes(), taken, "it took more room later");
        std::fs::remove_file(bundle.join(SPARE)).unwrap();
        record.replace(&bundle).unwrap();
        record.begin(&bundle).unwrap();
        assert_eq!(ShimRecord::read(&bundle), Some(record));
        for rubbish in ["", "{", "{\"version\":2}", "[]"] {
            std::fs::write(bundle.join(NAME), rubbish).unwrap();
            assert_eq!(ShimRecord::read(&bundle), None, "{rubbish}");
        }
        std::fs::write(bundle.join(NAME), "{\"version\":1,\"future\":{}}").unwrap();
        assert_eq!(ShimRecord::read(&bundle).map(|record| record.version), Some(1));
        std::fs::remove_dir_all(&bundle).unwrap();
    }
}
