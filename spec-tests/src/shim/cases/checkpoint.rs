// SPDX-License-Identifier: Apache-2.0
//! Checkpoint, and Create from one: Start then restores.

#![forbid(unsafe_code)]

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::shim::cases::errors::fails;
use crate::shim::daemon::Daemon;
use crate::shim::task::{CREATED, Io, RUNNING, STOPPED, Task};
use crate::shim::ttrpc::{FAILED_PRECONDITION, NOT_FOUND, UNKNOWN};
use crate::shim::wire::Message;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("checkpoint/leave-running", leave_running).needs(&[Need::Criu]),
        case("checkpoint/exit-and-restore", exit_and_restore).needs(&[Need::Criu]),
        case("checkpoint/restored-with-streams", with_streams).needs(&[Need::Criu]),
        case("checkpoint/never-started", never_started).needs(&[Need::Criu]),
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
    same("exits", d.events.count(&b.id, "exit"), 3)?;
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

fn never_started(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = ended(t, &d, &Io::null(), "forever")?;
    let task = create_from(t, &d, &b, &Io::null())?;
    task.delete("")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
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
