// SPDX-License-Identifier: Apache-2.0
//! The state root (compatibility G1).

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use corten::error::Context;

use super::failure::Failure;

const DEFAULT: &str = "/run/corten";
/// Inode of the initial user namespace (PROC_USER_INIT_INO, linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Where containers are kept, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDirectory {
    /// Absolute, without `.` and `..`.
    pub path: PathBuf,
    /// By `--root`.
    pub given: bool,
    /// Below $XDG_RUNTIME_DIR: we make it ourselves, and sticky.
    xdg: bool,
}

impl RootDirectory {
    /// `given` is `--root`; else `$XDG_RUNTIME_DIR/corten` for other users than root, else `/run/corten`.
    ///
    /// # Errors
    /// It would be `/`.
    pub fn choose(given: Option<&OsStr>) -> Result<RootDirectory, Failure> {
        if let Some(given) = given {
            let path = clean(&std::path::absolute(given).unwrap_or_default());
            // Empty, ".", "../.." and the like end here as well as "/" itself.
            if path == Path::new("/") || given.is_empty() {
                return Err(Failure::new("option --root argument should not be set to /"));
            }
            return Ok(RootDirectory { path, given: true, xdg: false });
        }
        Ok(match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if Path::new(&dir).is_absolute() && honours_xdg() => {
                RootDirectory { path: clean(&Path::new(&dir).join("corten")), given: false, xdg: true }
            }
            _ => RootDirectory { path: PathBuf::from(DEFAULT), given: false, xdg: false },
        })
    }

    /// Makes a root of our own choice below $XDG_RUNTIME_DIR; sticky, so that it is not tidied away. Every other
    /// root is made by the verb that needs it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn prepare(&self) -> Result<(), Failure> {
        if !self.xdg {
            return Ok(());
        }
        let call = || format!("mkdir({})", self.path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).call(call)?;
        let sticky = std::fs::Permissions::from_mode(0o1700);
        std::fs::set_permissions(&self.path, sticky).call(|| format!("chmod({})", self.path.display()))?;
        Ok(())
    }
}

/// Whether this user keeps containers below $XDG_RUNTIME_DIR: everyone but root, and root of a user namespace
/// unless $USER says root as well.
fn honours_xdg() -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let initial =
        std::fs::metadata("/proc/self/ns/user").is_ok_and(|meta| meta.ino() == INITIAL_USER_NAMESPACE);
    !initial && std::env::var_os("USER").is_none_or(|user| user != "root")
}

/// Without `.`, `..` and doubled slashes, by the words alone (Go's filepath.Clean on an absolute path).
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_absolute_and_never_the_root_directory() {
        let given = |path: &str| RootDirectory::choose(Some(path.as_ref())).map(|root| root.path);
        assert_eq!(given("/a//b/./c/../d/"), Ok(PathBuf::from("/a/b/d")));
        assert_eq!(given("x"), Ok(std::env::current_dir().unwrap().join("x")));
        for bad in ["/", "", "//", "/..", "/a/..", "../../../../../../../../../../../../../.."] {
            assert!(given(bad).is_err(), "{bad}");
        }
    }
}
