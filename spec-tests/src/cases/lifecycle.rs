// SPDX-License-Identifier: Apache-2.0
//! runtime.md, "Lifecycle" and "Operations": create, start, run, state, delete.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use crate::check;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    [states(), runs(), deletes(), wrong_moments(), surroundings()].into_iter().flatten().collect()
}

fn states() -> Vec<Case> {
    vec![
        case("lifecycle/create-waits-for-start", create_waits_for_start),
        case("lifecycle/state-tells-what-the-spec-says", state_schema)
            .crun("ociVersion is 1.0.0, rootfs is relative"),
        case("lifecycle/statuses-in-order", statuses_in_order),
        case("lifecycle/state-of-unknown-id", |t| {
            t.cli("state nobody-knows-me")?.refuses(&["does not exist|no such file"]).map(drop)
        }),
        case("lifecycle/pid-file-of-create", pid_file_of_create),
        case("lifecycle/pid-file-of-detached-run", pid_file_of_detached_run),
    ]
}

fn runs() -> Vec<Case> {
    vec![
        case("lifecycle/run-exit-codes", run_exit_codes),
        case("lifecycle/run-ended-by-signal", |t| {
            // A first process may only be killed from outside; its child shows the rest.
            let b = t.bundle()?.probe("spawn sleep 1 -- die SIGKILL -- sleep 5").without_namespace("pid");
            t.run(&b)?.exits(137).map(drop)
        }),
        case("lifecycle/run-leaves-nothing", run_leaves_nothing),
        case("lifecycle/run-keep-keeps-the-container", run_keep),
        case("lifecycle/run-detached", run_detached),
        case("lifecycle/exit-code-reaches-the-parent", |t| {
            let b = t.bundle()?.probe("exit 42");
            t.create(&b)?;
            let pid = t.pid(&b)?;
            t.cli(&format!("start {}", b.id))?.ok()?;
            same("the exit code", t.exit_code(pid)?, 42)
        }),
    ]
}

fn deletes() -> Vec<Case> {
    vec![
        case("lifecycle/delete-created-without-force", delete_created),
        case("lifecycle/delete-running-is-refused", delete_running),
        case("lifecycle/delete-stopped", delete_stopped),
        case("lifecycle/delete-force-running", |t| {
            let (before, b) = (t.snapshot(), t.bundle()?.probe("forever"));
            t.launch(&b)?;
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
            t.unchanged_since(&before)
        }),
        case("lifecycle/delete-unknown-id", |t| {
            t.cli("delete nobody-knows-me")?.refuses(&["does not exist|no such file"]).map(drop)
        }),
        case("lifecycle/delete-force-unknown-id-succeeds", |t| {
            t.cli("delete --force nobody-knows-me")?.ok().map(drop)
        }),
        case("lifecycle/id-free-again-after-delete", |t| {
            let b = t.bundle()?.probe("exit 3");
            for _ in 0..3 {
                t.run(&b)?.exits(3)?;
            }
            Ok(())
        }),
    ]
}

fn wrong_moments() -> Vec<Case> {
    vec![
        case("lifecycle/duplicate-id", duplicate_id),
        case("lifecycle/duplicate-id-in-run", |t| {
            let b = t.bundle()?;
            t.create(&b)?;
            t.run(&b)?.refuses(&["container with given ID already exists|already exists"])?;
            t.has_status(&b, "created")
        }),
        case("lifecycle/start-twice", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let again = t.cli(&format!("start {}", b.id))?;
            again
                .refuses(&["cannot start an already running container|not in `created` state|not created"])?;
            t.has_status(&b, "running")
        })
        .crun("says only that exec.fifo cannot be opened"),
        case("lifecycle/start-of-stopped", |t| {
            let b = t.bundle()?.probe("exit 0");
            t.launch(&b)?;
            t.await_status(&b, "stopped")?;
            let again = t.cli(&format!("start {}", b.id))?;
            again.refuses(&["cannot start a container that has stopped"]).map(drop)
        })
        .crun("says `is not running`"),
        case("lifecycle/start-of-unknown-id", |t| {
            t.cli("start nobody-knows-me")?.refuses(&["does not exist|no such file"]).map(drop)
        }),
        case("lifecycle/stopped-when-created-process-is-killed", |t| {
            let b = t.bundle()?;
            t.create(&b)?;
            t.cli(&format!("kill {} KILL", b.id))?.ok()?;
            t.await_status(&b, "stopped")?;
            t.cli(&format!("delete {}", b.id))?.ok().map(drop)
        }),
    ]
}

fn surroundings() -> Vec<Case> {
    vec![
        case("lifecycle/config-is-read-at-create-only", config_read_once),
        case("lifecycle/bundle-is-the-working-directory", bundle_is_cwd),
        case("lifecycle/bundle-short-option", |t| {
            let b = t.bundle()?.probe("exit 5");
            b.write()?;
            t.cli(&format!("run -b {} {}", b.dir.display(), b.id))?.exits(5).map(drop)
        }),
        case("lifecycle/no-descriptors-but-known-ones-while-created", created_descriptors),
        case("lifecycle/two-containers-at-once", two_at_once),
        case("lifecycle/parallel-create-of-one-id", parallel_create)
            .crun("at times: does not say that the id is taken"),
        case("lifecycle/annotations-in-state", |t| {
            let b = t.bundle()?.set("/annotations", json!({"org.example.key": "value", "empty": ""}));
            t.create(&b)?;
            same(
                "annotations",
                &t.state(&b)?["annotations"],
                &json!({"org.example.key": "value", "empty": ""}),
            )
        }),
        case("lifecycle/state-root-is-made-private", |t| {
            use std::os::unix::fs::PermissionsExt;
            let b = t.bundle()?;
            t.create(&b)?;
            let mode = fs::metadata(t.path("root"))?.permissions().mode() & 0o077;
            check!(mode & 0o066 == 0, "others may use the state root: {mode:o}");
            Ok(())
        }),
        case("lifecycle/pause-and-resume", pause_resume),
    ]
}

fn create_waits_for_start(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("print started");
    let log = t.create(&b)?;
    t.has_status(&b, "created")?;
    check!(log.text().is_empty(), "the process ran before start: {:?}", log.text());
    t.cli(&format!("start {}", b.id))?.ok()?;
    same("the output", log.lines(t, 1)?, vec!["started"])?;
    t.await_status(&b, "stopped")?;
    t.cli(&format!("delete {}", b.id))?.ok().map(drop)
}

fn state_schema(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever");
    t.launch(&b)?;
    let state = t.state(&b)?;
    let text = |key: &str| state[key].as_str().unwrap_or_default().to_owned();
    check!(
        text("ociVersion").starts_with("1.") && text("ociVersion") >= "1.2".into(),
        "ociVersion in {state}"
    );
    same("id", text("id"), b.id.as_str())?;
    same("status", text("status"), "running")?;
    same("bundle", text("bundle"), b.dir.to_string_lossy())?;
    same("rootfs", text("rootfs"), b.rootfs("").to_string_lossy().trim_end_matches('/'))?;
    check!(state["pid"].as_u64().is_some_and(|pid| pid > 1), "pid is {}", state["pid"]);
    same("owner", text("owner"), "")?;
    let created = text("created");
    check!(created.len() > 20 && created.contains('T') && created.ends_with('Z'), "created is {created:?}");
    let annotations = &state["annotations"];
    check!(annotations.is_null() || annotations.is_object(), "annotations is {annotations}");
    Ok(())
}

fn statuses_in_order(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("await");
    t.create(&b)?;
    t.has_status(&b, "created")?;
    t.cli(&format!("start {}", b.id))?.ok()?;
    t.has_status(&b, "running")?;
    t.cli(&format!("kill {} KILL", b.id))?.ok()?;
    t.await_status(&b, "stopped")?;
    let state = t.state(&b)?;
    check!(state["pid"].is_null() || state["pid"] == 0, "a stopped container has pid {}", state["pid"]);
    t.cli(&format!("delete {}", b.id))?.ok()?;
    t.cli(&format!("state {}", b.id))?.refuses(&["does not exist|no such file"]).map(drop)
}

fn pid_file_of_create(t: &Test) -> Verdict {
    let b = t.bundle()?;
    t.try_create(&format!("create --pid-file {}", t.file("pid")), &b)?.ok()?;
    same("the pid file", fs::read_to_string(t.path("pid"))?, t.pid(&b)?.to_string())?;
    let beside =
        fs::read_dir(t.path(""))?.flatten().filter(|e| e.file_name().to_string_lossy().contains("pid"));
    same("files named like the pid file", beside.count(), 1)
}

fn pid_file_of_detached_run(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever");
    t.try_create(&format!("run --detach --pid-file {}", t.file("pid")), &b)?.ok()?;
    same("the pid file", fs::read_to_string(t.path("pid"))?, t.pid(&b)?.to_string())
}

fn run_exit_codes(t: &Test) -> Verdict {
    for code in [0, 1, 7, 126, 127, 137, 255] {
        let b = t.bundle()?.probe(&format!("exit {code}"));
        t.run(&b)?.exits(code)?;
    }
    Ok(())
}

fn run_leaves_nothing(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("print here");
    let before = t.snapshot();
    t.run(&b)?.ok()?.prints("here")?;
    t.unchanged_since(&before)
}

fn run_keep(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("exit 4");
    t.try_create("run --keep", &b)?.exits(4)?;
    t.has_status(&b, "stopped")?;
    t.cli(&format!("delete {}", b.id))?.ok().map(drop)
}

fn run_detached(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever");
    t.try_create("run -d", &b)?.ok()?;
    t.has_status(&b, "running")?;
    let pid = t.pid(&b)?;
    t.cli(&format!("kill {} KILL", b.id))?.ok()?;
    same("the exit code", t.exit_code(pid)?, 137)?;
    t.has_status(&b, "stopped")
}

fn delete_created(t: &Test) -> Verdict {
    let before = t.snapshot();
    let b = t.bundle()?;
    t.create(&b)?;
    t.cli(&format!("delete {}", b.id))?.ok()?;
    t.unchanged_since(&before)
}

fn delete_running(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever");
    t.launch(&b)?;
    let refused = t.cli(&format!("delete {}", b.id))?;
    refused.refuses(&[
        "that is not stopped: running|is running|is not in `created` or `stopped` state",
        &b.id,
    ])?;
    t.has_status(&b, "running")
}

fn delete_stopped(t: &Test) -> Verdict {
    let before = t.snapshot();
    let b = t.bundle()?.probe("exit 0");
    t.launch(&b)?;
    t.await_status(&b, "stopped")?;
    t.cli(&format!("delete {}", b.id))?.ok()?;
    t.unchanged_since(&before)
}

fn duplicate_id(t: &Test) -> Verdict {
    let b = t.bundle()?;
    t.create(&b)?;
    let before = t.snapshot();
    let again = t.try_create("create", &b)?;
    again.refuses(&["container with given ID already exists|already exists"])?;
    t.unchanged_since(&before)?;
    t.has_status(&b, "created")
}

fn config_read_once(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("print first");
    let log = t.create(&b)?;
    b.clone().probe("print second").write()?;
    t.cli(&format!("start {}", b.id))?.ok()?;
    same("the output", log.lines(t, 1)?, vec!["first"])?;
    t.await_status(&b, "stopped")
}

fn bundle_is_cwd(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever");
    b.write()?;
    let mut command = t.runtime();
    command.args(["run", "-d", &b.id]).current_dir(&b.dir);
    t.complete(command)?.ok()?;
    same("bundle", &t.state(&b)?["bundle"], &Value::from(b.dir.to_string_lossy()))
}

/// CVE-2024-21626 began with a descriptor that the waiting first process should not have had.
fn created_descriptors(t: &Test) -> Verdict {
    let b = t.bundle()?;
    t.create(&b)?;
    let pid = t.pid(&b)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let number = entry.file_name().to_string_lossy().into_owned();
        let known = ["pipe:", "socket:", "anon_inode:", "/memfd:", "/proc", "/dev/null", "/dev/pts"];
        let named = ["exec.fifo", "/runc", "/crun", "/corten", "/fd", "/notify.sock", "/.empty-directory"];
        let is_known =
            known.iter().any(|k| target.starts_with(k)) || named.iter().any(|n| target.ends_with(n));
        let is_proc = nix::sys::statfs::statfs(&entry.path())
            .is_ok_and(|info| info.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC);
        let is_known = is_known || is_proc;
        check!(number.parse::<i32>().is_ok_and(|n| n <= 2) || is_known, "descriptor {number} is {target}");
    }
    Ok(())
}

fn two_at_once(t: &Test) -> Verdict {
    let (one, two) = (t.bundle()?.probe("forever"), t.bundle()?.probe("forever"));
    t.launch(&one)?;
    t.launch(&two)?;
    check!(t.pid(&one)? != t.pid(&two)?, "both have the same pid");
    t.cli(&format!("delete -f {}", one.id))?.ok()?;
    t.has_status(&two, "running")
}

/// Of many creates with one id exactly one succeeds, and its container works.
fn parallel_create(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("print works");
    let started: Vec<_> =
        (0..6).map(|_| t.spawn(t.bundle_command("create", &b)?)).collect::<Result<_, _>>()?;
    let done: Vec<_> = started.into_iter().map(|running| t.finish(running)).collect::<Result<_, _>>()?;
    same("creates that succeeded", done.iter().filter(|one| one.code == 0).count(), 1)?;
    for loser in done.iter().filter(|one| one.code != 0) {
        loser.refuses(&["already exists|exists|locked|in use"])?;
    }
    t.cli(&format!("start {}", b.id))?.ok()?;
    t.await_status(&b, "stopped")
}

fn pause_resume(t: &Test) -> Verdict {
    if !t.host.is_v2() && !t.host.controllers.contains("freezer") {
        return Err(crate::harness::case::Trouble::NotRun("no freezer".into()));
    }
    let b = t.bundle()?.probe("forever");
    t.launch(&b)?;
    t.cli(&format!("pause {}", b.id))?.ok()?;
    t.has_status(&b, "paused")?;
    t.cli(&format!("resume {}", b.id))?.ok()?;
    t.has_status(&b, "running")
}
