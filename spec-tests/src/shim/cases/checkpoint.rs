// SPDX-License-Identifier: Apache-2.0
//! Checkpoint, and Create from one: Start then restores.

#![forbid(unsafe_code)]

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::shim::cases::errors::fails;
use crate::shim::daemon::{Daemon, RUNC_OPTIONS};
use crate::shim::task::{CREATED, Io, RUNNING, STOPPED, Shim, Task};
use crate::shim::ttrpc::{FAILED_PRECONDITION, NOT_FOUND, UNKNOWN};
use crate::shim::wire::Message;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("checkpoint/leave-running", leave_running).needs(&[Need::Criu]),
        case("checkpoint/exit-and-restore", exit_and_restore).needs(&[Need::Criu]),
        case("checkpoint/restored-with-streams", with_streams).needs(&[Need::Criu]),
        case("checkpoint/older-options", older_options)
            .needs(&[Need::Criu])
            .runc("panics: knows the newer type alone"),
        case("checkpoint/restore-by-options", restore_by_options)
            .needs(&[Need::Criu])
            .runc("only containerd reads criu_image_path, for runc's type"),
        case("checkpoint/work-path-of-restore", work_path).needs(&[Need::Criu]),
        case("checkpoint/never-started", never_started).needs(&[Need::Criu]),
        case("checkpoint/never-started-holds-no-stream", holds_no_stream),
        case("checkpoint/restore-of-nothing", of_nothing),
        case("checkpoint/created-is-refused", created).needs(&[Need::Criu]),
    ]
}

const OPTIONS: &str = "containerd.runc.v1.CheckpointOptions";

fn images(t: &Test) -> String {
    t.file("images")
}

/// Asks for a checkpoint, after which the container ends or goes on.
fn checkpoint(t: &Test, task: &Task, exit: bool) -> Verdict {
    let options = Message::new().flag(1, exit).text(9, &t.file("criu-work"));
    let request = Message::new().text(1, &task.id).text(2, &images(t)).any(3, OPTIONS, &options.0);
    task.shim.call("Checkpoint", &request)?;
    Ok(())
}

/// A shim with a container that its Start is to restore.
fn create_from(t: &Test, d: &Daemon, b: &Bundle, io: &Io) -> Result<Task, Trouble> {
    let task = Task::new(d.shim(b)?, &b.id);
    let request = task.create_request(b, io, &d.rootfs(), &d.options()).text(8, &images(t));
    let answer = task.shim.call("Create", &request)?;
    same("Create's pid", answer.number(1), 0)?;
    same("the state after Create", task.state("")?.status, CREATED)?;
    Ok(task)
}

fn leave_running(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    checkpoint(t, &task, false)?;
    check!(t.path("images/inventory.img").exists(), "no images");
    same("the state", task.state("")?.status, RUNNING)?;
    d.end(&b, &task)?;
    d.finish()
}

/// One container, checkpointed so that it ends, told of and deleted.
fn ended(t: &Test, d: &Daemon, io: &Io, probe: &str) -> Result<Bundle, Trouble> {
    let b = d.bundle(probe)?;
    let task = d.create(&b, io)?;
    task.start("")?;
    let wait = task.wait("");
    checkpoint(t, &task, true)?;
    same("the exit status", wait.within(10.0)?.number(1), 137)?;
    same("the state", task.state("")?.status, STOPPED)?;
    task.delete("")?;
    d.events.of_kind(&b.id, "delete")?;
    d.shut_down(&task.shim)?;
    Ok(b)
}

fn exit_and_restore(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = ended(t, &d, &Io::null(), "forever")?;
    let task = create_from(t, &d, &b, &Io::null())?;
    let pid = task.start("")?;
    check!(pid > 0, "Start tells no pid");
    let state = task.state("")?;
    same("the state's pid", state.pid, pid)?;
    same("the state after Start", state.status, RUNNING)?;
    check!(task.pids()?.iter().any(|(listed, _)| *listed == pid), "Pids does not list it");
    task.shim.call("Stats", &Message::new().text(1, &b.id))?;
    same("an exec's exit status", task.execute("x", &["/probe", "exit", "3"], &Io::null())?.status, 3)?;
    let wait = task.wait("");
    task.kill("", 9, false)?;
    same("the exit status", wait.within(10.0)?.number(1), 137)?;
    // Init's, the exec's, and that of the restored one.
    d.events.wait(10.0, "three exits", |all| {
        let exits = all.iter().filter(|e| e.kind == "exit" && e.container == b.id);
        (exits.count() == 3).then_some(())
    })?;
    d.end(&b, &task)?;
    d.finish()
}

/// The pipes of the restored process lead to the new streams.
fn with_streams(t: &Test) -> Verdict {
    use crate::shim::fifo::Streams;
    let d = Daemon::new(t)?;
    let first = Streams::make(t, "first", false)?;
    let b = ended(t, &d, &first.io, "print ready -- forever")?;
    let second = Streams::make(t, "second", false)?;
    let task = create_from(t, &d, &b, &second.io)?;
    task.start("")?;
    same("the state", task.state("")?.status, RUNNING)?;
    d.end(&b, &task)?;
    d.finish()
}

/// The message of the older type of runtime: 8 is the work path there, and 9 the images'.
fn older_options(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let options = Message::new().text(8, &t.file("criu-work")).text(9, &t.file("not-asked"));
    let request = Message::new().text(1, &task.id).text(2, &images(t));
    task.shim.call("Checkpoint", &request.any(3, "containerd.linux.runc.CheckpointOptions", &options.0))?;
    check!(t.path("images/inventory.img").exists(), "no images");
    check!(t.path("criu-work/dump.log").exists(), "no log in the work path");
    d.end(&b, &task)?;
    d.finish()
}

/// Create names no checkpoint, but its options do: in either message that clients send with one.
fn restore_by_options(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = ended(t, &d, &Io::null(), "forever")?;
    let newer = d.options().text(10, &images(t));
    let older = Message::new().text(13, &images(t));
    for (url, options) in [(RUNC_OPTIONS, newer), ("containerd.linux.runc.CreateOptions", older)] {
        let task = Task::new(d.shim(&b)?, &b.id);
        let request = task.create_request(&b, &Io::null(), &d.rootfs(), &Message::new());
        let answer = task.shim.call("Create", &request.any(10, url, &options.0))?;
        same("Create's pid", answer.number(1), 0)?;
        task.start("")?;
        same("the state", task.state("")?.status, RUNNING)?;
        task.kill("", 9, false)?;
        task.exit("")?;
        task.delete("")?;
        d.shut_down(&task.shim)?;
    }
    d.remove(&b)?;
    d.finish()
}

fn work_path(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = ended(t, &d, &Io::null(), "forever")?;
    let task = Task::new(d.shim(&b)?, &b.id);
    let options = d.options().text(11, &t.file("restore-work"));
    let request = task.create_request(&b, &Io::null(), &d.rootfs(), &options).text(8, &images(t));
    task.shim.call("Create", &request)?;
    task.start("")?;
    check!(t.path("restore-work/restore.log").exists(), "no log in the work path");
    d.end(&b, &task)?;
    d.finish()
}

fn never_started(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = ended(t, &d, &Io::null(), "forever")?;
    let task = create_from(t, &d, &b, &Io::null())?;
    task.delete("")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// A client that deletes what it has not started waits for the end of the output first: Docker, whose own part of a start fails.
fn holds_no_stream(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    b.write()?;
    let streams = crate::shim::fifo::Streams::make(t, "streams", false)?;
    let task = create_from(t, &d, &b, &streams.io)?;
    check!(!holds(&task.shim, &streams.io.stdout)?, "the shim has its output open");
    task.delete("")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// Whether the shim has that file open.
fn holds(shim: &Shim, path: &str) -> Result<bool, Trouble> {
    let mut fds = std::fs::read_dir(format!("/proc/{}/fd", shim.pid))?.flatten();
    Ok(fds.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == path)))
}

fn of_nothing(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    b.write()?;
    let task = create_from(t, &d, &b, &Io::null())?;
    fails("Start of nothing", task.start(""), &[UNKNOWN, NOT_FOUND, FAILED_PRECONDITION], "")?;
    task.delete("")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

fn created(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    let task = d.create(&b, &Io::null())?;
    let request = Message::new().text(1, &b.id).text(2, &images(t));
    fails(
        "Checkpoint of a created task",
        task.shim.call("Checkpoint", &request),
        &[UNKNOWN, FAILED_PRECONDITION],
        "created",
    )?;
    d.end(&b, &task)?;
    d.finish()
}
