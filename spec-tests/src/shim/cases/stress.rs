// SPDX-License-Identifier: Apache-2.0
//! Many of everything: the order of events holds, and what a shim holds stays the same. The long cases do it a
//! thousand times.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::procs::{self, Usage};
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::task::{Io, Task};
use crate::shim::ttrpc::CLOSED;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let long = &[Need::Long];
    let hours = Need::NoRuntime("runc", "it would take more than an hour");
    vec![
        case("stress/instant-exits", |t| instant_exits(t, 40)).takes(60.0),
        case("stress/instant-exits-1000", |t| instant_exits(t, 1000)).needs(long).takes(600.0),
        case("stress/instant-exits-50000", |t| instant_exits(t, 50_000))
            .needs(long)
            .needs(&[hours])
            .takes(14_400.0),
        case("stress/parallel-execs", |t| parallel_execs(t, 2)).takes(60.0),
        case("stress/parallel-execs-100", |t| parallel_execs(t, 100)).needs(long).takes(900.0),
        case("stress/killed-during-create", |t| killed_during_create(t, 12)).takes(60.0),
        case("stress/killed-during-create-200", |t| killed_during_create(t, 200)).needs(long).takes(600.0),
        case("stress/execs", |t| execs(t, 100, 300)).runc("at times: grows").takes(90.0),
        case("stress/execs-10000", |t| execs(t, 1000, 10_000))
            .needs(long)
            .runc("at times: grows")
            .takes(1800.0),
        case("stress/failing-execs", failing_execs).takes(90.0),
        case("stress/many-waits", many_waits).takes(60.0),
        case("stress/kill-races-exit", kill_races_exit).takes(60.0),
        case("stress/fifty-in-one-pod", |t| pod(t, 12)).takes(90.0),
        case("stress/a-hundred-in-one-pod", |t| pod(t, 100)).needs(long).takes(300.0),
        case("stress/orphans-of-execs", orphans).takes(60.0),
    ]
}

/// Containers that end at once, in one shim: each has its four events in order (see `events::rules`).
fn instant_exits(t: &Test, count: usize) -> Verdict {
    let d = Daemon::new(t)?;
    let (first, keeper) = d.launch("forever")?;
    let begin = Instant::now();
    for n in 0..count {
        let b = d.bundle(&format!("exit {}", n % 200))?;
        let task = Task::new(keeper.shim.clone(), &b.id);
        let pid = task.create(&d, &b, &Io::null())?;
        same("the pid of Start", task.start("")?, pid)?;
        same("the status", task.exit("")?.status, n as u64 % 200)?;
        same("the pid of Delete", task.delete("")?.pid, pid)?;
        d.remove(&b)?;
        for kind in ["create", "start", "exit", "delete"] {
            same("the pid of an event", d.events.of_kind(&b.id, kind)?.pid, pid)?;
        }
        same("the events", d.events.story(&b.id).len(), 4)?;
        if n % 100 == 99 {
            d.events.forget_all_but(&keeper.id)?;
        }
    }
    eprintln!(
        "STRESS {count} containers that end at once, {:.0} a second, events in order",
        count as f64 / begin.elapsed().as_secs_f64()
    );
    d.end(&first, &keeper)?;
    d.finish()
}

/// 64 execs at a time.
fn parallel_execs(t: &Test, rounds: usize) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    for round in 0..rounds {
        let one = |n: usize| {
            let task = task.clone();
            std::thread::spawn(move || -> Verdict {
                let code = n % 100;
                let name = format!("r{round}x{n}");
                let exit = task.execute(&name, &["/probe", "exit", &code.to_string()], &Io::null())?;
                same("the status", exit.status, code as u64)
            })
        };
        let threads: Vec<_> = (0..64).map(one).collect();
        for thread in threads {
            thread.join().map_err(|_| Trouble::from("a thread panicked"))??;
        }
    }
    d.end(&b, &task)?;
    same("exits", d.events.count(&b.id, "exit"), 64 * rounds + 1)?;
    d.finish()
}

/// A Kill that comes while Create is under way: whatever it meets, nothing is left when the container is deleted.
fn killed_during_create(t: &Test, count: u64) -> Verdict {
    let d = Daemon::new(t)?;
    let (first, keeper) = d.launch("forever")?;
    for n in 0..count {
        let b = d.bundle("forever")?;
        let task = Task::new(keeper.shim.clone(), &b.id);
        let request = task.create_request(&b, &Io::null(), &d.rootfs(), &d.options());
        let create = task.shim.begin("Create", &request);
        std::thread::sleep(Duration::from_micros(n * 40_000 / count));
        let killed = task.kill("", 9, true);
        check!(killed.as_ref().err().is_none_or(|f| f.code < CLOSED), "Kill: {killed:?}");
        match create.within(20.0) {
            Ok(_) => {
                if killed.is_err() {
                    task.kill("", 9, true)?;
                }
                same("the status", task.exit("")?.status, 137)?;
                task.delete("")?;
            }
            Err(failure) => check!(failure.code < CLOSED, "Create: {failure:?}"),
        }
        d.remove(&b)?;
    }
    d.end(&first, &keeper)?;
    d.finish()
}

/// Runs execs one after another; between the first and the last measure nothing may grow.
fn execs(t: &Test, first: usize, count: usize) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let mut before = Usage::default();
    for n in 0..count {
        if n == first {
            before = procs::usage(task.shim.pid)?;
        }
        let exit = task.execute(&format!("x{n}"), &["/probe", "exit", "1"], &Io::null())?;
        same("the status", exit.status, 1)?;
    }
    let after = procs::usage(task.shim.pid)?;
    d.end(&b, &task)?;
    d.finish()?;
    let grown = |what: &str, a: i64, b: i64, most: i64| -> Verdict {
        check!(b - a <= most, "{what} grew from {a} to {b} with {} execs", count - first);
        Ok(())
    };
    grown("descriptors", before.fds, after.fds, 4)?;
    grown("threads", before.threads, after.threads, 0)?;
    grown("zombies", before.zombies, after.zombies, 0)?;
    grown("private dirty memory (KiB)", before.dirty, after.dirty, 64)?;
    grown("resident memory (KiB)", before.rss, after.rss, 128)
}

/// Half of the execs cannot be started.
fn failing_execs(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let mut before = Usage::default();
    for n in 0..100 {
        if n == 40 {
            before = procs::usage(task.shim.pid)?;
        }
        let name = format!("x{n}");
        let program = if n % 2 == 0 { "/probe" } else { "/no/such" };
        task.exec(&name, &[program, "exit", "1"], &Io::null())?;
        let started = task.start(&name);
        same("a Start", started.is_ok(), n % 2 == 0)?;
        if started.is_ok() {
            task.exit(&name)?;
        }
        task.delete(&name)?;
    }
    let after = procs::usage(task.shim.pid)?;
    check!(after.fds - before.fds < 8, "descriptors grew from {} to {}", before.fds, after.fds);
    same("zombies", after.zombies, before.zombies)?;
    d.end(&b, &task)?;
    d.finish()
}

fn many_waits(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let before = procs::usage(task.shim.pid)?;
    let waits: Vec<_> = (0..500).map(|_| task.wait("")).collect();
    task.state("")?;
    let during = procs::usage(task.shim.pid)?;
    check!(
        during.threads - before.threads <= 6,
        "500 Waits cost {} threads",
        during.threads - before.threads
    );
    task.kill("", 9, false)?;
    for wait in waits {
        same("the status", wait.within(10.0)?.number(1), 137)?;
    }
    d.end(&b, &task)?;
    d.finish()
}

fn kill_races_exit(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    for n in 0..60u64 {
        let name = format!("x{n}");
        task.exec(&name, &["/probe", "exit", "1"], &Io::null())?;
        task.start(&name)?;
        std::thread::sleep(Duration::from_micros(n * 50));
        let killed = task.kill(&name, 9, false);
        check!(killed.as_ref().err().is_none_or(|f| f.code == 5), "Kill: {killed:?}");
        let status = task.exit(&name)?.status;
        check!(status == 1 || (status == 137 && killed.is_ok()), "the status is {status} after {killed:?}");
        task.delete(&name)?;
    }
    d.end(&b, &task)?;
    d.finish()
}

/// A pod: all its containers in one shim, ending in any order.
fn pod(t: &Test, count: usize) -> Verdict {
    let d = Daemon::new(t)?;
    let (first, keeper) = d.launch("forever")?;
    let mut members = Vec::new();
    for _ in 0..count {
        let b = d.bundle("forever")?;
        let task = Task::new(keeper.shim.clone(), &b.id);
        task.create(&d, &b, &Io::null())?;
        task.start("")?;
        members.push((b, task));
    }
    let begin = Instant::now();
    for (_, task) in &members {
        task.state("")?;
    }
    within(&format!("{count} States"), begin.elapsed(), Duration::from_millis(50 * count as u64))?;
    let threads: Vec<_> = members
        .iter()
        .map(|(_, task)| {
            let task = task.clone();
            std::thread::spawn(move || -> Verdict {
                task.end()?;
                task.delete("").map(drop)?;
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| Trouble::from("a thread panicked"))??;
    }
    for (b, _) in &members {
        d.remove(b)?;
    }
    d.end(&first, &keeper)?;
    d.finish()
}

/// What execs leave behind in the host's pid namespace becomes the shim's child, and must not stay a zombie.
fn orphans(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?.without_namespace("pid");
    let task = d.create(&b, &Io::null())?;
    task.start("")?;
    let shim = Arc::clone(&task.shim);
    for n in 0..10 {
        task.execute(&format!("x{n}"), &["/probe", "spawn", "sleep", "0.1"], &Io::null())?;
    }
    std::thread::sleep(Duration::from_millis(200));
    t.until(|| "the end of the zombies".into(), || Ok((procs::usage(shim.pid)?.zombies == 0).then_some(())))?;
    d.end(&b, &task)?;
    d.finish()
}
