// SPDX-License-Identifier: Apache-2.0
//! `TraceDirectory`: where the time of each create, start and exec went, in a file of its own (`corten trace` reads it).
//!
//! It is an operator's: the option comes from containerd's configuration, and no pod can ask for it. It never keeps a container from
//! anything: what cannot be written is logged.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use corten::ask::Home;
use rustix::fs::{Mode, OFlags, open};

use crate::log;
use crate::threads::StateRoot;

impl StateRoot {
    /// Calls `verb` on the container `id`, and tells what takes how long, if that is asked for.
    ///
    /// # Errors
    /// Those of the verb.
    pub fn traced<T>(
        &self,
        home: &Home<'_>,
        name: &str,
        id: &str,
        verb: impl FnOnce(&Home<'_>) -> corten::Result<T>,
    ) -> corten::Result<T> {
        let Some(directory) = &self.traces else { return verb(home) };
        let (done, text) = home.recorded((name, id), verb);
        let namespace = home.root.file_name().unwrap_or_default().display();
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let path = directory.join(format!("{namespace}.{id}.{name}.{micros}.json"));
        if let Err(error) = write(&path, &text) {
            log::warn(&format!("TraceDirectory: {}: {error}", path.display()));
        }
        done
    }
}

/// Nothing that is there already is written to.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    std::fs::File::from(open(path, flags, Mode::RUSR | Mode::WUSR)?).write_all(text.as_bytes())
}
