// SPDX-License-Identifier: Apache-2.0
//! Device nodes and the links in /dev (config-linux.md#devices, #default-devices). Counterpart: the stage's
//! `mknod` and `symlink` operations; in a user namespace, where mknod(2) is refused, binds of the host's nodes.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use super::mounts::{self, MountSource, MountStep};
use super::namespaces::{Namespaces, NsKind};
use super::text::{absolute, item};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::facts::IdMaps;
use crate::facts::paths::clean;
use crate::spec::{self, Spec};

/// How a device comes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// mknod(2).
    Mknod,
    /// A node that the host makes for this container alone, with this owner and group (the host's numbers of those that
    /// the configuration names), where the container's root may not make one; or, if the host may not either, a bind
    /// of the host's node at `path`.
    Node {
        /// Absolute path of the host's node.
        path: String,
        /// Owner on the host.
        uid: u32,
        /// Group on the host.
        gid: u32,
    },
    /// Bind mount of the host's node at this absolute path; the host checks that it is the device that `mode` and
    /// `rdev` say.
    Bind(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// JSON pointer; empty for the default devices.
    pub at: String,
    /// Absolute path inside.
    pub path: String,
    /// S_IFCHR, S_IFBLK or S_IFIFO with the permission bits.
    pub mode: u32,
    /// makedev(major, minor) as the kernel encodes it for mknod(2); 0 for a FIFO.
    pub rdev: u64,
    /// Owner inside. Says nothing for [`Via::Bind`]: the host's node must not be touched.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
    /// How it is made.
    pub via: Via,
}

/// The default devices (config-linux.md#default-devices) as major and minor numbers; /dev/ptmx and /dev/console are
/// not made as nodes.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links in /dev. /dev/core is one more of runc's and crun's; it dangles where the kernel has no kcore.
const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/core", "/proc/kcore"),
];

/// Permission bits of a device whose mode is not given.
const PERMISSIONS: u32 = 0o666;

/// The links in /dev, `(path, target)`; none in a /dev that the configuration brings along.
#[must_use]
pub(crate) fn links(mounts: &[MountStep]) -> Vec<(&'static str, &'static str)> {
    if mounts::binds_dev(mounts) { Vec::new() } else { LINKS.to_vec() }
}

/// The device nodes: the default ones, then the configuration's, which replace a default one of the same path.
/// None in a /dev that the configuration brings along, as runc and crun do.
///
/// # Errors
/// Relative paths, unknown types, numbers that no device can have, two different devices at one path, a device where a
/// directory must be.
pub(crate) fn decide_devices(
    spec: &Spec,
    namespaces: &Namespaces,
    facts: &Facts,
    ids: Option<&IdMaps>,
    mounts: &[MountStep],
) -> Result<Vec<Device>> {
    // mknod(2) of a device needs CAP_MKNOD in the initial user namespace; a FIFO may be made anywhere.
    let bind = facts.in_userns || namespaces.has(NsKind::User);
    let via = |path: &str, kind| match bind && kind != libc::S_IFIFO {
        true => Via::Bind(path.to_owned()),
        false => Via::Mknod,
    };
    let mut asked: Vec<Device> = Vec::with_capacity(spec.linux.devices.len());
    let mut by_path = BTreeMap::new();
    for (index, device) in spec.linux.devices.iter().enumerate() {
        let Some(mut device) = read(device, item("/linux/devices", index), via)? else { continue };
        if facts.copies_mounts && !facts.in_userns {
            device.own(ids);
        }
        let place = *by_path.entry(device.path.clone()).or_insert(asked.len());
        match asked.get_mut(place) {
            None => asked.push(device),
            Some(earlier) if is_same_node(earlier, &device) => *earlier = device,
            Some(earlier) => {
                let text = format!("{:?} is another device already, by {}", device.path, earlier.at);
                return Err(Error::invalid(device.at, text));
            }
        }
    }
    if mounts::binds_dev(mounts) {
        return Ok(Vec::new());
    }
    let missing = DEFAULTS.iter().filter(|(path, ..)| !by_path.contains_key(*path));
    let default = |&(path, major, minor): &(&str, u32, u32)| Device {
        at: String::new(),
        path: path.to_owned(),
        mode: libc::S_IFCHR | PERMISSIONS,
        rdev: encode(major, minor),
        uid: 0,
        gid: 0,
        via: via(path, libc::S_IFCHR),
    };
    let mut devices: Vec<Device> = missing.map(default).collect();
    devices.append(&mut asked);
    leaves(&devices, mounts)?;
    Ok(devices)
}

/// A device is no directory: no other is inside of it, nor a file system on it.
fn leaves(devices: &[Device], mounts: &[MountStep]) -> Result<()> {
    let mut inner: BTreeSet<&str> = devices.iter().map(|device| device.path.as_str()).collect();
    let mut on: BTreeSet<&str> = BTreeSet::new();
    for step in mounts {
        let MountStep::Mount(mount) = step else { continue };
        inner.insert(&mount.target);
        if !matches!(mount.source, MountSource::Bind { procfs: false, .. }) {
            on.insert(&mount.target);
        }
    }
    for device in devices {
        let below = format!("{}/", device.path);
        let first = inner.range(below.as_str()..).next().filter(|path| path.starts_with(&below));
        if let Some(path) = first.or_else(|| on.get(device.path.as_str())) {
            let text = format!("{:?} is no directory for {path:?}", device.path);
            let field =
                if device.at.is_empty() { "/mounts".to_owned() } else { format!("{}/path", device.at) };
            return Err(Error::invalid(field, text));
        }
    }
    Ok(())
}

impl Device {
    /// Under a user namespace it can still be its owner's, if that is mapped (config-linux.md: uid and gid are ids in
    /// the container). A bind of the host's node would be nobody's.
    fn own(&mut self, ids: Option<&IdMaps>) {
        let owner = ids.and_then(|ids| Some((ids.host_uid(self.uid)?, ids.host_gid(self.gid)?)));
        if let (Via::Bind(path), Some((uid, gid))) = (&mut self.via, owner) {
            self.via = Via::Node { path: std::mem::take(path), uid, gid };
        }
    }
}

/// Whether two devices of the same path are one: later permissions and owner may then win.
fn is_same_node(a: &Device, b: &Device) -> bool {
    (a.mode & libc::S_IFMT, a.rdev) == (b.mode & libc::S_IFMT, b.rdev)
}

fn read(device: &spec::Device, at: String, via: impl Fn(&str, u32) -> Via) -> Result<Option<Device>> {
    let path = clean(absolute(format_args!("{at}/path"), &device.path)?);
    if path == "/" {
        return Err(Error::invalid(format_args!("{at}/path"), "the root itself cannot be a device"));
    }
    if path == "/dev/ptmx" {
        // Always the link to the container's own devpts; the host's would lead to the host's terminals.
        return Ok(None);
    }
    let kind = match device.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => {
            let error = Error::invalid(format_args!("{at}/type"), format!("invalid device type {other:?}"));
            return Err(error.advise("c, u, b and p are types"));
        }
    };
    let rdev = if kind == libc::S_IFIFO {
        0
    } else {
        let major = device_number(device.major, 12, &at, "major")?;
        encode(major, device_number(device.minor, 20, &at, "minor")?)
    };
    let owner = |id: Option<u32>, field: &str| match id {
        Some(u32::MAX) => Err(Error::invalid(format_args!("{at}/{field}"), "4294967295 is not an id")),
        id => Ok(id.unwrap_or(0)),
    };
    let (uid, gid) = (owner(device.uid, "uid")?, owner(device.gid, "gid")?);
    // The type is `type`'s to say: container engines pass whole st_mode values here.
    let mode = kind | device.file_mode.unwrap_or(PERMISSIONS) & 0o7777;
    let via = via(&path, kind);
    Ok(Some(Device { at, path, mode, rdev, uid, gid, via }))
}

/// The kernel's MAJOR has 12 bits, MINOR 20.
fn device_number(number: i64, bits: u32, at: &str, field: &str) -> Result<u32> {
    match u32::try_from(number) {
        Ok(number) if number < 1 << bits => Ok(number),
        _ => Err(Error::invalid(format_args!("{at}/{field}"), format!("{number} is not a {field} number"))),
    }
}

/// The kernel's new_encode_dev (linux/kdev_t.h), which is what mknod(2) takes.
fn encode(major: u32, minor: u32) -> u64 {
    u64::from((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_the_c_library() {
        for (major, minor) in [(1, 3), (136, 255), (4095, 256), (259, 0xf_ffff), (0, 0)] {
            assert_eq!(encode(major, minor), libc::makedev(major, minor), "{major}:{minor}");
        }
    }
}
