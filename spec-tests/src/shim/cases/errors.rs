// SPDX-License-Identifier: Apache-2.0
//! What each call answers when it cannot be done: the code, and the words that containerd, CRI and Docker look for.

#![forbid(unsafe_code)]

use serde_json::json;

use crate::check;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::task::{CREATED, Io, RUNNING, Task, process};
use crate::shim::ttrpc::{
    ALREADY_EXISTS, FAILED_PRECONDITION, Failure, INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, UNKNOWN,
};
use crate::shim::wire::Message;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("errors/unknown-task", unknown_task),
        case("errors/unknown-exec", unknown_exec).runc("CloseIO answers Unknown"),
        case("errors/unknown-service-and-method", unknown_service),
        case("errors/kill", kill),
        case("errors/exec", exec),
        case("errors/exec-when-paused", exec_when_paused),
        case("errors/exec-when-stopped", exec_when_stopped),
        case("errors/delete-too-early-and-twice", delete_too_early_and_twice),
        case("errors/pause-and-resume", pause_and_resume),
        case("errors/after-the-end", after_the_end),
        case("errors/start-twice", start_twice),
        case("errors/create-words", create_words),
        case("errors/failed-exec-is-deletable", failed_exec),
        case("errors/checkpoint", checkpoint),
    ]
}

/// The result must be a failure with one of these codes and one of the texts `a|b`.
pub fn fails<T>(what: &str, result: Result<T, Failure>, codes: &[u64], says: &str) -> Verdict {
    let Err(failure) = result else { return Err(format!("{what} succeeded").into()) };
    let Failure { code, text } = failure;
    check!(codes.contains(&code), "{what}: code {code} ({text}), not {codes:?}");
    let found = says.split('|').any(|say| text.to_lowercase().contains(&say.to_lowercase()));
    check!(found, "{what}: {text:?} does not say {says:?}");
    Ok(())
}

fn unknown_task(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let other = Task::new(task.shim.clone(), "nobody");
    let not_found = |what: &str, result: Result<(), Failure>| {
        fails(what, result, &[NOT_FOUND], "not found|no such|does not exist|not created")
    };
    not_found("State", other.state("").map(drop))?;
    not_found("Start", other.start("").map(drop))?;
    not_found("Delete", other.delete("").map(drop))?;
    not_found("Kill", other.kill("", 9, false))?;
    not_found("Exec", other.exec("x", &["/probe"], &Io::null()))?;
    not_found("Pids", other.pids().map(drop))?;
    not_found("Pause", other.pause())?;
    not_found("Resume", other.resume())?;
    not_found("ResizePty", other.resize("", 1, 1))?;
    not_found("CloseIO", other.close_stdin(""))?;
    not_found("Update", other.update(&json!({})))?;
    not_found("Stats", other.stats().map(drop))?;
    not_found("Wait", other.wait("").within(5.0).map(drop))?;
    other.shim.call("Connect", &Message::new().text(1, "nobody"))?;
    d.end(&b, &task)?;
    d.finish()
}

fn unknown_exec(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let not_found = |what: &str, result: Result<(), Failure>| {
        fails(what, result, &[NOT_FOUND], "not found|no such|does not exist")
    };
    not_found("State", task.state("x").map(drop))?;
    not_found("Start", task.start("x").map(drop))?;
    not_found("Delete", task.delete("x").map(drop))?;
    not_found("Kill", task.kill("x", 9, false))?;
    not_found("ResizePty", task.resize("x", 1, 1))?;
    not_found("CloseIO", task.close_stdin("x"))?;
    not_found("Wait", task.wait("x").within(5.0).map(drop))?;
    d.end(&b, &task)?;
    d.finish()
}

fn unknown_service(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let client = &task.shim.client;
    let id = Message::new().text(1, &b.id);
    for service in ["containerd.runtime.sandbox.v1.Sandbox", "containerd.task.v4.Task", "no.such.Service", ""]
    {
        fails(&format!("service {service:?}"), client.call(service, "State", &id), &[UNIMPLEMENTED], "")?;
    }
    fails("a method", task.shim.call("NoSuchMethod", &id), &[UNIMPLEMENTED], "")?;
    fails("no method", task.shim.call("", &id), &[UNIMPLEMENTED], "")?;
    same("the state", task.state("")?.status, RUNNING)?;
    d.end(&b, &task)?;
    d.finish()
}

fn kill(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    task.kill("", 0, false)?; // a probe
    task.exec("x", &["/probe", "exit", "0"], &Io::null())?;
    fails("Kill of an exec before its start", task.kill("x", 9, false), &[FAILED_PRECONDITION], "")?;
    task.start("x")?;
    task.exit("x")?;
    let words = "process already finished|no such process|not found";
    fails("Kill of a finished exec", task.kill("x", 9, false), &[NOT_FOUND], words)?;
    fails("Kill with an unknown signal", task.kill("", 99, false), &[UNKNOWN, INVALID_ARGUMENT], "")?;
    task.delete("x")?;
    task.end()?;
    fails("Kill after the end", task.kill("", 9, false), &[NOT_FOUND], words)?;
    d.end(&b, &task)?;
    d.finish()
}

fn exec(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    task.exec("x", &["/probe", "exit", "0"], &Io::null())?;
    let again = task.exec("x", &["/probe", "exit", "0"], &Io::null());
    fails("a second exec of the same id", again, &[ALREADY_EXISTS], "already exists")?;
    task.start("x")?;
    fails("Delete of the task's own id as an exec", task.delete(&b.id).map(drop), &[NOT_FOUND], "")?;
    task.exit("x")?;
    task.delete("x")?;
    d.end(&b, &task)?;
    d.finish()
}

fn exec_when_paused(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    task.exec("before", &["/probe", "exit", "0"], &Io::null())?;
    task.pause()?;
    fails(
        "Exec when paused",
        task.exec("x", &["/probe"], &Io::null()),
        &[FAILED_PRECONDITION, UNKNOWN],
        "paused",
    )?;
    let again = task.exec("before", &["/probe"], &Io::null());
    fails("a second exec of the same id when paused", again, &[ALREADY_EXISTS], "already exists")?;
    task.resume()?;
    same(
        "the exec from before",
        {
            task.start("before")?;
            task.exit("before")?.status
        },
        0,
    )?;
    task.delete("before")?;
    d.end(&b, &task)?;
    d.finish()
}

fn exec_when_stopped(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    task.exec("before", &["/probe", "exit", "0"], &Io::null())?;
    let wait = task.wait("before");
    task.end()?;
    fails(
        "Start of an exec after the end",
        task.start("before").map(drop),
        &[FAILED_PRECONDITION, UNKNOWN],
        "",
    )?;
    let exec = task.exec("x", &["/probe"], &Io::null());
    fails("Exec after the end", exec, &[FAILED_PRECONDITION, UNKNOWN], "stopped|not running|exited")?;
    let again = task.exec("before", &["/probe"], &Io::null());
    fails("a second exec of the same id after the end", again, &[ALREADY_EXISTS], "already exists")?;
    drop(wait);
    d.end(&b, &task)?;
    same("exits of execs", d.events.count(&b.id, "exit"), 1)?;
    d.finish()
}

fn delete_too_early_and_twice(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    fails(
        "Delete of what runs",
        task.delete(""),
        &[FAILED_PRECONDITION, UNKNOWN],
        "running|not stopped|delete",
    )?;
    task.exec("x", &["/probe", "forever"], &Io::null())?;
    task.start("x")?;
    fails(
        "Delete of an exec that runs",
        task.delete("x"),
        &[FAILED_PRECONDITION, UNKNOWN],
        "running|not stopped|delete",
    )?;
    task.kill("x", 9, false)?;
    task.exit("x")?;
    task.delete("x")?;
    fails("a second Delete of an exec", task.delete("x"), &[NOT_FOUND], "")?;
    task.end()?;
    task.delete("")?;
    fails("a second Delete", task.delete(""), &[NOT_FOUND], "")?;
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

fn pause_and_resume(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    let task = d.create(&b, &Io::null())?;
    let codes = [FAILED_PRECONDITION, UNKNOWN];
    fails("Pause of what was not started", task.pause(), &codes, "")?;
    same("the state", task.state("")?.status, CREATED)?;
    task.start("")?;
    fails("Resume of what runs", task.resume(), &codes, "")?;
    task.pause()?;
    fails("Pause of what is paused", task.pause(), &codes, "")?;
    task.resume()?;
    task.end()?;
    fails("Pause of what has ended", task.pause(), &codes, "")?;
    fails("Resume of what has ended", task.resume(), &codes, "")?;
    d.end(&b, &task)?;
    same("events of a pause", (d.events.count(&b.id, "paused"), d.events.count(&b.id, "resumed")), (1, 1))?;
    d.finish()
}

fn after_the_end(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    task.end()?;
    let update = task.update(&json!({"pids": {"limit": 5}}));
    fails("Update after the end", update, &[FAILED_PRECONDITION, UNKNOWN, NOT_FOUND], "")?;
    fails("Start after the end", task.start(""), &[FAILED_PRECONDITION, UNKNOWN], "")?;
    fails("Kill after the end", task.kill("", 9, false), &[NOT_FOUND], "already finished")?;
    // Of all processes, of which there are none.
    task.kill("", 9, true)?;
    task.close_stdin("")?;
    task.pids()
        .map(drop)
        .or_else(|failure| fails("Pids", Err::<(), _>(failure), &[NOT_FOUND, UNKNOWN], ""))?;
    d.end(&b, &task)?;
    d.finish()
}

fn start_twice(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    fails("a second Start", task.start(""), &[FAILED_PRECONDITION, UNKNOWN], "")?;
    same("the state", task.state("")?.status, RUNNING)?;
    d.end(&b, &task)?;
    same("events of a start", d.events.count(&b.id, "start"), 1)?;
    d.finish()
}

/// Docker tells 126 and 127 apart by these words; others see them on their screen.
fn create_words(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let table = [
        (json!(["no-such-program"]), "executable file not found in $PATH"),
        (json!(["/no/such/program"]), "no such file or directory"),
        (json!(["/etc/passwd"]), "permission denied"),
        (json!(["/etc/passwd/x"]), "not a directory"),
    ];
    for (args, words) in table {
        let b = d.bundle("")?.set("/process/args", args.clone());
        let task = Task::new(d.shim(&b)?, &b.id);
        b.write()?;
        // The stage of a runtime at which it shows is its own affair.
        match task.try_create(&d, &b, &Io::null()) {
            Err(failure) => {
                fails(&args.to_string(), Err::<(), _>(failure), &[UNKNOWN, NOT_FOUND], words)?;
                same("events of what was not created", d.events.story(&b.id), Vec::<String>::new())?;
            }
            Ok(_) => {
                let first = args[0].as_str().unwrap_or_default().to_owned();
                fails(&first, task.start(""), &[UNKNOWN, NOT_FOUND], words)?;
                task.delete("")?;
            }
        }
        d.shut_down(&task.shim)?;
        d.remove(&b)?;
    }
    d.finish()
}

fn failed_exec(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let args = [
        ("no-such-program", "executable file not found"),
        ("/no/such", "no such file"),
        ("/etc/passwd", "permission denied"),
    ];
    for (n, (program, words)) in args.into_iter().enumerate() {
        let name = format!("x{n}");
        task.exec_process(&name, &process(&[program]), &Io::null())?;
        let wait = task.wait(&name);
        fails(
            program,
            task.start(&name),
            &[UNKNOWN, NOT_FOUND, FAILED_PRECONDITION, INVALID_ARGUMENT],
            words,
        )?;
        check!(!matches!(wait.within(5.0), Err(Failure { code: 1001, .. })), "a Wait was not released");
        task.delete(&name)?;
    }
    same("the state", task.state("")?.status, RUNNING)?;
    d.end(&b, &task)?;
    same("exits", d.events.count(&b.id, "exit"), 1)?;
    d.finish()
}

fn checkpoint(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let request = Message::new().text(1, &b.id).text(2, "/proc/no/such/directory");
    let answer = task.shim.call("Checkpoint", &request);
    fails("Checkpoint into nowhere", answer, &[UNIMPLEMENTED, UNKNOWN, INVALID_ARGUMENT, NOT_FOUND], "")?;
    same("the state", task.state("")?.status, RUNNING)?;
    d.end(&b, &task)?;
    d.finish()
}
