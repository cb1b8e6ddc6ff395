// SPDX-License-Identifier: Apache-2.0
//! config.md, "Process": arguments, environment, working directory, and what the process inherits.

#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::report::Report;
use crate::harness::test::Test;
use crate::{check, sys};

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = rows();
    all.push(case("process/runs-on-all-processors-of-its-group", anywhere));
    all
}

/// Whoever calls the runtime may be confined; the container is as its control group says.
fn anywhere(t: &Test) -> Verdict {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let all = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap_or_default();
    let Some(first) = all.split([',', '-']).next().filter(|first| *first != all) else {
        return Err(Trouble::NotRun("there is one processor".into()));
    };
    let confined = |words: &[&str]| {
        let mut command = std::process::Command::new("taskset");
        command.args(["-c", first]).arg(&t.host.runtime).arg("--root").arg(&t.place.root).args(words);
        command.env("SPEC_TESTS", &t.place.mark);
        t.complete(command)
    };
    let b = t.bundle()?;
    b.write()?;
    let dir = b.dir.to_string_lossy();
    Report::read(&confined(&["run", "--bundle", &dir, &b.id])?.ok()?.stdout)?.is("/affinity", all)?;
    let b = t.bundle()?.probe("forever");
    t.launch(&b)?;
    Report::read(&confined(&["exec", &b.id, "/probe", "report"])?.ok()?.stdout)?.is("/affinity", all)?;
    // A confined create, and what it asked for counts for later as well.
    let b = t.bundle()?.probe("report -- forever");
    b.write()?;
    let dir = b.dir.to_string_lossy();
    confined(&["create", "--bundle", &dir, &b.id])?.ok()?;
    let pid = t.pid(&b)?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    check!(status.contains(&format!("Cpus_allowed_list:\t{all}\n")), "created, it is confined: {status}");
    Ok(())
}

fn rows() -> Vec<Case> {
    let mut all = arguments();
    all.extend(environment());
    all.extend(inheritance());
    all
}

fn arguments() -> Vec<Case> {
    [lookup(), working_directory()].into_iter().flatten().collect()
}

fn lookup() -> Vec<Case> {
    vec![
        case("process/args-are-verbatim", |t| {
            let args = [
                "/probe",
                "report",
                "--",
                "print",
                "",
                " two  spaces ",
                "new\nline",
                "é\u{1f980}",
                "--",
                "-x",
            ];
            let r = Report::read(&t.run(&t.bundle()?.args(&args[..7]))?.ok()?.stdout)?;
            r.is("/argv", json!(args[..7]))
        }),
        case("process/args-found-in-PATH", |t| {
            let b = t
                .bundle()?
                .set("/process/env", json!(["PATH=/nowhere:/bin:/opt/tools"]))
                .args(&["probe", "report"]);
            let b = b.dir("opt/tools", 0o755)?;
            fs::rename(b.rootfs("probe"), b.rootfs("opt/tools/probe"))?;
            t.report(&b)?.is("/argv/0", "probe")
        }),
        case("process/args-with-default-PATH", |t| {
            let b = t
                .bundle()?
                .set("/process/env", json!([]))
                .args(&["probe", "report"])
                .dir("usr/bin", 0o755)?;
            fs::rename(b.rootfs("probe"), b.rootfs("usr/bin/probe"))?;
            t.report(&b)?.is("/argv/0", "probe")
        })
        .runc("knows no default PATH")
        .crun("knows no default PATH"),
        case("process/PATH-skips-what-cannot-be-executed", |t| {
            let b = t.bundle()?.set("/process/env", json!(["PATH=/a:/b:/"])).args(&["probe", "report"]);
            let b = b.file("a/probe", "not executable")?.dir("b/probe", 0o755)?;
            t.report(&b)?.is("/exe", "/probe")
        }),
        case("process/args-relative-to-cwd", |t| {
            let b = t
                .bundle()?
                .set("/process/cwd", json!("/opt"))
                .args(&["./probe", "report"])
                .dir("opt", 0o755)?;
            fs::rename(b.rootfs("probe"), b.rootfs("opt/probe"))?;
            t.report(&b)?.is("/exe", "/opt/probe")
        }),
        case("process/script-with-interpreter", |t| {
            let b = t.bundle()?.file("script", "#!/probe print\n")?.args(&["/script", "x"]);
            fs::set_permissions(b.rootfs("script"), fs::Permissions::from_mode(0o755))?;
            t.run(&b)?.ok()?.prints("/script x").map(drop)
        }),
    ]
}

fn working_directory() -> Vec<Case> {
    vec![
        case("process/cwd", |t| {
            let b = t.bundle()?.set("/process/cwd", json!("/etc"));
            t.report(&b)?.is("/cwd", "/etc")
        }),
        case("process/cwd-is-made-when-missing", |t| {
            let b = t.bundle()?.writable().set("/process/cwd", json!("/new/deep/dir"));
            t.report(&b)?.is("/cwd", "/new/deep/dir")?;
            let mode = fs::metadata(b.rootfs("new/deep/dir"))?.permissions().mode() & 0o7777;
            check!(mode == 0o755 || mode == 0o700, "it is made with mode {mode:o}");
            Ok(())
        }),
        case("process/cwd-is-a-mount", |t| {
            let b = t.bundle()?.mount("tmpfs", "tmpfs", "/work", &[]).set("/process/cwd", json!("/work"));
            t.report(&b)?.is("/cwd", "/work")
        }),
        case("process/cwd-only-the-user-may-enter", |t| {
            let b = t.bundle()?.dir("home", 0o700)?.set("/process/cwd", json!("/home"));
            std::os::unix::fs::chown(b.rootfs("home"), Some(1000), Some(1000))?;
            let b = b.set("/process/user", json!({"uid": 1000, "gid": 1000})).grants(&[]);
            t.report(&b)?.is("/cwd", "/home")
        }),
        case("process/cwd-through-every-descriptor-is-refused", cwd_through_descriptors),
    ]
}

/// CVE-2024-21626: a descriptor of the host's that leaked, used as working directory.
fn cwd_through_descriptors(t: &Test) -> Verdict {
    for number in 3..24 {
        let b = t.bundle()?.set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
        let b = b.tries(["list ."]);
        let done = t.run(&b)?;
        check!(done.code != 0, "/proc/self/fd/{number} led to {}", done.stdout);
        // And with one that is there: whoever called us has it open.
        let root = fs::File::open("/")?;
        let mut command = t.bundle_command("run", &b)?;
        sys::with_fd(&mut command, root.as_raw_fd(), number);
        let done = t.complete(command)?;
        check!(done.code != 0, "/proc/self/fd/{number} of the caller's led to {}", done.stdout);
    }
    Ok(())
}

fn environment() -> Vec<Case> {
    vec![
        case("process/env-is-verbatim", |t| {
            let env =
                json!(["PATH=/", "EMPTY=", "LINES=a\nb", "EQUALS=a=b=c", "UNICODE=é", "HOME=/h", "A B=c d"]);
            t.report(&t.bundle()?.set("/process/env", env.clone()))?.is("/env", env)
        }),
        case("process/env-last-duplicate-wins", |t| {
            let env = json!(["X=1", "Y=1", "X=2", "X=3"]);
            let r = t.report(&t.bundle()?.set("/process/env", env))?;
            same("the last X", r.variable("X").pop(), Some("3"))?;
            same("Y", r.variable("Y"), vec!["1"])
        }),
        case("process/env-of-the-caller-stays-out", |t| {
            let b = t.bundle()?;
            let mut command = t.bundle_command("run", &b)?;
            command.env("SECRET", "1").env("LD_PRELOAD", "/x.so");
            let r = Report::read(&t.complete(command)?.ok()?.stdout)?;
            for name in ["SECRET", "LD_PRELOAD", "SPEC_TESTS", "LISTEN_FDS", "NOTIFY_SOCKET"] {
                same(name, r.variable(name), Vec::<&str>::new())?;
            }
            Ok(())
        }),
        home("process/HOME-of-root", json!({"uid": 0, "gid": 0}), &[], "/root"),
        home("process/HOME-of-a-user", json!({"uid": 1000, "gid": 1000}), &[], "/home/user"),
        home("process/HOME-of-an-unknown-user", json!({"uid": 4242, "gid": 1000}), &[], "/"),
        home("process/HOME-that-is-set-stays", json!({"uid": 1000, "gid": 1000}), &["HOME=/mine"], "/mine"),
        home(
            "process/HOME-that-is-empty-is-filled",
            json!({"uid": 1000, "gid": 1000}),
            &["HOME="],
            "/home/user",
        )
        .crun("leaves it empty"),
        case("process/HOME-without-passwd-file", |t| {
            let b = t.bundle()?;
            fs::remove_file(b.rootfs("etc/passwd"))?;
            same("HOME", t.report(&b)?.variable("HOME"), vec!["/"])
        }),
        case("process/HOME-from-procfs-is-none", |t| {
            // Read with root's rights, /proc/kmsg would be emptied for the whole host.
            let entry = "a:x:0:0::/from-proc:";
            let b =
                t.bundle()?.set("/hostname", json!(entry)).link("etc/passwd", "/proc/sys/kernel/hostname")?;
            same("HOME", t.report(&b)?.variable("HOME"), vec!["/"])
        })
        .runc("reads whatever it leads to"),
        case("process/HOME-with-passwd-that-never-ends", |t| {
            // S15: reading it must neither hang nor follow it out of the container.
            let b = t.bundle()?;
            fs::remove_file(b.rootfs("etc/passwd"))?;
            nix::unistd::mkfifo(&b.rootfs("etc/passwd"), nix::sys::stat::Mode::from_bits_truncate(0o644))?;
            let done = t.run(&b)?;
            within("it", done.took, std::time::Duration::from_secs(5))?;
            Ok(())
        })
        .both("waits for the FIFO"),
    ]
}

fn home(name: &'static str, user: Value, env: &'static [&'static str], want: &'static str) -> Case {
    case(name, move |t: &Test| {
        let b = t.bundle()?.set("/process/user", user.clone()).set("/process/env", json!(env));
        same("HOME", t.report(&b)?.variable("HOME").pop(), Some(want))
    })
}

fn descriptors(r: &Report) -> Vec<String> {
    r.at("/fds").as_object().into_iter().flat_map(|fds| fds.keys().cloned()).collect()
}

fn inheritance() -> Vec<Case> {
    [descriptors_kept(), other_inheritance(), whole_systems()].into_iter().flatten().collect()
}

fn descriptors_kept() -> Vec<Case> {
    vec![
        case("process/only-descriptors-0-1-2", |t| {
            same("descriptors", descriptors(&t.report(&t.bundle()?)?), vec!["0", "1", "2"])
        }),
        case("process/leaked-descriptors-stay-out", |t| {
            let b = t.bundle()?;
            let mut command = t.bundle_command("run", &b)?;
            let root = fs::File::open("/")?;
            for number in 10..60 {
                sys::with_fd(&mut command, root.as_raw_fd(), number);
            }
            let r = Report::read(&t.complete(command)?.ok()?.stdout)?;
            same("descriptors", descriptors(&r), vec!["0", "1", "2"])
        }),
        case("process/preserve-fds", |t| {
            let r = with_descriptors(t, "run --preserve-fds 2", &[3, 4, 5], &[])?;
            same("descriptors", descriptors(&r), vec!["0", "1", "2", "3", "4"])?;
            r.is("/fds/3", "/dev/null")
        }),
        case("process/listen-fds", |t| {
            let r = with_descriptors(t, "run", &[3, 4, 5], &[("LISTEN_FDS", "2")])?;
            same("descriptors", descriptors(&r), vec!["0", "1", "2", "3", "4"])?;
            same("LISTEN_FDS", r.variable("LISTEN_FDS"), vec!["2"])?;
            same("LISTEN_PID", r.variable("LISTEN_PID"), vec!["1"])
        })
        .crun("sets no LISTEN_FDS"),
        case("process/listen-fds-and-preserve-fds", |t| {
            let r = with_descriptors(t, "run --preserve-fds 1", &[3, 4, 5], &[("LISTEN_FDS", "1")])?;
            same("descriptors", descriptors(&r), vec!["0", "1", "2", "3", "4"])
        }),
    ]
}

fn other_inheritance() -> Vec<Case> {
    vec![
        case("process/signals-are-as-after-boot", |t| {
            let b = t.bundle()?;
            let mut command = t.bundle_command("run", &b)?;
            sys::with_dirty_signals(&mut command);
            let r = Report::read(&t.complete(command)?.ok()?.stdout)?;
            r.is("/sig_ignored", "0000000000000000")?;
            r.is("/sig_blocked", "0000000000000000")
        })
        .runc("leaves a blocked SIGUSR2 blocked"),
        case("process/SIGPIPE-is-not-ignored", |t| {
            t.report(&t.bundle()?)?.is("/sig_ignored", "0000000000000000")
        }),
        case("process/leads-its-session", |t| {
            let r = t.report(&t.bundle()?)?;
            r.is("/pid", 1)?;
            r.is("/sid", 1)?;
            r.is("/pgid", 1)
        }),
        case("process/callers-groups-and-umask-stay-out", |t| {
            let b = t.bundle()?.set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [33, 7]}));
            let mut command = t.bundle_command("run", &b)?;
            sys::with_groups_and_umask(&mut command, (1..21).collect(), 0o077);
            let r = Report::read(&t.complete(command)?.ok()?.stdout)?;
            let mut groups: Vec<_> = r.at("/groups").as_array().into_iter().flatten().cloned().collect();
            groups.sort_by_key(Value::as_u64);
            same("groups", groups, vec![json!(7), json!(33)])?;
            r.is("/umask", "0022")
        }),
        case("process/stdin-is-passed-through", |t| {
            let b = t.bundle()?.probe("echo");
            fs::write(t.path("input"), "from the caller\n")?;
            let mut command = t.bundle_command("run", &b)?;
            let out = t.path("out/stdin");
            command.stdin(fs::File::open(t.path("input"))?);
            command.stdout(fs::File::create(out.with_extension("out"))?);
            command.stderr(fs::File::create(out.with_extension("err"))?);
            let running = t.spawn_as_it_is(command, out)?;
            t.finish(running)?.ok()?.prints("from the caller").map(drop)
        }),
        case("process/stderr-is-its-own", |t| {
            let done = t.run(&t.bundle()?.probe("print out -- complain err"))?;
            done.ok()?.prints("out")?;
            same("stderr", done.stderr.trim(), "err")
        }),
        case("process/oom-score-is-inherited-when-unset", |t| {
            let own = fs::read_to_string("/proc/self/oom_score_adj")?;
            t.report(&t.bundle()?)?.is("/oom_score_adj", own.trim())
        }),
        case("process/detached-run-does-not-hold-the-callers-pipe", |t| {
            // runc#1721 is about the runtime's own ends; the container may hold what it was given.
            let b = t.bundle()?.probe("forever");
            t.try_create("run -d", &b)?.ok()?;
            let held = fs::read_dir(format!("/proc/{}/fd", t.pid(&b)?))?.count();
            same("descriptors of the container", held, 3)
        })
        .runc("at times: returns before the exec, and its own are open still"),
    ]
}

fn whole_systems() -> Vec<Case> {
    vec![
        case("process/busybox-shell", |t| {
            let Some(from) = &t.host.busybox else { return Err("no busybox".into()) };
            let b = t.bundle()?.set("/root/path", json!(from));
            let b = b.args(&["sh", "-c", "echo $((6*7)); exit 5"]);
            t.run(&b)?.exits(5)?.prints("42").map(drop)
        })
        .needs(&[Need::Busybox]),
        case("process/debian-apt-get", |t| {
            let Some(from) = &t.host.debian else { return Err("no Debian".into()) };
            let b = t.bundle()?.set("/root/path", json!(from)).args(&["apt-get", "--version"]);
            let done = t.run(&b)?;
            check!(done.ok()?.stdout.starts_with("apt "), "{done}");
            Ok(())
        })
        .needs(&[Need::Debian]),
    ]
}

fn with_descriptors(t: &Test, verb: &str, numbers: &[i32], env: &[(&str, &str)]) -> Result<Report, Trouble> {
    let b = t.bundle()?;
    let wanted = t.bundle_command(verb, &b)?;
    let mut command = std::process::Command::new("/bin/sh"); // LISTEN_PID must be the runtime's own
    command.args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"]).arg(wanted.get_program()).args(wanted.get_args());
    command.envs(env.iter().copied());
    let null = fs::File::open("/dev/null")?;
    numbers.iter().for_each(|number| sys::with_fd(&mut command, null.as_raw_fd(), *number));
    Report::read(&t.complete(command)?.ok()?.stdout)
}
