// SPDX-License-Identifier: Apache-2.0
//! What the runtime writes below procfs goes through no mount of the container (S18 of the list of advisories: CVE-2025-52881).

#![forbid(unsafe_code)]

use std::fs;
use std::time::Duration;

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use serde_json::json;

use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::harness::tracer::watch;
use crate::sys::ptrace;

const PATIENCE: Duration = Duration::from_secs(20);

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("attack/S18-writes-are-in-no-mount-of-the-container", |t| {
            let b = t.bundle()?.writable().set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
            let b = b.set("/process/oomScoreAdj", json!(300)).user_namespace().probe("exit 0");
            let b = if labels(t) { b.set("/process/apparmorProfile", json!("corten-test")) } else { b };
            let writes = Writes::of(t, t.bundle_command("run", &b)?)?;
            // The maps of ids, that groups may be set or not, the parameter and the score.
            check!(writes.count >= 4, "only {} writes below procfs were seen", writes.count);
            writes.are_nobodys()
        })
        .runc("writes what lies at /proc"),
    ]
}

/// Whether a label can be written here: without, the writes are that of the score alone.
pub(super) fn labels(t: &Test) -> bool {
    t.host.lacks(Need::AppArmor).is_none()
}

/// The writes of a command, and of what it has cloned, below a procfs.
#[derive(Default)]
pub(super) struct Writes {
    pub count: usize,
    /// Those that go through a mount that is in the container.
    through: Vec<String>,
}

impl Writes {
    pub fn of(t: &Test, command: std::process::Command) -> Result<Self, Trouble> {
        let mut seen = Self::default();
        let traced = watch(t, command, PATIENCE, |pid, call| seen.look(pid, call))?;
        traced.done.ok()?;
        Ok(seen)
    }

    fn look(&mut self, pid: i32, call: i64) {
        const WRITE: [i64; 5] =
            [libc::SYS_write, libc::SYS_writev, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2];
        let Some(fd) = ptrace::first_argument(pid).filter(|_| WRITE.contains(&call)) else { return };
        let file = format!("/proc/{pid}/fd/{}", fd as i32);
        if statfs(&*file).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC) {
            self.count += 1;
            if is_the_containers(pid, fd as i32).unwrap_or(true) {
                let name = fs::read_link(&file).unwrap_or_default();
                self.through.push(name.display().to_string());
            }
        }
    }

    pub fn are_nobodys(&self) -> Verdict {
        check!(
            self.through.is_empty(),
            "written through what is mounted in the container: {:?}",
            self.through
        );
        Ok(())
    }
}

/// Whether the writer is in another mount namespace than ours, and writes through what is mounted there.
fn is_the_containers(pid: i32, fd: i32) -> std::io::Result<bool> {
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt"));
    if namespace("self")? == namespace(&pid.to_string())? {
        return Ok(false);
    }
    let told = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"))?;
    let id = told.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default().trim().to_owned();
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    Ok(table.lines().any(|line| line.split(' ').next() == Some(&id)))
}
