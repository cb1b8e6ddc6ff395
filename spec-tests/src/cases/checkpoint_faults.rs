// SPDX-License-Identifier: Apache-2.0
//! A checkpoint or a restore whose CRIU, or whose runtime, is killed in the middle: the container runs on or has ended, never frozen, stopped or
//! cut off from its network, and nothing is left of a restore.

#![forbid(unsafe_code)]

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::checkpoint::{CRUN, checkpoint, counter, counts_on, launched};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::{Running, Test};

/// The chapter.
pub fn cases() -> Vec<Case> {
    let corten = Need::Runtime("corten");
    let mut all = vec![
        case("checkpoint/criu-killed-in-a-dump", |t| dumps(t, Victim::Criu)).takes(240.0),
        case("checkpoint/criu-killed-while-the-network-is-locked", locked("")),
        case("checkpoint/criu-killed-while-nftables-lock", locked("--network-lock nftables")),
        case("checkpoint/killed-in-a-dump", |t| dumps(t, Victim::Runtime)).takes(240.0),
        case("checkpoint/criu-killed-in-a-restore", |t| restores(t, Victim::Criu)).takes(240.0),
        case("checkpoint/killed-in-a-restore", |t| restores(t, Victim::Runtime)).takes(240.0),
    ];
    for case in &mut all {
        case.needs.extend([Need::Criu, Need::Busybox, CRUN, corten]);
    }
    all
}

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Criu,
    Runtime,
}

/// How many moments.
fn moments(t: &Test) -> u32 {
    if t.host.long { 100 } else { 6 }
}

/// A child of `parent` that runs CRIU.
fn criu_below(parent: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    // It changes its command line, not its name.
    let is_criu =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "criu");
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_criu)
}

/// Kills the victim when `running` has been at work for so long, if it still is.
fn kill_after(t: &Test, running: Running, victim: Victim, after: Duration) -> Result<i32, Trouble> {
    let runtime = running.child.id() as i32;
    let begun = Instant::now();
    while begun.elapsed() < after && criu_below(runtime).is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(after.saturating_sub(begun.elapsed()));
    let pid = match victim {
        Victim::Criu => criu_below(runtime),
        Victim::Runtime => Some(runtime),
    };
    if let Some(pid) = pid {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    Ok(t.finish(running)?.code)
}

/// Does something in the container's network namespace with a UDP socket on `lo`.
fn on_lo<T: Send + 'static>(
    t: &Test,
    b: &Bundle,
    work: impl FnOnce(UdpSocket) -> std::io::Result<T> + Send + 'static,
) -> Result<std::thread::JoinHandle<std::io::Result<T>>, Trouble> {
    let namespace = fs::File::open(format!("/proc/{}/ns/net", t.pid(b)?))?;
    Ok(std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
        work(UdpSocket::bind("127.0.0.1:0")?)
    }))
}

/// Whether packets go through `lo` in the container's network namespace.
fn network_works(t: &Test, b: &Bundle) -> Verdict {
    let heard = on_lo(t, b, |socket| {
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(b"x", socket.local_addr()?)?;
        socket.recv(&mut [0; 8])
    })?;
    match heard.join().map_err(|_| "a thread has panicked")? {
        Ok(1) => Ok(()),
        other => Err(format!("its network is cut off: {other:?}").into()),
    }
}

/// CRIU is killed at the moment at which the first packet is held off; whoever comes after it takes the lock away. At times it takes the
/// container along, if it is at work inside a process by then: once in some tries it does not.
fn locked(options: &'static str) -> impl Fn(&Test) -> Verdict {
    const TRIES: usize = 5;
    move |t| {
        for _ in 0..TRIES {
            let b = counter(t)?;
            launched(t, &b)?;
            killed_while_it_locks(t, &b, options)?;
            if !has_ended(t, &b)? {
                network_works(t, &b)?;
                nobody_is_stopped(t, &b)?;
                return counts_on(t, &b);
            }
            t.cli(&format!("delete {}", b.id))?.ok()?;
        }
        Err(Trouble::Fail(format!("the container has ended with CRIU {TRIES} times")))
    }
}

fn killed_while_it_locks(t: &Test, b: &Bundle, options: &str) -> Verdict {
    remove(&t.path("images"))?;
    let mut command = t.runtime();
    command.args(["checkpoint", "--leave-running", "--image-path", &t.file("images")]);
    command.args(options.split_whitespace()).arg(&b.id);
    let running = t.spawn(command)?;
    let runtime = running.child.id() as i32;
    let killer = on_lo(t, b, move |socket| {
        let address = socket.local_addr()?;
        // What is dropped on its way out is EPERM; what is not received is dropped later. The runtime's end ends the search.
        let dropped = loop {
            match socket.send_to(b"x", address) {
                Err(error) => break error,
                Ok(_) if fs::read_link(format!("/proc/{runtime}/exe")).is_err() => return Ok(None),
                Ok(_) => {}
            }
        };
        let criu = criu_below(runtime).ok_or_else(|| std::io::Error::other(format!("no criu: {dropped}")))?;
        kill(Pid::from_raw(criu), Signal::SIGKILL)?;
        Ok(dropped.raw_os_error())
    })?;
    let killed = killer.join().map_err(|_| "a thread has panicked")??;
    let done = t.finish(running)?;
    same("what the killed CRIU had done to packets", killed, Some(libc::EPERM))?;
    check!(done.code != 0, "it is dumped: {done}");
    Ok(())
}

/// Every process of the container does something, or waits for something: none is stopped or traced.
fn nobody_is_stopped(t: &Test, b: &Bundle) -> Verdict {
    let listed = t.cli(&format!("ps --format json {}", b.id))?.ok()?.stdout.clone();
    let pids: Vec<i32> = serde_json::from_str(&listed)?;
    t.until(
        || "processes that run".into(),
        || {
            let state = |pid: &i32| {
                let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                text.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("X").trim().to_owned()
            };
            Ok(pids.iter().all(|pid| !state(pid).starts_with(['T', 't'])).then_some(()))
        },
    )
}

/// It runs on, or has ended: a CRIU that is killed while its code is at work inside a process may end that.
fn has_ended(t: &Test, b: &Bundle) -> Result<bool, Trouble> {
    t.until(
        || "a container that runs or has ended".into(),
        || {
            let status = t.state(b)?["status"].clone();
            Ok((status == "running" || status == "stopped").then_some(status == "stopped"))
        },
    )
}

fn timed(verdict: impl FnOnce() -> Verdict) -> Result<Duration, Trouble> {
    let begun = Instant::now();
    verdict()?;
    Ok(begun.elapsed())
}

fn remove(dir: &Path) -> Verdict {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn dumps(t: &Test, victim: Victim) -> Verdict {
    let b = counter(t)?;
    launched(t, &b)?;
    let whole = timed(|| checkpoint(t, &b, "--leave-running"))?;
    let mut failed = 0;
    for moment in 0..moments(t) {
        remove(&t.path("images"))?;
        // What CRIU has found out about the kernel: it is to find that out again, which is a moment like the others.
        fs::remove_file("/run/criu.kdat").ok();
        let mut command = t.runtime();
        command.args(["checkpoint", "--leave-running", "--image-path", &t.file("images"), &b.id]);
        let code = kill_after(t, t.spawn(command)?, victim, whole * moment / moments(t))?;
        failed += u32::from(code != 0);
        if has_ended(t, &b)? {
            check!(code != 0 && victim == Victim::Criu, "a checkpoint has ended it");
            t.cli(&format!("delete {}", b.id))?.ok()?;
            launched(t, &b)?;
            continue;
        }
        nobody_is_stopped(t, &b)?;
        counts_on(t, &b)?;
        network_works(t, &b)?;
    }
    check!(failed > 0, "nobody was killed in {} tries", moments(t));
    // It can still be checkpointed, and deleted.
    remove(&t.path("images"))?;
    checkpoint(t, &b, "")
}

fn restores(t: &Test, victim: Victim) -> Verdict {
    let b = counter(t)?;
    launched(t, &b)?;
    checkpoint(t, &b, "")?;
    let words = format!("restore --detach --image-path {}", t.file("images"));
    let before = t.snapshot();
    let whole = timed(|| t.try_create(&words, &b)?.ok().map(drop))?;
    t.cli(&format!("delete -f {}", b.id))?.ok()?;
    let mut failed = 0;
    for moment in 0..moments(t) {
        let running = t.spawn(t.bundle_command(&words, &b)?)?;
        let code = kill_after(t, running, victim, whole * moment / moments(t))?;
        failed += u32::from(code != 0);
        let is_there = t.cli(&format!("state {}", b.id))?.code == 0;
        check!(
            code == 0 || victim == Victim::Runtime || !is_there,
            "what is left of a failed restore is there"
        );
        t.cli(&format!("delete -f {}", b.id))?;
        t.unchanged_since(&before)?;
    }
    check!(failed > 0, "nobody was killed in {} tries", moments(t));
    t.try_create(&words, &b)?.ok()?;
    counts_on(t, &b)
}
