// SPDX-License-Identifier: Apache-2.0
//! Without root: a user with its own id alone, a user with ranges, root of a user namespace; with and without
//! permission for cgroups.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use serde_json::json;

use crate::check;
use crate::harness::case::{Case, Trouble, case, same};
use crate::harness::console::Receiver;
use crate::harness::host::Need;
use crate::harness::report::Report;
use crate::harness::terminal::Terminal;
use crate::harness::user::{ID, RANGE, User, give};

/// The chapter.
pub fn cases() -> Vec<Case> {
    [ids(), helpers(), lives(), processes(), inside()].into_iter().flatten().collect()
}

fn ids() -> Vec<Case> {
    vec![
        case("rootless/own-id-alone", |t| {
            let r = User::new(t).and_then(|u| u.report(&u.bundle()?))?;
            r.is("/uid_map", json!([format!("0 {ID} 1")]))?;
            r.is("/gid_map", json!([format!("0 {ID} 1")]))?;
            r.is("/uid/0", 0)?;
            r.is("/gid/0", 0)
        }),
        case("rootless/setgroups-is-denied-with-the-own-group-alone", |t| {
            let u = User::new(t)?;
            let done = u.run(&u.bundle()?.tries(["read /proc/self/setgroups"]))?;
            t.compare(&done.ok()?.stdout, &[("read /proc/self/setgroups", "ok")])?;
            check!(done.stdout.contains("deny"), "{}", done.stdout);
            Ok(())
        }),
        case("rootless/no-user-namespace-is-refused", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.without_namespace("user").remove("/linux/uidMappings");
            u.run(&b.remove("/linux/gidMappings"))?
                .refuses(&["rootless container requires user namespaces"])?;
            Ok(())
        })
        .crun("F11: makes a user namespace that nobody asked for"),
        case("rootless/additional-groups-are-refused-without-a-range", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.set("/process/user/additionalGids", json!([5]));
            u.run(&b)?.refuses(&["additional groups|group id 5 is not mapped"])?;
            Ok(())
        })
        .crun("leaves them out in silence"),
        case("rootless/another-users-id-is-refused", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.set("/linux/uidMappings/0/hostID", json!(0));
            let done = u.run(&b)?;
            check!(done.code != 0 && done.stderr.contains("newuidmap"), "{done}");
            Ok(())
        })
        .runc("fails for another reason"),
        case("rootless/unmapped-user-is-refused", |t| {
            let u = User::new(t)?;
            u.run(&u.bundle()?.set("/process/user/uid", json!(1000)))?
                .refuses(&["mapped|invalid argument"])?;
            Ok(())
        })
        .runc("at times: two lines of error"),
    ]
}

fn helpers() -> Vec<Case> {
    let bundle = |u: &User, ops: &str| u.bundle().map(|b| u.wide(b).probe(ops));
    vec![
        case("rootless/a-range-by-newuidmap", move |t| {
            let u = User::new(t)?.with_ranges()?;
            let b = bundle(&u, "report -- forever")?.set("/process/user", json!({"uid": 1000, "gid": 1000}));
            let r = u.launch(&b)?.report(t)?;
            r.is("/uid_map", json!([format!("0 {ID} 1"), format!("1 {RANGE} 65536")]))?;
            r.is("/uid/0", 1000)?;
            let owner = fs::metadata(format!("/proc/{}", t.pid(&b)?))?.uid();
            same("its user outside", owner, RANGE + 999)
        }),
        case("rootless/additional-groups-of-a-range", move |t| {
            let u = User::new(t)?.with_ranges()?;
            let b = bundle(&u, "report")?.set("/process/user/additionalGids", json!([5, 10]));
            u.report(&b)?.is("/groups", json!([5, 10]))
        })
        .runc("refuses them always"),
        case("rootless/a-range-that-is-not-ours", move |t| {
            let u = User::new(t)?.with_ranges()?;
            let b = bundle(&u, "report")?.set("/linux/uidMappings/1/hostID", json!(RANGE + 70_000));
            u.run(&b)?.refuses(&["newuidmap", "not allowed", "uidMappings"])?;
            Ok(())
        })
        .both("several lines, some of them about pipes"),
        case("rootless/without-newuidmap", move |t| {
            let u = User::new(t)?;
            let mut command = u.bundle_command("run", &bundle(&u, "report")?)?;
            command.env("PATH", "/nonexistent:relative::.");
            t.complete(command)?.refuses(&["newuidmap", "uidMappings"])?;
            Ok(())
        })
        .both("does not say what is missing"),
        case("rootless/a-helper-that-fails", move |t| {
            let u = User::new(t)?;
            let dir = t.path("bin");
            fs::create_dir(&dir)?;
            fs::write(dir.join("newuidmap"), "#!/bin/sh\necho \"go away: $*\" >&2\nexit 7\n")?;
            fs::set_permissions(dir.join("newuidmap"), fs::Permissions::from_mode(0o755))?;
            let mut command = u.bundle_command("run", &bundle(&u, "report")?)?;
            command.env("PATH", format!("{}:/usr/bin:/bin", dir.display()));
            let words = format!("0 {ID} 1 1 {RANGE} 65536");
            t.complete(command)?.refuses(&["go away", &words, "exit status 7", "set-user-id"])?;
            Ok(())
        })
        .both("its words come on a line of their own"),
    ]
}

fn lives() -> Vec<Case> {
    vec![
        case("rootless/pipes-of-one-page", |t| {
            // The kernel bounds who is not root (R14): beyond this many pages a user's new pipes hold one page, or two.
            let bound = "/proc/sys/fs/pipe-user-pages-soft";
            if !t.host.alone {
                return Err(Trouble::NotRun(format!("{bound} is the whole machine's, and others use it")));
            }
            let before = fs::read_to_string(bound)?;
            t.at_end(move || _ = fs::write(bound, before));
            fs::write(bound, "1")?;
            let u = User::new(t)?;
            let large = u.bundle()?.file("large", &"x".repeat(300_000))?;
            let read = format!("try read {}", large.rootfs("large").display());
            let hooked = large.probe("print up -- forever").hook("createRuntime", &read)?;
            u.launch(&hooked)?.lines(t, 1)?;
            same("an exec", u.cli(&format!("exec {} /probe exit 6", hooked.id))?.code, 6)?;
            let failed = u.run(&u.bundle()?.args(&[&"x".repeat(100_000)]))?;
            check!(failed.code != 0 && failed.stderr.len() > 20, "{failed}");
            u.cli(&format!("delete --force {}", hooked.id))?.ok().map(drop)
        }),
        case("rootless/a-whole-life", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.probe("forever");
            u.launch(&b)?;
            let id = &b.id;
            let state = u.cli(&format!("state {id}"))?.ok()?.json()?;
            check!(state["status"] == "running", "{state}");
            let pid = state["pid"].as_i64().unwrap_or(0) as i32;
            check!(u.cli("list -q")?.ok()?.stdout.contains(id.as_str()), "it is not listed");
            let done = u.cli(&format!("exec {id} /probe report"))?;
            let r = Report::read(&done.ok()?.stdout)?;
            r.is("/uid/0", 0)?;
            r.is("/uid_map", json!([format!("0 {ID} 1")]))?;
            same(
                "its namespace",
                r.text("/ns/pid"),
                &*fs::read_link(format!("/proc/{pid}/ns/pid"))?.to_string_lossy(),
            )?;
            u.cli(&format!("kill {id} KILL"))?.ok()?;
            same("the exit code", t.exit_code(pid)?, 137)?;
            t.await_status(&b, "stopped")?;
            u.cli(&format!("delete {id}"))?.ok()?;
            check!(u.cli(&format!("state {id}"))?.code != 0, "it is still there");
            Ok(())
        }),
        case("rootless/spec-writes-what-runs", |t| {
            let u = User::new(t)?;
            let mut b = u.bundle()?;
            fs::remove_file(b.dir.join("config.json")).ok();
            give(&b.dir)?;
            let mut spec = u.bare();
            spec.current_dir(&b.dir).args(["spec", "--rootless"]);
            t.complete(spec)?.ok()?;
            b.config = serde_json::from_slice(&fs::read(b.dir.join("config.json"))?)?;
            let b = b.set("/process/terminal", json!(false)).probe("report");
            let r = u.report(&b)?;
            r.is("/uid_map", json!([format!("0 {ID} 1")]))?;
            r.mount("/sys")?.fstype("sysfs")?.has(&["ro"])?;
            r.mount("/dev/pts")?.fstype("devpts")?;
            Ok(())
        }),
        case("rootless/state-root-in-the-runtime-directory", |t| {
            let u = User::new(t)?;
            let run = t.path("run");
            fs::create_dir(&run)?;
            fs::set_permissions(&run, fs::Permissions::from_mode(0o700))?;
            give(&run)?;
            let b = u.bundle()?.probe("forever");
            b.write()?;
            give(&b.dir)?;
            let bare = |words: &[&str]| {
                let mut command = u.bare();
                command.env("XDG_RUNTIME_DIR", &run).args(words);
                command
            };
            let dir = b.dir.to_string_lossy().into_owned();
            t.complete(bare(&["run", "-d", "-b", &dir, &b.id]))?.ok()?;
            let root = run.join(&t.host.name);
            let mode = fs::metadata(&root)?.permissions().mode() & 0o7777;
            let there = root.join(&b.id).is_dir();
            t.complete(bare(&["kill", &b.id, "KILL"]))?.ok()?;
            t.complete(bare(&["delete", "--force", &b.id]))?.ok()?;
            check!(there, "{} holds no container", root.display());
            same("the root's mode", format!("{mode:o}"), "1700")
        })
        .crun("does not make it sticky"),
        case("rootless/terminal", |t| {
            let u = User::new(t)?;
            let receiver = Receiver::listen(&t.path("console"))?;
            give(&receiver.path)?;
            let b = u.bundle()?.set("/process/terminal", json!(true)).probe("report -- print the-end");
            let verb = format!("create --console-socket {}", receiver.path.display());
            t.complete(u.bundle_command(&verb, &b)?)?.ok()?;
            let Some(master) = receiver.receive()?.fds.pop() else { return Err("no master came".into()) };
            let mut terminal = Terminal::from_master(master)?;
            u.cli(&format!("start {}", b.id))?.ok()?;
            terminal.expect("\nthe-end")?;
            Report::read(&terminal.seen)?.is("/tty/controlling", true)
        }),
        case("rootless/hooks-on-both-sides", |t| {
            let u = User::new(t)?;
            let log = t.path("hooks");
            fs::write(&log, "")?;
            give(&log)?;
            let hook = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} $(id -u) >> {}", log.display())]}]);
            let mut b = u.bundle()?;
            for name in ["createRuntime", "createContainer", "poststart", "poststop"] {
                b = b.set(&format!("/hooks/{name}"), hook(name));
            }
            u.run(&b)?.ok()?;
            let text = fs::read_to_string(&log)?;
            let want = format!("createRuntime {ID}\ncreateContainer 0\npoststart {ID}\npoststop {ID}\n");
            same("what the hooks wrote", text, want)
        }),
        case("rootless/root-of-the-host-may-look-after-it", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.remove("/process/rlimits").probe("forever");
            u.launch(&b)?;
            t.has_status(&b, "running")?;
            // What its user wrote there would act with root's rights, until root has made the directory its own.
            let mut command = Command::new(&t.host.runtime);
            command.arg("--root").arg(&t.place.root).args(["state", &b.id]);
            let done = t.complete(command)?;
            check!(done.code != 0, "root obeyed somebody else's state: {done}");
            std::os::unix::fs::chown(&t.place.root, Some(0), Some(0))?;
            let mut command = Command::new("setpriv");
            command.args(["--groups", "4242,4243"]).arg(&t.host.runtime).arg("--root").arg(&t.place.root);
            command.args(["exec", &b.id, "/probe", "report"]);
            let r = Report::read(&t.complete(command)?.ok()?.stdout)?;
            r.is("/uid_map", json!([format!("0 {ID} 1")]))?;
            // Where setgroups is denied they could only be dropped before.
            r.is("/groups", json!([]))?;
            t.cli(&format!("kill {} KILL", b.id))?.ok()?;
            t.await_status(&b, "stopped")?;
            t.cli(&format!("delete {}", b.id))?.ok()?;
            Ok(())
        })
        .both("keeps the groups of its caller, unmapped")
        .needs(&[Need::File("/usr/bin/setpriv")]),
    ]
}

fn processes() -> Vec<Case> {
    vec![
        case("rootless/oom-score-may-be-raised", |t| {
            let u = User::new(t)?;
            let b =
                u.bundle()?.set("/process/oomScoreAdj", json!(321)).tries(["read /proc/self/oom_score_adj"]);
            let data = t.compare(&u.run(&b)?.ok()?.stdout, &[("read /proc/self/oom_score_adj", "ok")])?;
            same("oom_score_adj", &data[0], "321")
        }),
        case("rootless/oom-score-stays-if-it-cannot-be-lowered", |t| {
            let u = User::new(t)?;
            let done = u.run(&u.bundle()?.set("/process/oomScoreAdj", json!(-900)))?;
            check!(done.ok()?.stderr.contains("oom_score_adj"), "no warning: {done}");
            Ok(())
        })
        .both("P10: refuses"),
        case("rootless/a-hard-limit-that-cannot-be-raised-is-refused", |t| {
            let u = User::new(t)?;
            let mut command = Command::new("setpriv");
            let b = u
                .bundle()?
                .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 2000, "hard": 2000}]));
            let run = u.bundle_command("run", &b)?;
            command.args([
                "--reuid",
                &ID.to_string(),
                "--regid",
                &ID.to_string(),
                "--clear-groups",
                "sh",
                "-c",
            ]);
            command.arg("ulimit -n 1000; exec \"$@\"").arg("sh").arg(run.get_program()).args(run.get_args());
            t.complete(command)?.refuses(&["operation not permitted"])?;
            Ok(())
        })
        .needs(&[Need::File("/usr/bin/setpriv")]),
        case("rootless/clocks-of-ones-own", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.namespace("time", None);
            let b = b.set("/linux/timeOffsets", json!({"monotonic": {"secs": 1234}}));
            let done = u.run(&b.tries(["read /proc/self/timens_offsets"]))?;
            let data = t.compare(&done.ok()?.stdout, &[("read /proc/self/timens_offsets", "ok")])?;
            check!(data[0].as_str().is_some_and(|text| text.contains("1234")), "{}", data[0]);
            Ok(())
        }),
        case("rootless/the-user-namespace-of-another-container", |t| {
            let u = User::new(t)?;
            let first = u.bundle()?.namespace("network", None).probe("report -- forever");
            let theirs = u.launch(&first)?.report(t)?;
            let of = |kind: &str| Ok::<_, Trouble>(format!("/proc/{}/ns/{kind}", t.pid(&first)?));
            let b = u.bundle()?.namespace("user", Some(&of("user")?)).namespace("network", Some(&of("net")?));
            let r = u.report(&b.remove("/linux/uidMappings").remove("/linux/gidMappings"))?;
            for kind in ["/ns/user", "/ns/net"] {
                same(kind, r.text(kind), theirs.text(kind))?;
            }
            same("uid_map", r.at("/uid_map"), theirs.at("/uid_map"))
        }),
    ]
}

/// Root of a user namespace that somebody else made: podman's, buildah's and RootlessKit's way.
fn inside() -> Vec<Case> {
    let bundle = |u: &User| {
        let b = u.bundle()?.without_namespace("user").remove("/linux/uidMappings");
        Ok::<_, Trouble>(b.remove("/linux/gidMappings"))
    };
    let mut cases = Vec::new();
    for (name, words) in [("unshare-ur", "unshare -Ur"), ("unshare-urm", "unshare -Urm")] {
        cases.push(
            case(format!("rootless/root-of-{name}"), move |t| {
                let u = User::new(t)?.behind(words);
                let r = u.report(&bundle(&u)?)?;
                r.is("/uid/0", 0)?;
                r.is("/uid_map", json!([format!("0 {ID} 1")]))?;
                r.mount("/sys")?.has(&["ro"])?;
                Ok(())
            })
            .needs(&[Need::File("/usr/bin/unshare")]),
        );
        cases.push(
            case(format!("rootless/user-namespace-within-{name}"), move |t| {
                let u = User::new(t)?.behind(words);
                let one = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
                let b = bundle(&u)?.namespace("user", None).set("/linux/uidMappings", one.clone());
                u.report(&b.set("/linux/gidMappings", one))?.is("/uid_map", json!(["0 0 1"]))
            })
            .needs(&[Need::File("/usr/bin/unshare")]),
        );
    }
    cases.push(
        case("rootless/devpts-group-within-unshare", move |t| {
            let u = User::new(t)?.behind("unshare -Ur");
            let b = bundle(&u)?.without_mount("/dev/pts");
            let b = b.mount("devpts", "devpts", "/dev/pts", &["newinstance", "ptmxmode=0666", "gid=5"]);
            u.report(&b)?.mount("/dev/pts")?.fstype("devpts")?;
            Ok(())
        })
        .both("asks for a gid that is not mapped")
        .needs(&[Need::File("/usr/bin/unshare")]),
    );
    cases
}
