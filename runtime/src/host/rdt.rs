// SPDX-License-Identifier: Apache-2.0
//! resctrl, the file system of Intel RDT: making and finding groups, placing processes, removing what was made.
//! Counterpart: `plan/rdt.rs` decides. (Linux: Documentation/filesystems/resctrl.rst.)

#![forbid(unsafe_code)]

mod figures;

pub(crate) use figures::figures;
pub use figures::{Bandwidth, Figures, L3, Occupancy, Traffic};

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Kind, Result, WithStep};
use crate::plan::rdt::{Clos, Rdt, mismatch};
use crate::procfs;
use crate::state::ResctrlGroups;

/// Finds out what is there and what is to be made; touches nothing.
///
/// # Errors
/// `Kind::Unsupported` without resctrl; a class that is asked for as it is but absent, or there with other schemata.
pub(crate) fn prepare(rdt: &Rdt, id: &str) -> Result<ResctrlGroups> {
    let root = root()?;
    let (class, own) = match &rdt.clos {
        Clos::Default => (root, false),
        Clos::Named(name) => (root.join(name), false),
        Clos::Own => (root.join(id), true),
    };
    let mut record = ResctrlGroups { groups: vec![class.clone()], ..ResctrlGroups::default() };
    if !class.is_dir() {
        if !own && rdt.schemata.is_empty() {
            let text = format!("clos_id dir doesn't exist: {}", class.display());
            return Err(Error::invalid("/linux/intelRdt/closID", text));
        }
        record.made.push(class.clone());
        record.owned.extend(own.then(|| class.clone()));
    } else if !own && !rdt.schemata.is_empty() {
        compare(rdt, &class)?;
    }
    if rdt.monitoring {
        let group = class.join("mon_groups").join(id);
        // One that is there already is another's, of the same id in another state root, say: it measures this one, too, and
        // stays.
        if !group.is_dir() {
            record.made.push(group.clone());
            record.owned.push(group.clone());
        }
        record.groups.push(group);
    }
    Ok(record)
}

/// config-linux.md: an existing class has the schemata asked for, or it is an error.
fn compare(rdt: &Rdt, class: &Path) -> Result<()> {
    let path = class.join("schemata");
    let existing = std::fs::read_to_string(&path).call(|| format!("read({})", path.display()))?;
    match mismatch(&rdt.schemata, &existing) {
        None => Ok(()),
        Some(line) => {
            let text = format!("{line:?} is not what the existing {} says", path.display());
            Err(Error::invalid("/linux/intelRdt", text))
        }
    }
}

/// Makes what `prepare` found to be missing, and writes the schemata of a class that is made, or is the container's.
///
/// # Errors
/// ENOSPC where the hardware has no class or monitor left; what resctrl says of schemata that it refuses.
pub(crate) fn make(rdt: &Rdt, record: &ResctrlGroups) -> Result<()> {
    for group in &record.made {
        // In a stand-in for resctrl nobody has made mon_groups; the real one has it.
        let parents = group.parent().is_some_and(|parent| parent.ends_with("mon_groups") && !parent.exists());
        let made = if parents { std::fs::create_dir_all(group) } else { std::fs::create_dir(group) };
        made.call(|| format!("mkdir({})", group.display())).map_err(|error| reason(error, group))?;
    }
    let (Some(class), false) = (record.groups.first(), rdt.schemata.is_empty()) else { return Ok(()) };
    // Of an existing named class they were compared, and are the same.
    if rdt.clos != Clos::Own && !record.made.contains(class) {
        return Ok(());
    }
    write_lines(class, &rdt.schemata)
}

/// What `update` found in a file `schemata`.
#[derive(Debug)]
#[must_use = "dropping it keeps the change"]
pub(crate) struct SchemataBefore {
    path: PathBuf,
    content: String,
}

/// Writes new lines of `schemata` for the class that a container is in. Resources and domains that they do not name stay
/// as they are: resctrl itself remembers them.
///
/// # Errors
/// What resctrl says of schemata that it refuses; the class is then as it was.
pub(crate) fn update(record: &ResctrlGroups, schemata: &[String]) -> Result<Option<SchemataBefore>> {
    let Some(class) = record.groups.first() else { return Ok(None) };
    let path = class.join("schemata");
    let content = std::fs::read_to_string(&path).call(|| format!("read({})", path.display()))?;
    let before = SchemataBefore { path, content };
    match write_lines(class, schemata) {
        Ok(()) => Ok(Some(before)),
        // It takes all lines or none, unless the hardware fails in between.
        Err(error) => before.restore().and(Err(error)),
    }
}

impl SchemataBefore {
    /// Takes the change back.
    ///
    /// # Errors
    /// As write(2).
    pub(crate) fn restore(&self) -> Result<()> {
        write(&self.path, &self.content)
    }
}

/// Puts a process into the container's groups; what it forks from then on is born there.
///
/// # Errors
/// As write(2) of a pid into `tasks`.
pub(crate) fn move_into_groups(record: &ResctrlGroups, pid: i32) -> Result<()> {
    record.groups.iter().try_for_each(|group| write(&group.join("tasks"), &pid.to_string()))
}

/// Removes groups, the innermost first; what is gone already is fine.
///
/// # Errors
/// As rmdir(2).
pub(crate) fn remove(groups: &[PathBuf]) -> Result<()> {
    for group in groups.iter().rev() {
        let mut removed = std::fs::remove_dir(group);
        if removed.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOTEMPTY)) {
            // resctrl's own files go with their directory; a stand-in's have to be removed.
            for name in ["tasks", "schemata", "mon_groups"] {
                let path = group.join(name);
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
            }
            removed = std::fs::remove_dir(group);
        }
        match removed {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other.call(|| format!("rmdir({})", group.display())).step(|| "intelRdt")?,
        }
    }
    Ok(())
}

/// In one write(2), which resctrl does wholly or not at all.
fn write_lines(class: &Path, schemata: &[String]) -> Result<()> {
    let lines: String = schemata.iter().map(|line| format!("{line}\n")).collect();
    write(&class.join("schemata"), &lines)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    let shown = text.trim_end().replace('\n', ", ");
    written
        .call(|| format!("write({}, {shown})", path.display()))
        .map_err(|error| reason(error, path.parent().unwrap_or(path)))
}

/// resctrl tells in `info/last_cmd_status` why it refused.
fn reason(error: Error, group: &Path) -> Error {
    let told =
        group.ancestors().find_map(|dir| std::fs::read_to_string(dir.join("info/last_cmd_status")).ok());
    match told.as_deref().map(str::trim_end).filter(|text| !text.is_empty() && *text != "ok") {
        Some(text) => error.at(format!("resctrl says {text:?}")),
        None => error,
    }
}

/// Where resctrl is mounted. A mount of another type stands in for it if its source is called `resctrl`: a simulated
/// tree on hardware without RDT.
fn root() -> Result<PathBuf> {
    let table = procfs::read("/proc/thread-self/mountinfo")?;
    let found = |is: fn(&procfs::MountinfoEntry<'_>) -> bool| {
        procfs::mounts(&table).find(is).map(|mount| mount.point())
    };
    let text = "no resctrl file system is mounted: Intel RDT is not enabled";
    found(|mount| mount.fstype == "resctrl")
        .or_else(|| found(|mount| mount.source == "resctrl"))
        .map(PathBuf::from)
        .ok_or_else(|| Error::invalid("/linux/intelRdt", text).with_kind(Kind::Unsupported))
}
