// SPDX-License-Identifier: Apache-2.0
//! Another runtime behind the shim, driven by its command line: what programs around it rely on, and what must not
//! stand in its way.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::fifo::Streams;
use crate::shim::task::{Io, Task};

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("behind/notify-socket", notify_socket).takes(60.0),
        case("behind/working-directory-and-pid-file", directory_and_pid_file).takes(60.0),
        case("behind/guessed-names", guessed_names).takes(60.0),
        case("behind/terminal-with-long-names", long_names).takes(60.0),
        case("behind/full-bundle", full_bundle).takes(60.0),
    ]
}

/// A script that notes its arguments, working directory and environment, and goes on as runc.
fn wrapper(t: &Test) -> Result<(PathBuf, PathBuf), Trouble> {
    let runc = t.host.runc.as_ref().ok_or_else(|| Trouble::NotRun("no --runc".to_owned()))?;
    let (path, log) = (t.path("wrapped-runc"), t.path("calls"));
    let script = format!(
        "#!/bin/sh\necho \"$(pwd -P)|$NOTIFY_SOCKET|$*\" >>{}\nexec {} \"$@\"\n",
        log.display(),
        runc.display()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    fs::write(&log, "")?;
    Ok((path, log))
}

/// The call of `verb` that names `id`: its working directory, NOTIFY_SOCKET and arguments.
fn called(log: &Path, verb: &str, id: &str) -> Result<[String; 3], Trouble> {
    let text = fs::read_to_string(log)?;
    let names = |line: &&str| line.contains(&format!(" {verb} ")) && line.ends_with(id);
    let line = text.lines().find(names).ok_or_else(|| format!("no {verb} of {id} in {text:?}"))?;
    let mut words = line.splitn(3, '|').map(str::to_owned);
    let mut next = || words.next().unwrap_or_default();
    Ok([next(), next(), next()])
}

fn create(d: &Daemon, b: &Bundle, io: &Io, program: &Path) -> Result<Task, Trouble> {
    b.write()?;
    let task = Task::new(d.shim(b)?, &b.id);
    let options = d.options().text(6, &program.to_string_lossy());
    task.shim.call("Create", &task.create_request(b, io, &d.rootfs(), &options))?;
    Ok(task)
}

/// containerd is a service with Type=notify. A runc that inherits its socket waits at `start` for the container's word.
fn notify_socket(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (program, log) = wrapper(t)?;
    let path = t.path("notify");
    let _socket = UnixDatagram::bind(&path)?;
    d.environment.borrow_mut().push(("NOTIFY_SOCKET".into(), path.to_string_lossy().into_owned()));
    let b = d.bundle("forever")?;
    let task = create(&d, &b, &Io::null(), &program)?;
    task.start("")?;
    task.execute("x", &["/probe", "exit", "5"], &Io::null())?;
    for verb in ["create", "start", "exec"] {
        same(&format!("NOTIFY_SOCKET at {verb}"), called(&log, verb, &b.id)?[1].as_str(), "")?;
    }
    d.end(&b, &task)?;
    d.finish()
}

/// The working directory is the bundle that the shim was started in, and init's pid stands in the container's own.
fn directory_and_pid_file(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (program, log) = wrapper(t)?;
    let first = d.bundle("forever")?;
    let one = create(&d, &first, &Io::null(), &program)?;
    let second = d.bundle("forever")?.set("/annotations/io.kubernetes.cri.sandbox-id", json!(first.id));
    let two = create(&d, &second, &Io::null(), &program)?;
    same("the shim", two.shim.pid, one.shim.pid)?;
    let home = fs::canonicalize(&first.dir)?.to_string_lossy().into_owned();
    for (b, task) in [(&first, &one), (&second, &two)] {
        let pid = task.start("")?;
        task.execute("x", &["/probe", "exit", "5"], &Io::null())?;
        let file = b.dir.join("init.pid");
        same("init.pid", fs::read_to_string(&file)?.trim(), pid.to_string().as_str())?;
        let create = called(&log, "create", &b.id)?;
        let told = format!("--pid-file {} ", file.display());
        check!(create[2].contains(&told), "create was called with {}", create[2]);
        for verb in ["create", "start", "exec"] {
            same(&format!("{verb}'s working directory"), &called(&log, verb, &b.id)?[0], &home)?;
        }
    }
    for (b, task) in [(&second, &two), (&first, &one)] {
        task.kill("", 9, true)?;
        task.exit("")?;
        task.delete("")?;
        d.events.of_kind(&b.id, "delete")?;
    }
    d.shut_down(&one.shim)?;
    d.remove(&second)?;
    d.remove(&first)?;
    d.finish()
}

/// Whoever may write to the directory of temporary files knows the shim's pid; no name that it could guess is used.
fn guessed_names(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (program, _) = wrapper(t)?;
    let shared = t.path("shared");
    fs::create_dir(&shared)?;
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777))?;
    d.environment.borrow_mut().push(("TMPDIR".into(), shared.to_string_lossy().into_owned()));
    let b = d.bundle("forever")?;
    let task = create(&d, &b, &Io::null(), &program)?;
    for dir in [&shared, Path::new("/tmp"), &b.dir] {
        for number in 0..64 {
            let name = dir.join(format!(".call-{}-{number}", task.shim.pid));
            if fs::create_dir(&name).is_ok() {
                t.at_end(move || drop(fs::remove_dir(&name)));
            }
        }
    }
    task.start("")?;
    same("an exec", task.execute("x", &["/probe", "exit", "5"], &Io::null())?.status, 5)?;
    task.update(&json!({"cpu": {"shares": 512}})).or_else(|failure| {
        // Without a cpu controller the runtime says so; what counts is that it was asked.
        if failure.text.contains("cpu") { Ok(()) } else { Err(failure) }
    })?;
    task.pause()?;
    task.resume()?;
    d.end(&b, &task)?;
    let strangers = |entry: &fs::DirEntry| !entry.file_name().to_string_lossy().starts_with(".call-");
    let left = fs::read_dir(&shared)?.flatten().filter(strangers).count();
    same("files left in the shared directory", left, 0)?;
    d.finish()
}

/// A socket's path has 107 bytes; CRI's bundles have longer ones.
fn long_names(t: &Test) -> Verdict {
    let mut d = Daemon::new(t)?;
    let (program, _) = wrapper(t)?;
    d.namespace = "n".repeat(60);
    let b = d.bundle_named(&format!("{:x<76}", t.place.mark), "report -- print hello -- exit 12")?;
    let b = b.set("/process/terminal", json!(true));
    let streams = Streams::make(t, "tty", true)?;
    let task = create(&d, &b, &streams.io, &program)?;
    task.start("")?;
    same("the status", task.exit("")?.status, 12)?;
    task.delete("")?;
    let said = streams.out.to_end()?;
    check!(said.contains("hello"), "the terminal said {said:?}");
    d.events.of_kind(&b.id, "delete")?;
    d.shut_down(&task.shim)?;
    let hidden = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".console");
    same("sockets left", fs::read_dir(&b.dir)?.flatten().filter(hidden).count(), 0)?;
    d.remove(&b)?;
    d.finish()
}

/// What ends a container needs no room on the bundle's disk.
fn full_bundle(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (program, _) = wrapper(t)?;
    let fill = super::crash::small_state(&d)?;
    let b = d.bundle("forever")?;
    let task = create(&d, &b, &Io::null(), &program)?;
    task.start("")?;
    super::crash::fill(&fill)?;
    task.pause()?;
    task.resume()?;
    task.kill("", 9, true)?;
    same("the status", task.exit("")?.status, 137)?;
    task.delete("")?;
    fs::remove_file(&fill)?;
    d.events.of_kind(&b.id, "delete")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}
