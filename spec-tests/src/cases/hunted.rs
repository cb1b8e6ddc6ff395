// SPDX-License-Identifier: Apache-2.0
//! Races with whoever watches from inside: a process of a container, with CAP_SYS_PTRACE, that looks at every process that
//! comes into its pid namespace. It may find the process that was asked for, and nothing that set it up: not the host's tree, no
//! capability that nobody was to have.
//!
//! Control: it must catch a process that comes as those of careless runtimes do, or the machine cannot show the race.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::check;
use crate::harness::agent::Agent;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::test::Test;
use crate::sys;

/// How often a process comes, and how often with `--long` to whoever grabs programs.
const ROUNDS: usize = 25;
const MANY: usize = 1000;
/// A file of the host's that everybody may look at, and no container here has.
const MARKER: &str = "/usr/bin/env";

/// The chapter.
pub fn cases() -> Vec<Case> {
    let both = "is in the pid namespace with all its capabilities while it sets up";
    let mut all = vec![
        case("race/S01-programs-of-execs-are-grabbed", grabbed)
            .takes(120.0)
            .runc("at times: its program, in an overlay or a copy, can be opened")
            .crun("at times: its program can be opened"),
    ];
    all.extend([
        case("race/S03-exec-is-watched", |t| execs(t, None, true)).both(both),
        case("race/S03-exec-with-a-filter-is-watched", |t| execs(t, Some("SCMP_ACT_ERRNO"), false))
            .both(both),
        case("race/S03-exec-with-an-agent-is-watched", |t| execs(t, Some("SCMP_ACT_NOTIFY"), false))
            .both(both),
        case("race/S03-exec-with-an-agent-and-nnp-is-watched", |t| execs(t, Some("SCMP_ACT_NOTIFY"), true))
            .both(both),
        case("race/S03-exec-that-the-profile-refuses-is-refused", |t| {
            let Some(hunter) = Hunter::begin(t, |b| filter(b, "SCMP_ACT_ERRNO", &["clone"], t))? else {
                return Ok(());
            };
            let done = t.exec(&hunter.bundle, "", "/probe exit 0")?;
            check!(done.code != 0, "{done}");
            done.complains(&["/linux/seccomp", "CAP_SYS_PTRACE", "noNewPrivileges"])?;
            hunter.end(t)
        })
        .both("enters with all its capabilities"),
        case("race/S03-create-in-a-pid-namespace-is-watched", |t| creates(t, |b| b)).both(both),
        case("race/S03-create-with-a-filter-in-a-pid-namespace-is-watched", |t| {
            creates(t, |b| filter(b, "SCMP_ACT_ERRNO", &["munlockall"], t))
        })
        .both(both),
        case("race/S03-create-with-sysctl-and-hooks-in-a-pid-namespace-is-watched", |t| {
            creates(t, |b| {
                let b = b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
                let hook = json!({"path": "/probe", "args": ["probe", "exit", "0"]});
                b.push("/hooks/startContainer", hook)
            })
        })
        .both(both),
        case("race/S03-create-in-a-user-and-a-pid-namespace-is-watched", |t| {
            creates_beside(t, Bundle::user_namespace, |b| b)
        })
        .both(both),
    ]);
    all
}

/// A container in which the hunter is init.
struct Hunter {
    bundle: Bundle,
    dir: PathBuf,
}

impl Hunter {
    /// Lets it catch a careless one first.
    fn begin(t: &Test, change: impl FnOnce(Bundle) -> Bundle) -> Result<Option<Self>, Trouble> {
        let b = t.bundle()?.writable().dir("hunt", 0o777)?;
        let b = b.grants(&["SYS_PTRACE", "KILL", "NET_BIND_SERVICE", "AUDIT_WRITE", "CHOWN"]);
        let bundle = change(b).probe(&format!("hunt /hunt {MARKER}"));
        t.launch(&bundle)?;
        let hunter = Self { dir: bundle.rootfs("hunt"), bundle };
        let pid = t.pid(&hunter.bundle)?;
        let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}"));
        let (namespace, user) = (open("pid")?, open("user")?);
        let user = is_in(&hunter.bundle, "user").then(|| user.as_fd());
        for _ in 0..400 {
            sys::visit_pid_namespace(namespace.as_fd(), user)?;
            let won = hunter.result().is_some_and(|got| {
                got["host_tree"] != 0 && got["spare"] != "0" && got["taken"] != 0 && got["descriptors"] != 0
            });
            if won {
                hunter.forget(t)?;
                return Ok(Some(hunter));
            }
        }
        let got = hunter.result();
        Err(Trouble::NotRun(format!(
            "the watcher did not catch a process that came with everything: {got:?}"
        )))
    }

    fn result(&self) -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(self.dir.join("result")).ok()?).ok()
    }

    fn forget(&self, t: &Test) -> Verdict {
        fs::write(self.dir.join("forget"), "")?;
        t.until(|| "the watcher to forget".into(), || Ok((!self.dir.join("forget").exists()).then_some(())))
    }

    /// It must have seen something, and nothing too much.
    fn caught_nothing(&self) -> Verdict {
        let got = self.result().ok_or_else(|| Trouble::NotRun("the watcher saw no process".into()))?;
        check!(got["host_tree"] == 0 && got["spare"] == "0", "a process of the runtime's was caught: {got}");
        Ok(())
    }

    fn end(self, t: &Test) -> Verdict {
        fs::write(self.dir.join("stop"), "")?;
        t.await_status(&self.bundle, "stopped")?;
        t.cli(&format!("delete --force {}", self.bundle.id))?.ok().map(drop)
    }
}

/// A profile with this answer for these calls.
fn filter(b: Bundle, action: &str, names: &[&str], t: &Test) -> Bundle {
    let mut profile =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": action}]});
    if action == "SCMP_ACT_NOTIFY" {
        profile["listenerPath"] = json!(t.file("agent"));
    }
    b.set("/linux/seccomp", profile).set("/process/noNewPrivileges", json!(false))
}

fn execs(t: &Test, action: Option<&str>, no_new_privs: bool) -> Verdict {
    let agent = || match action {
        Some("SCMP_ACT_NOTIFY") => Agent::listen(&t.path("agent"), 0, 0).map(Some),
        _ => Ok(None),
    };
    let first = agent()?;
    let change = |b: Bundle| match action {
        Some(action) => {
            filter(b, action, &["munlockall"], t).set("/process/noNewPrivileges", json!(no_new_privs))
        }
        None => b,
    };
    let Some(hunter) = Hunter::begin(t, change)? else { return Ok(()) };
    first.map(Agent::join).transpose()?;
    for _ in 0..ROUNDS {
        let agent = agent()?;
        t.exec(&hunter.bundle, "", "/probe exit 0")?.ok()?;
        agent.map(Agent::join).transpose()?;
        hunter.caught_nothing_yet()?;
    }
    hunter.caught_nothing()?;
    hunter.end(t)
}

fn is_in(b: &Bundle, kind: &str) -> bool {
    let all = b.config["linux"]["namespaces"].as_array();
    all.is_some_and(|all| all.iter().any(|namespace| namespace["type"] == kind))
}

fn creates(t: &Test, change: impl Fn(Bundle) -> Bundle) -> Verdict {
    creates_beside(t, |b| b, change)
}

/// Containers come into the pid namespace, and into the user namespace if there is one, of a hunter.
fn creates_beside(
    t: &Test,
    hunters: impl FnOnce(Bundle) -> Bundle,
    change: impl Fn(Bundle) -> Bundle,
) -> Verdict {
    let Some(hunter) = Hunter::begin(t, hunters)? else { return Ok(()) };
    let pid = t.pid(&hunter.bundle)?;
    let joins = |b: Bundle| {
        let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
        let b = b.namespace("pid", Some(&path("pid")));
        if is_in(&hunter.bundle, "user") { b.namespace("user", Some(&path("user"))) } else { b }
    };
    let b = change(joins(t.bundle()?)).probe("forever");
    for _ in 0..ROUNDS / 2 {
        t.launch(&b)?;
        t.has_status(&b, "running")?;
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        t.reap();
        hunter.caught_nothing_yet()?;
    }
    hunter.caught_nothing()?;
    // What it made is as it should be: the procfs is the namespace's.
    let other = change(joins(t.bundle()?).tries(["read /proc/1/comm"]));
    let done = t.run(&other)?;
    let pid_one = done.ok()?.stdout.lines().last().is_some_and(|line| line.contains("probe"));
    check!(pid_one, "process 1 is not the watcher: {done}");
    hunter.end(t)
}

impl Hunter {
    /// Early, so that the message says in which round.
    fn caught_nothing_yet(&self) -> Verdict {
        match self.result() {
            Some(got) if got["host_tree"] != 0 || got["spare"] != "0" => {
                Err(Trouble::Fail(format!("a process of the runtime's was caught: {got}")))
            }
            _ => Ok(()),
        }
    }
}

/// CVE-2019-5736: the program of each process that comes is opened, and what is anonymous of that is to be changed. What the runtime runs
/// there may be opened; the host's own files are not among it, and nothing can be changed.
fn grabbed(t: &Test) -> Verdict {
    let before = fs::read(&t.host.runtime)?;
    let b = t.bundle()?.writable().dir("hunt", 0o777)?.grants(&["SYS_PTRACE", "DAC_OVERRIDE"]);
    let hunter = Hunter { dir: b.rootfs("hunt"), bundle: b.probe("grab /hunt") };
    t.launch(&hunter.bundle)?;
    let namespace = File::open(format!("/proc/{}/ns/pid", t.pid(&hunter.bundle)?))?;
    let has = |name: &str| hunter.result().and_then(|got| got[name].as_u64()).unwrap_or(0);
    // Control: a file of the host's, in memory or not.
    let won = (0..400).any(|_| {
        sys::visit_pid_namespace(namespace.as_fd(), None).is_ok() && has("stored") + has("changed") > 0
    });
    if !won {
        return Err(Trouble::NotRun("the watcher did not open the program of a careless one".into()));
    }
    hunter.forget(t)?;
    let rounds = if t.host.long { MANY } else { 4 * ROUNDS };
    for _ in 0..rounds {
        t.exec(&hunter.bundle, "", "/probe exit 0")?.ok()?;
    }
    check!(has("stored") == 0, "the watcher has opened {} files of the host's", has("stored"));
    check!(has("changed") == 0, "the watcher has changed, or could change, {} programs", has("changed"));
    check!(before == fs::read(&t.host.runtime)?, "the runtime's file has been changed");
    eprintln!("GRABBED {} programs in {rounds} execs, 0 of the host's, 0 changed", has("opened"));
    hunter.end(t)
}
