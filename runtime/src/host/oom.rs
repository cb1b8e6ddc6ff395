// SPDX-License-Identifier: Apache-2.0
//! Whether the stage was killed for want of memory before it became the user's program.
//!
//! The socket's end says "executed" and "dead" alike. A living process was executed; of a dead one, its zombie still
//! tells the name it died under and the signal, and the group how many were killed.

#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::identity::wait_for_exit;
use crate::cgroup::Group;
use crate::error::{Error, Kind};
use crate::procfs::Stat;

/// How long a process that has closed its files may take to be dead.
const DYING: Duration = Duration::from_secs(1);

/// The error for it, in runc's words (reference E17).
pub fn killed() -> Error {
    Error::new(Kind::Os, "container init was OOM-killed (memory limit too low?)")
}

/// Whether process `pid`, which has closed its socket, was killed for want of memory without having executed the user's
/// program. `before`: the group's count when the process was made.
pub fn killed_as_stage(pid: i32, pidfd: BorrowedFd<'_>, group: &Group, before: u64) -> bool {
    // The usual case, and all that it costs: the process lives, so it has executed.
    if !matches!(rustix::fs::readlink(format!("/proc/{pid}/exe"), Vec::new()), Err(rustix::io::Errno::NOENT))
    {
        return false;
    }
    wait_for_exit(pidfd, Some(DYING))
        && Stat::of(pid).is_ok_and(|stat| sigkilled_as_stage(&stat))
        && group.oom_kills().is_ok_and(|kills| kills > before)
}

/// proc_pid_stat(5): the state is field 3, the exit code field 52.
fn sigkilled_as_stage(stat: &Stat) -> bool {
    is_stage(stat.name()) && stat.field(3) == Some('Z') && stat.field(52) == Some(libc::SIGKILL)
}

/// The stage is called after its memfd, before Linux 6.14 after the number of the descriptor.
fn is_stage(name: &str) -> bool {
    name.starts_with("memfd:corten") || !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_of_the_stage_only() {
        let stat = |name: &str, state: &str, code: i32| {
            let between = "1 ".repeat(48);
            Stat::from(format!("7 ({name}) {state} {between}{code}\n"))
        };
        assert!(sigkilled_as_stage(&stat("memfd:corten-st", "Z", 9)));
        assert!(sigkilled_as_stage(&stat("5", "Z", 9)));
        for (name, state, code) in
            [("sh", "Z", 9), ("memfd:corten-st", "S", 9), ("5", "Z", 0), ("a) Z 5", "Z", 9), ("", "Z", 9)]
        {
            assert!(!sigkilled_as_stage(&stat(name, state, code)), "{name} {state} {code}");
        }
        assert!(!sigkilled_as_stage(&Stat::from(String::new())));
    }
}
