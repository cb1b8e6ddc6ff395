// SPDX-License-Identifier: Apache-2.0
//! config-linux.md, "Seccomp".

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use crate::check;
use crate::harness::agent::Agent;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::report::Report;
use crate::harness::test::Test;

/// Docker's default profile for its 14 capabilities, made from the Apache-2.0 profile of containers/common.
const DOCKER: &str = include_str!("docker-seccomp.json");

const GETPPID: i64 = libc::SYS_getppid;
const MUNLOCKALL: i64 = libc::SYS_munlockall;
const SETPRIORITY: i64 = libc::SYS_setpriority;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = actions();
    all.extend(arguments());
    all.extend(profiles());
    all.extend(loading());
    all.extend(notify());
    all
}

impl Bundle {
    /// Everything is allowed but what these rules say.
    fn rules(self, rules: Value) -> Self {
        self.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    }
}

fn call(nr: i64) -> String {
    format!("syscall {nr}")
}

fn actions() -> Vec<Case> {
    vec![
        case("seccomp/errno", |t| {
            let b = t.bundle()?.rules(json!([{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]));
            t.expect(b, &[(&call(GETPPID), "EPERM"), (&call(MUNLOCKALL), "ok")]).map(drop)
        }),
        case("seccomp/errnoRet", |t| {
            let b = t.bundle()?.rules(json!([
                {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                {"names": ["munlockall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
            ]));
            t.expect(b, &[(&call(GETPPID), "ENOSYS"), (&call(MUNLOCKALL), "EACCES")]).map(drop)
        }),
        case("seccomp/mode-is-told", |t| {
            let b = t.bundle()?.rules(json!([{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]));
            t.report(&b)?.is("/seccomp", "2")?;
            t.report(&t.bundle()?)?.is("/seccomp", "0")
        }),
        kill("SCMP_ACT_KILL_PROCESS", 159),
        kill("SCMP_ACT_KILL", 159),
        kill("SCMP_ACT_KILL_THREAD", 159),
        kill("SCMP_ACT_TRAP", 159),
        case("seccomp/log-allows", |t| {
            let b = t.bundle()?.rules(json!([{"names": ["getppid"], "action": "SCMP_ACT_LOG"}]));
            t.expect(b, &[(&call(GETPPID), "ok")]).map(drop)
        }),
        case("seccomp/trace-without-tracer-is-ENOSYS", |t| {
            let b =
                t.bundle()?.rules(json!([{"names": ["getppid"], "action": "SCMP_ACT_TRACE", "errnoRet": 7}]));
            t.expect(b, &[(&call(GETPPID), "ENOSYS")]).map(drop)
        }),
        case("seccomp/of-exec-is-the-same", |t| {
            let b = t
                .bundle()?
                .rules(json!([{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]))
                .probe("forever");
            t.launch(&b)?;
            let done = t.exec(&b, "", &format!("/probe try {}", call(GETPPID)))?;
            t.compare(&done.ok()?.stdout, &[(&call(GETPPID), "EPERM")]).map(drop)
        }),
        case("seccomp/default-errno-and-errnoRet", |t| {
            let b = t.bundle()?.set("/linux/seccomp", denying(json!([])));
            let b = b.set("/linux/seccomp/defaultErrnoRet", json!(1));
            t.expect(b, &[(&call(GETPPID), "EPERM"), (&call(SETPRIORITY), "EPERM")]).map(drop)
        }),
        case("seccomp/unknown-to-the-profile-is-ENOSYS", |t| {
            // Programs fall back to an older call only on ENOSYS: for numbers above all that the profile names.
            let b = t.bundle()?.set("/linux/seccomp", denying(json!([])));
            t.expect(b, &[("syscall 1000", "ENOSYS"), (&call(GETPPID), "EPERM")]).map(drop)
        })
        .crun("gives the default errno"),
        case("seccomp/unknown-name-is-skipped", |t| {
            let rules = json!([{"names": ["no_such_call", "getppid"], "action": "SCMP_ACT_ERRNO"}]);
            t.expect(t.bundle()?.rules(rules), &[(&call(GETPPID), "EPERM")]).map(drop)
        }),
    ]
}

fn kill(action: &'static str, code: i32) -> Case {
    case(format!("seccomp/{action}"), move |t: &Test| {
        let b = t.bundle()?.rules(json!([{"names": ["getppid"], "action": action}]));
        let b = b.probe(&format!("print before -- try {} -- print after", call(GETPPID)));
        t.run(&b)?.exits(code)?.prints("before").map(drop)
    })
}

/// A profile that denies all but what the probe lives on.
fn denying(more: Value) -> Value {
    let mut profile: Value = serde_json::from_str(DOCKER).unwrap_or_default();
    if let Some(rules) = profile["syscalls"].as_array_mut() {
        for rule in rules.iter_mut() {
            if let Some(names) = rule["names"].as_array_mut() {
                names.retain(|name| name != "getppid" && name != "munlockall" && name != "setpriority");
            }
        }
        rules.extend(more.as_array().cloned().unwrap_or_default());
    }
    profile
}

/// Rules on arguments: operator, value, second value; then the argument tried, and what is answered.
fn arguments() -> Vec<Case> {
    type Row = (&'static str, u64, u64, &'static [(&'static str, &'static str)]);
    // munlockall takes no argument and always succeeds, so that whatever stands in the registers is the filter's alone.
    const ROWS: [Row; 9] = [
        ("SCMP_CMP_EQ", 5, 0, &[("5", "EPERM"), ("4", "ok"), ("0x100000005", "ok")]),
        ("SCMP_CMP_NE", 5, 0, &[("5", "ok"), ("6", "EPERM"), ("0x100000005", "EPERM")]),
        ("SCMP_CMP_LT", 5, 0, &[("4", "EPERM"), ("5", "ok"), ("0x100000000", "ok")]),
        ("SCMP_CMP_LE", 5, 0, &[("5", "EPERM"), ("6", "ok"), ("0x100000001", "ok")]),
        ("SCMP_CMP_GE", 5, 0, &[("5", "EPERM"), ("4", "ok"), ("0x100000000", "EPERM")]),
        ("SCMP_CMP_GT", 5, 0, &[("6", "EPERM"), ("5", "ok"), ("0x100000000", "EPERM")]),
        ("SCMP_CMP_MASKED_EQ", 0xf0, 0x20, &[("0x25", "EPERM"), ("0x35", "ok"), ("0x125", "EPERM")]),
        ("SCMP_CMP_EQ", 0x1_0000_0002, 0, &[("0x100000002", "EPERM"), ("2", "ok")]),
        ("SCMP_CMP_GT", 0x1_0000_0002, 0, &[("0x100000003", "EPERM"), ("3", "ok"), ("0x200000000", "EPERM")]),
    ];
    let row = |(op, value, second, tries): &'static Row| {
        case(format!("seccomp/{op}-{value:#x}"), move |t: &Test| {
            for index in [0, 2, 5] {
                let argument = json!({"index": index, "op": op, "value": value, "valueTwo": second});
                let rules =
                    json!([{"names": ["munlockall"], "action": "SCMP_ACT_ERRNO", "args": [argument]}]);
                let calls = tries
                    .iter()
                    .map(|(arg, want)| (format!("syscall {MUNLOCKALL} {}{arg}", "0 ".repeat(index)), *want));
                let calls: Vec<_> = calls.collect();
                let table: Vec<_> = calls.iter().map(|(call, want)| (call.as_str(), *want)).collect();
                t.expect(t.bundle()?.rules(rules), &table)?;
            }
            Ok(())
        })
    };
    let mut all: Vec<Case> = ROWS.iter().map(row).collect();
    all.extend([
        case("seccomp/arguments-of-a-rule-are-all-needed", |t| {
            let args = json!([{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}, {"index": 1, "op": "SCMP_CMP_EQ", "value": 2}]);
            let rules = json!([{"names": ["munlockall"], "action": "SCMP_ACT_ERRNO", "args": args}]);
            let one = |args: &str| format!("syscall {MUNLOCKALL} {args}");
            t.expect(t.bundle()?.rules(rules), &[(&one("1 2"), "EPERM"), (&one("1 3"), "ok"), (&one("0 2"), "ok")]).map(drop)
        }),
        case("seccomp/rules-of-a-call-are-alternatives", |t| {
            let rule = |value: i32| json!({"names": ["munlockall"], "action": "SCMP_ACT_ERRNO", "errnoRet": value,
                "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": value}]});
            let one = |value: i32| format!("syscall {MUNLOCKALL} {value}");
            let table = [(&*one(1), "EPERM"), (&*one(13), "EACCES"), (&*one(22), "EINVAL"), (&*one(3), "ok")];
            t.expect(t.bundle()?.rules(json!([rule(1), rule(13), rule(22)])), &table).map(drop)
        }),
        case("seccomp/one-argument-twice-is-either", |t| {
            let args = json!([{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}, {"index": 0, "op": "SCMP_CMP_EQ", "value": 2}]);
            let rules = json!([{"names": ["munlockall"], "action": "SCMP_ACT_ERRNO", "args": args}]);
            let one = |value: i32| format!("syscall {MUNLOCKALL} {value}");
            t.expect(t.bundle()?.rules(rules), &[(&one(1), "EPERM"), (&one(2), "EPERM"), (&one(3), "ok")]).map(drop)
        }),
    ]);
    all
}

fn profiles() -> Vec<Case> {
    vec![
        case("seccomp/docker-default-profile", docker),
        case("seccomp/docker-default-profile-with-busybox", |t| {
            let Some(from) = &t.host.busybox else { return Err("no busybox".into()) };
            let b = t
                .bundle()?
                .set("/root/path", json!(from))
                .set("/linux/seccomp", serde_json::from_str(DOCKER)?);
            let b = b.args(&[
                "sh",
                "-c",
                "ls / | head -3 >/dev/null; (echo sub) | cat; unshare -n true || echo refused",
            ]);
            let done = t.run(&b)?;
            check!(done.ok()?.stdout.contains("sub") && done.stdout.contains("refused"), "{done}");
            Ok(())
        })
        .needs(&[Need::Busybox]),
        case("seccomp/profile-older-than-the-runtime", older_profile)
            .runc("uses statx(2) under the filter without a way round it")
            .crun("exec looks at /proc/self/setgroups under the filter"),
        case("seccomp/profile-without-getcwd", |t| {
            let b = t.bundle()?.set("/process/noNewPrivileges", json!(false));
            let b = b.rules(json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]));
            t.run(&b.probe("exit 0"))?.ok().map(drop)
        })
        .runc("looks at its working directory under the filter"),
        case("seccomp/foreign-gate-is-closed", |t| {
            // Only x86_64 is named: the 32-bit gate and x32 numbers must not be ways round the filter.
            let b = t.bundle()?.set(
                "/linux/seccomp",
                json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                    "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]
                }),
            );
            let b = b.probe("print alive -- try int80 64 -- print passed");
            let done = t.run(&b)?;
            check!(!done.stdout.contains("\"ok\""), "the call went through the other gate: {}", done.stdout);
            Ok(())
        })
        .needs(&[Need::Runtime("corten")]),
        case("seccomp/32-bit-gate-has-the-same-rules", |t| {
            let b = t.bundle()?.set(
                "/linux/seccomp",
                json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                    "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]
                }),
            );
            // 64 is getppid and 20 getpid there.
            let done = t.run(&b.tries(["int80 20", "int80 64"]))?;
            // Where there is no such gate (User Mode Linux) 20 may be another call, which does not answer our pid, 1.
            let answered = |first: &str| first.contains("\"ok\"") && first.contains("\"data\":1");
            if done.code != 0 || !done.stdout.lines().next().is_some_and(answered) {
                return Err(crate::harness::case::Trouble::NotRun("the kernel has no 32-bit gate".into()));
            }
            t.compare(&done.stdout, &[("int80 20", "ok"), ("int80 64", "EACCES")]).map(drop)
        }),
        case("seccomp/empty-is-none", |t| {
            t.report(&t.bundle()?.set("/linux/seccomp", json!({})))?.is("/seccomp", "0")
        })
        .crun("demands a default action"),
    ]
}

/// Docker's profile as it was before the calls that runtimes like to use, and without no_new_privs: the filter is in place
/// before the runtime's last steps.
fn older_profile(t: &Test) -> Verdict {
    const LATER: [&str; 8] = [
        "openat2",
        "faccessat2",
        "statx",
        "close_range",
        "clone3",
        "pidfd_open",
        "pidfd_send_signal",
        "rseq",
    ];
    let mut profile: Value = serde_json::from_str(DOCKER)?;
    for rule in profile["syscalls"].as_array_mut().into_iter().flatten() {
        if let Some(names) = rule["names"].as_array_mut() {
            names.retain(|name| !LATER.iter().any(|later| name == later));
        }
    }
    let b = t.bundle()?.set("/linux/seccomp", profile).set("/process/noNewPrivileges", json!(false));
    let b = b.set("/process/args", json!(["probe", "forever"])).set("/process/env", json!(["PATH=/bin:/"]));
    t.launch(&b)?;
    let done = t.exec(&b, "", "probe report")?;
    let report = Report::read(&done.ok()?.stdout)?;
    let fds: Vec<_> = report.at("/fds").as_object().into_iter().flat_map(|all| all.keys().cloned()).collect();
    same("descriptors", fds, vec!["0", "1", "2"])
}

fn docker(t: &Test) -> Verdict {
    const CAPS: [&str; 14] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ];
    let b = t.bundle()?.grants(&CAPS).set("/linux/seccomp", serde_json::from_str(DOCKER)?);
    let b = b.set("/process/noNewPrivileges", json!(false));
    let (vsock, clone3) = (format!("syscall {} 40 1 0", libc::SYS_socket), call(libc::SYS_clone3));
    let (inet, unix) =
        (format!("syscall {} 2 1 0", libc::SYS_socket), format!("syscall {} 1 1 0", libc::SYS_socket));
    let persona = |value: &str| format!("syscall {} {value}", libc::SYS_personality);
    let table = [
        (call(libc::SYS_getpid), "ok"),
        (inet, "ok"),
        (unix, "ok"),
        (vsock, "EPERM"),
        (clone3, "ENOSYS"),
        ("unshare 0x10000000".into(), "EPERM"),
        ("unshare 0x20000".into(), "EPERM"),
        ("mount tmpfs /tmp".into(), "EPERM"),
        ("umount /proc".into(), "EPERM"),
        (call(libc::SYS_bpf), "EPERM"),
        (call(libc::SYS_keyctl), "EPERM"),
        (call(libc::SYS_reboot), "EPERM"),
        (call(libc::SYS_userfaultfd), "EPERM"),
        (call(libc::SYS_io_uring_setup), "EPERM"),
        (call(libc::SYS_perf_event_open), "EPERM"),
        (persona("0xffffffff"), "ok"),
        (persona("0x8"), "ok"),
        (persona("0x40000"), "EPERM"),
        ("chroot /tmp".into(), "ok"),
    ];
    let table: Vec<_> = table.iter().map(|(op, want)| (op.as_str(), *want)).collect();
    t.expect(b, &table).map(drop)
}

fn loading() -> Vec<Case> {
    let combination = |nnp: Option<bool>, admin: bool| {
        let name = format!(
            "seccomp/loads-with-nnp-{}-admin-{admin}",
            nnp.map_or("absent".into(), |n| n.to_string())
        );
        case(name, move |t: &Test| {
            let rules = json!([{"names": ["munlockall"], "action": "SCMP_ACT_ERRNO"}]);
            let b = t.bundle()?.rules(rules).grants(if admin { &["SYS_ADMIN"] } else { &["CHOWN"] });
            let b = match nnp {
                Some(value) => b.set("/process/noNewPrivileges", json!(value)),
                None => b.remove("/process/noNewPrivileges"),
            };
            let r = t.report(&b)?;
            r.is("/seccomp", "2")?;
            r.is("/no_new_privs", if nnp == Some(true) { "1" } else { "0" })?;
            let user = b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
            t.report(&user)?.is("/seccomp", "2")
        })
    };
    let all = [None, Some(false), Some(true)];
    let mut all: Vec<Case> =
        all.into_iter().flat_map(|nnp| [combination(nnp, false), combination(nnp, true)]).collect();
    all.extend([
        flags("none", json!([])),
        flags("log", json!(["SECCOMP_FILTER_FLAG_LOG"])),
        flags("spec-allow", json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"])),
        flags("tsync", json!(["SECCOMP_FILTER_FLAG_TSYNC"])),
        flags(
            "all",
            json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        ),
        case("seccomp/denying-what-only-the-runtime-needs", |t| {
            // With no_new_privs the filter comes last: the profile need not allow the runtime's own set-up calls.
            let names = json!([
                "setuid",
                "setgid",
                "setgroups",
                "setresuid",
                "setresgid",
                "capset",
                "mount",
                "pivot_root",
                "umount2",
                "unshare",
                "setns",
                "sethostname",
                "chroot",
                "mknodat",
                "symlinkat",
                "mkdirat"
            ]);
            let rules = json!([{"names": names, "action": "SCMP_ACT_KILL_PROCESS"}]);
            let b = t.bundle()?.rules(rules).set("/process/user", json!({"uid": 1000, "gid": 1000}));
            t.report(&b)?.is("/seccomp", "2")
        }),
    ]);
    all
}

fn flags(name: &str, flags: Value) -> Case {
    case(format!("seccomp/flags-{name}"), move |t: &Test| {
        let b = t.bundle()?.rules(json!([{"names": ["munlockall"], "action": "SCMP_ACT_ERRNO"}]));
        let b = b.set("/linux/seccomp/flags", flags.clone());
        t.expect(b, &[(&call(MUNLOCKALL), "EPERM")]).map(drop)
    })
}

fn notifying(b: Bundle, socket: &str) -> Bundle {
    let b = b.rules(json!([{"names": ["munlockall"], "action": "SCMP_ACT_NOTIFY"}]));
    b.set("/linux/seccomp/listenerPath", json!(socket))
        .set("/linux/seccomp/listenerMetadata", json!("for-the-agent"))
}

fn notify() -> Vec<Case> {
    let answered = |name: &str, nnp: bool| {
        case(name.to_owned(), move |t: &Test| {
            let agent = Agent::listen(&t.path("agent"), 1, libc::ENOANO)?;
            let b = notifying(t.bundle()?, &t.file("agent")).set("/process/noNewPrivileges", json!(nnp));
            t.expect(b.clone(), &[(&call(MUNLOCKALL), "ENOANO"), (&call(GETPPID), "ok")])?;
            let message = agent.join()?;
            same("fds", &message["fds"], &json!(["seccompFd"]))?;
            same("metadata", &message["metadata"], "for-the-agent")?;
            same("state.id", &message["state"]["id"], b.id.as_str())?;
            same("state.status", &message["state"]["status"], "creating")?;
            same("state.bundle", &message["state"]["bundle"], &*b.dir.to_string_lossy())?;
            check!(message["pid"].as_i64() > Some(0), "pid is {}", message["pid"]);
            check!(message["ociVersion"].is_string(), "ociVersion is {}", message["ociVersion"]);
            Ok(())
        })
    };
    vec![
        answered("seccomp/notify-with-nnp", true),
        answered("seccomp/notify-without-nnp", false),
        case("seccomp/notify-in-exec", |t| {
            let first = Agent::listen(&t.path("agent"), 0, 0)?;
            let b = notifying(t.bundle()?, &t.file("agent")).probe("forever");
            t.launch(&b)?;
            first.join()?;
            let second = Agent::listen(&t.path("agent"), 1, libc::ENOANO)?;
            let done = t.exec(&b, "", &format!("/probe try {}", call(MUNLOCKALL)))?;
            t.compare(&done.ok()?.stdout, &[(&call(MUNLOCKALL), "ENOANO")])?;
            same("state.status", &second.join()?["state"]["status"], "running")
        }),
        case("seccomp/notify-without-an-agent", |t| {
            let (b, before) = (notifying(t.bundle()?, &t.file("nobody")), t.snapshot());
            let text = "failed to connect with seccomp agent|nobody|listenerPath";
            t.run(&b)?.refuses(&[text, "no such file or directory|ENOENT"])?;
            t.unchanged_since(&before)
        }),
        case("seccomp/notify-for-write-is-refused", |t| {
            let b = notifying(t.bundle()?, &t.file("agent"));
            let b = b.set("/linux/seccomp/syscalls/0/names", json!(["write"]));
            t.run(&b)?.refuses(&["SCMP_ACT_NOTIFY cannot be used for the write syscall"]).map(drop)
        })
        .crun("does not refuse it"),
        case("seccomp/notify-as-default-is-refused", |t| {
            let b = notifying(t.bundle()?, &t.file("agent"));
            let b = b.set("/linux/seccomp/defaultAction", json!("SCMP_ACT_NOTIFY"));
            t.run(&b)?.refuses(&["SCMP_ACT_NOTIFY"]).map(drop)
        })
        .crun("does not refuse it"),
    ]
}
