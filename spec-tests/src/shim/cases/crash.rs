// SPDX-License-Identifier: Apache-2.0
//! The shim is killed, or containerd is: what remains must be found, ended and told truly.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::fifo::Streams;
use crate::shim::task::{Io, RUNNING, Shim, Task};
use crate::shim::wire::Message;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let socket = "leaves its socket";
    vec![
        case("crash/shim-killed", shim_killed).runc("its delete takes 10 s when there is an exec"),
        case("crash/shim-killed-when-created", shim_killed_when_created).runc(socket),
        case("crash/shim-killed-when-paused", shim_killed_when_paused).runc(socket),
        case("crash/shim-killed-after-the-exit", shim_killed_after_exit).runc("does not record the status"),
        case("crash/shim-killed-on-a-full-disk", shim_killed_on_a_full_disk)
            .runc("does not record the status"),
        case("crash/create-on-a-full-disk", create_on_a_full_disk),
        case("crash/shim-killed-at-any-moment", shim_killed_at_any_moment).takes(120.0).runc(socket),
        case("crash/shim-killed-in-a-checkpoint", shim_killed_in_a_checkpoint)
            .takes(240.0)
            .needs(&[Need::Criu])
            .runc(socket),
        case("crash/shim-killed-in-a-restore", shim_killed_in_a_restore)
            .takes(240.0)
            .needs(&[Need::Criu])
            .runc(socket),
        case("crash/pod-killed", pod_killed).runc("its delete knows one container only"),
        case("crash/pod-dying", pod_dying).runc("its delete knows one container only"),
        case("crash/start-beside-a-dead-server", start_beside_a_dead_server)
            .runc("hands out the dead server's address"),
        case("crash/delete-without-the-parts", delete_without_the_parts).runc(socket),
        case("crash/reload-without-delete", reload_without_delete),
        case("crash/output-survives-reload", output_survives_reload),
        case("crash/sigterm-with-a-container", sigterm).runc("shuts down"),
    ]
}

/// kill -9 of the shim, and its end.
pub(super) fn kill_shim(d: &Daemon, shim: &Shim) -> Verdict {
    kill(Pid::from_raw(shim.pid), Signal::SIGKILL)?;
    d.t.until(|| "the end of the shim".into(), || Ok((!procs::is_alive(shim.pid)).then_some(())))?;
    d.t.reap();
    d.t.until(|| "the end of the connection".into(), || Ok((!shim.client.is_open()).then_some(())))?;
    Ok(())
}

/// `delete` within a second: pid and status as expected; afterwards the container's process is gone.
fn delete(d: &Daemon, b: &Bundle, pid: u64, status: u64) -> Verdict {
    let begin = Instant::now();
    let (told, got, at) = d.delete(b)?;
    within("delete", begin.elapsed(), Duration::from_secs(1))?;
    same("the pid that delete tells", told, pid)?;
    same("the status that delete tells", got, status)?;
    check!(at > 1e9, "the time that delete tells is {at}");
    // The first process of a pid namespace stays until its execs, which are ours now, have been reaped.
    while procs::is_alive(pid as i32) {
        within(&format!("the end of process {pid}"), begin.elapsed(), Duration::from_secs(2))?;
        d.t.reap();
        std::thread::sleep(Duration::from_millis(5));
    }
    d.delete(b)?; // once more
    d.remove(b)
}

fn shim_killed(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("spawn forever -- forever")?;
    let task = d.create(&b, &Io::null())?;
    let pid = task.start("")?;
    task.exec("x", &["/probe", "forever"], &Io::null())?;
    let exec = task.start("x")?;
    kill_shim(&d, &task.shim)?;
    delete(&d, &b, pid, 137)?;
    check!(!procs::is_alive(exec as i32), "the exec outlived its container");
    d.finish()
}

fn shim_killed_when_created(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    let task = d.create(&b, &Io::null())?;
    let pid = task.state("")?.pid;
    kill_shim(&d, &task.shim)?;
    delete(&d, &b, pid, 137)?;
    d.finish()
}

fn shim_killed_when_paused(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let pid = task.state("")?.pid;
    task.pause()?;
    kill_shim(&d, &task.shim)?;
    delete(&d, &b, pid, 137)?;
    d.finish()
}

/// The status that the shim had seen before it was killed is the status that `delete` tells.
fn shim_killed_after_exit(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("exit 42")?;
    let exit = task.exit("")?;
    let pid = task.state("")?.pid;
    kill_shim(&d, &task.shim)?;
    let (_, status, at) = d.delete(&b)?;
    same("the status", status, 42)?;
    check!((at - exit.at).abs() < 0.001, "the time is {at}, not {}", exit.at);
    delete(&d, &b, pid, 42).or_else(|trouble| if b.dir.exists() { Err(trouble) } else { Ok(()) })?;
    d.finish()
}

/// The bundles get a small file system of their own; the path is of the file that will fill it.
pub fn small_state(d: &Daemon) -> Result<PathBuf, Trouble> {
    fs::create_dir_all(d.state())?;
    d.t.mount("tmpfs", "tmpfs", &d.state(), MsFlags::empty(), "size=1m,mode=700")?;
    Ok(d.state().join("fill"))
}

/// Until not a byte more is taken.
pub fn fill(path: &Path) -> Verdict {
    let mut file = fs::File::create(path)?;
    for size in [65536, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    Ok(())
}

/// The room for what is to be recorded was taken when the container was made.
fn shim_killed_on_a_full_disk(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let fill = small_state(&d)?;
    let b = d.bundle("echo -- exit 42")?;
    let streams = Streams::make(t, "io", false)?;
    let task = d.create(&b, &streams.io)?;
    let pid = task.start("")?;
    self::fill(&fill)?;
    task.close_stdin("")?;
    let exit = task.exit("")?;
    same("the status", exit.status, 42)?;
    kill_shim(&d, &task.shim)?;
    let (told, status, at) = d.delete(&b)?;
    same("the pid that delete tells", told, pid)?;
    same("the status that delete tells", status, 42)?;
    check!((at - exit.at).abs() < 0.001, "the time is {at}, not {}", exit.at);
    fs::remove_file(&fill)?;
    delete(&d, &b, pid, 42)?;
    d.finish()
}

/// Without room nothing is made, and with it again everything works.
fn create_on_a_full_disk(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let fill = small_state(&d)?;
    let b = d.bundle("exit 4")?;
    let task = Task::new(d.shim(&b)?, &b.id);
    b.write()?;
    self::fill(&fill)?;
    if t.host.name != "runc" {
        let failure = task.try_create(&d, &b, &Io::null()).err().ok_or("Create needs no room")?;
        check!(failure.text.contains("ENOSPC"), "Create says {:?}", failure.text);
    }
    fs::remove_file(&fill)?;
    task.create(&d, &b, &Io::null())?;
    task.start("")?;
    same("the status", task.exit("")?.status, 4)?;
    d.end(&b, &task)?;
    d.finish()
}

fn shim_killed_at_any_moment(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    for n in 0..16u64 {
        let b = d.bundle("forever")?;
        let task = Task::new(d.shim(&b)?, &b.id);
        let request = task.create_request(&b, &Io::null(), &d.rootfs(), &d.options());
        let create = task.shim.begin("Create", &request);
        let start = Instant::now();
        std::thread::sleep(Duration::from_micros(n * n * 250));
        kill_shim(&d, &task.shim)?;
        drop(create);
        let what = format!("killed {:?} into Create", start.elapsed());
        cleaned_up(&d, &b, &what, Duration::from_secs(2))?;
    }
    Ok(())
}

/// What containerd does after a shim's death; then nothing is there any more, but for what the kernel still takes down.
pub(super) fn cleaned_up(d: &Daemon, b: &Bundle, what: &str, limit: Duration) -> Verdict {
    d.delete(b)?;
    d.t.reap();
    d.remove(b).map_err(|trouble| format!("{what}: {trouble:?}"))?;
    let begin = Instant::now();
    while let Err(trouble) = d.finish() {
        within(&format!("{what}: {trouble:?}: this"), begin.elapsed(), limit)?;
        d.t.reap();
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// How long a CRIU whose shim is dead may take to notice, and to end.
const CRIU_ENDS: Duration = Duration::from_secs(5);

/// Moments in what takes some 400 ms on a quiet machine.
fn moments(t: &Test) -> impl Iterator<Item = Duration> {
    let count = if t.host.long { 50 } else { 5 };
    (0..count).map(move |n| Duration::from_millis(n * 400 / count))
}

fn shim_killed_in_a_checkpoint(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    for (n, moment) in moments(t).enumerate() {
        let (b, task) = d.launch("forever")?;
        let request = Message::new().text(1, &task.id).text(2, &t.file(&format!("images-{n}")));
        let asked = task.shim.begin("Checkpoint", &request);
        std::thread::sleep(moment);
        kill_shim(&d, &task.shim)?;
        drop(asked);
        cleaned_up(&d, &b, &format!("killed {moment:?} into Checkpoint"), CRIU_ENDS)?;
    }
    Ok(())
}

fn shim_killed_in_a_restore(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    for moment in moments(t) {
        let (b, task) = d.launch("forever")?;
        let images = t.file(&format!("images-{}", moment.as_millis()));
        let options = Message::new().flag(1, true);
        let kind = "containerd.runc.v1.CheckpointOptions";
        let request = Message::new().text(1, &task.id).text(2, &images).any(3, kind, &options.0);
        task.shim.call("Checkpoint", &request)?;
        task.exit("")?;
        task.delete("")?;
        d.shut_down(&task.shim)?;
        let task = Task::new(d.shim(&b)?, &b.id);
        let request = task.create_request(&b, &Io::null(), &d.rootfs(), &d.options()).text(8, &images);
        task.shim.call("Create", &request)?;
        let started = task.shim.begin("Start", &Message::new().text(1, &b.id));
        std::thread::sleep(moment);
        kill_shim(&d, &task.shim)?;
        drop(started);
        cleaned_up(&d, &b, &format!("killed {moment:?} into the Start of a restore"), CRIU_ENDS)?;
    }
    Ok(())
}

/// containerd runs `delete` for the sandbox only.
fn pod_killed(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (sandbox, one) = d.launch("forever")?;
    let member = d.bundle("forever")?.set("/annotations/io.kubernetes.cri.sandbox-id", json!(sandbox.id));
    let two = d.create(&member, &Io::null())?;
    let pid = two.start("")?;
    same("the shim", two.shim.pid, one.shim.pid)?;
    let first = one.state("")?.pid;
    kill_shim(&d, &one.shim)?;
    delete(&d, &sandbox, first, 137)?;
    check!(!procs::is_alive(pid as i32), "the pod's other container lives on");
    d.remove(&member)?;
    d.finish()
}

/// `delete` comes while the kernel still closes what the dead shim had open, its listening socket last: that takes
/// connections, and answers none. A descriptor of ours makes the moment as long as we like.
fn pod_dying(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (sandbox, one) = d.launch("forever")?;
    let member = d.bundle("forever")?.set("/annotations/io.kubernetes.cri.sandbox-id", json!(sandbox.id));
    let two = d.create(&member, &Io::null())?;
    let (pid, first) = (two.start("")?, one.state("")?.pid);
    let listener = procs::listener_of(one.shim.pid, &one.shim.address)?;
    kill_shim(&d, &one.shim)?;
    std::os::unix::net::UnixStream::connect(&one.shim.address)?;
    delete(&d, &sandbox, first, 137)?;
    check!(!procs::is_alive(pid as i32), "the pod's other container lives on");
    check!(!std::path::Path::new(&one.shim.address).exists(), "the socket stays");
    drop(listener);
    d.remove(&member)?;
    d.finish()
}

/// The same moment, and a `start`: of the pod's next member, of the same container once more, and of one whose shim had none yet.
/// Whoever is told an address must find somebody there.
fn start_beside_a_dead_server(t: &Test) -> Verdict {
    for (reaped, created) in [(false, true), (true, true), (false, false)] {
        let d = Daemon::new(t)?;
        let sandbox = d.bundle("forever")?;
        let first = match created {
            true => d.create(&sandbox, &Io::null())?.shim,
            false => d.shim(&sandbox)?,
        };
        let listener = procs::listener_of(first.pid, &first.address)?;
        kill(Pid::from_raw(first.pid), Signal::SIGKILL)?;
        t.until(|| "the end of the shim".into(), || Ok((!procs::is_alive(first.pid)).then_some(())))?;
        if reaped {
            t.reap();
        }
        std::os::unix::net::UnixStream::connect(&first.address)?;
        let member = d.bundle("forever")?.set("/annotations/io.kubernetes.cri.sandbox-id", json!(sandbox.id));
        let two = d.create(&member, &Io::null())?;
        check!(two.shim.pid != first.pid, "{} serves", first.pid);
        two.start("")?;
        drop(listener);
        t.reap();
        d.delete(&sandbox)?;
        d.end(&member, &two)?;
        d.remove(&sandbox)?;
        d.finish()?;
        drop(d);
        nix::mount::umount2("/run", nix::mount::MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

fn delete_without_the_parts(t: &Test) -> Verdict {
    for missing in [&["config.json"][..], &["address", "bootstrap.json"], &["log", "config.json", "address"]]
    {
        let d = Daemon::new(t)?;
        let (b, task) = d.launch("forever")?;
        let pid = task.state("")?.pid;
        kill_shim(&d, &task.shim)?;
        for name in missing {
            fs::remove_file(b.dir.join(name)).ok();
        }
        delete(&d, &b, pid, 137)?;
        d.finish()?;
        drop(d);
        nix::mount::umount2("/run", nix::mount::MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// containerd dies and comes back: it connects again, and asks Connect and Pids.
fn reload_without_delete(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let (address, pid) = (task.shim.address.clone(), task.shim.pid);
    let id = task.id.clone();
    task.exec("x", &["/probe", "sleep", "0.3", "--", "exit", "23"], &Io::null())?;
    task.start("x")?;
    d.forget_shims();
    drop(task); // the connection with it
    d.events.close();
    std::thread::sleep(Duration::from_millis(600));
    d.events.open()?;
    let shim = Arc::new(Shim::connect(&address, 3, &id)?);
    same("the shim", shim.pid, pid)?;
    let task = Task::new(shim, &id);
    same("the pids", task.pids()?.len(), 1)?;
    same("the state", task.state("")?.status, RUNNING)?;
    same("the exec's status", task.exit("x")?.status, 23)?;
    task.delete("x")?;
    // Sent while nobody was there, and told now.
    d.events.exit(&b.id, "x")?;
    d.end(&b, &task)?;
    d.finish()
}

fn output_survives_reload(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("print one -- sleep 0.4 -- print two -- sleep 0.4 -- print three -- echo -- exit 7")?;
    let streams = Streams::make(t, "io", false)?;
    let io = streams.io.clone();
    let task = d.create(&b, &io)?;
    task.start("")?;
    streams.out.until("one\n")?;
    drop(streams); // all of containerd's ends
    std::thread::sleep(Duration::from_millis(600));
    let again = crate::shim::fifo::Reader::open(&io.stdout)?;
    again.until("three\n")?;
    same("what came meanwhile", again.so_far().as_str(), "two\nthree\n")?;
    same("the state", task.state("")?.status, RUNNING)?;
    task.close_stdin("")?;
    same("the status", task.exit("")?.status, 7)?;
    task.delete("")?;
    again.to_end()?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// A container is worth more than somebody's careless `killall`.
fn sigterm(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        kill(Pid::from_raw(task.shim.pid), signal)?;
        std::thread::sleep(Duration::from_millis(50));
        same(&format!("the state after {signal}"), task.state("")?.status, RUNNING)?;
    }
    d.end(&b, &task)?;
    d.finish()
}
