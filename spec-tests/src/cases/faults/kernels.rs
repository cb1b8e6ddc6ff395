// SPDX-License-Identifier: Apache-2.0
//! Kernels that lack a system call, or sandboxes that refuse it: with each of those that Corten's guards stand on, a container is
//! what it is to be, or there is one clear error; never a container with a guard less.

#![forbid(unsafe_code)]

use serde_json::Value;

use super::scenes::{Scene, rich};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Need;
use crate::harness::report::Report;
use crate::harness::test::Test;
use crate::sys;

/// The same on every architecture (Linux 6.6); libc does not name it for all.
const FCHMODAT2: i64 = 452;

const CALLS: [(&str, i64); 12] = [
    ("openat2", libc::SYS_openat2),
    ("fsopen", libc::SYS_fsopen),
    ("open_tree", libc::SYS_open_tree),
    ("move_mount", libc::SYS_move_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("clone3", libc::SYS_clone3),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("close_range", libc::SYS_close_range),
    ("fchmodat2", FCHMODAT2),
    ("memfd_create", libc::SYS_memfd_create),
    ("execveat", libc::SYS_execveat),
];

/// What must not differ: whatever a container's guards show in.
const GUARDS: [&str; 9] =
    ["/caps", "/no_new_privs", "/uid", "/gid", "/groups", "/uid_map", "/rlimits", "/umask", "/hostname"];

pub fn cases() -> Vec<Case> {
    let errnos = [("ENOSYS", libc::ENOSYS), ("EPERM", libc::EPERM)];
    let all = CALLS.iter().flat_map(|call| errnos.map(|errno| (*call, errno)));
    all.map(|((name, number), (word, errno))| {
        case(format!("faults/kernel-{name}-{word}"), move |t| without(t, name, number, errno))
            .needs(&[Need::Runtime("corten")])
    })
    .collect()
}

fn without(t: &Test, name: &str, number: i64, errno: i32) -> Verdict {
    for b in [t.bundle()?, rich(t)?.probe("report")] {
        let guarded = t.report(&b)?;
        let before = t.snapshot();
        let run = act(t, &b, "run", &[], (number, errno))?;
        if run.code == 0 {
            same_guards(&guarded, &Report::read(&run.stdout)?)?;
            // The exit code is the program's: that the container is there still is told beside it.
            if run.stderr.contains("was not deleted") {
                t.cli(&format!("delete --force {}", b.id))?.ok()?;
            }
        } else {
            let errors = run.errors();
            check!(errors.len() == 1 && run.code == 1, "{run}");
            check!(errors[0].contains(name), "does not name {name}: {run}");
        }
        t.unchanged_since(&before)?;
        // Whatever was made elsewhere can be ended.
        let b = b.probe("forever");
        t.launch(&b)?;
        let exec = act(t, &b, "exec", &["/probe", "report"], (number, errno))?;
        check!(exec.code == 0 || exec.errors().len() == 1, "{exec}");
        act(t, &b, "delete --force", &[], (number, errno))?;
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        t.unchanged_since(&before)?;
    }
    Ok(())
}

fn act(
    t: &Test,
    b: &Bundle,
    verb: &str,
    after: &[&str],
    (number, errno): (i64, i32),
) -> Result<crate::harness::done::Done, Trouble> {
    let mut command = if Scene::launches(verb) {
        t.bundle_command(verb, b)?
    } else {
        let mut command = t.runtime();
        command.args(verb.split_whitespace()).arg(&b.id).args(after);
        command
    };
    sys::without_syscall(&mut command, number, errno);
    t.complete(command)
}

/// Of mounts: place, type, and the options that guard.
fn same_guards(with: &Report, without: &Report) -> Verdict {
    for pointer in GUARDS {
        check!(
            with.at(pointer) == without.at(pointer),
            "{pointer}: {} became {}",
            with.at(pointer),
            without.at(pointer)
        );
    }
    let open = |report: &Report| report.at("/fds").as_object().map_or(0, serde_json::Map::len);
    check!(open(with) == open(without), "{} descriptors became {}", open(with), open(without));
    let mounts = |report: &Report| -> Vec<String> {
        let all = report.at("/mounts").as_array().cloned().unwrap_or_default();
        let guards = |mount: &Value| {
            let options = mount["options"].as_array().cloned().unwrap_or_default();
            let guards = ["ro", "nosuid", "nodev", "noexec"];
            let kept: Vec<_> =
                guards.iter().filter(|guard| options.iter().any(|one| one == **guard)).collect();
            format!("{} {} {kept:?}", mount["dest"], mount["fstype"])
        };
        all.iter().map(guards).collect()
    };
    let (with, without) = (mounts(with), mounts(without));
    check!(with == without, "the mounts {with:?} became {without:?}");
    Ok(())
}
