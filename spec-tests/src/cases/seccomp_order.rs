// SPDX-License-Identifier: Apache-2.0
//! What a profile may refuse of all that a runtime calls after it has loaded it, and the hooks that run under it.
//!
//! A profile is written for the container's program. What the runtime needs after the filter, the profile's author cannot
//! know: it should be as little as can be, and where the process dies of it, it was not "started".

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use crate::check;
use crate::harness::agent::Agent;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::test::Test;

/// Calls that no container's program has to be allowed for the runtime's sake, and why runc and crun need them, if they do.
const NEEDLESS: [(&str, &str, &str); 35] = [
    ("clone3", "", ""),
    ("setsid", "", ""),
    ("setpgid", "", ""),
    ("recvfrom", "", ""),
    ("recvmsg", "", ""),
    ("sendto", "", ""),
    ("sendmsg", "", ""),
    ("setresuid", "", "needs it without no_new_privs"),
    ("setresgid", "", "needs it without no_new_privs"),
    ("setuid", "needs it without no_new_privs", ""),
    ("setgid", "needs it without no_new_privs", ""),
    ("setgroups", "needs it without no_new_privs", "needs it without no_new_privs"),
    ("prlimit64", "", ""),
    ("accept4", "", ""),
    ("fcntl", "needs it if it kills", ""),
    ("close_range", "needs it if it kills", "needs it if it kills"),
    ("prctl", "needs it without no_new_privs", "needs it without no_new_privs"),
    ("openat2", "needs it if it kills", ""),
    ("newfstatat", "needs it without no_new_privs", ""),
    ("faccessat", "needs it in exec, if it kills", ""),
    ("faccessat2", "needs it if it kills", ""),
    ("statx", "needs it without a way round it", "needs it in exec"),
    ("fchdir", "", ""),
    ("chdir", "needs it without no_new_privs", "needs it for hooks"),
    ("getcwd", "needs it without no_new_privs", "needs it for hooks"),
    ("umask", "", "needs it in exec, if it kills"),
    ("ioctl", "", "needs it in exec, if it kills"),
    ("seccomp", "", ""),
    ("keyctl", "", ""),
    ("wait4", "", "needs it for hooks"),
    ("kill", "", ""),
    ("clock_gettime", "at times: takes the first process for dead", ""),
    ("pidfd_send_signal", "needs it if it kills", ""),
    ("getpid", "needs it if it kills", ""),
    ("clone", "", ""),
];

/// What they need all the same, of which the process dies, or does not start.
const NEEDED: [&str; 2] = ["capset", "execve"];

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = NEEDLESS
        .iter()
        .map(|(name, runc, crun)| needless(name).peer("runc", runc).peer("crun", crun))
        .collect();
    all.extend(
        NEEDED
            .iter()
            .flat_map(|name| [needed(name, "SCMP_ACT_KILL_PROCESS"), needed(name, "SCMP_ACT_ERRNO")]),
    );
    all.extend(hooks());
    all.extend(notify());
    all
}

impl Bundle {
    fn refusing(self, names: &[&str], action: &str) -> Self {
        let rules = json!([{"names": names, "action": action}]);
        self.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    }

    fn start_hook(self, words: &[&str]) -> Self {
        let args: Vec<&str> = ["probe"].iter().chain(words).copied().collect();
        self.push("/hooks/startContainer", json!({"path": "/probe", "args": args, "timeout": 20}))
    }
}

/// create, start, exec and run with a profile that refuses this call, in every way, with and without hooks.
fn needless(name: &'static str) -> Case {
    case(format!("seccomp/without-{name}"), move |t: &Test| {
        for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"] {
            for (no_new_privs, hooks) in [(false, false), (false, true), (true, true)] {
                // A hook is a process more.
                if hooks && name == "clone" {
                    continue;
                }
                let b = t.bundle()?.refusing(&[name], action);
                let b = b.set("/process/noNewPrivileges", json!(no_new_privs));
                let b = if hooks { b.start_hook(&["exit", "0"]) } else { b };
                lives(t, &b).map_err(|trouble| {
                    crate::harness::case::Trouble::Fail(format!(
                        "{action}, noNewPrivileges {no_new_privs}, hooks {hooks}: {trouble:?}"
                    ))
                })?;
            }
        }
        Ok(())
    })
}

fn lives(t: &Test, b: &Bundle) -> Verdict {
    t.run(&b.clone().probe("exit 7"))?.exits(7)?;
    let b = b.clone().probe("forever");
    t.create(&b)?;
    t.cli(&format!("start {}", b.id))?.ok()?;
    t.has_status(&b, "running")?;
    t.exec(&b, "", "/probe exit 8")?.exits(8)?;
    t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
}

const UNTOLD: &str = "says started, or not which call it was";

/// Without this one nothing starts, and that is told: by create or by start, with the call's name, and never "started".
fn needed(name: &'static str, action: &'static str) -> Case {
    case(format!("seccomp/dies-for-{name}-{action}"), move |t: &Test| {
        let b = t.bundle()?.refusing(&[name], action).set("/process/noNewPrivileges", json!(false));
        let before = t.snapshot();
        let said = if name == "execve" { "execve|exec /probe" } else { name };
        t.run(&b.clone().probe("exit 0"))?.refuses(&[said])?;
        t.unchanged_since(&before)?;
        for _ in 0..5 {
            let created = t.try_create("create", &b)?;
            if created.code == 0 {
                t.cli(&format!("start {}", b.id))?.refuses(&[said])?;
                t.cli(&format!("delete --force {}", b.id))?.ok()?;
            } else {
                created.refuses(&[said])?;
            }
            t.reap();
            t.unchanged_since(&before)?;
        }
        Ok(())
    })
    .runc(UNTOLD)
    .crun(if (name, action) == ("capset", "SCMP_ACT_ERRNO") { "" } else { UNTOLD })
}

fn hooks() -> Vec<Case> {
    let under = |no_new_privs: bool| {
        let name = format!("hooks/startContainer-runs-under-the-filter-nnp-{no_new_privs}");
        case(name, move |t: &Test| {
            let b = t.bundle()?.writable().refusing(&["munlockall"], "SCMP_ACT_ERRNO");
            let b = b.set("/process/noNewPrivileges", json!(no_new_privs)).probe("exit 0");
            let b = b.start_hook(&["report-to", "/note"]);
            t.run(&b)?.ok()?;
            let seen: Value = serde_json::from_str(&std::fs::read_to_string(b.rootfs("note"))?)?;
            same("Seccomp", &seen["seccomp"], "2")?;
            same("NoNewPrivs", &seen["no_new_privs"], if no_new_privs { "1" } else { "0" })
        })
    };
    vec![
        under(true),
        under(false),
        case("hooks/startContainer-that-the-filter-kills", |t: &Test| {
            let b = t.bundle()?.refusing(&["munlockall"], "SCMP_ACT_KILL_PROCESS");
            let b =
                b.start_hook(&["try", "syscall", &libc::SYS_munlockall.to_string()]).probe("print started");
            let done = t.run(&b)?;
            check!(done.code != 0 && !done.stdout.contains("started"), "{done}");
            done.complains(&["startContainer", "31|bad system call|SIGSYS"]).map(drop)
        })
        .crun("does not say which kind of hook"),
        case("hooks/startContainer-that-cannot-be-executed", |t: &Test| {
            let b = t.bundle()?.refusing(&["munlockall"], "SCMP_ACT_ERRNO").probe("print started");
            let b = b.push("/hooks/startContainer", json!({"path": "/nothing", "args": ["x"]}));
            let done = t.run(&b)?;
            check!(done.code != 0 && !done.stdout.contains("started"), "{done}");
            done.complains(&["startContainer", "/nothing", "no such file|ENOENT"]).map(drop)
        })
        .crun("does not say which kind of hook"),
        case("hooks/startContainer-with-an-output-larger-than-a-pipe", |t: &Test| {
            let b = t.bundle()?.refusing(&["munlockall"], "SCMP_ACT_ERRNO");
            let b = b.start_hook(&["flood", "1000000"]).probe("print started");
            t.run(&b)?.ok()?.prints("started").map(drop)
        }),
    ]
}

fn notify() -> Vec<Case> {
    let answered = |name: &'static str, refused: &'static [&'static str], nnp: bool| {
        case(format!("seccomp/{name}"), move |t: &Test| {
            let rules = json!([
                {"names": ["munlockall"], "action": "SCMP_ACT_NOTIFY"},
                {"names": refused, "action": "SCMP_ACT_ERRNO"}
            ]);
            let rules = if refused.is_empty() { json!([rules[0]]) } else { rules };
            let b = t.bundle()?.set("/process/noNewPrivileges", json!(nnp));
            let b = b.set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules,
                "listenerPath": t.file("agent"), "listenerMetadata": "m"}),
            );
            let agent = Agent::listen(&t.path("agent"), 0, 0)?;
            let b = b.probe("forever");
            t.launch(&b)?;
            same("pid", agent.join()?["pid"].as_i64(), Some(t.pid(&b)?.into()))?;
            let agent = Agent::listen(&t.path("agent"), 1, libc::ENOANO)?;
            let pid_file = t.file("pid");
            let words = format!("/probe try syscall {}", libc::SYS_munlockall);
            let done = t.exec(&b, &format!("--pid-file {pid_file}"), &words)?;
            t.compare(&done.ok()?.stdout, &[(&format!("syscall {}", libc::SYS_munlockall), "ENOANO")])?;
            let pid: i64 = std::fs::read_to_string(&pid_file)?.trim().parse().map_err(|_| "no pid")?;
            same("pid of the exec", agent.join()?["pid"].as_i64(), Some(pid))
        })
        .crun("tells the pid 0 of an exec")
    };
    vec![
        answered("notify-tells-the-pid-of-an-exec", &[], false),
        answered("notify-tells-the-pid-of-an-exec-with-nnp", &[], true),
        answered("notify-without-clone-and-sockets", &["clone", "sendmsg", "accept4", "setsid"], false),
    ]
}
