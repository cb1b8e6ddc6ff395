// SPDX-License-Identifier: Apache-2.0
//! What the shim keeps about a container in its bundle, for the `delete` that comes after the shim's death: written
//! before anything is made, written anew when init has ended, each time whole or not at all.
//!
//! How to find and end the processes stands in the runtime's own state; here is what leads there.

#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use corten::error::{Error, Kind};
use corten::host::write_whole;
use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::process::Ended;

const NAME: &str = "corten.json";

/// The file. Fields that are not known are ignored, so that an older `delete` reads what a newer server wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Layout; 1.
    pub version: u32,
    /// The container.
    pub id: String,
    /// The server's socket: what the members of a group have in common.
    pub address: String,
    /// The runtime's options.
    pub options: Options,
    /// systemd manages the groups.
    pub systemd: bool,
    /// Init; 0 before there is one.
    pub pid: i32,
    /// How init ended.
    pub exit: Option<Exit>,
}

/// An end as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status.
    pub status: u32,
    /// When, since the epoch.
    pub at: Duration,
}

impl Record {
    /// Reads a bundle's; `None` when there is none, or none that reads: `delete` then goes by what it was told.
    pub fn read(bundle: &Path) -> Option<Record> {
        let bytes = std::fs::read(bundle.join(NAME)).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|record: &Record| record.version == 1)
    }

    /// Writes it into `bundle`.
    ///
    /// # Errors
    /// The failed call.
    pub fn write(&self, bundle: &Path) -> corten::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|error| Error::new(Kind::Invalid, error.to_string()))?;
        write_whole(&bundle.join(NAME), &bytes)
    }

    /// With init's end.
    pub fn ended(&mut self, ended: Ended) {
        self.exit = ended.at.map(|at| Exit { status: ended.status, at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_survives_rubbish() {
        let bundle = std::env::temp_dir().join(format!("corten-record-{}", std::process::id()));
        std::fs::create_dir_all(&bundle).unwrap();
        assert_eq!(Record::read(&bundle), None);
        let mut record = Record { version: 1, id: "c".into(), pid: 7, ..Default::default() };
        record.ended(Ended { status: 3, at: Some(Duration::new(5, 6)) });
        record.write(&bundle).unwrap();
        assert_eq!(Record::read(&bundle), Some(record));
        for rubbish in ["", "{", "{\"version\":2}", "[]"] {
            std::fs::write(bundle.join(NAME), rubbish).unwrap();
            assert_eq!(Record::read(&bundle), None, "{rubbish}");
        }
        std::fs::write(bundle.join(NAME), "{\"version\":1,\"future\":{}}").unwrap();
        assert_eq!(Record::read(&bundle).map(|record| record.version), Some(1));
        std::fs::remove_dir_all(&bundle).unwrap();
    }
}
