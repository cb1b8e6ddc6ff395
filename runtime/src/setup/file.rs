// SPDX-License-Identifier: Apache-2.0
//! A configuration's file: read only if it is ours to change, and replaced at once or not at all. What the file is besides its
//! text stays: mode, owner, attributes, and the link that leads to it.

#![forbid(unsafe_code)]

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, fchown, fgetxattr, flistxattr, fsetxattr};
use rustix::process::{Gid, Uid, geteuid};

use crate::error::{Context, Error, Kind, Result, WithStep};

/// More than any configuration has.
const LARGEST: u64 = 1 << 20;
/// The room for one extended attribute: Linux has no larger ones.
const ATTRIBUTE: usize = 1 << 16;

/// A file as it was found.
#[derive(Debug)]
pub(super) struct SetupFile {
    /// Where it is, links followed.
    pub(super) path: PathBuf,
    /// What it says; nothing where it is not there.
    pub(super) text: Option<String>,
}

/// Reads the file that `path` leads to.
///
/// # Errors
/// It cannot be read, or is not this user's to write.
pub(super) fn read(path: &Path) -> Result<SetupFile> {
    let name = || path.display().to_string();
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(SetupFile { path: path.to_owned(), text: None });
        }
        found => {
            found.call(|| format!("lstat({})", name()))?;
        }
    }
    let real = path.canonicalize().call(|| format!("realpath({})", name()))?;
    let file = File::open(&real).call(|| format!("open({})", real.display()))?;
    let meta = file.metadata().call(|| format!("fstat({})", real.display()))?;
    is_ours_to_write(&meta).step(|| real.display().to_string())?;
    let bytes = fs::read(&real).call(|| format!("read({})", real.display()))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::new(Kind::Invalid, "is not UTF-8").at(name()))?;
    Ok(SetupFile { path: real, text: Some(text) })
}

fn is_ours_to_write(meta: &Metadata) -> Result<()> {
    let refuse = |why: String| Err(Error::new(Kind::Invalid, why));
    match meta {
        meta if !meta.is_file() => refuse("is no regular file".into()),
        meta if meta.len() > LARGEST => refuse(format!("has more than {LARGEST} bytes")),
        meta if meta.uid() != geteuid().as_raw() => {
            refuse(format!("belongs to user {}: it is that user's to change", meta.uid()))
        }
        meta if meta.mode() & 0o200 == 0 => {
            refuse(format!("is read-only (mode {:o}): somebody means it to stay", meta.mode() & 0o7777))
        }
        meta if meta.nlink() > 1 => {
            refuse(format!("has {} names (hard links), of which one would change", meta.nlink()))
        }
        _ => Ok(()),
    }
}

impl SetupFile {
    /// Makes `new` of it, or removes it; `judge` sees the new file before it is in its place.
    ///
    /// # Errors
    /// Nothing has changed then; but where the last sync failed, which says so.
    pub(super) fn replace(&self, new: Option<&str>, judge: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        match new {
            None => {
                self.is_as_it_was()?;
                fs::remove_file(&self.path).call(|| format!("unlink({})", self.path.display()))?;
            }
            Some(text) => {
                fs::create_dir_all(dir).call(|| format!("mkdir({})", dir.display()))?;
                let name = self.path.file_name().unwrap_or_default().to_string_lossy();
                let beside = dir.join(format!(".{name}.corten-{}", std::process::id()));
                let done = self.write(&beside, text, judge);
                if done.is_err() {
                    // The error is the one that is told.
                    let _ = fs::remove_file(&beside);
                }
                done?;
            }
        }
        File::open(dir).and_then(|dir| dir.sync_all()).call(|| format!("fsync({})", dir.display()))
    }

    fn write(&self, beside: &Path, text: &str, judge: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let name = || beside.display().to_string();
        let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside);
        let mut file = open.call(|| format!("open({})", name()))?;
        file.write_all(text.as_bytes()).call(|| format!("write({})", name()))?;
        let mut mode = 0o644;
        if self.text.is_some() {
            let old = File::open(&self.path).call(|| format!("open({})", self.path.display()))?;
            let meta = old.metadata().call(|| format!("fstat({})", self.path.display()))?;
            mode = meta.mode() & 0o7777;
            let (user, group) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
            fchown(&file, Some(user), Some(group)).call(|| format!("fchown({})", name()))?;
            copy_attributes(&old, &file).step(|| self.path.display().to_string())?;
        }
        file.set_permissions(Permissions::from_mode(mode)).call(|| format!("fchmod({})", name()))?;
        file.sync_all().call(|| format!("fsync({})", name()))?;
        judge(beside)?;
        self.is_as_it_was()?;
        fs::rename(beside, &self.path).call(|| format!("rename({} -> {})", name(), self.path.display()))
    }

    /// What somebody else writes meanwhile is not lost.
    fn is_as_it_was(&self) -> Result<()> {
        let now = read(&self.path)?;
        match now.text == self.text {
            true => Ok(()),
            false => Err(Error::new(Kind::Status, "was changed by somebody else meanwhile: call again")
                .at(self.path.display().to_string())),
        }
    }
}

/// Security labels and access lists, where the file system has such.
fn copy_attributes(from: &File, to: &File) -> Result<()> {
    let mut names = vec![0; ATTRIBUTE];
    let length = match flistxattr(from, &mut names) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        length => length.call(|| "flistxattr")?,
    };
    let mut value = vec![0; ATTRIBUTE];
    for name in
        names.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty())
    {
        let word = || String::from_utf8_lossy(name).into_owned();
        let length = fgetxattr(from, name, &mut value).call(|| format!("fgetxattr({})", word()))?;
        let value = value.get(..length).unwrap_or_default();
        fsetxattr(to, name, value, XattrFlags::empty()).call(|| format!("fsetxattr({})", word()))?;
    }
    Ok(())
}
