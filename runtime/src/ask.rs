// SPDX-License-Identifier: Apache-2.0
//! What is asked of the runtime: the verbs' arguments as plain data.
//!
//! The command line (and later the shim's RPCs) turn their input into these; nothing here is read from a bundle.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::cgroup::Manager;
use crate::error::{Error, Kind, Result};
use crate::spec::{IntelRdt, Resources};

/// Where containers are kept and how groups are managed: the global flags.
pub struct Home<'a> {
    /// The state root, absolute (`/run/corten`).
    pub root: PathBuf,
    /// Which cgroup driver.
    pub manager: Manager,
    /// Whether a lack of permission for cgroups is put up with as long as nothing was asked of them (`--rootless`);
    /// `None`: for everybody but root of the initial user namespace.
    pub rootless: Option<bool>,
    /// Receives warnings, one line each, without a trailing newline.
    pub warn: &'a dyn Fn(&str),
}

/// What stands behind the process's descriptors 0, 1 and 2.
#[derive(Debug, Default)]
pub enum Stdio {
    /// The caller's own descriptors, or, with `process.terminal`, a terminal whose other end is handed back in
    /// [`Launched::console`]; its lines end with a bare newline unless the caller's own input and output are terminals.
    #[default]
    Inherit,
    /// A terminal whose other end goes to this AF_UNIX socket (`--console-socket`).
    ConsoleSocket(PathBuf),
    /// These three descriptors. For a configuration with `process.terminal` that is an error.
    Fds([OwnedFd; 3]),
    /// A terminal whose other end is handed back in [`Launched::console`], also by a `create` that leaves its
    /// process waiting: the caller is a shim and stays. For a configuration without a terminal that is an error.
    HandBack,
}

/// `create` and `run`.
#[derive(Debug, Default)]
pub struct Create {
    /// The container's id.
    pub id: String,
    /// The bundle, absolute or relative to the working directory.
    pub bundle: PathBuf,
    /// Another name for config.json (`--config`).
    pub config: Option<PathBuf>,
    /// Standard descriptors.
    pub stdio: Stdio,
    /// Receives the pid in decimal, atomically.
    pub pid_file: Option<PathBuf>,
    /// Receives the pidfd by SCM_RIGHTS (payload `standard`).
    pub pidfd_socket: Option<PathBuf>,
    /// Use MS_MOVE and chroot instead of pivot_root.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// What makes the name of the session keyring one that nobody can guess; empty where none is made (`plan`).
    pub keyring_suffix: String,
    /// Size (rows, columns) of a terminal for which the configuration gives none.
    pub console_size: Option<(u16, u16)>,
    /// How many descriptors from 3 (after LISTEN_FDS) on the process keeps.
    pub preserve_fds: u32,
    /// How many socket-activation descriptors from 3 on the process keeps (LISTEN_FDS).
    pub listen_fds: u32,
    /// `run`: start at once, through the launcher's own socket; no gate is left for a later `start`.
    pub run: bool,
    /// The service manager's notification socket (`NOTIFY_SOCKET`), which the container gets to talk to.
    pub notify: Option<PathBuf>,
    /// `run` whose caller goes away after the start (`--detach`).
    pub detach: bool,
}

/// `exec`.
#[derive(Debug, Default)]
pub struct Exec {
    /// The container's id.
    pub id: String,
    /// A whole process object (`--process FILE`), instead of the configuration's one.
    pub process: Option<PathBuf>,
    /// The same, read already; it goes before the file.
    pub object: Option<crate::spec::Process>,
    /// What overlays the process object.
    pub overlay: Overlay,
    /// Standard descriptors.
    pub stdio: Stdio,
    /// Receives the pid in decimal, atomically.
    pub pid_file: Option<PathBuf>,
    /// Receives the pidfd by SCM_RIGHTS (payload `setns`).
    pub pidfd_socket: Option<PathBuf>,
    /// Size (rows, columns) of a terminal for which the process object gives none.
    pub console_size: Option<(u16, u16)>,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// `--detach`.
    pub detach: bool,
    /// Sub-cgroups (`--cgroup [CONTROLLER[,CONTROLLER]:]PATH`), below the container's.
    pub cgroup: Vec<String>,
    /// Go on although the container is paused.
    pub ignore_paused: bool,
}

/// The flags of `exec` that overlay a process object.
#[derive(Debug, Default)]
pub struct Overlay {
    /// argv; empty keeps the object's.
    pub args: Vec<String>,
    /// `NAME=value` strings, appended.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// `uid[:gid]`.
    pub user: Option<(u32, Option<u32>)>,
    /// Supplementary groups, appended.
    pub additional_gids: Vec<u32>,
    /// Allocate a terminal.
    pub terminal: bool,
    /// Capabilities, added to bounding, effective and permitted.
    pub caps: Vec<String>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub process_label: Option<String>,
}

/// `update`.
#[derive(Debug, Default)]
pub struct Update {
    /// The limits asked for; what is absent stays.
    pub resources: Resources,
    /// Of Intel RDT, the schemata; the rest of it is decided at create.
    pub rdt: IntelRdt,
}

/// A process that was launched.
#[derive(Debug)]
pub struct Launched {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd, from birth. The process is a child of the caller.
    pub pidfd: OwnedFd,
    /// The other end of its terminal, when the caller keeps that.
    pub console: Option<OwnedFd>,
    /// The container's notification socket, to be relayed by the caller of `run`.
    pub notify: Option<crate::host::notify::Notify>,
}

/// Checks a container's id before it becomes part of a path: letters, digits, `_`, `+`, `-` and `.`, not dots alone,
/// at most NAME_MAX (255) bytes (reference G15, S42).
///
/// # Errors
/// `Kind::Invalid`, in runc's words.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() {
        return Err(Error::new(Kind::Invalid, "container id cannot be empty"));
    }
    if id.len() > 255 || !id.bytes().all(allowed) || id.bytes().all(|byte| byte == b'.') {
        return Err(Error::new(Kind::Invalid, "invalid container ID format"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "A_b+c-d.e", "0", "-x", "..a", ".a", &"x".repeat(255)] {
            assert_eq!(check_id(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "...",
            "a/b",
            "/",
            "../x",
            "a b",
            "a\0b",
            "a\n",
            "é",
            "a:b",
            &"x".repeat(256),
            &"x".repeat(4096),
        ] {
            assert_eq!(check_id(bad).map_err(|error| error.kind()), Err(Kind::Invalid), "{bad:?}");
        }
    }

    /// S42: whatever bytes an id consists of, what passes is one plain path component.
    #[test]
    fn what_passes_is_a_plain_file_name() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..1_000_000 {
            let mut bytes = [0_u8; 8];
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.copy_from_slice(&seed.to_le_bytes());
            let text = String::from_utf8_lossy(&bytes[..(seed >> 60) as usize % 9]);
            if check_id(&text).is_ok() {
                let plain = text.bytes().all(
                    |b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'+' | b'-' | b'.'),
                );
                assert!(plain && text != "." && text != "..", "{text:?}");
            }
        }
    }
}
