// SPDX-License-Identifier: Apache-2.0
//! The root file system (config.md#root, config-linux.md#rootfs-mount-propagation), and the paths that are hidden or
//! made read-only in it.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::Field;
use super::mounts::{Propagation, options};
use super::namespaces::{Namespaces, NsKind};
use super::text::{absolute, filled, item, plain, printable};
use crate::error::{Error, Result};
use crate::facts::paths::clean;
use crate::facts::paths::on_host;
use crate::spec::Spec;

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// Read-only inside.
    pub readonly: bool,
    /// Propagation of the host's tree in the new mount namespace before anything is mounted: recursive slave
    /// unless `rootfsPropagation` says otherwise.
    pub propagation: Propagation,
    /// JSON pointer of that propagation; empty for the default.
    pub propagation_at: String,
    /// Without pivot_root(2): mounts of the host's tree, relative to its root, that are taken away once ours covers it.
    pub uncovered: Vec<String>,
}

/// Where the root is and how mounts propagate. `no_pivot` is the flag of that name.
///
/// # Errors
/// No root, an unknown propagation, one that is not safe without pivot_root(2).
pub(crate) fn decide_rootfs(spec: &Spec, bundle: &Path, no_pivot: bool, mounts: &[String]) -> Result<Rootfs> {
    let Some(root) = &spec.root else {
        return Err(Error::invalid("/root", "root must be specified")
            .advise("\"root\": {\"path\": \"rootfs\"} is usual"));
    };
    let path = plain("/root/path", &root.path)?;
    if path.is_empty() {
        return Err(Error::invalid("/root/path", "root path must not be empty"));
    }
    let (propagation, propagation_at) = propagation(spec, no_pivot)?;
    let relative = |point: &String| point.trim_start_matches('/').to_owned();
    let uncovered = if no_pivot { mounts.iter().map(relative).collect() } else { Vec::new() };
    Ok(Rootfs {
        path: on_host(path, bundle),
        readonly: root.readonly,
        propagation,
        propagation_at,
        uncovered,
    })
}

fn propagation(spec: &Spec, no_pivot: bool) -> Result<(Propagation, String)> {
    const AT: &str = "/linux/rootfsPropagation";
    let Some(name) = filled(spec.linux.rootfs_propagation.as_deref()) else {
        return Ok((Propagation { flag: libc::MS_SLAVE, recursive: true }, String::new()));
    };
    let Some(propagation) = options::propagation(name) else {
        let error = Error::invalid(AT, format!("rootfsPropagation={} is not supported", printable(name)));
        return Err(
            error.advise("it is shared, slave, private or unbindable, or one of these with an r before it")
        );
    };
    if no_pivot && propagation.flag == libc::MS_PRIVATE {
        // MS_MOVE leaves the host's root reachable above ours; as private it would never see the host unmount it.
        return Err(Error::invalid(AT, "rootfsPropagation of [r]private is not safe without pivot_root"));
    }
    Ok((propagation, AT.to_owned()))
}

/// Checks `maskedPaths` or `readonlyPaths` (`at`), and cleans them. The root itself cannot be meant.
///
/// # Errors
/// Relative paths, or none of it is possible because the mount namespace is the host's.
pub(crate) fn paths(paths: &[String], at: &str, namespaces: &Namespaces) -> Result<Vec<Field<String>>> {
    if !paths.is_empty() && !namespaces.has(NsKind::Mount) {
        return Err(Error::invalid(at, "unable to restrict sys entries without a private MNT namespace"));
    }
    let field = |(index, path): (usize, &String)| {
        let at = item(at, index);
        let path = clean(absolute(&at, path)?);
        if path == "/" {
            return Err(Error::invalid(
                at,
                "the root itself cannot be hidden or restricted, see /root/readonly",
            ));
        }
        Ok(Field { at, value: path })
    };
    paths.iter().enumerate().map(field).collect()
}
