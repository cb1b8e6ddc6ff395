// SPDX-License-Identifier: Apache-2.0
//! config.md, "Process": user, capabilities, limits, scheduling, and the other properties of a Linux process.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::sys;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = settings();
    all.extend(capabilities());
    all.extend(others());
    all
}

type Setting = (&'static str, &'static str, &'static str, &'static str, &'static str);
const SETTINGS: [Setting; 29] = [
    ("user-uid-gid", "/process/user", r#"{"uid":1000,"gid":2000}"#, "/uid", "[1000,1000,1000,1000]"),
    ("user-gid", "/process/user", r#"{"uid":1000,"gid":2000}"#, "/gid", "[2000,2000,2000,2000]"),
    ("user-unnamed", "/process/user", r#"{"uid":4294967294,"gid":5}"#, "/uid/1", "4294967294"),
    ("groups", "/process/user", r#"{"uid":1,"gid":2,"additionalGids":[5,9]}"#, "/groups", "[5,9]"),
    ("groups-none", "/process/user", r#"{"uid":1,"gid":2}"#, "/groups", "[]"),
    ("groups-of-root", "/process/user", r#"{"uid":0,"gid":0,"additionalGids":[]}"#, "/groups", "[]"),
    ("umask", "/process/user", r#"{"uid":0,"gid":0,"umask":63}"#, "/umask", r#""0077""#),
    ("umask-0", "/process/user", r#"{"uid":0,"gid":0,"umask":0}"#, "/umask", r#""0000""#),
    ("umask-default", "/process/user", r#"{"uid":0,"gid":0}"#, "/umask", r#""0022""#),
    ("nnp-true", "/process/noNewPrivileges", "true", "/no_new_privs", r#""1""#),
    ("nnp-false", "/process/noNewPrivileges", "false", "/no_new_privs", r#""0""#),
    ("oom-score", "/process/oomScoreAdj", "321", "/oom_score_adj", r#""321""#),
    ("hostname", "/hostname", r#""box.example""#, "/hostname", r#""box.example""#),
    ("domainname", "/domainname", r#""example.org""#, "/domainname", r#""example.org""#),
    ("personality", "/linux/personality", r#"{"domain":"LINUX32"}"#, "/personality", "8"),
    ("personality-linux", "/linux/personality", r#"{"domain":"LINUX"}"#, "/personality", "0"),
    ("nice", "/process/scheduler", r#"{"policy":"SCHED_OTHER","nice":5}"#, "/sched/nice", "5"),
    ("sched-batch", "/process/scheduler", r#"{"policy":"SCHED_BATCH","nice":7}"#, "/sched/policy", "3"),
    ("sched-idle", "/process/scheduler", r#"{"policy":"SCHED_IDLE"}"#, "/sched/policy", "5"),
    ("sched-rr", "/process/scheduler", r#"{"policy":"SCHED_RR","priority":9}"#, "/sched/priority", "9"),
    ("sched-fifo", "/process/scheduler", r#"{"policy":"SCHED_FIFO","priority":3}"#, "/sched/policy", "1"),
    (
        "sched-reset-on-fork",
        "/process/scheduler",
        r#"{"policy":"SCHED_BATCH","flags":["SCHED_FLAG_RESET_ON_FORK"]}"#,
        "/sched/flags",
        "1",
    ),
    (
        "sched-deadline",
        "/process/scheduler",
        r#"{"policy":"SCHED_DEADLINE","runtime":10000000,"deadline":30000000,"period":40000000}"#,
        "/sched/period",
        "40000000",
    ),
    ("ioprio-be", "/process/ioPriority", r#"{"class":"IOPRIO_CLASS_BE","priority":6}"#, "/ioprio/data", "6"),
    (
        "ioprio-be-class",
        "/process/ioPriority",
        r#"{"class":"IOPRIO_CLASS_BE","priority":6}"#,
        "/ioprio/class",
        "2",
    ),
    (
        "ioprio-idle",
        "/process/ioPriority",
        r#"{"class":"IOPRIO_CLASS_IDLE","priority":0}"#,
        "/ioprio/class",
        "3",
    ),
    ("ioprio-rt", "/process/ioPriority", r#"{"class":"IOPRIO_CLASS_RT","priority":1}"#, "/ioprio/class", "1"),
    ("affinity", "/process/execCPUAffinity", "{}", "/ppid", "0"),
    ("console-size-without-terminal", "/process/consoleSize", r#"{"height":3,"width":4}"#, "/tty", "null"),
];

/// A value set in the configuration, and what the process then sees: `[name, pointer, value, seen at, seen value]`.
fn settings() -> Vec<Case> {
    let row = |(name, pointer, value, seen_at, seen): &'static Setting| {
        case(format!("process/{name}"), move |t: &Test| {
            let b = t.bundle()?.set(pointer, serde_json::from_str(value)?);
            t.report(&b)?.is(seen_at, serde_json::from_str::<Value>(seen)?)
        })
        .needs(match *name {
            // Where the kernel schedules real-time tasks by group, a new group has no budget for them.
            "sched-rr" | "sched-fifo" => &[Need::NoController("cpu")],
            _ => &[],
        })
    };
    SETTINGS.iter().map(row).collect()
}

const SYS_RESOURCE: u8 = 24;

const SETS: [&str; 5] = ["bounding", "permitted", "effective", "inheritable", "ambient"];

fn capabilities() -> Vec<Case> {
    [capability_sets(), capability_warnings()].into_iter().flatten().collect()
}

fn capability_sets() -> Vec<Case> {
    vec![
        case("capabilities/five-sets-exactly", |t| {
            let b = t.bundle()?.capabilities("bounding", &["CHOWN", "KILL", "SETUID", "NET_RAW", "MKNOD"]);
            let b = b.capabilities("permitted", &["CHOWN", "KILL", "SETUID", "NET_RAW"]);
            let b = b
                .capabilities("effective", &["CHOWN", "KILL"])
                .capabilities("inheritable", &["KILL", "SETUID"]);
            let b = b.capabilities("ambient", &["KILL"]).set("/process/user/uid", json!(1000));
            let r = t.report(&b)?;
            r.is(
                "/caps/bounding",
                json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW", "CAP_MKNOD"]),
            )?;
            r.is("/caps/inheritable", json!(["CAP_KILL", "CAP_SETUID"]))?;
            // For a user other than root, exec keeps what is ambient and nothing else.
            for set in ["permitted", "effective", "ambient"] {
                r.is(&format!("/caps/{set}"), json!(["CAP_KILL"]))?;
            }
            Ok(())
        }),
        case("capabilities/of-root", |t| {
            let r = t.report(&t.bundle()?.grants(&["CHOWN", "SYS_ADMIN"]))?;
            for set in ["bounding", "permitted", "effective"] {
                r.is(&format!("/caps/{set}"), json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]))?;
            }
            r.is("/caps/inheritable", json!([]))?;
            r.is("/caps/ambient", json!([]))
        }),
        case("capabilities/none-when-all-are-empty", |t| {
            let b =
                SETS.iter().try_fold(t.bundle()?, |b, set| Ok::<Bundle, String>(b.capabilities(set, &[])))?;
            let r = t.report(&b)?;
            SETS.iter().try_for_each(|set| r.is(&format!("/caps/{set}"), json!([])))
        }),
        case("capabilities/none-when-absent", |t| {
            let r = t.report(&t.bundle()?.remove("/process/capabilities"))?;
            SETS.iter().try_for_each(|set| r.is(&format!("/caps/{set}"), json!([])))
        })
        .runc("keeps all of its own"),
        case("capabilities/of-a-user-without-ambient", |t| {
            let b = t.bundle()?.grants(&["CHOWN"]).set("/process/user/uid", json!(1000));
            let r = t.report(&b)?;
            r.is("/caps/bounding", json!(["CAP_CHOWN"]))?;
            r.is("/caps/permitted", json!([]))?;
            r.is("/caps/effective", json!([]))
        }),
    ]
}

fn capability_warnings() -> Vec<Case> {
    vec![
        case("capabilities/unknown-name-is-only-warned-of", |t| {
            // config.md: "SHOULD NOT fail if the capability cannot be granted; SHOULD log a warning".
            let b = t.bundle()?.grants(&["CHOWN", "NO_SUCH_THING"]);
            let done = t.run(&b)?;
            let r = crate::harness::report::Report::read(&done.ok()?.stdout)?;
            r.is("/caps/effective", json!(["CAP_CHOWN"]))?;
            check!(done.stderr.contains("NO_SUCH_THING"), "no warning names it: {:?}", done.stderr);
            Ok(())
        })
        .crun("does not warn"),
        case("capabilities/ambient-needs-inheritable", |t| {
            let b = t.bundle()?.grants(&["KILL"]).capabilities("ambient", &["KILL"]);
            let done = t.run(&b)?;
            let r = crate::harness::report::Report::read(&done.ok()?.stdout)?;
            r.is("/caps/ambient", json!([]))?;
            check!(
                done.stderr.contains("can't raise ambient capability CAP_KILL"),
                "stderr is {:?}",
                done.stderr
            );
            Ok(())
        })
        .crun("does not warn"),
        case("capabilities/every-known-one-may-be-named", |t| {
            let all = t.cli("features")?.ok()?.json()?["linux"]["capabilities"].clone();
            let names: Vec<_> = all.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            check!(names.len() >= 41, "features knows {} capabilities", names.len());
            let names: Vec<_> = names.iter().filter_map(|name| name.strip_prefix("CAP_")).collect();
            let r = t.report(&t.bundle()?.grants(&names))?;
            let own = std::fs::read_to_string("/proc/self/status")?;
            let own = own.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).unwrap_or("0").to_owned();
            let count = u64::from_str_radix(&own, 16).unwrap_or(0).count_ones() as usize;
            same("effective capabilities", r.at("/caps/effective").as_array().map(Vec::len), Some(count))
        })
        .needs(&[Need::Capability(SYS_RESOURCE)]),
        case("capabilities/that-cannot-be-granted-are-only-warned-of", |t| {
            let done = t.run(&t.bundle()?.grants(&["CHOWN", "SYS_RESOURCE"]))?;
            let r = crate::harness::report::Report::read(&done.ok()?.stdout)?;
            r.is("/caps/effective", json!(["CAP_CHOWN"]))?;
            check!(done.stderr.contains("SYS_RESOURCE"), "no warning names it: {:?}", done.stderr);
            Ok(())
        })
        .needs(&[Need::NoCapability(SYS_RESOURCE)])
        .both("refuses it"),
    ]
}

/// A deadline task is one of all CPUs of its root domain (sched(7)).
fn deadline_on_one_cpu(t: &Test) -> Verdict {
    if std::thread::available_parallelism()?.get() == 1 {
        return Err(Trouble::NotRun("one CPU is all".into()));
    }
    let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 30_000_000, "period": 40_000_000});
    let b = t.bundle()?.set("/process/scheduler", deadline);
    let b = b.set("/linux/resources/cpu", json!({"cpus": "0", "mems": "0"}));
    let done = t.run(&b)?;
    done.refuses(&["process scheduler can't be used together with AllowedCPUs"])?;
    if t.host.name == "corten" {
        done.refuses(&["/process/scheduler", "sched_setattr", "EPERM"])?;
    }
    Ok(())
}

fn others() -> Vec<Case> {
    let deadline = case("process/sched-deadline-on-one-cpu", deadline_on_one_cpu)
        .needs(&[Need::Controller("cpuset")])
        .crun("says only that sched_setattr is not permitted");
    [vec![deadline], limits(), keyrings_and_sysctls()].into_iter().flatten().collect()
}

fn limits() -> Vec<Case> {
    vec![
        case("rlimits/every-type", every_rlimit),
        case("rlimits/raising-the-hard-limit", |t| {
            let b = t.bundle()?;
            let limit = json!([{"type": "RLIMIT_NOFILE", "soft": 1_000_000, "hard": 1_048_576}]);
            let r = t.report(&b.set("/process/rlimits", limit))?;
            r.is("/rlimits/RLIMIT_NOFILE", json!([1_000_000, 1_048_576]))
        })
        .needs(&[Need::Capability(SYS_RESOURCE)]),
        case("rlimits/tiny-nofile", |t| {
            // runc#1914: the runtime itself must not stumble over what is for the process.
            let b = t.bundle()?.probe("print alive");
            for soft in [3, 4, 8, 16] {
                let limit = json!([{"type": "RLIMIT_NOFILE", "soft": soft, "hard": 16}]);
                let done = t.run(&b.clone().set("/process/rlimits", limit))?;
                if done.code == 0 {
                    done.prints("alive")?;
                } else {
                    done.refuses(&["too many open files|EMFILE"])?;
                }
            }
            Ok(())
        })
        .crun("leaves its cgroup behind"),
        case("process/oom-score-lowered", |t| {
            t.report(&t.bundle()?.set("/process/oomScoreAdj", json!(-500)))?.is("/oom_score_adj", "-500")
        })
        .needs(&[Need::Capability(SYS_RESOURCE)]),
    ]
}

fn keyrings_and_sysctls() -> Vec<Case> {
    vec![
        case("keyring/is-new-and-named-after-the-container", |t| {
            let b = t.bundle()?;
            let r = t.report(&b)?;
            let name = r.text("/keyring");
            check!(name.contains(&format!(";_ses.{}", b.id)), "the session keyring is {name:?}");
            Ok(())
        })
        .crun("names it after the id alone"),
        case("keyring/planted-before-is-not-taken", |t| {
            // Whoever guesses the name of a keyring that others may search is in it, and what is put there is his.
            let b = t.bundle()?;
            let planted = format!("_ses.{}", b.id);
            let key = sys::searchable_keyring(&planted).map_err(std::io::Error::from_raw_os_error)?;
            let description = t.report(&b)?.text("/keyring").to_owned();
            sys::revoke(key);
            check!(!description.ends_with(&format!(";{planted}")), "the session keyring is {description:?}");
            Ok(())
        })
        .runc("takes the name that everybody knows"),
        case("keyring/name-does-not-follow-from-the-mark-on-the-groups", |t| {
            // Whoever sees the groups, and has CAP_SYS_ADMIN, reads their attributes.
            let b = t.bundle()?.probe("report -- forever");
            let own = t.launch(&b)?.report(t)?.text("/keyring").to_owned();
            check!(own.contains(&b.id), "the session keyring is {own:?}");
            for group in t.host.hierarchies().iter().map(|top| top.join(&b.id)) {
                for name in [c"trusted.corten", c"user.corten"] {
                    if let Ok(mark) = sys::attribute(&group, name) {
                        check!(!own.contains(&mark), "{} bears {mark:?} of {own:?}", group.display());
                    }
                }
            }
            Ok(())
        }),
        case("keyring/name-is-nobody-elses-to-read", |t| {
            // What another container of the same user, whose /proc/keys is not masked, would see.
            let b = t.bundle()?.probe("report -- forever");
            let own = t.launch(&b)?.report(t)?.text("/keyring").to_owned();
            check!(own.contains(&b.id), "the session keyring is {own:?}");
            let seen = std::fs::read_to_string("/proc/keys")?;
            check!(!seen.contains(&b.id), "/proc/keys shows {:?}", seen.lines().find(|l| l.contains(&b.id)));
            Ok(())
        })
        .both("lets the user view it"),
        case("keyring/kept-on-request", |t| {
            let b = t.bundle()?;
            let done = t.try_create("run --no-new-keyring", &b)?;
            let r = crate::harness::report::Report::read(&done.ok()?.stdout)?;
            check!(!r.text("/keyring").contains(&b.id), "the session keyring is {}", r.text("/keyring"));
            Ok(())
        }),
        case("keyring/of-exec-in-a-user-namespace-is-the-containers", |t| {
            let b = t.bundle()?.user_namespace().probe("report -- forever");
            let init = t.launch(&b)?.report(t)?;
            let done = t.exec(&b, "", "/probe report")?;
            let mine = crate::harness::report::Report::read(&done.ok()?.stdout)?;
            same("the session keyring", mine.text("/keyring"), init.text("/keyring"))
        })
        .runc("exec makes one more")
        .crun("exec joins no keyring"),
        case("keyring/of-exec-is-the-containers", |t| {
            let b = t.bundle()?.probe("report -- forever");
            let init = t.launch(&b)?.report(t)?;
            let done = t.exec(&b, "", "/probe report")?;
            let mine = crate::harness::report::Report::read(&done.ok()?.stdout)?;
            same("the session keyring", mine.text("/keyring"), init.text("/keyring"))
        })
        .crun("exec joins no keyring"),
        case("sysctl/of-new-namespaces", sysctls),
        case("sysctl/path-with-slashes", |t| {
            let b = t.bundle()?.set("/linux/sysctl", json!({"net/ipv4/ip_forward": "1"}));
            t.expect(b, &[("read /proc/sys/net/ipv4/ip_forward", "ok")])
                .and_then(|got| same("it", &got[0], "1"))
        }),
        case("process/exe-cannot-be-written-to", |t| {
            // CVE-2019-5736: what the container can reach of the runtime through /proc/PID/exe must be sealed.
            let b = t.bundle()?;
            t.create(&b)?;
            let exe = format!("/proc/{}/exe", t.pid(&b)?);
            let written = std::fs::OpenOptions::new().write(true).open(&exe);
            let code = written.err().and_then(|error| error.raw_os_error());
            let known = [libc::EROFS, libc::ETXTBSY, libc::EPERM, libc::EACCES];
            check!(code.is_some_and(|code| known.contains(&code)), "opening {exe} for writing gave {code:?}");
            Ok(())
        }),
    ]
}

/// Lower than any usual limit, so that no privilege is needed.
fn every_rlimit(t: &Test) -> Verdict {
    const LIMITS: [(&str, u64, u64); 16] = [
        ("RLIMIT_AS", 1 << 33, 1 << 34),
        ("RLIMIT_CORE", 0, 4096),
        ("RLIMIT_CPU", 100, 200),
        ("RLIMIT_DATA", 1 << 31, 1 << 32),
        ("RLIMIT_FSIZE", 1 << 20, 1 << 30),
        ("RLIMIT_LOCKS", 5, 6),
        ("RLIMIT_MEMLOCK", 4096, 65536),
        ("RLIMIT_MSGQUEUE", 1000, 2000),
        ("RLIMIT_NICE", 0, 0),
        ("RLIMIT_NOFILE", 33, 44),
        ("RLIMIT_NPROC", 400, 500),
        ("RLIMIT_RSS", 1 << 30, 1 << 31),
        ("RLIMIT_RTPRIO", 0, 0),
        ("RLIMIT_RTTIME", 1000, u64::MAX),
        ("RLIMIT_SIGPENDING", 10, 20),
        ("RLIMIT_STACK", 1 << 20, 1 << 22),
    ];
    let list = LIMITS.iter().map(|(name, soft, hard)| json!({"type": name, "soft": soft, "hard": hard}));
    let r = t.report(&t.bundle()?.set("/process/rlimits", list.collect()))?;
    LIMITS.iter().try_for_each(|(name, soft, hard)| r.is(&format!("/rlimits/{name}"), json!([soft, hard])))
}

fn sysctls(t: &Test) -> Verdict {
    const KEYS: [(&str, &str); 6] = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ping_group_range", "0\t5"),
        ("kernel.shmmni", "99"),
        ("kernel.msgmax", "5000"),
        ("kernel.sem", "200\t3000\t40\t50"),
        ("fs.mqueue.msg_max", "7"),
    ];
    let map: serde_json::Map<_, _> =
        KEYS.iter().map(|(key, value)| (key.to_string(), json!(value.replace('\t', " ")))).collect();
    let b = t.bundle()?.set("/linux/sysctl", map.into());
    let paths: Vec<_> =
        KEYS.iter().map(|(key, _)| format!("read /proc/sys/{}", key.replace('.', "/"))).collect();
    let table: Vec<_> = paths.iter().map(|path| (path.as_str(), "ok")).collect();
    let got = t.expect(b, &table)?;
    KEYS.iter().zip(got).try_for_each(|((key, want), got)| same(key, got, *want))
}
