// SPDX-License-Identifier: Apache-2.0
//! Fork bombs, frozen ones too: `kill KILL` and `delete --force` end them within two seconds. And freezing itself.

#![forbid(unsafe_code)]

use std::fs;
use std::time::Duration;

use serde_json::json;

use super::limits::group;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::test::Test;

/// What a bomb may take to be over.
const LIMIT: Duration = Duration::from_secs(2);

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("forks/kill-ends-a-bomb", |t| defused(t, bomb(t)?, "kill {} KILL")),
        case("forks/kill-all-ends-a-bomb", |t| defused(t, bomb(t)?, "kill --all {} KILL")),
        case("forks/delete-ends-a-bomb", |t| defused(t, bomb(t)?, "delete --force {}")),
        case("forks/kill-ends-a-bomb-without-pid-namespace", |t| {
            defused(t, bomb(t)?.without_namespace("pid"), "kill {} KILL")
        })
        .crun("at times: kills one by one, and the bomb is quicker"),
        case("forks/delete-ends-a-bomb-without-pid-namespace", |t| {
            defused(t, bomb(t)?.without_namespace("pid"), "delete --force {}")
        }),
        case("forks/delete-ends-a-frozen-bomb", |t| {
            let b = bomb(t)?.without_namespace("pid");
            explode(t, &b)?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            over(t, &b, "delete --force {}")
        })
        .runc("on v1: waits for ever for the end of what is frozen"),
        case("freeze/nothing-runs-while-paused", nothing_runs)
            .takes(120.0)
            .runc("at times: gives the freeze of a fork bomb up"),
        case("freeze/KILL-ends-a-paused-one", |t| {
            let b = t.bundle()?.probe("spawn sleep 100 -- forever");
            t.launch(&b)?;
            let pid = t.pid(&b)?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            let done = t.cli(&format!("kill {} KILL", b.id))?;
            within("it", done.ok()?.took, LIMIT)?;
            same("the exit code", t.exit_code(pid)?, 137)?;
            t.await_status(&b, "stopped")?;
            t.cli(&format!("delete {}", b.id))?.ok().map(drop)
        }),
        case("freeze/TERM-waits-for-resume", |t| {
            let b = t.bundle()?.probe("block SIGTERM -- print up -- await -- exit 7");
            let log = t.launch(&b)?;
            log.lines(t, 1)?;
            let pid = t.pid(&b)?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            t.cli(&format!("kill {} TERM", b.id))?.ok()?;
            std::thread::sleep(Duration::from_millis(200));
            t.has_status(&b, "paused")?;
            t.cli(&format!("resume {}", b.id))?.ok()?;
            same("the exit code", t.exit_code(pid)?, 7)
        }),
        case("freeze/wrong-status-is-refused", |t| {
            let b = t.bundle()?.probe("forever");
            t.launch(&b)?;
            t.cli(&format!("resume {}", b.id))?.refuses(&["not paused"])?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            t.cli(&format!("pause {}", b.id))?.refuses(&["not running|paused"])?;
            t.cli(&format!("resume {}", b.id))?.ok()?;
            t.cli(&format!("kill {} KILL", b.id))?.ok()?;
            t.await_status(&b, "stopped")?;
            t.cli(&format!("pause {}", b.id))?.refuses(&["not running"])?;
            t.cli(&format!("resume {}", b.id))?.refuses(&["not paused|not running"]).map(drop)
        })
        .crun("takes some of them"),
        case("freeze/delete-ends-a-paused-one", |t| {
            let b = t.bundle()?.probe("spawn sleep 100 -- forever");
            let before = t.snapshot();
            t.launch(&b)?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            let done = t.cli(&format!("delete --force {}", b.id))?;
            within("it", done.ok()?.took, LIMIT)?;
            t.unchanged_since(&before)
        }),
        case("cgroup/threaded-parent-is-refused", threaded_parent)
            .needs(&[Need::CgroupV2])
            .runc("does not look for it")
            .crun("leaves its cgroup behind"),
        case("cgroup/delete-spares-what-is-not-its-own", spares_others)
            .both("removes what others made below its group"),
    ]
}

/// Bounded by the user's processes everywhere, and by the pids controller where there is one.
fn bomb(t: &Test) -> Result<Bundle, Trouble> {
    let user = 70_000 + std::process::id() % 20_000;
    let b = t.bundle()?.probe("bomb").set("/process/user", json!({"uid": user, "gid": user}));
    let b = b.set("/process/rlimits", json!([{"type": "RLIMIT_NPROC", "hard": 120, "soft": 120}]));
    Ok(match t.host.controllers.contains("pids") {
        true => b.set("/linux/resources/pids", json!({"limit": 100})),
        false => b,
    })
}

/// Starts it, and waits until it is in full swing.
fn explode(t: &Test, b: &Bundle) -> Verdict {
    t.launch(b)?;
    let members = || -> Result<usize, Trouble> {
        Ok(fs::read_to_string(group(t, b, "pids").join("cgroup.procs"))?.lines().count())
    };
    let in_swing = || {
        // Those that are gone are this process's to wait for, and count for the user until then.
        t.reap();
        Ok((members()? > 20).then_some(()))
    };
    t.until(|| "the bomb".into(), in_swing)
}

fn defused(t: &Test, b: Bundle, command: &str) -> Verdict {
    explode(t, &b)?;
    over(t, &b, command)
}

fn over(t: &Test, b: &Bundle, command: &str) -> Verdict {
    let begin = std::time::Instant::now();
    t.cli(&command.replace("{}", &b.id))?.ok()?;
    let procs = group(t, b, "pids").join("cgroup.procs");
    let empty = || {
        t.reap();
        Ok(fs::read_to_string(&procs).unwrap_or_default().is_empty().then_some(()))
    };
    t.until(|| "the end of the bomb".into(), empty)?;
    within("the end of the bomb", begin.elapsed(), LIMIT)?;
    t.cli(&format!("delete --force {}", b.id))?.ok()?;
    check!(!procs.exists(), "{} is left", procs.display());
    Ok(())
}

/// A container that writes what time it is stops writing.
fn nothing_runs(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("bomb");
    let b = b.set("/process/rlimits", json!([{"type": "RLIMIT_NPROC", "hard": 60, "soft": 60}]));
    let b = b.set("/process/user", json!({"uid": 95_000 + std::process::id() % 20_000, "gid": 1}));
    explode(t, &b)?;
    for _ in 0..5 {
        t.cli(&format!("pause {}", b.id))?.ok()?;
        t.has_status(&b, "paused")?;
        let procs = group(t, &b, "freezer").join("cgroup.procs");
        let before = fs::read_to_string(&procs)?;
        std::thread::sleep(Duration::from_millis(50));
        same("the processes, later", fs::read_to_string(&procs)?, before)?;
        t.cli(&format!("resume {}", b.id))?.ok()?;
        t.has_status(&b, "running")?;
    }
    t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
}

fn threaded_parent(t: &Test) -> Verdict {
    let b = t.bundle()?;
    let parent = format!("/sys/fs/cgroup/{}-parent", b.id);
    fs::create_dir(&parent)?;
    let path = parent.clone();
    t.at_end(move || drop(fs::remove_dir(path)));
    fs::write(format!("{}/cgroup.type", parent), "threaded")?;
    let inside = format!("/{}-parent/inside", b.id);
    let b = b.set("/linux/cgroupsPath", json!(inside));
    let before = t.snapshot();
    t.run(&b)?.refuses(&["cgroup", "threaded|not supported"])?;
    t.unchanged_since(&before)
}

/// A group of another's beside the container's own, whose name begins with the container's, and one that was made in its place.
fn spares_others(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("exit 0");
    t.launch(&b)?;
    t.await_status(&b, "stopped")?;
    let mut mine = Vec::new();
    for top in t.host.hierarchies() {
        let own = top.join(&b.id);
        // The container's is gone, and somebody has made one of the same name with something in it.
        fs::remove_dir(&own).ok();
        for dir in [own.join("somebodys"), top.join(format!("{}-beside", b.id))] {
            fs::create_dir_all(&dir)?;
            mine.push(dir);
        }
        mine.push(own);
    }
    let dirs = mine.clone();
    t.at_end(move || dirs.iter().for_each(|dir| drop(fs::remove_dir(dir))));
    t.cli(&format!("delete {}", b.id))?.ok()?;
    for dir in &mine {
        check!(dir.is_dir(), "delete has removed {}", dir.display());
    }
    Ok(())
}
