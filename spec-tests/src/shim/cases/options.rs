// SPDX-License-Identifier: Apache-2.0
//! The runtime options of Create, the annotations that group, and the environment.

#![forbid(unsafe_code)]

use serde_json::json;

use super::errors::fails;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::{Daemon, GRPC_ADDRESS, RUNC_OPTIONS, call, read_reply};
use crate::shim::fifo::Streams;
use crate::shim::task::{Io, RUNNING, Shim, Task, process};
use crate::shim::ttrpc::{INVALID_ARGUMENT, NOT_FOUND, UNKNOWN};
use crate::shim::wire::Message;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let none = "takes options of runc only";
    vec![
        case("options/another-runtime", another_runtime).takes(60.0),
        case("options/another-runtime-fails", another_runtime_fails),
        case("options/runtime-that-does-not-exist", no_such_runtime),
        case("options/root", root),
        case("options/of-a-toml-table", toml_table).runc(none),
        case("options/trace-directory", traces).needs(&[Need::Runtime("corten")]),
        case("options/empty", empty),
        case("options/type-with-a-prefix", prefixed),
        case("options/grouping-annotations", grouping).runc("not CRI-O's"),
        case("options/group-of-another-namespace", |t| foreign_group(t, "")),
        case("options/group-that-climbs", |t| foreign_group(t, "../")).runc("joins it"),
        case("options/version-by-environment", version_by_environment).needs(&[Need::Runtime("corten")]),
    ]
}

fn runc(t: &Test) -> Result<String, Trouble> {
    let runc = t.host.runc.as_ref().ok_or_else(|| Trouble::NotRun("no --runc".to_owned()))?;
    Ok(runc.to_string_lossy().into_owned())
}

/// Create with these options, after a `start` with the same.
fn create(
    d: &Daemon,
    task: &Task,
    b: &crate::harness::bundle::Bundle,
    io: &Io,
    options: &Message,
) -> Verdict {
    b.write()?;
    let request = task.create_request(b, io, &d.rootfs(), options);
    task.shim.call("Create", &request)?;
    Ok(())
}

/// binary_name: the shim drives the program it names.
fn another_runtime(t: &Test) -> Verdict {
    let runc = runc(t)?;
    let d = Daemon::new(t)?;
    let options = d.options().text(6, &runc);
    let b = d.bundle("print by runc -- echo -- exit 12")?;
    let streams = Streams::make(t, "runc", false)?;
    let task = Task::new(d.shim(&b)?, &b.id);
    create(&d, &task, &b, &streams.io, &options)?;
    check!(
        d.runtime_root().join(&d.namespace).join(&b.id).join("state.json").exists(),
        "runc knows nothing of it"
    );
    task.start("")?;
    same("the state", task.state("")?.status, RUNNING)?;
    same("an exec", task.execute("x", &["/probe", "exit", "5"], &Io::null())?.status, 5)?;
    // The request says whether there is a terminal, not the process in it.
    let mut process = process(&["/probe", "exit", "6"]);
    process["terminal"] = json!(true);
    task.exec_process("y", &process, &Io::null())?;
    task.start("y")?;
    same("an exec that speaks of a terminal", task.exit("y")?.status, 6)?;
    task.delete("y")?;
    check!(!task.pids()?.is_empty(), "no pids");
    task.pause()?;
    task.resume()?;
    streams.write("words\n")?;
    task.close_stdin("")?;
    same("the status", task.exit("")?.status, 12)?;
    task.delete("")?;
    same("stdout", streams.out.to_end()?.as_str(), "by runc\nwords\n")?;
    d.events.of_kind(&b.id, "delete")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

fn another_runtime_fails(t: &Test) -> Verdict {
    let runc = runc(t)?;
    let d = Daemon::new(t)?;
    let b = d.bundle("")?.args(&["no-such-program"]);
    let task = Task::new(d.shim(&b)?, &b.id);
    let request = task.create_request(&b, &Io::null(), &d.rootfs(), &d.options().text(6, &runc));
    b.write()?;
    fails("Create", task.shim.call("Create", &request), &[UNKNOWN, NOT_FOUND], "executable file not found")?;
    same("events", d.events.story(&b.id), Vec::<String>::new())?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

fn no_such_runtime(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("exit 0")?;
    let task = Task::new(d.shim(&b)?, &b.id);
    let request = task.create_request(&b, &Io::null(), &d.rootfs(), &d.options().text(6, "no-runc"));
    b.write()?;
    fails(
        "Create",
        task.shim.call("Create", &request),
        &[UNKNOWN, NOT_FOUND, INVALID_ARGUMENT],
        "\"no-runc\"",
    )?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

/// The runtime's state is in ROOT/NAMESPACE/ID.
fn root(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    check!(d.runtime_root().join(&d.namespace).join(&b.id).is_dir(), "no state below the given root");
    d.end(&b, &task)?;
    d.finish()
}

/// A container that exits with 4, made with what CRI sends of a handler's options.
fn exits_with_options(d: &Daemon, b: &Bundle, options: &Message) -> Result<Task, Trouble> {
    let task = Task::new(d.shim(b)?, &b.id);
    let request =
        Message::new().text(1, &b.id).text(2, &b.dir.to_string_lossy()).message(3, &d.rootfs().remove(0));
    task.shim.call("Create", &request.any(10, "runtimeoptions.v1.Options", &options.0))?;
    task.start("")?;
    same("the status", task.exit("")?.status, 4)?;
    Ok(task)
}

/// What CRI makes of a handler's options table when the type is not runc's.
fn toml_table(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("exit 4")?;
    b.write()?;
    let body = format!("SystemdCgroup = false\nRoot = \"{}\"\n", d.runtime_root().display());
    let options = Message::new().text(1, "some.type.v1.Options").bytes(3, body.as_bytes());
    let task = exits_with_options(&d, &b, &options)?;
    d.end(&b, &task)?;
    d.finish()
}

/// A file for each create and start, of which nobody but the owner reads; a directory that is not there keeps nothing from running.
fn traces(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    for (name, count) in [("traces", 2), ("no/such", 0)] {
        let b = d.bundle("exit 4")?;
        b.write()?;
        let directory = t.path(name);
        if count > 0 {
            std::fs::create_dir(&directory)?;
        }
        let body = format!(
            "Root = \"{}\"\nTraceDirectory = \"{}\"\n",
            d.runtime_root().display(),
            directory.display()
        );
        let options = Message::new().bytes(3, body.as_bytes());
        let task = exits_with_options(&d, &b, &options)?;
        let files: Vec<_> = std::fs::read_dir(&directory).into_iter().flatten().collect::<Result<_, _>>()?;
        same("the number of traces", files.len(), count)?;
        for file in files {
            let name = file.file_name().to_string_lossy().into_owned();
            check!(name.starts_with(&format!("{}.{}.", d.namespace, b.id)), "{name}");
            let trace: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file.path())?)?;
            check!(trace["otherData"]["missing"].is_null(), "{name}: {}", trace["otherData"]);
            let verb = trace["otherData"]["verb"].as_str().unwrap_or_default();
            check!(["create", "start"].contains(&verb) && name.contains(verb), "{name} tells of {verb}");
            let events = trace["traceEvents"].as_array().map(Vec::len).unwrap_or_default();
            check!(events > 5, "{name}: {events} events");
        }
        d.end(&b, &task)?;
    }
    d.finish()
}

fn empty(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("exit 4")?;
    let task = Task::new(d.shim(&b)?, &b.id);
    create(&d, &task, &b, &Io::null(), &Message::new())?;
    task.start("")?;
    same("the status", task.exit("")?.status, 4)?;
    d.end(&b, &task)?;
    d.finish()
}

fn prefixed(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("exit 4")?;
    b.write()?;
    let task = Task::new(d.shim(&b)?, &b.id);
    let request =
        Message::new().text(1, &b.id).text(2, &b.dir.to_string_lossy()).message(3, &d.rootfs().remove(0));
    let url = format!("types.example.org/{RUNC_OPTIONS}");
    task.shim.call("Create", &request.any(10, &url, &d.options().0))?;
    task.start("")?;
    same("the status", task.exit("")?.status, 4)?;
    d.end(&b, &task)?;
    d.finish()
}

fn grouping(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    for key in
        ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"]
    {
        let group = json!(format!("{}-{key}", t.place.mark));
        let pointer = format!("/annotations/{key}");
        let (one, two) = (d.bundle("")?.set(&pointer, group.clone()), d.bundle("")?.set(&pointer, group));
        let (first, second) = (d.shim(&one)?, d.start(&two)?);
        same(key, &second.address, &first.address)?;
        d.shut_down(&first)?;
        d.remove(&one)?;
        d.remove(&two)?;
    }
    d.finish()
}

/// No annotation leads to the shim of another namespace: the group is an id, or there is no shim.
fn foreign_group(t: &Test, climb: &str) -> Verdict {
    let d = Daemon::new(t)?;
    let (theirs, task) = d.launch("forever")?;
    let target = match climb {
        "" => format!("{GRPC_ADDRESS}/{}/{}", d.namespace, theirs.id),
        climb => format!("{climb}{}/{}", d.namespace, theirs.id),
    };
    let b = d.bundle("forever")?.set("/annotations/io.kubernetes.cri.sandbox-id", json!(target));
    b.write()?;
    let mut command = d.command(&b);
    command.args(["-namespace", "another", "start"]);
    let called = call(command, &d.stdin(&b, Some(&d.options())), true)?;
    if called.code == Some(0) {
        let reply = read_reply(&called.output, d.dialect.get())?;
        check!(reply.address != task.shim.address, "start gives the shim of another namespace");
        let shim = Shim::connect(&reply.address, reply.version, &b.id)?;
        shim.call("Shutdown", &Message::new().text(1, &b.id)).ok();
        t.until(|| "the end of the shim".into(), || Ok((!procs::is_alive(shim.pid)).then_some(())))?;
        std::fs::remove_file(&reply.address).ok(); // the Go shim looks for it in its own namespace
    } else {
        let says = called.text();
        check!(says.contains("io.kubernetes.cri.sandbox-id"), "start says {says:?}");
    }
    d.remove(&b)?;
    d.end(&theirs, &task)?;
    d.finish()
}

/// 2.0 to 2.2 take version 3, but cannot be told from 1.7: the shim manager's `env` may say so.
fn version_by_environment(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("")?;
    d.environment.borrow_mut().push(("CORTEN_SHIM_VERSION".into(), "3".into()));
    let called = d.call_start(&b)?;
    let reply = read_reply(&called.output, d.dialect.get())?;
    same("the version", reply.version, 3)?;
    d.shut_down(&Shim::connect(&reply.address, 3, &b.id)?)?;
    d.environment.borrow_mut().clear();
    let mut command = d.command(&b);
    command.arg("start");
    let reply = read_reply(&call(command, &d.stdin(&b, None), true)?.output, d.dialect.get())?;
    same("the version without", reply.version, 2)?;
    d.shut_down(&Shim::connect(&reply.address, 2, &b.id)?)?;
    d.remove(&b)?;
    d.finish()
}
