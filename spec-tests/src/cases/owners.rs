// SPDX-License-Identifier: Apache-2.0
//! Nothing is signalled, listed, frozen or removed that is not the container's; the record of a container goes last, and
//! only after what it names; and what is in a state root is believed only if nobody else can have put it there.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::pace::within;
use crate::harness::test::{Running, Test};

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = groups();
    all.extend(records());
    all.extend(roots());
    all.extend(hanging());
    all.extend(files());
    all
}

fn groups() -> Vec<Case> {
    vec![
        case("own/same-id-and-group-in-two-state-roots", same_id).crun("puts both into one group"),
        case("own/group-of-a-stopped-container-is-refused", |t| {
            let (first, second) = (t.bundle()?.probe("exit 0"), t.bundle()?.probe("forever"));
            t.launch(&first)?;
            t.await_status(&first, "stopped")?;
            let second = second.set("/linux/cgroupsPath", json!(format!("/{}", first.id)));
            t.try_create("create", &second)?.refuses(&["cgroup"])?;
            t.cli(&format!("delete {}", first.id))?.ok()?;
            t.launch(&second)?;
            t.cli(&format!("delete --force {}", second.id))?.ok().map(drop)
        })
        .both("takes it, and deletes its processes with the first one"),
        case("own/failed-create-leaves-a-group-that-it-found", |t| {
            let b = t.bundle()?.args(&["/no/such/program"]);
            let groups: Vec<PathBuf> = t.host.hierarchies().iter().map(|top| top.join(&b.id)).collect();
            let found = groups.clone();
            t.at_end(move || found.iter().for_each(|dir| drop(fs::remove_dir(dir))));
            groups.iter().try_for_each(fs::create_dir)?;
            t.try_create("create", &b)?.refuses(&["no such file|not found"])?;
            for dir in &groups {
                check!(dir.is_dir(), "{} is gone", dir.display());
            }
            // And it is as free as before.
            let b = b.probe("forever");
            t.launch(&b)?;
            t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
        })
        .both("removes it"),
    ]
}

/// Two state roots, one id, one group: the second create is refused, and the first container does not notice.
fn same_id(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever");
    t.launch(&b)?;
    let pid = t.pid(&b)?;
    let other = t.path("other-root");
    fs::create_dir(&other)?;
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700))?;
    let mut command = Command::new(&t.host.runtime);
    command.arg("--root").arg(&other).args(["create", "--bundle"]).arg(&b.dir).arg(&b.id);
    t.complete(command)?.refuses(&["cgroup"])?;
    t.has_status(&b, "running")?;
    check!(t.pid(&b)? == pid, "another process");
    check!(fs::read_dir(&other)?.next().is_none(), "the refused one is left in its state root");
    Ok(())
}

/// The command, with at most `limit` descriptors.
fn with_descriptors(t: &Test, limit: u32, words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit} && exec \"$@\""), "sh"]);
    command.arg(&t.host.runtime).arg("--root").arg(&t.place.root).args(words);
    command
}

fn records() -> Vec<Case> {
    vec![
        case("own/delete-without-descriptors-keeps-the-record", |t| {
            for limit in 3..16 {
                let b = t.bundle()?.probe("forever");
                t.launch(&b)?;
                let pid = t.pid(&b)?;
                let done = t.complete(with_descriptors(t, limit, &["delete", "--force", &b.id]))?;
                let state = t.place.root.join(&b.id);
                if done.code == 0 {
                    t.reap();
                    check!(!alive(pid), "with {limit} descriptors: success, and the process lives");
                    check!(!state.exists(), "with {limit} descriptors: success, and the state is there");
                } else {
                    check!(state.exists(), "with {limit} descriptors: {done}, and the state is gone");
                    t.cli(&format!("delete --force {}", b.id))?.ok()?;
                }
            }
            Ok(())
        })
        .takes(120.0)
        .crun("at times: takes a process that it could not look for as gone"),
        case("own/create-without-descriptors-leaves-nothing", |t| {
            let before = t.snapshot();
            for limit in 3..40 {
                let b = t.bundle()?.probe("forever");
                b.write()?;
                let dir = b.dir.to_string_lossy().into_owned();
                let words = ["create", "--bundle", &dir, &b.id];
                let done = t.complete(with_descriptors(t, limit, &words))?;
                if done.code == 0 || t.place.root.join(&b.id).exists() {
                    t.cli(&format!("delete --force {}", b.id))?.ok()?;
                }
                let clean = t.unchanged_since(&before);
                clean.map_err(|what| Trouble::Fail(format!("with {limit} descriptors: {done}: {what:?}")))?;
            }
            Ok(())
        })
        .takes(120.0)
        .crun("at times: leaves its group"),
        case("own/record-that-cannot-be-read-stays", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            let state = t.place.root.join(&b.id).join("state.json");
            let text = fs::read(&state)?;
            for damaged in [&text[..text.len() / 2], b"", b"[1, 2]"] {
                fs::write(&state, damaged)?;
                for verb in ["delete", "delete --force"] {
                    let done = t.cli(&format!("{verb} {}", b.id))?;
                    check!(done.code == 1, "{done}");
                    check!(state.exists(), "`{verb}` has removed what it cannot read");
                }
            }
            fs::write(&state, &text)?;
            t.has_status(&b, "running")?;
            t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
        })
        .crun("has another name for it"),
        case("own/three-hundred-are-listed-in-order", three_hundred).crun("has another name for the record"),
        case("own/start-of-a-paused-one-is-refused", |t| {
            let b = t.bundle()?.probe("forever");
            t.create(&b)?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            t.has_status(&b, "paused")?;
            let done = t.cli(&format!("start {}", b.id))?;
            within("the refusal", done.refuses(&["paused"])?.took, Duration::from_secs(2))?;
            t.cli(&format!("resume {}", b.id))?.ok()?;
            t.has_status(&b, "created")?;
            t.cli(&format!("start {}", b.id))?.ok()?;
            t.has_status(&b, "running")
        })
        .crun("says something else"),
    ]
}

/// So many are looked at by several threads: each has its line, in order, and one that cannot be read has its own.
fn three_hundred(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("forever");
    t.launch(&b)?;
    let text = fs::read_to_string(t.place.root.join(&b.id).join("state.json"))?;
    let mut ids = vec![b.id.clone()];
    for number in 0..300 {
        let (id, damaged) = (format!("{}-copy-{number:03}", b.id), number == 250);
        let dir = t.place.root.join(&id);
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        let own = text.replace(&format!("\"id\":\"{}\"", b.id), &format!("\"id\":\"{id}\""));
        fs::write(dir.join("state.json"), if damaged { "{" } else { &own })?;
        ids.extend((!damaged).then_some(id));
    }
    let done = t.cli("list --format json")?;
    let told = done.ok()?.json()?;
    let all = told.as_array().cloned().unwrap_or_default();
    let words = |name: &str| -> Vec<&str> { all.iter().filter_map(|one| one[name].as_str()).collect() };
    same("the ids", words("id"), ids)?;
    check!(words("status") == ["running"; 300], "not all of them run: {told}");
    check!(words("owner") == ["root"; 300], "not all of them are root's: {told}");
    let damaged = format!("{}-copy-250", b.id);
    check!(done.stderr.lines().filter(|line| line.contains(&damaged)).count() == 1, "{}", done.stderr);
    for number in 0..300 {
        fs::remove_dir_all(t.place.root.join(format!("{}-copy-{number:03}", b.id)))?;
    }
    Ok(())
}

fn roots() -> Vec<Case> {
    /// Of a user, with a mode: whose hooks would run with root's rights.
    fn refused(t: &Test, owner: u32, mode: u32) -> Verdict {
        let b = t.bundle()?.probe("forever");
        b.write()?;
        let root = t.path("theirs");
        fs::create_dir(&root)?;
        // As another user might prepare it: a container that is there already.
        t.launch(&b)?;
        fs::rename(t.place.root.join(&b.id), root.join(&b.id))?;
        std::os::unix::fs::chown(&root, Some(owner), Some(owner))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(mode))?;
        let run = |words: &[&str]| {
            let mut command = Command::new(&t.host.runtime);
            command.arg("--root").arg(&root).args(words);
            t.complete(command)
        };
        let outcome = (|| {
            let dir = b.dir.to_string_lossy().into_owned();
            let create = ["create", "--bundle", &dir, "another"];
            let delete = ["delete", "--force", &b.id];
            for words in [&create[..], &["state", &b.id], &["start", &b.id], &["list"], &delete] {
                run(words)?.refuses(&["root", "belongs to user|others may write to it"])?;
            }
            Ok(())
        })();
        fs::rename(root.join(&b.id), t.place.root.join(&b.id))?;
        fs::remove_dir(&root)?;
        outcome
    }
    vec![
        case("own/state-root-of-another-user", |t| refused(t, 4242, 0o700)).both("does not look"),
        case("own/state-root-that-others-write-to", |t| refused(t, 0, 0o777)).both("does not look"),
    ]
}

/// A hook that never ends holds up its command, and nobody else: `delete --force` ends it.
fn hanging() -> Vec<Case> {
    fn hangs(t: &Test, kind: &str) -> Result<(Bundle, Running, i32), Trouble> {
        let b = t.bundle()?.probe("forever");
        let hook = json!([{"path": b.rootfs("probe"), "args": ["probe", "forever"]}]);
        let b = b.set(&format!("/hooks/{kind}"), hook);
        let running = match kind {
            "poststart" => {
                t.create(&b)?;
                let mut command = t.runtime();
                command.args(["start", &b.id]);
                t.spawn(command)?
            }
            _ => t.spawn(t.bundle_command("create", &b)?)?,
        };
        let program = b.rootfs("probe");
        let runtime = running.child.id();
        let hook = t.until(|| "the hook".into(), || Ok(child_that_runs(runtime, &program)))?;
        Ok((b, running, hook))
    }
    fn gone(t: &Test, b: &Bundle, hook: i32) -> Verdict {
        let done = t.cli(&format!("delete --force {}", b.id))?;
        within("delete", done.ok()?.took, Duration::from_secs(2))?;
        let ended = || {
            t.reap();
            Ok((!alive(hook)).then_some(()))
        };
        t.until(|| "the end of the hook".into(), ended)?;
        check!(!t.place.root.join(&b.id).exists(), "the container is left");
        Ok(())
    }
    let kinds = ["prestart", "createRuntime", "poststart"];
    let with_runtime = kinds.map(|kind| {
        case(format!("own/delete-ends-a-{kind}-hook-that-hangs"), move |t: &Test| {
            let before = t.snapshot();
            let (b, running, hook) = hangs(t, kind)?;
            gone(t, &b, hook)?;
            check!(t.finish(running)?.code != 0, "what waited for the hook has succeeded");
            t.unchanged_since(&before)
        })
        .both("waits for the hook, or leaves it")
    });
    let without = kinds.map(|kind| {
        case(format!("own/{kind}-hook-ends-with-its-runtime"), move |t: &Test| {
            let before = t.snapshot();
            let (b, mut running, hook) = hangs(t, kind)?;
            running.child.kill()?;
            t.finish(running)?;
            gone(t, &b, hook)?;
            t.unchanged_since(&before)
        })
        .both("leaves the hook")
    });
    with_runtime.into_iter().chain(without).collect()
}

fn child_that_runs(parent: u32, program: &Path) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let runs = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(runs)
}

/// Files that the runtime writes where others may write, too.
fn files() -> Vec<Case> {
    vec![
        case("own/pid-file-follows-no-link", |t| {
            let b = t.bundle()?.probe("forever");
            let dir = t.path("shared");
            fs::create_dir(&dir)?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777))?;
            let (outside, pid_file) = (t.path("outside-of-it"), dir.join("pid"));
            fs::write(&outside, "precious")?;
            // Every name that may be guessed: the number of the process that writes it, and what is usual.
            for name in (1..40_000).map(|pid| format!(".pid.{pid}")).chain([".pid".into(), "pid.tmp".into()])
            {
                std::os::unix::fs::symlink(&outside, dir.join(name))?;
            }
            std::os::unix::fs::symlink(&outside, &pid_file)?;
            let option = format!("create --pid-file {}", pid_file.display());
            t.try_create(&option, &b)?.ok()?;
            check!(fs::read_to_string(&outside)? == "precious", "it was written through a link");
            let text = fs::read_to_string(&pid_file)?;
            check!(text == t.pid(&b)?.to_string(), "the pid file holds {text:?}");
            Ok(())
        })
        .both("follows links"),
        case("own/log-follows-nobodys-link", |t| {
            let (dir, outside) = (t.path("shared-logs"), t.path("not-a-log"));
            fs::create_dir(&dir)?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
            fs::write(&outside, "precious")?;
            let log = dir.join("log");
            std::os::unix::fs::symlink(&outside, &log)?;
            std::os::unix::fs::lchown(&log, Some(4242), Some(4242))?;
            let mut command = t.runtime();
            command.arg("--log").arg(&log).args(["state", "no-such-container"]);
            let done = t.complete(command)?;
            check!(done.code == 1, "{done}");
            check!(fs::read_to_string(&outside)? == "precious", "it was written through another user's link");
            // Our own may lead where we like.
            std::os::unix::fs::lchown(&log, Some(0), Some(0))?;
            let mut command = t.runtime();
            command.arg("--log").arg(&log).args(["state", "no-such-container"]);
            t.complete(command)?;
            check!(fs::read_to_string(&outside)? != "precious", "nothing is logged");
            Ok(())
        })
        .both("follows it"),
        case("own/failed-create-leaves-an-older-pid-file", |t| {
            let b = t.bundle()?.args(&["/no/such/program"]);
            let file = t.path("pid");
            fs::write(&file, "1")?;
            t.try_create(&format!("create --pid-file {}", file.display()), &b)?
                .refuses(&["no such file|not found"])?;
            check!(fs::read_to_string(&file)? == "1", "it was written, or removed");
            Ok(())
        }),
    ]
}

fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}
