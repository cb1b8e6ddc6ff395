// SPDX-License-Identifier: Apache-2.0
//! newuidmap(1) and newgidmap(1): privileged helpers that write a map after a look into /etc/subuid or /etc/subgid.
//!
//! Which ids a user may map is theirs to judge; we give them fixed arguments, no environment, no standard input, and
//! bounded time, and put what they say into our error.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::identity;
use crate::error::{Context, Error, Kind, Result};
use crate::spec::IdMapping;

/// Longer than any answer of a directory service that still comes.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much of what it says is kept.
const SAID: u64 = 4096;
/// Where the helpers are without a PATH (podman calls runtimes without one).
const USUAL: &str = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin";

/// Lets `tool` write `map` for `pid`, a child of ours that waits.
///
/// # Errors
/// `Kind::Unsupported` without the tool, `Kind::Peer` with its own words if it refuses or hangs.
pub(super) fn map(tool: &str, pid: i32, map: &[IdMapping]) -> Result<()> {
    let Some(path) = find(tool, std::env::var_os("PATH").as_deref()) else {
        let text = format!("{tool} is needed to map more than the user's own id, and is not in PATH");
        return Err(Error::new(Kind::Unsupported, text));
    };
    let mut command = Command::new(&path);
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.arg(pid.to_string());
    for line in map {
        command.args([line.container_id, line.host_id, line.size].map(|number| number.to_string()));
    }
    let mut child = command.spawn().call(|| format!("execve({})", path.display()))?;
    let failed = |what: String| Err(Error::new(Kind::Peer, what).at(path.display().to_string()));
    match attend(&mut child)? {
        (None, _) => failed(format!("no answer within {} s", PATIENCE.as_secs())),
        (Some(status), _) if status.success() => Ok(()),
        (Some(status), said) => {
            let how = match status.signal() {
                Some(signal) => format!("killed by signal {signal}"),
                None => format!("exit status {}", status.code().unwrap_or_default()),
            };
            let said = said.trim().replace('\n', "; ");
            let hint = if is_privileged(&path) {
                ""
            } else {
                " (it has neither the set-user-ID bit nor a capability)"
            };
            failed(format!("{how}: {said}{hint}"))
        }
    }
}

/// Waits for its end, and reads what it says; `None` when its time was over.
fn attend(child: &mut Child) -> Result<(Option<std::process::ExitStatus>, String)> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).call(|| "pidfd_open(helper)")?;
    // What it says fits into the pipe; more would make it wait, which ends with its time.
    if !identity::wait_for_exit(pidfd.as_fd(), Some(PATIENCE))? {
        let _ = child.kill();
        child.wait().call(|| "wait(helper)")?;
        return Ok((None, String::new()));
    }
    let status = child.wait().call(|| "wait(helper)")?;
    let mut said = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        // A descendant may hold the pipe open: take what is there.
        let _ = rustix::fs::fcntl_setfl(&pipe, rustix::fs::OFlags::NONBLOCK);
        let _ = pipe.take(SAID).read_to_end(&mut said);
    }
    Ok((Some(status), String::from_utf8_lossy(&said).into_owned()))
}

/// The first executable of that name in an absolute directory of `path`.
pub(crate) fn find(tool: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let path = path.filter(|path| !path.is_empty()).unwrap_or(OsStr::new(USUAL));
    std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(tool)).find(|file| {
        std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// Whether executing it gives any privilege: set-user-ID root, or a file capability (capabilities(7)).
pub(crate) fn is_privileged(path: &Path) -> bool {
    let setuid = std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o4000 != 0 && meta.uid() == 0);
    setuid || rustix::fs::getxattr(path, "security.capability", &mut [0_u8; 64]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_directories_are_searched() {
        let dir = std::env::temp_dir().join(format!("corten-idtool-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("empty")).unwrap();
        let tool = dir.join("newuidmap");
        std::fs::write(&tool, "").unwrap();
        let path = |mode: u32, text: String| {
            std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(mode)).unwrap();
            find("newuidmap", Some(OsStr::new(&text)))
        };
        let dirs = format!(".::{0}/empty:relative:{0}", dir.display());
        assert_eq!(path(0o755, dirs.clone()), Some(tool.clone()));
        assert_eq!(path(0o644, dirs), None);
        assert_eq!(path(0o755, "relative".into()), None);
        assert!(!is_privileged(&tool));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
