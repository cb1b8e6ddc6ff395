// SPDX-License-Identifier: Apache-2.0
//! A shim goes on as another program, in the same process: neither its clients nor its containers notice.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::{Called, Daemon, call};
use crate::shim::fifo::Streams;
use crate::shim::task::{CREATED, Io, PAUSED, RUNNING, STOPPED, Shim, Task};
use crate::shim::ttrpc;
use crate::shim::wire::Message;

const NEVER: &str = "is never replaced";

/// The chapter. What is refused and what turns back stands in `upgrade_refused`.
pub fn cases() -> Vec<Case> {
    vec![
        case("upgrade/waits-and-streams", waits_and_streams).runc(NEVER).takes(60.0),
        case("upgrade/terminal", terminal).runc(NEVER).takes(60.0),
        case("upgrade/every-phase", every_phase).runc(NEVER).takes(60.0),
        case("upgrade/pod", pod).runc(NEVER).takes(60.0),
        case("upgrade/daemon-away", daemon_away).runc(NEVER).takes(60.0),
        case("upgrade/files-and-loggers", files_and_loggers).runc(NEVER).takes(60.0),
        case("upgrade/half-a-frame", half_a_frame).runc(NEVER).takes(60.0),
        case("upgrade/replies-unread", replies_unread).runc(NEVER).takes(60.0),
        case("upgrade/ended-meanwhile", ended_meanwhile).runc(NEVER).takes(60.0),
        case("upgrade/killed-afterwards", killed_afterwards).runc(NEVER).takes(60.0),
        case("upgrade/all", all).runc(NEVER).takes(60.0),
        case("upgrade/another-name", another_name).runc(NEVER).takes(60.0),
    ]
}

/// `upgrade` with these words, run from this program.
pub fn command(program: &Path, words: &[&str]) -> Result<Called, Trouble> {
    let mut command = Command::new(program);
    command.env_clear().envs(crate::harness::host::choice_of_mutant()).arg("upgrade").args(words);
    call(command, &[], true)
}

/// The shim goes on as the very program that it was: its process stays, its clients stay, and it says so.
pub fn upgrade(d: &Daemon, task: &Task) -> Verdict {
    let called = command(&d.t.host.runtime, &[&task.id])?;
    let text = called.text();
    check!(called.code == Some(0), "upgrade ended with {:?}: {text}", called.code);
    check!(
        text.starts_with(&format!("shim {} ", task.shim.pid))
            && text.contains(&task.id)
            && text.contains(" -> "),
        "upgrade says {text:?}"
    );
    stays(&task.shim)?;
    same("its threads", procs::usage(task.shim.pid)?.threads, 1)
}

/// The process, its connection, and what containerd looks at.
pub fn stays(shim: &Shim) -> Verdict {
    check!(shim.client.is_open(), "the connection was closed");
    let told = shim.call("Connect", &Message::new().text(1, &shim.id))?.number(1);
    same("the shim's pid", told, shim.pid as u64)?;
    let name = std::fs::read_to_string(format!("/proc/{}/comm", shim.pid))?;
    same("its name", name.trim(), "containerd-shim")?;
    let words = std::fs::read_to_string(format!("/proc/{}/cmdline", shim.pid))?;
    check!(words.contains("-namespace\0") && words.contains("-id\0"), "its words are {words:?}");
    Ok(())
}

/// Waits for init and an exec, input and output of both, and a request that nobody else sees.
fn waits_and_streams(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("echo -- exit 7")?;
    let (init, exec) = (Streams::make(t, "init", false)?, Streams::make(t, "exec", false)?);
    let task = d.create(&b, &init.io)?;
    let ended = task.wait("");
    upgrade(&d, &task)?;
    same("the state", task.state("")?.status, CREATED)?;
    let pid = task.start("")?;
    task.exec("x", &["/probe", "echo", "--", "exit", "5"], &exec.io)?;
    let exec_ended = task.wait("x");
    upgrade(&d, &task)?;
    let exec_pid = task.start("x")?;
    exec.write("one\n")?;
    exec.out.until("one\n")?;
    upgrade(&d, &task)?;
    upgrade(&d, &task)?;
    same("the pids", (task.state("")?.pid, task.state("x")?.pid), (pid, exec_pid))?;
    check!(ended.is_open() && exec_ended.is_open(), "a Wait was answered");
    exec.write("two\n")?;
    exec.out.until("one\ntwo\n")?;
    check!(!exec.out.has_ended(), "the exec's output has ended");
    task.close_stdin("x")?;
    same("the exec's status", exec_ended.within(10.0)?.number(1), 5)?;
    same("Delete of the exec", task.delete("x")?.status, 5)?;
    same("its output", exec.to_end()?.0.as_str(), "one\ntwo\n")?;
    init.write("three\n")?;
    task.close_stdin("")?;
    upgrade(&d, &task)?;
    same("the status", ended.within(10.0)?.number(1), 7)?;
    upgrade(&d, &task)?;
    same("Delete", task.delete("")?.status, 7)?;
    same("the output", init.to_end()?.0.as_str(), "three\n")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.events.of_kind(&b.id, "delete")?;
    let story = ["create", "start", "exec-added x", "exec-started x", "exit x", "exit", "delete"];
    same("the events", d.events.story(&b.id), story.map(String::from).to_vec())?;
    d.finish()
}

fn terminal(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("sizes 1 -- echo")?.set("/process/terminal", json!(true));
    let streams = Streams::make(t, "tty", true)?;
    let task = d.create(&b, &streams.io)?;
    task.resize("", 90, 30)?;
    upgrade(&d, &task)?;
    task.start("")?;
    streams.out.until("size 30 90\r\n")?;
    upgrade(&d, &task)?;
    task.resize("", 101, 41)?;
    streams.out.until("size 41 101\r\n")?;
    streams.write("typed\n")?;
    streams.out.until("typed\r\ntyped\r\n")?;
    upgrade(&d, &task)?;
    streams.write("more\n")?;
    streams.out.until("more\r\nmore\r\n")?;
    check!(!streams.out.has_ended(), "the terminal's output has ended");
    streams.write("\u{4}")?;
    same("the status", task.exit("")?.status, 0)?;
    upgrade(&d, &task)?;
    task.delete("")?;
    streams.to_end()?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// Execs of one container, each in another phase of its life; what follows is as if nothing had been.
fn every_phase(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let add = |name: &str, words: &[&str]| task.exec(name, &[&["/probe"], words].concat(), &Io::null());
    add("added", &["exit", "3"])?;
    add("runs", &["forever"])?;
    task.start("runs")?;
    add("ended", &["exit", "4"])?;
    task.start("ended")?;
    let exit = task.exit("ended")?;
    task.exec("failed", &["/no/such/program"], &Io::null())?;
    check!(task.start("failed").is_err(), "a program that does not exist was started");
    task.pause()?;
    upgrade(&d, &task)?;
    same("the container's state", task.state("")?.status, PAUSED)?;
    task.resume()?;
    let status = |name: &str| task.state(name).map(|state| state.status);
    same("added", status("added")?, CREATED)?;
    same("runs", status("runs")?, RUNNING)?;
    same("ended", status("ended")?, STOPPED)?;
    same("the end", task.exit("ended")?, exit.clone())?;
    check!(task.start("failed").is_err(), "what has failed was started");
    task.start("added")?;
    same("its status", task.exit("added")?.status, 3)?;
    task.kill("runs", 9, false)?;
    same("its status", task.exit("runs")?.status, 137)?;
    for name in ["added", "runs", "failed"] {
        task.delete(name)?;
    }
    let deleted = task.delete("ended")?;
    same("the deleted exec's end", (deleted.status, deleted.at), (exit.status, exit.at))?;
    check!(
        task.pids()?.iter().any(|(pid, _)| Ok(*pid) == task.state("").map(|state| state.pid)),
        "Pids lacks init"
    );
    task.update(&json!({"pids": {"limit": 77}}))?;
    task.stats()?;
    d.end(&b, &task)?;
    d.finish()
}

/// Containers that share a shim: one waits for its start, one runs, one is frozen, one has ended and is not deleted.
fn pod(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (first, keeper) = d.launch("forever")?;
    let mut members = Vec::new();
    for probe in ["exit 1", "forever", "forever", "exit 4"] {
        let b = d.bundle(probe)?;
        let task = Task::new(keeper.shim.clone(), &b.id);
        task.create(&d, &b, &Io::null())?;
        members.push((b, task));
    }
    let [(_, waiting), (_, running), (_, frozen), (_, ended)] = &members[..] else {
        return Err("four members".into());
    };
    for task in [running, frozen, ended] {
        task.start("")?;
    }
    frozen.pause()?;
    let end = ended.exit("")?;
    // A connection of its own for each member, as containerd has them.
    let others: Vec<_> = members
        .iter()
        .map(|(b, _)| Shim::connect(&keeper.shim.address, 3, &b.id))
        .collect::<Result<_, _>>()?;
    let waits: Vec<_> = others
        .iter()
        .zip(&members)
        .map(|(shim, (b, _))| shim.begin("Wait", &Message::new().text(1, &b.id)))
        .collect();
    waits[3].within(10.0)?;
    upgrade(&d, &keeper)?;
    for shim in &others {
        stays(shim)?;
    }
    check!(waits[..3].iter().all(ttrpc::Pending::is_open), "a Wait was answered");
    waiting.start("")?;
    same("the first's status", waits[0].within(10.0)?.number(1), 1)?;
    same("the third's state", frozen.state("")?.status, PAUSED)?;
    same("the fourth's end", ended.exit("")?, end)?;
    frozen.kill("", 9, true)?;
    running.kill("", 9, true)?;
    for (wait, (b, task)) in waits.iter().zip(&members).take(3).skip(1) {
        same("the status", wait.within(10.0)?.number(1), 137)?;
        task.exit("").map_err(|failure| format!("{}: {failure:?}", b.id))?;
    }
    for (b, task) in &members {
        task.delete("")?;
        d.remove(b)?;
    }
    d.end(&first, &keeper)?;
    d.finish()
}

/// What containerd has not been told yet is told by the next program, all of it, once and in order.
fn daemon_away(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    d.events.of_kind(&b.id, "start")?;
    d.events.close();
    let mut want = vec!["create".to_owned(), "start".to_owned()];
    for n in 0..6 {
        let name = format!("x{n}");
        same("the status", task.execute(&name, &["/probe", "exit", "3"], &Io::null())?.status, 3)?;
        want.extend(["exec-added", "exec-started", "exit"].map(|kind| format!("{kind} {name}")));
        if n % 2 == 0 {
            upgrade(&d, &task)?;
        }
    }
    d.events.open()?;
    d.events.exit(&b.id, "x5")?;
    upgrade(&d, &task)?;
    d.end(&b, &task)?;
    want.extend(["exit", "delete"].map(String::from));
    same("the events", d.events.story(&b.id), want)?;
    d.finish()
}

/// A logger and files go on; a logger that ends is noticed.
fn files_and_loggers(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let dir = t.path("logged");
    std::fs::create_dir_all(&dir)?;
    let logger = dir.join("logger");
    let body = format!(
        "#!/bin/sh\nexec 5>&-\ncd {}; cat <&3 >out & cat <&4 >err; wait; echo done >ended\n",
        dir.display()
    );
    std::fs::write(&logger, body)?;
    std::fs::set_permissions(&logger, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let uri = format!("binary://{}", logger.display());
    let b = d.bundle("print begin -- sleep 0.7 -- print end -- exit 2")?;
    let task = d.create(&b, &Io { stdout: uri.clone(), stderr: uri, ..Io::default() })?;
    task.start("")?;
    let file = format!("file://{}/file", dir.display());
    let words = ["/probe", "print", "a", "--", "sleep", "0.5", "--", "print", "b", "--", "complain", "c"];
    task.exec("x", &words, &Io::both(&file))?;
    task.start("x")?;
    upgrade(&d, &task)?;
    same("the exec's status", task.exit("x")?.status, 0)?;
    task.delete("x")?;
    same("its file", std::fs::read_to_string(dir.join("file"))?.len(), 6)?;
    same("the status", task.exit("")?.status, 2)?;
    upgrade(&d, &task)?;
    task.delete("")?;
    t.until(|| "the logger's end".into(), || Ok(dir.join("ended").exists().then_some(())))?;
    same("the log", std::fs::read_to_string(dir.join("out"))?.as_str(), "begin\nend\n")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// A request of which one program reads the beginning and another the rest.
fn half_a_frame(t: &Test) -> Verdict {
    use std::io::Write;
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let state = ttrpc::request(&task.shim.service(), "State", &Message::new().text(1, &b.id)).0;
    let frame = ttrpc::frame(1, ttrpc::REQUEST, &state);
    // Over what is taken: it is passed over, by both.
    let mut large = (5u32 << 20).to_be_bytes().to_vec();
    large.extend([0, 0, 0, 1, ttrpc::REQUEST, 0]);
    large.resize(10 + (5 << 20), 0);
    for (bytes, cut) in [(&frame, 1), (&frame, 10), (&frame, frame.len() - 1), (&large, 2 << 20)] {
        let mut socket = std::os::unix::net::UnixStream::connect(&task.shim.address)?;
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        socket.write_all(&bytes[..cut])?;
        std::thread::sleep(std::time::Duration::from_millis(30));
        upgrade(&d, &task)?;
        socket.write_all(&bytes[cut..])?;
        let (stream, kind, payload) = ttrpc::read_frame(&mut socket)?;
        same("the answer's frame", (stream, kind), (1, ttrpc::RESPONSE))?;
        let refused = crate::shim::wire::Fields::read(&payload)?.message(1)?.number(1);
        same("its code", refused, if bytes.len() > frame.len() { 8 } else { 0 })?;
    }
    d.end(&b, &task)?;
    d.finish()
}

/// Answers that their client has not read are all there afterwards.
fn replies_unread(t: &Test) -> Verdict {
    use std::io::Write;
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let state = ttrpc::request(&task.shim.service(), "State", &Message::new().text(1, &b.id)).0;
    let mut socket = std::os::unix::net::UnixStream::connect(&task.shim.address)?;
    socket.set_write_timeout(Some(std::time::Duration::from_millis(300)))?;
    let mut asked = 0;
    // Until the shim takes no more: its outbox and the socket are full.
    while asked < 20_000 && socket.write_all(&ttrpc::frame(2 * asked + 1, ttrpc::REQUEST, &state)).is_ok() {
        asked += 1;
    }
    check!(asked < 20_000, "the shim reads on, although nobody reads what it says");
    upgrade(&d, &task)?;
    upgrade(&d, &task)?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    for n in 0..asked {
        let (stream, ..) = ttrpc::read_frame(&mut socket)?;
        same("the answer's stream", stream, 2 * n + 1)?;
    }
    drop(socket);
    d.end(&b, &task)?;
    d.finish()
}

/// Init ends at about the moment of the exec: its end is told once, with its status.
fn ended_meanwhile(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    for n in 0..8u64 {
        let b = d.bundle("echo -- exit 6")?;
        let streams = Streams::make(t, &format!("s{n}"), false)?;
        let task = d.create(&b, &streams.io)?;
        task.start("")?;
        let wait = task.wait("");
        let shim = task.shim.clone();
        let id = b.id.clone();
        let closing = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_micros(1500 * n));
            shim.call("CloseIO", &Message::new().text(1, &id).flag(3, true)).is_ok()
        });
        upgrade(&d, &task)?;
        check!(closing.join().unwrap_or(false), "CloseIO failed");
        same("the status", wait.within(10.0)?.number(1), 6)?;
        same("the event's status", d.events.exit(&b.id, "")?.status, 6)?;
        d.end(&b, &task)?;
    }
    d.finish()
}

/// `delete` after the death of the next program finds what the first one has recorded.
fn killed_afterwards(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let pid = task.state("")?.pid;
    upgrade(&d, &task)?;
    // Whoever starts beside it meets it.
    let again = d.start(&b)?;
    same("the address", again.address.as_str(), task.shim.address.as_str())?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(task.shim.pid), nix::sys::signal::Signal::SIGKILL)?;
    t.until(|| "the end of the shim".into(), || Ok((!procs::is_alive(task.shim.pid)).then_some(())))?;
    t.reap();
    let (told, status, _) = d.delete(&b)?;
    same("what delete tells", (told, status), (pid, 137))?;
    t.until(
        || "the end of init".into(),
        || {
            t.reap();
            Ok((!procs::is_alive(pid as i32)).then_some(()))
        },
    )?;
    d.remove(&b)?;
    d.finish()
}

/// Every shim there is, whatever its containers; an idle one, too.
fn all(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let launched: Vec<_> = (0..3).map(|_| d.launch("forever")).collect::<Result<_, _>>()?;
    // A socket that nobody listens on, and one of something else.
    drop(std::os::unix::net::UnixListener::bind("/run/containerd/s/dead")?);
    let _other = std::os::unix::net::UnixListener::bind("/run/containerd/s/other")?;
    let called = command(&t.host.runtime, &["--all"])?;
    check!(called.code == Some(0), "upgrade --all ended with {:?}: {}", called.code, called.text());
    same("its lines", called.text().lines().count(), 3)?;
    let called = command(&t.host.runtime, &["-namespace", "another", "--all"])?;
    same("of another namespace", (called.code, called.text().as_str()), (Some(0), ""))?;
    let called = command(&t.host.runtime, &["no-such-container"])?;
    check!(
        called.code == Some(1) && called.text().contains("no shim has container no-such-container"),
        "{}",
        called.text()
    );
    let called = command(&t.host.runtime, &[])?;
    check!(called.code == Some(1) && called.text().contains("usage"), "{}", called.text());
    for socket in ["dead", "other"] {
        std::fs::remove_file(Path::new("/run/containerd/s").join(socket))?;
    }
    for (b, task) in &launched {
        stays(&task.shim)?;
        check!(d.log(b)?.contains("goes on as"), "the log says nothing of it");
        d.end(b, task)?;
    }
    d.finish()
}

/// A shim that has gone on as a program of another name is found the next time, too.
fn another_name(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let other = t.path("new");
    std::fs::copy(&t.host.runtime, &other)?;
    let called = command(&t.host.runtime, &["-binary", &other.to_string_lossy(), &task.id])?;
    check!(called.code == Some(0), "upgrade ended with {:?}: {}", called.code, called.text());
    same("its program", std::fs::read_link(format!("/proc/{}/exe", task.shim.pid))?, other)?;
    upgrade(&d, &task)?;
    d.end(&b, &task)?;
    d.finish()
}
