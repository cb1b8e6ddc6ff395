// SPDX-License-Identifier: Apache-2.0
//! Without root: control groups with and without permission for them.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, case};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::harness::user::{ID, User, give};

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("rootless/limits-without-permission-are-refused", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.set("/linux/resources", json!({"pids": {"limit": 20}}));
            u.run(&b)?.refuses(&[
                "rootless needs no limits + no cgrouppath|cannot set pids limit|permission|pids.max",
            ])?;
            Ok(())
        })
        .crun("leaves the limit out in silence"),
        case("rootless/a-named-group-without-permission-is-refused", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.set("/linux/cgroupsPath", json!(format!("/{}", t.place.mark)));
            u.run(&b)?.refuses(&["permission denied"])?;
            Ok(())
        })
        .crun("says it on two lines, or runs without"),
        case("rootless/false-insists-on-groups", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?;
            b.write()?;
            give(&b.dir)?;
            let mut command = u.runtime();
            command.arg("--rootless=false").arg("run").arg("-b").arg(&b.dir).arg(&b.id);
            t.complete(command)?.refuses(&["permission denied"])?;
            Ok(())
        })
        .crun("has no such flag"),
        case("rootless/kill-all-and-ps-without-a-group", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.probe("spawn sleep 100 -- print ready -- forever");
            u.launch(&b)?.lines(t, 1)?;
            let pids = u.cli(&format!("ps -f json {}", b.id))?.ok()?.json()?;
            check!(pids.as_array().is_some_and(|pids| pids.len() == 2), "ps: {pids}");
            let text = u.cli(&format!("pause {}", b.id))?;
            check!(text.code == 1 && text.stderr.contains("cgroup"), "{text}");
            u.cli(&format!("kill --all {} KILL", b.id))?.ok()?;
            t.await_status(&b, "stopped")
        })
        .both("needs a group for it"),
        case("rootless/a-delegated-group-is-used", |t| {
            let u = User::new(t)?;
            let group = Delegated::make(t, &[])?;
            let b = u.bundle()?.probe("forever");
            group.run(t, &u, "run -d", &b)?;
            let pid = t.pid(&b)?;
            let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
            let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
            check!(own.starts_with(&format!("/{}/", group.name)) && !own.ends_with("/own"), "it is in {own}");
            u.cli(&format!("pause {}", b.id))?.ok()?;
            t.has_status(&b, "paused")?;
            u.cli(&format!("resume {}", b.id))?.ok()?;
            u.cli(&format!("delete --force {}", b.id))?.ok()?;
            Ok(())
        })
        .needs(&[Need::CgroupV2, Need::File("/usr/bin/setpriv")]),
        case("rootless/a-limit-in-a-delegated-group-bites", |t| {
            let u = User::new(t)?;
            let group = Delegated::make(t, &["pids"])?;
            let b =
                u.bundle()?.set("/linux/resources", json!({"pids": {"limit": 8}})).tries(["fork-many 30"]);
            let done = group.run(t, &u, "run", &b)?;
            t.compare(&done.stdout, &[("fork-many 30", "EAGAIN")]).map(drop)
        })
        .needs(&[Need::CgroupV2, Need::Controller("pids"), Need::File("/usr/bin/setpriv")]),
    ]
}

/// A group of v2 that belongs to the user, and one below it to start from.
struct Delegated {
    name: String,
    top: PathBuf,
}

impl Delegated {
    fn make(t: &Test, controllers: &[&str]) -> Result<Self, Trouble> {
        let name = format!("{}-delegated", t.place.mark);
        let top = Path::new("/sys/fs/cgroup").join(&name);
        for controller in controllers {
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{controller}"))?;
        }
        let made = Self { name, top: top.clone() };
        for dir in [top.clone(), top.join("own")] {
            fs::create_dir(&dir)?;
            chown(&dir, Some(ID), Some(ID))?;
            for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                chown(dir.join(file), Some(ID), Some(ID))?;
            }
        }
        t.at_end(move || {
            fs::remove_dir(top.join("own")).ok();
            fs::remove_dir(&top).ok();
        });
        Ok(made)
    }

    /// Runs the runtime as the user from inside the group.
    fn run(&self, t: &Test, u: &User, verb: &str, bundle: &Bundle) -> Result<Done, Trouble> {
        let run = u.bundle_command(verb, bundle)?;
        let mut command = Command::new("sh");
        let id = ID.to_string();
        command.arg("-c").arg("echo $$ >\"$0\" && exec \"$@\"").arg(self.top.join("own/cgroup.procs"));
        command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        command.arg(run.get_program()).args(run.get_args());
        let done = t.complete(command)?;
        done.ok()?;
        Ok(done)
    }
}
