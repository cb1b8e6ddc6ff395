// SPDX-License-Identifier: Apache-2.0
//! A shim that cannot go on as the program that it is told to goes on as it was, and says why.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::upgrade::{command, stays, upgrade};
use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::{Daemon, call};
use crate::shim::fifo::Streams;
use crate::shim::successor::{KIND, SHIM};
use crate::shim::task::{RUNNING, Task};
use crate::shim::wire::Message;
use crate::sys;

const NEVER: &str = "is never replaced";

/// The chapter.
pub fn cases() -> Vec<Case> {
    let kinds = [
        ("older", "knows nothing of it: too old"),
        ("something-else", "knows nothing of it"),
        ("killed", "killed by signal 6"),
    ];
    let back = [
        ("newer", "a hand-over of version 99: this program reads 1 to 2"),
        ("damaged-state", "the hand-over's state"),
        ("missing-descriptor", "descriptor 99999"),
        ("wrong-descriptor", "the new program could not take over"),
    ];
    let refused = kinds.map(|(kind, words)| {
        case(format!("upgrade/refused-{kind}"), move |t| stays_as_it_is(t, kind, words))
            .runc(NEVER)
            .takes(60.0)
    });
    let back = back.map(|(kind, words)| {
        case(format!("upgrade/back-from-{kind}"), move |t| stays_as_it_is(t, kind, words))
            .runc(NEVER)
            .takes(60.0)
    });
    let mut cases = vec![
        case("upgrade/refused-damaged", damaged).runc(NEVER).takes(60.0),
        case("upgrade/refused-silent", |t| stays_as_it_is(t, "silent", "no answer after 5"))
            .runc(NEVER)
            .needs(&[Need::Long])
            .takes(120.0),
        case("upgrade/other-hand-overs", other_hand_overs).runc(NEVER),
        case("upgrade/not-root", not_root).runc(NEVER),
        case("upgrade/back-for-want-of-descriptors", few_descriptors).runc(NEVER).takes(60.0),
        case("upgrade/back-to-a-logger", loggers_stay).runc(NEVER).takes(60.0),
        case("upgrade/work-under-way", |t| work_under_way(t, 2, true)).runc(NEVER).takes(90.0),
        case("upgrade/work-that-lasts", |t| work_under_way(t, 20, false))
            .runc(NEVER)
            .needs(&[Need::Long])
            .takes(120.0),
    ];
    cases.extend(refused);
    cases.extend(back);
    cases
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A container with an exec and a Wait, none of which may notice.
struct Alive<'t> {
    d: Daemon<'t>,
    b: crate::harness::bundle::Bundle,
    task: Task,
    streams: Streams,
}

impl<'t> Alive<'t> {
    fn make(t: &'t Test, environment: &[(&str, &str)]) -> Result<Self, Trouble> {
        let d = Daemon::new(t)?;
        d.environment.borrow_mut().extend(environment.iter().copied().map(own));
        let b = d.bundle("echo -- exit 9")?;
        let streams = Streams::make(t, "io", false)?;
        let task = d.create(&b, &streams.io)?;
        task.start("")?;
        Ok(Self { d, b, task, streams })
    }

    /// Tells it to go on as `program`, which comes to nothing; the answer and the log say `words`.
    fn refuses(&self, program: &str, words: &str) -> Verdict {
        let ended = self.task.wait("");
        let called = command(&self.d.t.host.runtime, &["-binary", program, &self.b.id])?;
        let text = called.text();
        check!(called.code == Some(1), "upgrade ended with {:?}: {text}", called.code);
        check!(
            text.contains(words) && text.contains("goes on as it is"),
            "upgrade says {text:?}, not {words:?}"
        );
        stays(&self.task.shim)?;
        same("the state", self.task.state("")?.status, RUNNING)?;
        check!(ended.is_open(), "a Wait was answered");
        let program = fs::read_link(format!("/proc/{}/exe", self.task.shim.pid))?;
        same("the shim's program", program.as_path(), self.d.t.host.runtime.as_path())?;
        let log = self.d.log(&self.b)?;
        check!(log.contains("goes on as it"), "the log says nothing of it: {log:?}");
        Ok(())
    }

    /// Everything goes on, another upgrade as well.
    fn end(self) -> Verdict {
        let Self { d, b, task, streams } = self;
        let ended = task.wait("");
        upgrade(&d, &task)?;
        streams.write("still\n")?;
        streams.out.until("still\n")?;
        task.close_stdin("")?;
        same("the status", ended.within(10.0)?.number(1), 9)?;
        d.end(&b, &task)?;
        streams.to_end()?;
        d.finish()
    }
}

/// A program of that kind: this one, under a shim's name.
fn stays_as_it_is(t: &Test, kind: &str, words: &str) -> Verdict {
    let shim = t.host.runtime.to_string_lossy().into_owned();
    let alive = Alive::make(t, &[(KIND, kind), (SHIM, &shim)])?;
    let program = std::env::current_exe()?;
    alive.refuses(&program.to_string_lossy(), words)?;
    alive.refuses(&program.to_string_lossy(), words)?;
    alive.end()
}

fn damaged(t: &Test) -> Verdict {
    let alive = Alive::make(t, &[])?;
    let write = |name: &str, bytes: &[u8], mode: u32| -> Result<String, Trouble> {
        let path = t.path(name);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(path.to_string_lossy().into_owned())
    };
    let whole = fs::read(&t.host.runtime)?;
    let half = write("half", &whole[..whole.len() / 2], 0o755)?;
    let called = command(&t.host.runtime, &["-binary", &half, &alive.b.id])?;
    check!(called.code == Some(1), "half a program: {}", called.text());
    stays(&alive.task.shim)?;
    alive.d.log(&alive.b)?;
    alive.refuses(&write("text", b"no program", 0o755)?, "execve: Exec format error")?;
    alive.refuses(&write("empty", b"", 0o755)?, "execve: Exec format error")?;
    alive.refuses(&write("not-executable", &whole, 0o644)?, "execve: Permission denied")?;
    alive.refuses("/no/such/program", "open(/no/such/program)")?;
    alive.refuses("/", "is no file")?;
    let fifo = t.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR)?;
    alive.refuses(&fifo.to_string_lossy(), "is no file")?;
    alive.end()
}

/// The new program copies every descriptor, for which there may be no room; the old one must do without on its way back.
fn few_descriptors(t: &Test) -> Verdict {
    let alive = Alive::make(t, &[])?;
    let pid = alive.task.shim.pid;
    let before = procs::usage(pid)?.fds;
    let connect = |_| std::os::unix::net::UnixStream::connect(&alive.task.shim.address);
    let clients = (0..60).map(connect).collect::<Result<Vec<_>, _>>()?;
    let open = t.until(
        || "60 clients in the shim".into(),
        || Ok(Some(procs::usage(pid)?.fds).filter(|open| *open >= before + 60)),
    )?;
    let limit = sys::limit_open_files(pid, open as u64 + 20)?;
    alive.refuses(&t.host.runtime.to_string_lossy(), "EMFILE")?;
    drop(clients);
    sys::limit_open_files(pid, limit)?;
    alive.end()
}

/// A logger that was taken over already when the new program found out that it cannot go on.
fn loggers_stay(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let shim = t.host.runtime.to_string_lossy().into_owned();
    d.environment.borrow_mut().extend([(KIND, "damaged-exec"), (SHIM, &*shim)].map(own));
    let dir = t.path("logged");
    fs::create_dir_all(&dir)?;
    let logger = dir.join("logger");
    let body =
        "#!/bin/sh\ntrap 'echo told >told' TERM\nexec 5>&-\ncd DIR; cat <&3 >out & cat <&4 >err; wait\n";
    fs::write(&logger, body.replace("DIR", &dir.to_string_lossy()))?;
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755))?;
    let uri = format!("binary://{}", logger.display());
    let b = d.bundle("print begin -- sleep 2 -- print end -- exit 2")?;
    let io = crate::shim::task::Io { stdout: uri.clone(), stderr: uri, ..Default::default() };
    let task = d.create(&b, &io)?;
    task.start("")?;
    task.exec("x", &["/probe", "exit", "5"], &crate::shim::task::Io::null())?;
    let called =
        command(&t.host.runtime, &["-binary", &std::env::current_exe()?.to_string_lossy(), &task.id])?;
    check!(called.text().contains("could not take over: "), "upgrade says {:?}", called.text());
    stays(&task.shim)?;
    task.start("x")?;
    same("the exec's status", task.exit("x")?.status, 5)?;
    same("the status", task.exit("")?.status, 2)?;
    check!(!dir.join("told").exists(), "the logger was told to end");
    upgrade(&d, &task)?;
    d.end(&b, &task)?;
    same("the log", fs::read_to_string(dir.join("out"))?.as_str(), "begin\nend\n")?;
    d.finish()
}

/// What `upgrade-check` says of memfds that are none of its own.
fn other_hand_overs(t: &Test) -> Verdict {
    let dir = t.path("hand-overs");
    fs::create_dir_all(&dir)?;
    let plain = dir.join("plain");
    fs::write(&plain, "CORTENUP")?;
    let mut shim = Command::new("/bin/sh");
    shim.args(["-c", "exec 3<\"$0\"; exec \"$1\" upgrade-check 3"]).arg(&plain).arg(&t.host.runtime);
    let called = call(shim, &[], true)?;
    check!(called.code == Some(1) && called.text().contains("is no memfd"), "a file: {}", called.text());
    for words in [&["upgrade-check"][..], &["upgrade-check", "77"], &["take-over"], &["take-over", "77"]] {
        let mut shim = Command::new(&t.host.runtime);
        shim.args(words);
        let called = call(shim, &[], true)?;
        check!(
            called.code == Some(1) && !called.text().is_empty(),
            "{words:?}: {:?} {}",
            called.code,
            called.text()
        );
    }
    Ok(())
}

/// Neither the command, nor whoever gets to the socket.
fn not_root(t: &Test) -> Verdict {
    let alive = Alive::make(t, &[])?;
    // The programs may lie where only root can go.
    let copied = |name: &str, from: PathBuf| -> Result<PathBuf, Trouble> {
        let copy = t.path(name);
        fs::copy(from, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        Ok(copy)
    };
    let shim = copied("containerd-shim-corten-v2", t.host.runtime.clone())?;
    let mut stranger = Command::new(&shim);
    stranger.args(["upgrade", "--all"]);
    sys::as_user(&mut stranger, 1000);
    let called = call(stranger, &[], true)?;
    check!(
        called.code == Some(1) && called.text().contains("only root may"),
        "another user's: {}",
        called.text()
    );
    fs::set_permissions("/run/containerd/s", fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(&alive.task.shim.address, fs::Permissions::from_mode(0o666))?;
    let mut stranger = Command::new(copied("stranger", std::env::current_exe()?)?);
    stranger.args(["shim-upgrade", &alive.task.shim.address]).arg(&shim);
    sys::as_user(&mut stranger, 1000);
    let called = call(stranger, &[], true)?;
    check!(called.text().starts_with("refused"), "another user's request: {}", called.text());
    stays(&alive.task.shim)?;
    let log = alive.d.log(&alive.b)?;
    check!(log.contains("another user was refused"), "the log says {log:?}");
    alive.end()
}

/// A create that takes `seconds`: it is waited for, or named as what is in the way. Others are served meanwhile.
fn work_under_way(t: &Test, seconds: u64, done: bool) -> Verdict {
    let alive = Alive::make(t, &[])?;
    let hook = json!({"path": "/bin/sleep", "args": ["sleep", seconds.to_string()]});
    let b = alive.d.bundle("exit 3")?.set("/hooks", json!({"createRuntime": [hook]}));
    b.write()?;
    let task = Task::new(alive.task.shim.clone(), &b.id);
    let request =
        task.create_request(&b, &crate::shim::task::Io::null(), &alive.d.rootfs(), &alive.d.options());
    let create = task.shim.begin("Create", &request);
    std::thread::sleep(Duration::from_millis(200));
    if done {
        upgrade(&alive.d, &alive.task)?;
    } else {
        alive.refuses(&t.host.runtime.to_string_lossy(), &format!("Create of {}", b.id))?;
    }
    create.within(30.0)?;
    task.start("")?;
    same("the status", task.exit("")?.status, 3)?;
    task.delete("")?;
    alive.d.remove(&b)?;
    alive.end()
}

/// For a case: asks the shim at `address` to go on as `program`, as whoever we are.
pub fn ask(args: &[String]) -> std::process::ExitCode {
    let [address, program] = args else { return std::process::ExitCode::from(2) };
    let payload = Message(json!({"binary": program}).to_string().into_bytes());
    let asked = crate::shim::ttrpc::Client::connect(address)
        .map_err(Trouble::from)
        .and_then(|client| Ok(client.call("corten.shim.v1.Upgrade", "Upgrade", &payload)?));
    match asked {
        Ok(_) => println!("went on"),
        Err(trouble) => println!("refused: {trouble:?}"),
    }
    std::process::ExitCode::SUCCESS
}
