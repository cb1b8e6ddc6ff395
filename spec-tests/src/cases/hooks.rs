// SPDX-License-Identifier: Apache-2.0
//! config.md, "POSIX-platform Hooks", and runtime.md on when they run and what their failures mean.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::pace::within;
use crate::harness::report::Report;
use crate::harness::test::Test;
use crate::sys;

/// In the order in which they run.
const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = KINDS
        .iter()
        .flat_map(|kind| [state(kind), own_environment(kind), own_process(kind), failure(kind)])
        .collect();
    all.extend(KINDS.iter().map(|kind| timeout(kind)));
    all.extend(others());
    all
}

impl Bundle {
    /// A hook that runs the harness's own binary as a probe with these words; `startContainer` finds it inside.
    pub(super) fn hook(self, kind: &str, words: &str) -> Result<Self, Trouble> {
        let inside = kind == "startContainer";
        let outside = self.dir.join("rootfs/probe");
        let path = if inside { "/probe".to_owned() } else { outside.to_string_lossy().into_owned() };
        let args: Vec<_> = ["probe"].into_iter().chain(words.split_whitespace()).map(str::to_owned).collect();
        Ok(self.push(&format!("/hooks/{kind}"), json!({"path": path, "args": args})))
    }
}

/// Where a hook of this kind may write so that the case can read it.
fn note(b: &Bundle, kind: &str) -> (String, std::path::PathBuf) {
    let file = format!("note-{kind}");
    let host = b.rootfs(&file);
    let seen =
        if kind == "startContainer" { format!("/{file}") } else { host.to_string_lossy().into_owned() };
    (seen, host)
}

fn run_whole_life(t: &Test, b: &Bundle) -> Verdict {
    t.launch(b)?;
    t.await_status(b, "stopped")?;
    t.cli(&format!("delete {}", b.id))?.ok().map(drop)
}

fn state(kind: &'static str) -> Case {
    case(format!("hooks/{kind}-gets-the-state"), move |t: &Test| {
        let b = t.bundle()?.writable().probe("sleep 0.2").set("/annotations", json!({"a": "b"}));
        let (seen, host) = note(&b, kind);
        let b = b.hook(kind, &format!("keep-stdin {seen}"))?;
        run_whole_life(t, &b)?;
        let got: Value = serde_json::from_str(&fs::read_to_string(host)?)?;
        same("id", &got["id"], b.id.as_str())?;
        same("bundle", &got["bundle"], &*b.dir.to_string_lossy())?;
        same("annotations", &got["annotations"], &json!({"a": "b"}))?;
        check!(got["ociVersion"].is_string(), "ociVersion is {}", got["ociVersion"]);
        let status: &[&str] = match kind {
            "prestart" | "createRuntime" | "createContainer" => &["creating", "created"],
            "startContainer" => &["created"],
            "poststart" => &["running"],
            _ => &["stopped"],
        };
        check!(status.iter().any(|one| got["status"] == *one), "status is {}", got["status"]);
        let pid = got["pid"].as_i64().unwrap_or(0);
        check!(kind == "poststop" || pid > 0, "pid is {}", got["pid"]);
        Ok(())
    })
    .peer("runc", if kind == "poststart" { "a3: runs it inside create" } else { "" })
    .peer(
        "crun",
        match kind {
            "createContainer" => "pid is 0",
            "startContainer" => "bundle is /",
            _ => "",
        },
    )
}

/// S31: a privileged hook must not get what the image put into the process's environment.
fn own_environment(kind: &'static str) -> Case {
    case(format!("hooks/{kind}-has-its-own-args-env-and-cwd"), move |t: &Test| {
        let b = t.bundle()?.writable().probe("sleep 0.1");
        let b = b
            .push("/process/env", json!("LD_PRELOAD=/evil.so"))
            .push("/process/env", json!("FROM_PROCESS=1"));
        let (seen, host) = note(&b, kind);
        let path = if kind == "startContainer" {
            "/probe".into()
        } else {
            b.rootfs("probe").to_string_lossy().into_owned()
        };
        let hook = json!({"path": path, "args": ["probe", "report-to", seen], "env": ["MINE=yes"]});
        let b = b.push(&format!("/hooks/{kind}"), hook);
        run_whole_life(t, &b)?;
        let r = crate::harness::report::Report(serde_json::from_str(&fs::read_to_string(host)?)?);
        r.is("/argv/0", "probe")?;
        r.is("/argv/1", "report-to")?;
        same("MINE", r.variable("MINE"), vec!["yes"])?;
        for name in ["LD_PRELOAD", "FROM_PROCESS", "SPEC_TESTS"] {
            same(name, r.variable(name), Vec::<&str>::new())?;
        }
        match kind {
            "startContainer" => check!(r.text("/cwd").starts_with('/'), "cwd is {}", r.at("/cwd")),
            _ => r.is("/cwd", &*b.dir.to_string_lossy())?,
        }
        let inside = r.text("/ns/mnt") != fs::read_link("/proc/self/ns/mnt")?.to_string_lossy();
        same(
            "in the container's mount namespace",
            inside,
            matches!(kind, "createContainer" | "startContainer"),
        )
    })
    .peer("runc", if matches!(kind, "createContainer" | "poststop") { "cwd is another" } else { "" })
}

/// A caller that blocks signals and forgot descriptors, and a runtime in the foreground, which listens to all signals.
fn own_process(kind: &'static str) -> Case {
    let own = case(format!("hooks/{kind}-has-nothing-of-the-caller"), move |t: &Test| {
        let b = t.bundle()?.writable().probe("sleep 0.2");
        let (seen, host) = note(&b, kind);
        let b = b.hook(kind, &format!("report-to {seen}"))?;
        let mut command = t.bundle_command("run", &b)?;
        let blocked = vec![libc::SIGTERM, libc::SIGUSR2];
        sys::with_attributes(
            &mut command,
            sys::Attributes { blocked, ignored: vec![libc::SIGUSR1], leaks: 40, ..Default::default() },
        );
        t.complete(command)?.ok()?;
        let report = Report::read(&fs::read_to_string(host)?)?;
        report.is("/sig_blocked", "0000000000000000")?;
        report.is("/sig_ignored", "0000000000000000")?;
        let open: Vec<_> =
            report.at("/fds").as_object().into_iter().flatten().map(|(fd, _)| fd.as_str()).collect();
        same("what a hook has open", open, ["0", "1", "2"])
    })
    .runc("has the caller's mask of signals");
    if kind == "startContainer" { own } else { own.crun("has the mask of a crun that waits for signals") }
}

fn failure(kind: &'static str) -> Case {
    let name = format!("hooks/{kind}-failing");
    let body = move |t: &Test| -> Verdict {
        let before = t.snapshot();
        let b = t.bundle()?.writable().probe("print ran -- sleep 0.3");
        let (_, stopped) = note(&b, "poststop");
        let b = b.hook("poststop", &format!("keep-stdin {}", stopped.display()))?;
        let b = b.hook(kind, "complain the-reason -- exit 3")?;
        match kind {
            "prestart" | "createRuntime" | "createContainer" => {
                t.try_create("create", &b)?.refuses(&[&format!("{kind}|hook"), "exit status 3|3"])?;
                check!(stopped.exists(), "poststop did not run");
            }
            "startContainer" => {
                let log = t.create(&b)?;
                t.cli(&format!("start {}", b.id))?;
                t.await_status_or_gone(&b)?;
                check!(log.text().is_empty(), "the process ran: {:?}", log.text());
                t.cli(&format!("delete --force {}", b.id))?.ok()?;
            }
            "poststart" => {
                // runtime.md: the container is stopped, poststop hooks run, and start is an error.
                t.create(&b)?;
                t.cli(&format!("start {}", b.id))?.refuses(&["poststart|hook"])?;
                check!(stopped.exists(), "poststop did not run");
                let state: Value = serde_json::from_str(&fs::read_to_string(&stopped)?)?;
                same("the status that poststop was told", &state["status"], "stopped")?;
                t.cli(&format!("state {}", b.id))?.refuses(&["does not exist"])?;
                t.unchanged_since(&before)?;
                t.cli(&format!("delete --force {}", b.id))?.ok()?;
            }
            _ => {
                // "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle
                // continue as if the hook had succeeded."
                t.launch(&b)?;
                t.await_status(&b, "stopped")?;
                t.cli(&format!("delete {}", b.id))?.ok()?;
            }
        }
        t.unchanged_since(&before)
    };
    match kind {
        "poststart" => case(name, body).runc("a3: runs it inside create").crun("leaves the container"),
        "prestart" | "createRuntime" => case(name, body).crun("exits with 255"),
        "createContainer" => case(name, body).crun("says it twice"),
        "poststop" => case(name, body)
            .runc("a2: delete fails")
            .crun("at times: SIGPIPE ends it when the hook does not read"),
        _ => case(name, body),
    }
}

fn timeout(kind: &'static str) -> Case {
    case(format!("hooks/{kind}-over-time"), move |t: &Test| {
        let before = t.snapshot();
        let b = t.bundle()?.writable().probe("sleep 0.5");
        let path = if kind == "startContainer" {
            "/probe".into()
        } else {
            b.rootfs("probe").to_string_lossy().into_owned()
        };
        let hook = json!({"path": path, "args": ["probe", "spawn", "sleep", "60", "--", "sleep", "60"], "timeout": 1});
        let b = b.push(&format!("/hooks/{kind}"), hook);
        let begin = std::time::Instant::now();
        let created = t.try_create("create", &b)?;
        if created.code == 0 {
            t.cli(&format!("start {}", b.id))?;
            t.await_status_or_gone(&b)?;
            t.cli(&format!("delete --force {}", b.id))?;
        }
        within("it", begin.elapsed(), std::time::Duration::from_secs(8))?;
        t.unchanged_since(&before)
    })
    .crun("at times: on a slow machine leaves the container")
}

fn others() -> Vec<Case> {
    [order(), programs(), after_the_end()].into_iter().flatten().collect()
}

fn order() -> Vec<Case> {
    vec![
        case("hooks/run-in-order", |t| {
            let mut b = t.bundle()?.writable().probe("sleep 0.2");
            for kind in KINDS {
                for round in ["1", "2"] {
                    let (seen, _) = note(&b, kind);
                    b = b.hook(kind, &format!("sleep 0.01 -- put {seen}-{round} x"))?;
                }
            }
            run_whole_life(t, &b)?;
            let time = |kind: &str, round: &str| -> Result<std::time::SystemTime, Trouble> {
                Ok(fs::metadata(b.rootfs(&format!("note-{kind}-{round}")))?.modified()?)
            };
            let times: Vec<_> =
                KINDS.iter().flat_map(|kind| ["1", "2"].map(|round| time(kind, round))).collect();
            let times = times.into_iter().collect::<Result<Vec<_>, _>>()?;
            check!(times.windows(2).all(|pair| pair[0] <= pair[1]), "the order is another: {times:?}");
            Ok(())
        })
        .runc("a3: poststart runs inside create")
        .crun("poststart does not wait for the exec"),
        case("hooks/create-kinds-run-at-create-and-the-rest-later", |t| {
            let mut b = t.bundle()?.writable().probe("forever");
            for kind in KINDS {
                let (seen, _) = note(&b, kind);
                b = b.hook(kind, &format!("put {seen} x"))?;
            }
            let there = |b: &Bundle| -> Vec<&str> {
                KINDS.into_iter().filter(|kind| b.rootfs(&format!("note-{kind}")).exists()).collect()
            };
            t.create(&b)?;
            same("after create", there(&b), KINDS[..3].to_vec())?;
            t.cli(&format!("start {}", b.id))?.ok()?;
            same("after start", there(&b), KINDS[..5].to_vec())?;
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
            same("after delete", there(&b), KINDS.to_vec())
        })
        .runc("a3: poststart runs inside create")
        .crun("at times: start dies of SIGPIPE"),
        case("hooks/prestart-sees-the-namespaces", |t| {
            let b = t.bundle()?;
            let (seen, host) = note(&b, "prestart");
            let b = b
                .hook("prestart", &format!("keep-stdin {seen} -- report-to {seen}-report"))?
                .probe("forever");
            t.create(&b)?;
            let state: Value = serde_json::from_str(&fs::read_to_string(host)?)?;
            same("pid", state["pid"].as_i64(), Some(t.pid(&b)?.into()))
        }),
    ]
}

/// What hooks of every kind have as their environment, if they are given this one.
fn environments(t: &Test, env: Option<Value>) -> Verdict {
    let mut b = t.bundle()?.writable().push("/process/env", json!("FROM_PROCESS=1")).probe("sleep 0.1");
    for kind in KINDS {
        let (seen, _) = note(&b, kind);
        b = b.hook(kind, &format!("report-to {seen}"))?;
        if let Some(env) = &env {
            b = b.set(&format!("/hooks/{kind}/0/env"), env.clone());
        }
    }
    run_whole_life(t, &b)?;
    for kind in KINDS {
        let (_, host) = note(&b, kind);
        let r = crate::harness::report::Report(serde_json::from_str(&fs::read_to_string(host)?)?);
        let has = |name: &str| !r.variable(name).is_empty();
        let got = (has("SPEC_TESTS"), has("FROM_PROCESS"), has("HOME"));
        match (kind, &env) {
            ("createContainer", _) | (_, Some(_)) => same(kind, r.at("/env"), &json!([]))?,
            // The process's, HOME and all.
            ("startContainer", None) => same(kind, got, (false, true, true))?,
            // The runtime's, and nothing of the container's.
            _ => check!(got.0 && !got.1, "{kind} has {}", r.at("/env")),
        }
    }
    Ok(())
}

fn programs() -> Vec<Case> {
    vec![
        case("hooks/without-env-have-their-runners", |t| environments(t, None))
            .crun("gives the runtime's to createContainer"),
        case("hooks/with-an-empty-env-have-none", |t| environments(t, Some(json!([]))))
            .runc("startContainer has the process's"),
        case("hooks/absent-program", |t| {
            let before = t.snapshot();
            for kind in &KINDS[..3] {
                let b = t.bundle()?.push(&format!("/hooks/{kind}"), json!({"path": "/no/such/hook"}));
                t.try_create("create", &b)?
                    .refuses(&["/no/such/hook|hook", "no such file or directory|ENOENT"])?;
            }
            t.unchanged_since(&before)
        })
        .crun("exits with 255 and does not say why"),
        case("hooks/relative-path-is-refused", |t| {
            let b = t.bundle()?.push(
                "/hooks/createRuntime",
                json!({"path": "rootfs/probe", "args": ["probe", "exit", "0"]}),
            );
            check!(t.try_create("create", &b)?.code != 0, "it was accepted");
            Ok(())
        })
        .both("a14: accepts it"),
        case("hooks/first-failure-stops-the-rest", |t| {
            let b = t.bundle()?;
            let (seen, host) = note(&b, "createRuntime");
            let b = b.hook("createRuntime", "exit 1")?.hook("createRuntime", &format!("put {seen} x"))?;
            check!(t.try_create("create", &b)?.code != 0, "create succeeded");
            check!(!host.exists(), "the second hook ran");
            Ok(())
        }),
    ]
}

fn after_the_end() -> Vec<Case> {
    vec![
        case("hooks/poststop-failure-does-not-stop-the-rest", |t| {
            let b = t.bundle()?;
            let (seen, host) = note(&b, "poststop");
            let b = b.hook("poststop", "exit 1")?.hook("poststop", &format!("put {seen} x"))?.probe("exit 0");
            t.run(&b)?.ok()?;
            check!(host.exists(), "the second hook did not run");
            Ok(())
        })
        .runc("a2: delete fails"),
        case("hooks/poststop-runs-after-foreground-run", |t| {
            let b = t.bundle()?;
            let (seen, host) = note(&b, "poststop");
            let b = b.hook("poststop", &format!("put {seen} x"))?.probe("exit 6");
            t.run(&b)?.exits(6)?;
            check!(host.exists(), "it did not run");
            Ok(())
        }),
        case("hooks/large-output-does-not-block", |t| {
            let b = t.bundle()?.file("large", &"x".repeat(300_000))?.probe("exit 0");
            let large = b.rootfs("large");
            let b = b.hook(
                "createRuntime",
                &format!("try read {} -- try read {}", large.display(), large.display()),
            )?;
            t.run(&b)?.ok().map(drop)
        }),
        case("hooks/prestart-output-stays-out-of-stdout", |t| {
            let b = t.bundle()?.probe("print only-this").hook("createRuntime", "print noise")?;
            t.run(&b)?.ok()?.prints("only-this").map(drop)
        }),
    ]
}
