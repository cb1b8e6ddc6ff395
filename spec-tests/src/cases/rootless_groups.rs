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
        }),
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
            let group = Delegated::make(t, &["freezer"])?;
            let b = u.bundle()?.probe("forever");
            group.run(t, &u, "run -d", &b)?;
            let of = |pid: i32| {
                let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
                let own = own.lines().find(|line| line.contains(&group.name)).unwrap_or_default();
                Ok::<_, Trouble>(own.to_owned())
            };
            let own = of(t.pid(&b)?)?;
            check!(own.ends_with(&b.id), "it is in {own:?}");
            let pid_file = b.dir.join("exec.pid");
            group.exec(
                t,
                &u,
                &["exec", "-d", "--pid-file", &pid_file.to_string_lossy(), &b.id, "/probe", "forever"],
            )?;
            let pid = fs::read_to_string(&pid_file)?.trim().parse().unwrap_or(0);
            check!(of(pid)? == own, "exec is in {:?}", of(pid)?);
            let pids = u.cli(&format!("ps -f json {}", b.id))?.ok()?.json()?;
            check!(pids.as_array().is_some_and(|pids| pids.len() == 2), "ps: {pids}");
            u.cli(&format!("pause {}", b.id))?.ok()?;
            t.has_status(&b, "paused")?;
            u.cli(&format!("resume {}", b.id))?.ok()?;
            u.cli(&format!("delete --force {}", b.id))?.ok()?;
            Ok(())
        })
        .needs(&[Need::File("/usr/bin/setpriv")])
        .runc("on v1: ps fails unless every hierarchy is delegated"),
        case("rootless/exec-from-outside-the-delegated-groups", |t| {
            let u = User::new(t)?;
            let group = Delegated::make(t, &["freezer"])?;
            let b = u.bundle()?.probe("forever");
            group.run(t, &u, "run -d", &b)?;
            // Whoever logs in elsewhere may not move processes there: better outside than not at all, as in runc.
            u.cli(&format!("exec {} /probe exit 7", b.id))?.exits(7)?;
            u.cli(&format!("delete --force {}", b.id))?.ok()?;
            Ok(())
        })
        .needs(&[Need::File("/usr/bin/setpriv")])
        .crun("refuses"),
        case("rootless/S35-the-users-groups-below-a-bound-sys", |t| {
            let u = User::new(t)?;
            let group = Delegated::make(t, &["freezer"])?;
            let outside = group.start[0].to_string_lossy().into_owned();
            let b = u.bundle()?.without_namespace("cgroup").without_mount("/sys/fs/cgroup");
            let ops = [format!("mkdir {outside}/x"), format!("write {outside}/cgroup.procs 0")];
            let done = u.run(&b.tries(ops.iter().map(String::as_str)))?;
            let table: Vec<_> = ops.iter().map(|op| (op.as_str(), "EROFS")).collect();
            t.compare(&done.ok()?.stdout, &table).map(drop)
        })
        .both("only the top of the bind is read-only"),
        case("rootless/S35-the-users-groups-in-the-whole-hierarchy", |t| {
            let u = User::new(t)?;
            let group = Delegated::make(t, &["freezer"])?;
            let outside = group.start[0].to_string_lossy().into_owned();
            let b = u.bundle()?.without_namespace("cgroup").without_mount("/sys/fs/cgroup");
            let b = b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["rw"]);
            let ops = [format!("mkdir {outside}/x"), format!("write {outside}/cgroup.procs 0")];
            let done = u.run(&b.tries(ops.iter().map(String::as_str)))?;
            let table: Vec<_> = ops.iter().map(|op| (op.as_str(), "EROFS")).collect();
            t.compare(&done.ok()?.stdout, &table).map(drop)
        })
        .needs(&[Need::CgroupV2])
        .both("as writable as the mount says"),
        case("rootless/a-limit-in-a-delegated-group-bites", |t| {
            let u = User::new(t)?;
            let group = Delegated::make(t, &["pids"])?;
            let b =
                u.bundle()?.set("/linux/resources", json!({"pids": {"limit": 8}})).tries(["fork-many 30"]);
            let done = group.run(t, &u, "run", &b)?;
            t.compare(&done.stdout, &[("fork-many 30", "EAGAIN")]).map(drop)
        })
        .needs(&[Need::Controller("pids"), Need::File("/usr/bin/setpriv")]),
    ]
}

/// Groups that belong to the user, and (on v2, where a group with processes can have no limited ones below) one below to
/// start from.
struct Delegated {
    name: String,
    /// Where the runtime is to be started.
    start: Vec<PathBuf>,
}

impl Delegated {
    /// On v1 in the hierarchies of `controllers`; on v2 with those of them that are controllers there.
    fn make(t: &Test, controllers: &[&str]) -> Result<Self, Trouble> {
        let name = format!("{}-delegated", t.place.mark);
        let base = Path::new("/sys/fs/cgroup");
        let made = match t.host.is_v2() {
            true => {
                for controller in controllers.iter().filter(|name| t.host.controllers.contains(**name)) {
                    fs::write(base.join("cgroup.subtree_control"), format!("+{controller}"))?;
                }
                vec![base.join(&name), base.join(&name).join("own")]
            }
            false => controllers.iter().map(|controller| base.join(controller).join(&name)).collect(),
        };
        for dir in &made {
            fs::create_dir(dir)?;
            chown(dir, Some(ID), Some(ID))?;
            for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks"] {
                chown(dir.join(file), Some(ID), Some(ID)).ok();
            }
        }
        let start = if t.host.is_v2() { made[1..].to_vec() } else { made.clone() };
        t.at_end(move || made.iter().rev().for_each(|dir| drop(fs::remove_dir(dir))));
        Ok(Self { name, start })
    }

    /// Runs the runtime as the user from inside the group.
    fn run(&self, t: &Test, u: &User, verb: &str, bundle: &Bundle) -> Result<Done, Trouble> {
        self.started(t, u.bundle_command(verb, bundle)?)
    }

    /// The same with any words.
    fn exec(&self, t: &Test, u: &User, words: &[&str]) -> Result<Done, Trouble> {
        let mut command = u.runtime();
        command.args(words);
        self.started(t, command)
    }

    fn started(&self, t: &Test, inner: Command) -> Result<Done, Trouble> {
        let places: String =
            self.start.iter().map(|dir| format!("echo $$ >{}/cgroup.procs && ", dir.display())).collect();
        let mut command = Command::new("sh");
        let id = ID.to_string();
        command.arg("-c").arg(places + "exec \"$@\"").arg("sh");
        command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        command.arg(inner.get_program()).args(inner.get_args());
        let done = t.complete(command)?;
        done.ok()?;
        Ok(done)
    }
}
