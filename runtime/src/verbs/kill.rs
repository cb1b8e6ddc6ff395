// SPDX-License-Identifier: Apache-2.0
//! `kill`.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::ask::Home;
use crate::container::{Container, Phase};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::tty::send;

/// `kill`: sends `signal` to init, or with `all` to every process.
///
/// `signal` is a number as in signal(7); 0 asks whether it could be sent. Source: runtime.md, "Kill".
#[doc = include_str!("examples/kill.md")]
/// # Errors
/// `Kind::Status` for a container that does not run (with `all`, that is success, as in runc).
pub fn kill(home: &Home, id: &str, signal: i32, all: bool) -> Result<()> {
    let container = Container::open(home, id)?;
    let (phase, pidfd) = container.phase()?;
    if all {
        let grouped = !container.state.cgroup.groups.is_empty();
        return match (signal, pidfd) {
            (libc::SIGKILL, _) if grouped => container.group().kill(),
            _ if grouped => container.group().signal(signal),
            // With init its whole pid namespace ends.
            (libc::SIGKILL, Some(init)) if own_pid_namespace(&container)? => {
                crate::host::identity::kill(init.as_fd())
            }
            _ => signal_everybody(&container, signal),
        };
    }
    let (Some(pidfd), false) = (pidfd, phase == Phase::Stopped) else {
        return Err(Error::new(Kind::Status, format!("container not running: {id}")));
    };
    // Without a pid namespace of its own the others would outlive init.
    let everyone = signal == libc::SIGKILL && !own_pid_namespace(&container)?;
    if everyone {
        container.group().kill()?;
    }
    match send(pidfd.as_fd(), signal) {
        // Dead of that already, and reaped by its parent meanwhile.
        Err(Errno::SRCH) if everyone => {}
        Err(Errno::SRCH) => {
            return Err(Error::new(Kind::Status, format!("container not running: {id}")));
        }
        other => other.call(|| format!("pidfd_send_signal({signal})"))?,
    }
    if signal == libc::SIGKILL { container.group().let_die() } else { Ok(()) }
}

fn own_pid_namespace(container: &Container) -> Result<bool> {
    let spec = container.spec()?;
    let new = |path: &Option<String>| path.as_ref().is_none_or(String::is_empty);
    Ok(spec.linux.namespaces.iter().any(|ns| ns.kind == "pid" && new(&ns.path)))
}

fn signal_everybody(container: &Container, signal: i32) -> Result<()> {
    for pid in container.pids()? {
        let Some(pid) = Pid::from_raw(pid) else { continue };
        // The pidfd is opened, then asked again: a pid that was taken over meanwhile is not among them.
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH | Errno::INVAL) => continue,
            other => other.call(|| format!("pidfd_open({})", pid.as_raw_nonzero()))?,
        };
        if !container.pids()?.contains(&pid.as_raw_nonzero().get()) {
            continue;
        }
        match send(pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(Error::os(format!("pidfd_send_signal({signal})"), errno)),
        }
    }
    Ok(())
}
