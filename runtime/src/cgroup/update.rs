// SPDX-License-Identifier: Apache-2.0
//! A [`Change`] of a container's limits, done to its groups: all of it or nothing.
//!
//! Before the first write every file is found and read, so that a limit without a file is told while nothing has been
//! touched, and what a later failure must bring back is known. The decision stands in `change`.

#![forbid(unsafe_code)]

use super::change::{Change, Check, restoring, transition};
use super::decide::{DevicePlan, Write, missing};
use super::dir::{CgroupDir, gone};
use super::group::Group;
use super::probe::Version;
use super::v2;
use crate::error::{Error, Kind, Result, WithStep};

/// What was there before a change.
#[derive(Debug)]
#[must_use = "dropping it keeps the change"]
pub struct Before<'a> {
    group: &'a Group,
    change: &'a Change,
    files: Vec<File<'a>>,
    /// What systemd must leave as it is.
    kept: Vec<File<'a>>,
    devices: bool,
}

/// One file before it was written.
#[derive(Debug)]
struct File<'a> {
    write: &'a Write,
    /// Its name and the value meant for it: the write's own, or its substitute.
    name: &'a str,
    value: &'a str,
    content: String,
}

impl Group {
    /// Writes what `change` says, the device rules last.
    ///
    /// # Errors
    /// `Kind::Unsupported` for a limit without a file or controller, `Kind::Status` for a limit below the usage where that
    /// is to be checked, `Kind::Os` for a value the kernel refuses. The groups are then as they were.
    pub fn update<'a>(&'a self, change: &'a Change) -> Result<Before<'a>> {
        self.changed(change).map_err(|error| error.relocated("config.json /linux/resources", "resources "))
    }

    fn changed<'a>(&'a self, change: &'a Change) -> Result<Before<'a>> {
        self.check_usage(change.check)?;
        if self.record().version == Version::V2 && !change.plan.writes.is_empty() {
            v2::enable(&change.plan, self.needed(0)?)?;
        }
        let mut before = Before { group: self, change, files: Vec::new(), kept: Vec::new(), devices: false };
        for write in &change.plan.writes {
            before.files.extend(self.file_of(write)?);
        }
        match before.write() {
            Ok(()) => {
                // As it is now: idleness, for one, has taken the weight along.
                let kept = change.kept.iter().filter_map(|write| self.file_of(write).ok().flatten());
                before.kept = kept.collect();
                Ok(before)
            }
            Err(error) => Err(match before.restore() {
                Ok(()) => error,
                Err(also) => error.at(format!("and what was there is not back ({also})")),
            }),
        }
    }

    /// The file that `write` is for, as it is now; `None` where there is none and none is needed.
    fn file_of<'a>(&self, write: &'a Write) -> Result<Option<File<'a>>> {
        let Some((_, dir)) = self.group_of(&write.controller)? else {
            return Err(missing(write, "it is not mounted"));
        };
        let own = (write.file.as_str(), write.value.as_str());
        let substitute = write.or.as_ref().map(|(file, value)| (*file, value.as_str()));
        for (name, value) in [Some(own), substitute].into_iter().flatten() {
            match dir.read(name) {
                Ok(content) => return Ok(Some(File { write, name, value, content })),
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                // Some can be written only.
                Err(error)
                    if matches!(error.errno(), Some(libc::EINVAL | libc::EACCES | libc::EOPNOTSUPP)) =>
                {
                    return Ok(Some(File { write, name, value, content: String::new() }));
                }
                Err(error) => return Err(error.at(write.at.clone())),
            }
        }
        if write.optional || write.kernel_default {
            return Ok(None);
        }
        Err(missing(write, "the kernel has no such file"))
    }

    fn check_usage(&self, check: Option<Check>) -> Result<()> {
        let (Some(check), Some((_, dir))) = (check, self.group_of("memory")?) else { return Ok(()) };
        let read = |file: &str| match dir.read(file) {
            Ok(text) => Ok(text.trim().parse::<u64>().unwrap_or(0)),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(0),
            Err(error) => Err(error),
        };
        let (memory, both) = match self.record().version {
            Version::V2 => {
                let memory = read("memory.current")?;
                (memory, memory + read("memory.swap.current")?)
            }
            _ => (read("memory.usage_in_bytes")?, read("memory.memsw.usage_in_bytes")?),
        };
        for (what, limit, usage) in
            [("memory+swap", check.memory_and_swap, both), ("memory", check.memory, memory)]
        {
            if let Some(limit) = limit.filter(|&limit| limit < usage) {
                let text = format!("rejecting {what} limit {limit} < usage {usage}");
                return Err(Error::new(Kind::Status, text));
            }
        }
        Ok(())
    }
}

impl Before<'_> {
    /// Writes all of it once more where systemd was told of it, which wrote what it understood, and brings back what else it changed.
    ///
    /// # Errors
    /// As [`Group::update`], but nothing is taken back.
    pub(crate) fn write_after_systemd(&mut self) -> Result<()> {
        if self.group.record().unit.is_none() {
            return Ok(());
        }
        let written = self.write();
        written.and(self.kept.iter().map(|file| self.bring_back(file)).fold(Ok(()), Result::and))
    }

    /// Takes the change back.
    ///
    /// # Errors
    /// What is not as it was before; the rest is.
    pub fn restore(&self) -> Result<()> {
        if self.devices
            && let Some(before) = &self.change.before
        {
            self.devices(&self.change.plan.devices, &before.devices)?;
        }
        // Twice, because some files are refused in one order and taken in the other (memory and memory+swap).
        let mut left = Ok(());
        for _ in 0..2 {
            left = self.files.iter().rev().map(|file| self.bring_back(file)).fold(Ok(()), Result::and);
            if left.is_ok() {
                break;
            }
        }
        left
    }

    fn write(&mut self) -> Result<()> {
        let mut again = Vec::new();
        for file in &self.files {
            match self.write_one(file) {
                // As in `Group::apply_limits`: growing, memory+swap goes first, shrinking, memory; quota, period and burst
                // likewise.
                Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EBUSY)) => again.push(file),
                other => other?,
            }
        }
        for file in again {
            self.write_one(file)?;
        }
        if self.change.devices {
            self.devices = true;
            let old = self.change.before.as_ref().map_or(&DevicePlan::None, |before| &before.devices);
            self.devices(old, &self.change.plan.devices)?;
        }
        Ok(())
    }

    fn write_one(&self, file: &File<'_>) -> Result<()> {
        self.dir(file)?
            .write(file.name, file.value)
            .step(|| file.write.at.replace("/linux/resources", "resources "))
    }

    fn bring_back(&self, file: &File<'_>) -> Result<()> {
        let dir = self.dir(file)?;
        let same = |dir: &CgroupDir| dir.read(file.name).is_ok_and(|now| now == file.content);
        if file.content.is_empty() && file.name != "io.max" || same(dir) {
            return Ok(());
        }
        for line in restoring(file.name, &file.content, file.value) {
            match dir.write(file.name, &line) {
                Err(error) if gone(&error) => return Ok(()),
                // The weight of an idle group reads as 0, which cannot be written; it comes with the idleness.
                Err(error) if !same(dir) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn dir(&self, file: &File<'_>) -> Result<&CgroupDir> {
        match self.group.group_of(&file.write.controller)? {
            Some((_, dir)) => Ok(dir),
            None => Err(missing(file.write, "it is not mounted")),
        }
    }

    fn devices(&self, old: &DevicePlan, new: &DevicePlan) -> Result<()> {
        match (old, new) {
            (DevicePlan::Lines(old), DevicePlan::Lines(new)) => {
                self.group.apply_devices(&DevicePlan::Lines(transition(old, new)))
            }
            _ => self.group.apply_devices(new),
        }
        .map_err(|error| error.relocated("config.json /linux/resources", "resources "))
    }
}
