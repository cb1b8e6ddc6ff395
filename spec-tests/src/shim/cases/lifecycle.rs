// SPDX-License-Identifier: Apache-2.0
//! A container from `start` of the shim to its Shutdown, and the same for execs.

#![forbid(unsafe_code)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use serde_json::json;

use crate::check;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::shim::cases::errors::fails;
use crate::shim::daemon::Daemon;
use crate::shim::fifo::Streams;
use crate::shim::task::{CREATED, Io, PAUSED, RUNNING, STOPPED, Task};
use crate::shim::ttrpc::NOT_FOUND;
use crate::shim::wire::{Fields, Message};

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("lifecycle/whole", |t| whole(t, 3)),
        case("lifecycle/whole-v2", |t| whole(t, 2)).runc("2.x serves version 3 only"),
        case("lifecycle/exit-code-and-signal", exit_code_and_signal),
        case("lifecycle/killed-when-created", killed_when_created),
        case("lifecycle/deleted-when-created", deleted_when_created).runc("tells the end after the deletion"),
        case("lifecycle/shutdown-now", shutdown_now),
        case("lifecycle/wait-before-and-after", wait_before_and_after),
        case("lifecycle/output-and-input", output_and_input),
        case("lifecycle/terminal", terminal),
        case("lifecycle/exec", exec),
        case("lifecycle/exec-terminal", exec_terminal),
        case("lifecycle/exec-alive-at-the-end", exec_alive_at_the_end),
        case("lifecycle/exec-id-is-free-again", exec_id_is_free_again),
        case("lifecycle/pause", pause),
        case("lifecycle/killed-when-paused", killed_when_paused),
        case("lifecycle/pids", pids),
        case("lifecycle/update", update).needs(&[Need::Controller("pids")]),
        case("lifecycle/stats", stats),
        case("lifecycle/oom", oom).needs(&[Need::Controller("memory")]).takes(60.0),
        case("lifecycle/kill-all", kill_all),
        case("lifecycle/host-pid-namespace", host_pid_namespace),
        case("lifecycle/two-in-one-shim", two_in_one_shim),
        case("lifecycle/id-mapped-layers", id_mapped_layers).runc("at times: leaves a layer mounted"),
    ]
}

fn whole(t: &Test, version: u8) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("block SIGTERM -- print ready -- forever")?;
    let streams = Streams::make(t, "whole", false)?;
    let task = Task::new(d.shim(&b)?, &b.id);
    task.shim.speak(version);
    let pid = task.create(&d, &b, &streams.io)?;
    check!(pid > 0, "Create tells no pid");
    let state = task.state("")?;
    same("the state's pid", state.pid, pid)?;
    same("the state after Create", state.status, CREATED)?;
    same("the bundle", state.bundle.as_str(), &*b.dir.to_string_lossy())?;
    same("stdout", &state.io.stdout, &streams.io.stdout)?;
    check!(state.exited_at < -6e10, "exited_at of a living process is {}, not Go's zero", state.exited_at);
    same("Start's pid", task.start("")?, pid)?;
    same("the state after Start", task.state("")?.status, RUNNING)?;
    streams.out.until("ready")?;
    let connect = task.shim.call("Connect", &Message::new().text(1, &b.id))?;
    same("Connect's shim", connect.number(1) as i32, task.shim.pid)?;
    same("Connect's task", connect.number(2), pid)?;
    let wait = task.wait("");
    task.kill("", 15, false)?;
    let exit = wait.within(10.0)?;
    same("the exit status", exit.number(1), 143)?;
    same("the state after the end", task.state("")?.status, STOPPED)?;
    same("the state's exit status", task.state("")?.exit_status, 143)?;
    let deleted = task.delete("")?;
    same("Delete's pid", deleted.pid, pid)?;
    same("Delete's status", deleted.status, 143)?;
    check!((deleted.at - exit.time(2)?).abs() < 1e-6, "Wait and Delete tell different times");
    streams.to_end()?;
    d.events.of_kind(&b.id, "delete")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    same("the events", d.events.story(&b.id), ["create", "start", "exit", "delete"].map(String::from))?;
    for event in d.events.all() {
        same("the namespace", event.namespace.as_str(), "spec-tests")?;
        same(&format!("the pid of {}", event.kind), event.pid, pid)?;
    }
    d.finish()
}

fn exit_code_and_signal(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    for (probe, status) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("die SIGKILL", 0), ("die SIGABRT", 0)]
    {
        // A first process cannot kill itself; in the host's pid namespace it can.
        let mut b = d.bundle(probe)?;
        let status = if probe.starts_with("die") {
            b = b.without_namespace("pid");
            if probe.ends_with("KILL") { 137 } else { 134 }
        } else {
            status
        };
        let task = d.create(&b, &Io::null())?;
        task.start("")?;
        same(probe, task.exit("")?.status, status)?;
        same("the event's status", d.events.exit(&b.id, "")?.status, status)?;
        d.end(&b, &task)?;
    }
    d.finish()
}

fn killed_when_created(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    let task = d.create(&b, &Io::null())?;
    let wait = task.wait("");
    task.kill("", 9, true)?;
    same("the status", wait.within(10.0)?.number(1), 137)?;
    same("the event's status", d.events.exit(&b.id, "")?.status, 137)?;
    check!(task.start("").is_err(), "what was killed could be started");
    d.end(&b, &task)?;
    same("the events", d.events.story(&b.id), ["create", "exit", "delete"].map(String::from))?;
    d.finish()
}

/// What was never started goes without a Kill, and no status is told of it.
fn deleted_when_created(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    let task = d.create(&b, &Io::null())?;
    let pid = task.state("")?.pid;
    let exit = task.delete("")?;
    same("Delete's pid and status", (exit.pid, exit.status), (pid, 0))?;
    check!(exit.at < -6e10, "exited_at of what never ran is {}, not Go's zero", exit.at);
    check!(!crate::harness::procs::is_alive(pid as i32), "process {pid} lives");
    fails("State after Delete", task.state(""), &[NOT_FOUND], "")?;
    same("the status of the event", d.events.of_kind(&b.id, "delete")?.status, 0)?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

fn shutdown_now(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    task.shim.call("Shutdown", &Message::new().text(1, &b.id).flag(2, true))?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    same("the state after Shutdown", task.state("")?.status, RUNNING)?;
    d.end(&b, &task)?;
    d.finish()
}

fn wait_before_and_after(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("exit 9")?;
    let task = d.create(&b, &Io::null())?;
    let before: Vec<_> = (0..50).map(|_| task.wait("")).collect();
    std::thread::sleep(std::time::Duration::from_millis(50));
    check!(before.iter().all(|wait| wait.is_open()), "Wait of a created task was answered");
    task.start("")?;
    for wait in before {
        same("a Wait from before", wait.within(10.0)?.number(1), 9)?;
    }
    same("a Wait from after", task.exit("")?.status, 9)?;
    d.end(&b, &task)?;
    d.finish()
}

fn output_and_input(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("print to out -- complain to err -- echo -- exit 3")?;
    let streams = Streams::make(t, "io", false)?;
    let task = d.create(&b, &streams.io)?;
    task.start("")?;
    streams.out.until("to out\n")?;
    streams.write("some input\n")?;
    streams.out.until("some input\n")?;
    check!(task.state("")?.status == RUNNING, "it ended although its input did not");
    streams.write("and more\n")?;
    task.close_stdin("")?;
    task.close_stdin("")?;
    same("the status", task.exit("")?.status, 3)?;
    let (out, err) = (|| {
        task.delete("")?;
        streams.to_end()
    })()?;
    same("stdout", out.as_str(), "to out\nsome input\nand more\n")?;
    same("stderr", err.as_str(), "to err\n")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

fn terminal(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("sizes 1 -- echo")?.set("/process/terminal", json!(true));
    let streams = Streams::make(t, "tty", true)?;
    let task = d.create(&b, &streams.io)?;
    task.resize("", 90, 30)?;
    task.start("")?;
    streams.out.until("size 30 90\r\n")?;
    task.resize("", 101, 41)?;
    streams.out.until("size 41 101\r\n")?;
    streams.write("typed\n")?;
    streams.out.until("typed\r\ntyped\r\n")?;
    streams.write("\u{4}")?; // the end of input, as the terminal has it
    same("the status", task.exit("")?.status, 0)?;
    task.delete("")?;
    streams.to_end()?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

fn exec(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let streams = Streams::make(t, "exec", false)?;
    let args = ["/probe", "print", "hi", "--", "complain", "ho", "--", "echo", "--", "exit", "5"];
    task.exec("x1", &args, &streams.io)?;
    let state = task.state("x1")?;
    same("the exec's state", (state.status, state.pid), (CREATED, 0))?;
    let wait = task.wait("x1");
    let pid = task.start("x1")?;
    same("the exec's state", (task.state("x1")?.status, task.state("x1")?.pid), (RUNNING, pid))?;
    streams.write("in\n")?;
    task.close_stdin("x1")?;
    same("the exec's status", wait.within(10.0)?.number(1), 5)?;
    let state = task.state("x1")?;
    same("the exec's state", (state.status, state.exit_status), (STOPPED, 5))?;
    let deleted = task.delete("x1")?;
    same("Delete of the exec", (deleted.pid, deleted.status), (pid, 5))?;
    same("its output", streams.to_end()?, ("hi\nin\n".to_owned(), "ho\n".to_owned()))?;
    let gone = task.state("x1");
    check!(gone.as_ref().is_err_and(|f| f.code == NOT_FOUND), "State of a deleted exec: {gone:?}");
    task.exec("x2", &["/probe", "forever"], &Io::null())?;
    task.start("x2")?;
    task.kill("x2", 9, false)?;
    same("the killed exec's status", task.exit("x2")?.status, 137)?;
    task.delete("x2")?;
    d.end(&b, &task)?;
    let execs = [
        "create",
        "start",
        "exec-added x1",
        "exec-started x1",
        "exit x1",
        "exec-added x2",
        "exec-started x2",
    ];
    let story: Vec<_> = execs.into_iter().chain(["exit x2", "exit", "delete"]).map(String::from).collect();
    same("the events", d.events.story(&b.id), story)?;
    d.finish()
}

fn exec_terminal(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let streams = Streams::make(t, "tty", true)?;
    task.exec("x", &["/probe", "sizes", "1"], &streams.io)?;
    task.start("x")?;
    streams.out.until("size ")?;
    task.resize("x", 77, 22)?;
    streams.out.until("size 22 77\r\n")?;
    same("the status", task.exit("x")?.status, 0)?;
    task.delete("x")?;
    streams.to_end()?;
    task.resize("", 10, 10)?; // without a terminal: nothing happens
    d.end(&b, &task)?;
    d.finish()
}

fn exec_alive_at_the_end(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    for n in 0..8 {
        task.exec(&format!("x{n}"), &["/probe", "forever"], &Io::null())?;
        task.start(&format!("x{n}"))?;
    }
    task.exec("never-started", &["/probe", "forever"], &Io::null())?;
    task.end()?;
    d.events.exit(&b.id, "")?;
    same("exits before the container's", d.events.count(&b.id, "exit"), 9)?;
    for n in 0..8 {
        same("an exec's status", task.exit(&format!("x{n}"))?.status, 137)?;
    }
    d.end(&b, &task)?;
    d.finish()
}

fn exec_id_is_free_again(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    for code in 1..6u64 {
        let exit = task.execute("same", &["/probe", "exit", &code.to_string()], &Io::null())?;
        same("the status", exit.status, code)?;
    }
    d.end(&b, &task)?;
    d.finish()
}

fn pause(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    task.pause()?;
    same("the state", task.state("")?.status, PAUSED)?;
    task.resume()?;
    same("the state", task.state("")?.status, RUNNING)?;
    d.events.of_kind(&b.id, "paused")?;
    d.events.of_kind(&b.id, "resumed")?;
    d.end(&b, &task)?;
    d.finish()
}

fn killed_when_paused(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    task.pause()?;
    task.kill("", 9, true)?;
    same("the status", task.exit("")?.status, 137)?;
    d.end(&b, &task)?;
    d.finish()
}

fn pids(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("spawn forever -- forever")?;
    let task = d.create(&b, &Io::null())?;
    same("a created task's pids", task.pids()?.len(), 1)?;
    let init = task.start("")?;
    task.exec("x", &["/probe", "forever"], &Io::null())?;
    let exec = task.start("x")?;
    let pids =
        t.until(|| "three processes".into(), || Ok(Some(task.pids()?).filter(|pids| pids.len() == 3)))?;
    check!(pids.contains(&(init, String::new())), "{init} is not among {pids:?}");
    check!(pids.contains(&(exec, "x".to_owned())), "{exec} is not told as the exec x's: {pids:?}");
    task.kill("x", 9, false)?;
    task.exit("x")?;
    task.delete("x")?;
    d.end(&b, &task)?;
    d.finish()
}

fn update(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    task.update(&json!({"pids": {"limit": 77}}))?;
    let (kind, stats) = task.stats()?;
    let limit = stats.message(if kind.contains("v2") { 1 } else { 2 })?.number(2);
    same("the limit that Stats tells", limit, 77)?;
    d.end(&b, &task)?;
    d.finish()
}

fn stats(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let (kind, stats) = task.stats()?;
    let want =
        if t.host.is_v2() { "io.containerd.cgroups.v2.Metrics" } else { "io.containerd.cgroups.v1.Metrics" };
    same("the type", kind.as_str(), want)?;
    let (cpu, memory) = if t.host.is_v2() { (2, 4) } else { (3, 4) };
    check!(t.host.lacks(Need::Controller("memory")).is_some() || stats.has(memory), "no memory in {stats:?}");
    check!(stats.has(cpu), "no cpu in {stats:?}");
    task.end()?;
    d.end(&b, &task)?;
    d.finish()
}

fn oom(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("eat 200000000")?.set("/linux/resources/memory/limit", json!(16 << 20));
    let b = b.set("/linux/resources/memory/swap", json!(16 << 20));
    let task = d.create(&b, &Io::null())?;
    task.start("")?;
    same("the status", task.exit("")?.status, 137)?;
    d.events.exit(&b.id, "")?;
    let story = d.events.story(&b.id);
    let oom = story.iter().position(|kind| kind == "oom");
    check!(oom.is_some(), "no event of the OOM kill: {story:?}");
    check!(
        oom < story.iter().position(|kind| kind == "exit"),
        "the OOM came after the exit it caused: {story:?}"
    );
    d.end(&b, &task)?;
    d.finish()
}

fn kill_all(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("spawn forever -- spawn forever -- forever")?.without_namespace("pid");
    let task = d.create(&b, &Io::null())?;
    task.start("")?;
    t.until(|| "three processes".into(), || Ok((task.pids()?.len() == 3).then_some(())))?;
    task.kill("", 9, true)?;
    same("the status", task.exit("")?.status, 137)?;
    d.end(&b, &task)?;
    d.finish()
}

fn host_pid_namespace(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("spawn forever -- forever")?.without_namespace("pid");
    let task = d.create(&b, &Io::null())?;
    let init = task.start("")?;
    let pids =
        t.until(|| "two processes".into(), || Ok(Some(task.pids()?).filter(|pids| pids.len() == 2)))?;
    task.end()?;
    d.events.exit(&b.id, "")?;
    let other = pids.iter().find(|(pid, _)| *pid != init).map_or(0, |(pid, _)| *pid as i32);
    check!(!crate::harness::procs::is_alive(other), "its child {other} outlived the container's exit");
    d.end(&b, &task)?;
    d.finish()
}

fn two_in_one_shim(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let group = |b: crate::harness::bundle::Bundle, id: &str| {
        b.set("/annotations/io.kubernetes.cri.sandbox-id", json!(id))
    };
    let (first, second) = (d.bundle("forever")?, d.bundle("exit 4")?);
    let (first, second) = (group(first.clone(), &first.id), group(second, &first.id));
    let one = d.create(&first, &Io::null())?;
    let two = d.create(&second, &Io::null())?;
    same("the second's address", &two.shim.address, &one.shim.address)?;
    same("the second's shim", two.shim.pid, one.shim.pid)?;
    one.start("")?;
    two.start("")?;
    same("the second's status", two.exit("")?.status, 4)?;
    two.delete("")?;
    // Not while the first lives.
    one.shim.call("Shutdown", &Message::new().text(1, &second.id))?;
    std::thread::sleep(std::time::Duration::from_millis(100));
    same("the first's state", one.state("")?.status, RUNNING)?;
    d.remove(&second)?;
    d.end(&first, &one)?;
    d.finish()
}

/// What a snapshotter asks for when the container has a user namespace: files of the image are seen through it.
fn id_mapped_layers(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("put /bin/new text")?.user_namespace().set("/root/readonly", json!(false));
    b.write()?;
    let [upper, work, empty] = ["upper", "work", "empty"].map(|name| b.dir.join(name));
    for dir in [&upper, &work, &empty] {
        fs::create_dir(dir)?;
        chown(dir, Some(100_000), Some(100_000))?;
    }
    // containerd opens its directories to the container's root, too.
    for dir in b.dir.ancestors().take_while(|dir| dir.parent() != Some(Path::new("/"))) {
        fs::set_permissions(dir, Permissions::from_mode(0o711))?;
    }
    let lower = Fields::read(&d.rootfs().remove(0).0)?.text(2);
    fs::create_dir_all(format!("{lower}/bin"))?;
    let options = [
        format!("lowerdir={}:{lower}", empty.display()),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
        "uidmap=0:100000:65536".into(),
        "gidmap=0:100000:65536".into(),
    ];
    let overlay = Message::new().text(1, "overlay").text(2, "overlay");
    let mount = options.iter().fold(overlay, |mount, option| mount.text(4, option));
    let task = Task::new(d.shim(&b)?, &b.id);
    let streams = Streams::make(t, "io", false)?;
    task.shim.call("Create", &task.create_request(&b, &streams.io, &[mount], &d.options()))?;
    task.start("")?;
    let status = task.exit("")?.status;
    check!(status == 0, "the status is {status}: {:?}", streams.err.map(|err| err.so_far()));
    let made = fs::metadata(upper.join("bin/new"))?;
    same("the owner of what it made", (made.uid(), made.gid()), (100_000, 100_000))?;
    check!(!b.dir.join("layers").exists(), "the mapped layers are still there");
    d.end(&b, &task)?;
    d.finish()
}
