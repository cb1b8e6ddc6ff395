// SPDX-License-Identifier: Apache-2.0
//! The options of a mount that containerd wants: which of them are flags, which the file system's own, and which neither.

#![forbid(unsafe_code)]

use super::mapped::Maps;
use crate::refusal::Result;

/// What mount(2) wants: flags and the file system's own options.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MountArguments {
    /// MS_*, without those below.
    pub flags: u32,
    /// `bind` or `rbind`.
    pub bind: bool,
    /// `rbind`.
    pub recursive: bool,
    /// MS_PRIVATE and its like; 0 for none.
    pub propagation: u32,
    /// `loop`: the source is a file to be seen as a block device.
    pub looped: bool,
    /// The file system's own.
    pub data: Vec<String>,
    /// `uidmap=` and `gidmap=`.
    pub maps: Maps,
}

/// Reads them.
///
/// # Errors
/// InvalidArgument for a mapping that is none.
pub fn read(options: &[String]) -> Result<MountArguments> {
    let mut wanted = MountArguments::default();
    for option in options {
        match option.as_str() {
            "" | "defaults" => {}
            "bind" => wanted.bind = true,
            "rbind" => (wanted.bind, wanted.recursive) = (true, true),
            "loop" => wanted.looped = true,
            other => match (propagation(other), flag(other)) {
                (Some(kind), _) => wanted.propagation = kind as u32,
                (_, Some((bit, true))) => wanted.flags |= bit as u32,
                (_, Some((bit, false))) => wanted.flags &= !(bit as u32),
                _ if wanted.maps.read_option(other)? => {}
                _ => wanted.data.push(other.to_owned()),
            },
        }
    }
    Ok(wanted)
}

fn propagation(option: &str) -> Option<libc::c_ulong> {
    let (recursive, kind) = match option.strip_prefix('r') {
        Some(kind) => (libc::MS_REC, kind),
        None => (0, option),
    };
    let kind = match kind {
        "private" => libc::MS_PRIVATE,
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

/// The flag that an option sets or clears.
fn flag(option: &str) -> Option<(libc::c_ulong, bool)> {
    Some(match option {
        "ro" => (libc::MS_RDONLY, true),
        "rw" => (libc::MS_RDONLY, false),
        "nosuid" => (libc::MS_NOSUID, true),
        "suid" => (libc::MS_NOSUID, false),
        "nodev" => (libc::MS_NODEV, true),
        "dev" => (libc::MS_NODEV, false),
        "noexec" => (libc::MS_NOEXEC, true),
        "exec" => (libc::MS_NOEXEC, false),
        "sync" => (libc::MS_SYNCHRONOUS, true),
        "async" => (libc::MS_SYNCHRONOUS, false),
        "noatime" => (libc::MS_NOATIME, true),
        "atime" => (libc::MS_NOATIME, false),
        "nodiratime" => (libc::MS_NODIRATIME, true),
        "diratime" => (libc::MS_NODIRATIME, false),
        "relatime" => (libc::MS_RELATIME, true),
        "norelatime" => (libc::MS_RELATIME, false),
        "strictatime" => (libc::MS_STRICTATIME, true),
        "nostrictatime" => (libc::MS_STRICTATIME, false),
        "dirsync" => (libc::MS_DIRSYNC, true),
        "mand" => (libc::MS_MANDLOCK, true),
        "nomand" => (libc::MS_MANDLOCK, false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags_and_data() {
        let options =
            ["rbind", "ro", "nosuid", "suid", "lowerdir=/a:/b", "index=off", "rslave", "loop", "rw,x"];
        let wanted = read(&options.map(str::to_owned)).unwrap();
        assert!(wanted.bind && wanted.recursive && wanted.looped);
        assert_eq!(wanted.flags, libc::MS_RDONLY as u32);
        assert_eq!(wanted.propagation, (libc::MS_SLAVE | libc::MS_REC) as u32);
        assert_eq!(wanted.data, ["lowerdir=/a:/b", "index=off", "rw,x"]);
        for bad in ["uidmap=0:1", "gidmap=0:1:-1"] {
            assert!(read(&[bad.to_owned()]).unwrap_err().text.contains(bad));
        }
    }
}
