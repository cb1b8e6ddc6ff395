// SPDX-License-Identifier: Apache-2.0
//! `exec`: one more process in a container.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::console::Receiver;
use crate::harness::report::Report;
use crate::harness::terminal::Terminal;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = [by_status(), outcomes(), view(), ways_to_call()].into_iter().flatten().collect::<Vec<_>>();
    all.extend(options());
    all.extend(failures());
    all
}

fn by_status() -> Vec<Case> {
    vec![
        case("exec/in-running", |t| {
            let b = running(t)?;
            t.exec(&b, "", "/probe print inside")?.ok()?.prints("inside").map(drop)
        }),
        case("exec/in-created", |t| {
            let b = t.bundle()?;
            t.create(&b)?;
            t.exec(&b, "", "/probe print inside")?.ok()?.prints("inside")?;
            t.has_status(&b, "created")
        }),
        case("exec/in-stopped-is-refused", |t| {
            let b = t.bundle()?.probe("exit 0");
            t.launch(&b)?;
            t.await_status(&b, "stopped")?;
            let refused = t.exec(&b, "", "/probe print inside")?;
            refused.exits(255)?.complains(&["cannot exec in a stopped container|not running"]).map(drop)
        })
        .crun("exits with 1, not 255"),
        case("exec/in-paused-is-refused", |t| {
            let b = running(t)?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            let refused = t.exec(&b, "", "/probe print inside")?;
            refused.exits(255)?.complains(&["cannot exec in a paused container", "--ignore-paused"]).map(drop)
        })
        .crun("exits with 1 and names no way out"),
        case("exec/in-paused-on-request", |t| {
            let b = running(t)?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            let mut command = t.runtime();
            command.args(["exec", "--ignore-paused", &b.id, "/probe", "print", "inside"]);
            let waiting = t.spawn(command)?;
            t.cli(&format!("resume {}", b.id))?.ok()?;
            t.finish(waiting)?.ok()?.prints("inside").map(drop)
        })
        .crun("has no --ignore-paused"),
        case("exec/unknown-id", |t| {
            let refused = t.cli("exec nobody-knows-me /probe")?;
            refused.exits(255)?.complains(&["does not exist|no such file"]).map(drop)
        })
        .crun("exits with 1"),
    ]
}

fn outcomes() -> Vec<Case> {
    vec![
        case("exec/exit-codes", |t| {
            let b = running(t)?;
            for code in [0, 1, 7, 126, 255] {
                t.exec(&b, "", &format!("/probe exit {code}"))?.exits(code)?;
            }
            Ok(())
        }),
        case("exec/ended-by-signal", |t| {
            t.exec(&running(t)?, "", "/probe die SIGKILL")?.exits(137).map(drop)
        }),
    ]
}

fn view() -> Vec<Case> {
    vec![
        case("exec/sees-the-container-as-init-does", same_view).crun("does not apply the rlimits"),
        case("exec/is-in-the-containers-cgroup", |t| {
            let b = running(t)?;
            let mine = exec_report(t, &b, "")?;
            let init = fs::read_to_string(format!("/proc/{}/cgroup", t.pid(&b)?))?;
            let lines = mine.at("/cgroup").as_array().cloned().unwrap_or_default();
            for line in init.lines().filter(|line| line.contains(&b.id)) {
                check!(lines.iter().any(|l| l == line), "init has {line}, exec has {lines:?}");
            }
            check!(init.contains(&b.id), "init is not in its cgroup: {init}");
            Ok(())
        }),
        case("exec/in-a-sub-cgroup", |t| {
            let b = running(t)?;
            let groups = own_groups(t, &b)?;
            for group in &groups {
                fs::create_dir(group.join("below"))?;
                // A new v1 cpuset is empty, and takes nobody.
                for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| !t.host.is_v2()) {
                    if let Ok(set) = fs::read_to_string(group.join(file)) {
                        fs::write(group.join("below").join(file), set)?;
                    }
                }
            }
            let mine = exec_report(t, &b, "--cgroup below")?;
            let lines = mine.at("/cgroup").as_array().cloned().unwrap_or_default();
            let below =
                lines.iter().filter(|line| line.as_str().is_some_and(|l| l.ends_with("/below"))).count();
            same("sub-cgroups it is in", below, groups.len())?;
            exec_report(t, &b, "--cgroup /").map(drop)
        })
        .runc("on v1: on a hybrid host it wants the sub-cgroup in the v2 hierarchy, too"),
        case("exec/in-a-sub-cgroup-that-climbs", |t| {
            let b = running(t)?;
            t.exec(&b, "--cgroup ../other", "/probe exit 0")?
                .exits(255)?
                .complains(&["bad sub cgroup path|is not a sub cgroup path"])
                .map(drop)
        })
        .crun("S37: goes where it leads; 1.29 refuses"),
        case("exec/leaves-init-and-host-alone", |t| {
            let b = running(t)?;
            let before = t.snapshot();
            for _ in 0..5 {
                t.exec(&b, "", "/probe exit 0")?.ok()?;
            }
            t.unchanged_since(&before)?;
            t.has_status(&b, "running")
        }),
        case("exec/only-descriptors-0-1-2", |t| {
            let r = exec_report(t, &running(t)?, "")?;
            let fds: Vec<_> = r.at("/fds").as_object().into_iter().flat_map(|m| m.keys().cloned()).collect();
            same("descriptors", fds, vec!["0", "1", "2"])
        }),
    ]
}

/// crun's exec joins a keyring of the user's, which the kernel keeps for a while; on a slow guest, until the case looks.
const KEYRINGS: &str = "at times: leaves the user's keyrings for a while";

fn ways_to_call() -> Vec<Case> {
    vec![
        case("exec/detached-with-pid-file", detached),
        case("exec/process-file", process_file).crun(KEYRINGS),
        case("exec/process-file-is-taken-as-a-whole", process_file_is_whole),
        case("exec/process-file-with-scheduling", process_file_schedules)
            .crun("at times: the program runs before its scheduler is set"),
        case("exec/process-file-with-oom-score", |t| {
            let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/probe", "report"],
                "oomScoreAdj": 321});
            fs::write(t.path("process.json"), process.to_string())?;
            let done = t.cli(&format!("exec -p {} {}", t.file("process.json"), running(t)?.id))?;
            Report::read(&done.ok()?.stdout)?.is("/oom_score_adj", "321")
        })
        .both("only the container's first process gets it"),
        case("exec/process-file-with-umask", |t| {
            let process = json!({"user": {"uid": 0, "gid": 0, "umask": 0o27}, "cwd": "/",
                "args": ["/probe", "report"]});
            fs::write(t.path("process.json"), process.to_string())?;
            let done = t.cli(&format!("exec -p {} {}", t.file("process.json"), running(t)?.id))?;
            Report::read(&done.ok()?.stdout)?.is("/umask", "0027")
        })
        .runc("keeps 0022"),
        case("exec/affinity-of-the-configuration", |t| affinity(t, false))
            .crun("natively: looks for it in a process file only"),
        case("exec/affinity-of-a-process-file", |t| affinity(t, true)),
        case("exec/terminal-with-console-socket", console_socket),
        case("exec/terminal-needs-console-socket-when-detached", |t| {
            let refused = t.exec(&running(t)?, "--tty --detach", "/probe print x")?;
            let text = "cannot allocate tty if|without setting console socket|console-socket";
            refused.exits(255)?.complains(&[text]).map(drop)
        })
        .crun("exits with 1, says `tcgetattr`"),
        case("exec/signal-is-passed-on", |t| {
            use nix::sys::signal::{Signal, kill};
            let b = running(t)?;
            let mut command = t.runtime();
            command.args(["exec", &b.id, "/probe", "block", "SIGTERM", "--", "print", "up", "--", "forever"]);
            let one = t.spawn(command)?;
            one.log().lines(t, 1)?;
            kill(nix::unistd::Pid::from_raw(one.child.id() as i32), Signal::SIGTERM)?;
            t.finish(one)?.exits(143).map(drop)
        }),
        case("exec/many-at-once", |t| {
            let b = running(t)?;
            let start = |i: i32| {
                let mut command = t.runtime();
                command.args(["exec", &b.id, "/probe", "exit", &i.to_string()]);
                t.spawn(command)
            };
            let all: Vec<_> = (1..9).map(start).collect::<Result<_, _>>()?;
            for (i, one) in all.into_iter().enumerate() {
                t.finish(one)?.exits(i as i32 + 1)?;
            }
            Ok(())
        }),
        case("exec/preserve-fds", |t| {
            let b = running(t)?;
            let mut command = t.runtime();
            command.args(["exec", "--preserve-fds", "2", &b.id, "/probe", "report"]);
            let file = fs::File::open("/dev/null")?;
            for number in [3, 4, 5] {
                crate::sys::with_fd(&mut command, std::os::fd::AsRawFd::as_raw_fd(&file), number);
            }
            let r = Report::read(&t.complete(command)?.ok()?.stdout)?;
            let fds: Vec<_> = r.at("/fds").as_object().into_iter().flat_map(|m| m.keys().cloned()).collect();
            same("descriptors", fds, vec!["0", "1", "2", "3", "4"])
        }),
    ]
}

type Choice = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
const CHOICES: [Choice; 8] = [
    ("cwd", "--cwd /tmp", &[("/cwd", "\"/tmp\"")]),
    ("user-number", "--user 1000", &[("/uid", "[1000,1000,1000,1000]"), ("/gid", "[0,0,0,0]")]),
    (
        "user-and-group",
        "-u 1000:2000",
        &[("/uid", "[1000,1000,1000,1000]"), ("/gid", "[2000,2000,2000,2000]")],
    ),
    ("additional-groups", "-u 1000:2000 -g 7 -g 8", &[("/groups", "[7,8]")]),
    ("no-new-privs", "--no-new-privs", &[("/no_new_privs", "\"1\"")]),
    (
        "no-options",
        "",
        &[("/cwd", "\"/\""), ("/uid", "[0,0,0,0]"), ("/groups", "[]"), ("/no_new_privs", "\"0\"")],
    ),
    ("single-dash", "-cwd=/tmp", &[("/cwd", "\"/tmp\"")]),
    ("flag-with-equals", "--user=5:6", &[("/uid", "[5,5,5,5]"), ("/gid", "[6,6,6,6]")]),
];

/// What each option changes in the process.
fn options() -> Vec<Case> {
    let row = |(name, options, wants): &'static Choice| {
        case(format!("exec/option-{name}"), move |t: &Test| {
            let b = t.bundle()?.probe("forever").set("/process/noNewPrivileges", json!(false));
            t.launch(&b)?;
            let r = exec_report(t, &b, options)?;
            for (pointer, want) in *wants {
                r.is(pointer, serde_json::from_str::<Value>(want)?)?;
            }
            Ok(())
        })
        .peer(
            "crun",
            match *name {
                "additional-groups" => "has no -g",
                "single-dash" => "knows two dashes only",
                "user-number" | "flag-with-equals" => KEYRINGS,
                _ => "",
            },
        )
    };
    let mut all: Vec<Case> = CHOICES.iter().map(row).collect();
    all.extend([lists_of_options()].into_iter().flatten());
    all
}

fn lists_of_options() -> Vec<Case> {
    vec![
        case("exec/option-env", |t| {
            let b = t
                .bundle()?
                .probe("forever")
                .push("/process/env", json!("KEEP=1"))
                .push("/process/env", json!("OVER=1"));
            t.launch(&b)?;
            let r = exec_report(t, &b, "--env NEW=2 --env OVER=3 --env=EMPTY=")?;
            same("KEEP", r.variable("KEEP"), vec!["1"])?;
            same("NEW", r.variable("NEW"), vec!["2"])?;
            same("the last OVER", r.variable("OVER").pop(), Some("3"))?;
            same("EMPTY", r.variable("EMPTY"), vec![""])
        }),
        case("exec/option-cap", |t| {
            let b = t
                .bundle()?
                .probe("forever")
                .grants(&["KILL"])
                .set("/process/capabilities/inheritable", json!([]));
            t.launch(&b)?;
            let r = exec_report(t, &b, "--cap CAP_SYS_TIME --cap CAP_NET_RAW")?;
            for set in ["bounding", "effective", "permitted"] {
                r.is(&format!("/caps/{set}"), json!(["CAP_KILL", "CAP_NET_RAW", "CAP_SYS_TIME"]))?;
            }
            // CVE-2022-29162: --cap must not fill what the configuration left empty.
            r.is("/caps/inheritable", json!([]))?;
            r.is("/caps/ambient", json!([]))
        })
        .crun("--cap replaces the sets"),
        case("exec/words-after-the-program-are-its-own", |t| {
            let done = t.exec(&running(t)?, "", "/probe print --cwd /x -e Y=1 --help")?;
            done.ok()?.prints("--cwd /x -e Y=1 --help").map(drop)
        }),
        case("exec/user-strings-that-are-none", |t| {
            let b = running(t)?;
            for user in
                ["", ":", "1:", ":1", "+1", "0x1", "1e3", "4294967295", "4294967296", "-1", "1:2:3", "1: 2"]
            {
                let done = t.cli_words(&["exec", &format!("--user={user}"), &b.id, "/probe", "report"])?;
                let root = done.code == 0 && Report::read(&done.stdout)?.at("/uid/0") == 0;
                let harmless = ["", ":", ":1"].contains(&user); // no uid given: the configuration's
                check!(!root || harmless, "--user={user:?} ran as root");
            }
            Ok(())
        })
        .crun("takes -1 for root")
        .runc("takes 4294967296 for root"),
    ]
}

/// What cannot be executed, and what is said of it. The words are those Docker and podman look for.
fn failures() -> Vec<Case> {
    type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);
    const ROWS: [Row; 7] = [
        ("program-not-in-path", "", "nosuch", &["nosuch", "executable file not found"]),
        ("program-absent", "", "/no/such", &["/no/such", "no such file or directory"]),
        ("not-executable", "", "/etc/passwd", &["/etc/passwd", "permission denied"]),
        ("directory", "", "/etc", &["/etc", "permission denied|is a directory"]),
        ("no-format", "", "/script-without-interpreter", &["exec format error"]),
        ("cwd-is-a-file", "--cwd /etc/passwd", "/probe", &["/etc/passwd", "not a directory"]),
        (
            "cwd-through-a-descriptor",
            "--cwd /proc/self/fd/7",
            "/probe",
            &["/proc/self/fd/7|cwd|current working directory"],
        ),
    ];
    let row = |(name, options, program, says): &'static Row| {
        case(format!("exec/fails-{name}"), move |t: &Test| {
            let b = t.bundle()?.probe("forever").file("script-without-interpreter", "nothing\n")?;
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(b.rootfs("script-without-interpreter"), fs::Permissions::from_mode(0o755))?;
            t.launch(&b)?;
            let before = t.snapshot();
            t.exec(&b, options, program)?.exits(255)?.complains(says)?;
            t.unchanged_since(&before)?;
            t.has_status(&b, "running")
        })
        .crun("exits with 1, not 255")
    };
    ROWS.iter().map(row).collect()
}

/// A container that runs until it is killed.
fn running(t: &Test) -> Result<Bundle, Trouble> {
    let b = t.bundle()?.probe("forever");
    t.launch(&b)?;
    Ok(b)
}

/// The directories of the container's groups on the host.
fn own_groups(t: &Test, b: &Bundle) -> Result<Vec<std::path::PathBuf>, Trouble> {
    let init = fs::read_to_string(format!("/proc/{}/cgroup", t.pid(b)?))?;
    let paths: Vec<&str> = init.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    let all = t.host.hierarchies().into_iter();
    let found = all.filter_map(|base| {
        paths
            .iter()
            .map(|path| base.join(path.trim_start_matches('/')))
            .find(|dir| dir.ends_with(&b.id) && dir.is_dir())
    });
    Ok(found.collect())
}

fn exec_report(t: &Test, b: &Bundle, options: &str) -> Result<Report, Trouble> {
    Report::read(&t.exec(b, options, "/probe report")?.ok()?.stdout)
}

fn same_view(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("report -- forever").namespace("cgroup", None);
    let init = t.launch(&b)?.report(t)?;
    let mine = exec_report(t, &b, "")?;
    for pointer in
        ["/ns", "/caps", "/rlimits", "/hostname", "/cwd", "/uid", "/groups", "/umask", "/mounts", "/env"]
    {
        same(pointer, mine.at(pointer), init.at(pointer))?;
    }
    for pointer in ["/seccomp", "/no_new_privs", "/sig_ignored", "/sig_blocked", "/oom_score_adj"] {
        same(pointer, mine.at(pointer), init.at(pointer))?;
    }
    Ok(())
}

fn detached(t: &Test) -> Verdict {
    let b = running(t)?;
    let done = t.exec(&b, &format!("--detach --pid-file {}", t.file("pid")), "/probe print up -- forever")?;
    done.ok()?;
    let text = fs::read_to_string(t.path("pid"))?;
    let pid: i32 = text.parse().map_err(|_| format!("the pid file holds {text:?}"))?;
    let name = format!("/proc/{pid}/comm");
    t.until(
        || "the process to be the probe".into(),
        || Ok((fs::read_to_string(&name)?.trim() == "probe").then_some(())),
    )?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    same("its exit code", t.exit_code(pid)?, 137)?;
    t.has_status(&b, "running")
}

/// How containerd calls it.
fn process_file(t: &Test) -> Verdict {
    let b = running(t)?;
    let process = json!({
        "terminal": false, "user": {"uid": 12, "gid": 13, "additionalGids": [14]}, "cwd": "/tmp",
        "args": ["/probe", "report"], "env": ["ONLY=this"],
        "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "permitted": []},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]
    });
    fs::write(t.path("process.json"), process.to_string())?;
    let done = t.cli(&format!("exec --process {} {}", t.file("process.json"), b.id))?;
    let r = Report::read(&done.ok()?.stdout)?;
    r.is("/uid/1", 12)?;
    r.is("/gid/1", 13)?;
    r.is("/groups", json!([14]))?;
    r.is("/cwd", "/tmp")?;
    r.is("/caps/bounding", json!(["CAP_KILL"]))?;
    r.is("/rlimits/RLIMIT_NOFILE", json!([99, 100]))?;
    same("ONLY", r.variable("ONLY"), vec!["this"])
}

fn process_file_is_whole(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever").push("/process/env", json!("FROM_CONFIG=1"));
    t.launch(&b)?;
    let process =
        json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/probe", "report"], "env": ["A=b"]});
    fs::write(t.path("process.json"), process.to_string())?;
    let done = t.cli(&format!("exec -p {} {}", t.file("process.json"), b.id))?;
    let r = Report::read(&done.ok()?.stdout)?;
    same("FROM_CONFIG", r.variable("FROM_CONFIG"), Vec::<&str>::new())?;
    r.is("/no_new_privs", "0")
}

fn process_file_schedules(t: &Test) -> Verdict {
    let b = t.bundle()?.set("/linux/personality", json!({"domain": "LINUX32"})).probe("forever");
    t.launch(&b)?;
    let process = json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/probe", "report"], "env": [],
        "scheduler": {"policy": "SCHED_BATCH", "nice": 4},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6}, "noNewPrivileges": true
    });
    fs::write(t.path("process.json"), process.to_string())?;
    let done = t.cli(&format!("exec --process {} {}", t.file("process.json"), b.id))?;
    let r = Report::read(&done.ok()?.stdout)?;
    r.is("/sched/policy", 3)?;
    r.is("/sched/nice", 4)?;
    r.is("/ioprio/class", 2)?;
    r.is("/ioprio/data", 6)?;
    r.is("/no_new_privs", "1")?;
    // The container's, not the process's.
    r.is("/personality", 8)
}

/// `final` holds for what is executed, and for that alone.
fn affinity(t: &Test, by_file: bool) -> Verdict {
    let status = fs::read_to_string("/proc/self/status")?;
    let all = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap_or("0");
    let last = all.rsplit([',', '-']).next().unwrap_or("0");
    let asked = json!({"initial": all, "final": last});
    let mut b = t.bundle()?.probe("report -- forever");
    if !by_file {
        b = b.set("/process/execCPUAffinity", asked.clone());
    }
    let init = t.launch(&b)?.report(t)?;
    init.is("/affinity", all)?;
    let done = if by_file {
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/probe", "report"],
            "execCPUAffinity": asked});
        fs::write(t.path("process.json"), process.to_string())?;
        t.cli(&format!("exec --process {} {}", t.file("process.json"), b.id))?
    } else {
        t.exec(&b, "", "/probe report")?
    };
    Report::read(&done.ok()?.stdout)?.is("/affinity", last)
}

fn console_socket(t: &Test) -> Verdict {
    let b = running(t)?;
    let receiver = Receiver::listen(&t.path("console"))?;
    let options = format!("--tty --detach --console-socket {}", receiver.path.display());
    t.exec(&b, &options, "/probe sizes 0 -- print hello")?.ok()?;
    let mut delivery = receiver.receive()?;
    same("descriptors received", delivery.fds.len(), 1)?;
    let Some(master) = delivery.fds.pop() else { return Err("no master".into()) };
    let mut terminal = Terminal::from_master(master)?;
    terminal.expect("hello")
}
