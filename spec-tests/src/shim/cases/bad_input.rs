// SPDX-License-Identifier: Apache-2.0
//! Wrong requests: the right code, a clear text, nothing left, and the shim lives on.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::json;

use super::errors::fails;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::{Daemon, RUNC_OPTIONS};
use crate::shim::task::{Io, PROCESS, RESOURCES, RUNNING, Task};
use crate::shim::ttrpc::{ALREADY_EXISTS, Answer, FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, UNKNOWN};
use crate::shim::wire::Message;

/// What may be said of a request that is wrong in itself.
const WRONG: [u64; 4] = [INVALID_ARGUMENT, UNKNOWN, FAILED_PRECONDITION, NOT_FOUND];

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("bad-input/options-of-unknown-type", unknown_options),
        case("bad-input/malformed-options", malformed_options),
        case("bad-input/missing-bundle", missing_bundle).runc("at times: leaks a descriptor each time"),
        case("bad-input/malformed-config", malformed_config).runc("at times: leaks a descriptor each time"),
        case("bad-input/duplicate-id", duplicate_id).runc("does not check"),
        case("bad-input/bad-ids", bad_ids),
        case("bad-input/process-of-an-exec", malformed_process).runc("dies of one that is null"),
        case("bad-input/resources-of-an-update", malformed_resources).runc("dies of an Update without any"),
        case("bad-input/terminal-without-stdout", terminal_without_stdout).runc("takes it"),
        case("bad-input/fifo-that-is-a-directory", fifo_that_is_a_directory)
            .runc("leaves runc's init behind"),
        case("bad-input/fifo-that-does-not-exist", fifo_that_does_not_exist)
            .runc("at times: leaks a descriptor each time"),
        case("bad-input/unknown-io-scheme", unknown_io_scheme),
        case("bad-input/rootfs-mounts", rootfs_mounts),
        case("bad-input/failed-create-leaves-nothing", failed_create)
            .takes(60.0)
            .runc("at times: leaks descriptors"),
    ]
}

/// A shim with a living container, and beside it a request that must fail: no events, no growth, the shim lives on.
fn beside(t: &Test, ask: impl Fn(&Daemon, &Task, &Bundle) -> Verdict) -> Verdict {
    let d = Daemon::new(t)?;
    let (first, keeper) = d.launch("forever")?;
    let mut fds = 0;
    for round in 0..6 {
        let b = d.bundle("forever")?;
        ask(&d, &Task::new(keeper.shim.clone(), &b.id), &b)?;
        fs::remove_dir_all(&b.dir).ok();
        same("events of what failed", d.events.story(&b.id), Vec::<String>::new())?;
        same("the other container's state", keeper.state("")?.status, RUNNING)?;
        // The Go runtime's own come and go; a leak is one each time.
        let now = procs::usage(keeper.shim.pid)?.fds;
        fds = if round == 1 { now } else { fds };
        check!(round < 5 || now < fds + 4, "four times cost {} descriptors", now - fds);
    }
    d.end(&first, &keeper)?;
    d.finish()
}

fn create(task: &Task, b: &Bundle, rootfs: &[Message], options: Message) -> Answer {
    let mut request = Message::new().text(1, &b.id).text(2, &b.dir.to_string_lossy());
    for mount in rootfs {
        request = request.message(3, mount);
    }
    task.shim.call("Create", &Message([request.0, options.0].concat()))
}

fn unknown_options(t: &Test) -> Verdict {
    beside(t, |d, task, b| {
        let options = Message::new().any(10, "some.unknown.Options", &[0x0a, 1, b'x']);
        fails(
            "Create",
            create(task, b, &d.rootfs(), options),
            &[INVALID_ARGUMENT, UNKNOWN],
            "unsupported|unknown|options|type",
        )
    })
}

fn malformed_options(t: &Test) -> Verdict {
    beside(t, |d, task, b| {
        let options = Message::new().any(10, RUNC_OPTIONS, &[0xff, 0xff, 0xff]);
        fails("Create", create(task, b, &d.rootfs(), options), &WRONG, "")
    })
}

fn missing_bundle(t: &Test) -> Verdict {
    beside(t, |d, task, b| {
        let mut nowhere = b.clone();
        nowhere.dir = t.path("no/such/bundle");
        fails(
            "Create",
            task.try_create(d, &nowhere, &Io::null()),
            &WRONG,
            "no such file or directory|no directory",
        )?;
        nowhere.dir = "relative".into();
        fails("Create", task.try_create(d, &nowhere, &Io::null()), &WRONG, "")?;
        fs::remove_file(b.dir.join("config.json"))?;
        fails("Create", task.try_create(d, b, &Io::null()), &WRONG, "config.json")?;
        check!(fs::read_dir(b.dir.join("rootfs"))?.next().is_none(), "the rootfs is still mounted");
        Ok(())
    })
}

fn malformed_config(t: &Test) -> Verdict {
    for text in ["", "{", "[]", "{\"ociVersion\": 7}", "{\"ociVersion\": \"1.0.0\"}"] {
        beside(t, |d, task, b| {
            fs::write(b.dir.join("config.json"), text)?;
            fails("Create", task.try_create(d, b, &Io::null()), &WRONG, "")
        })?;
        nix::mount::umount2("/run", nix::mount::MntFlags::MNT_DETACH)?;
        fs::remove_dir_all(t.path("state"))?;
    }
    Ok(())
}

fn duplicate_id(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let again = task.try_create(&d, &b, &Io::null());
    fails("a second Create", again, &[ALREADY_EXISTS], "already exists")?;
    same("the state", task.state("")?.status, RUNNING)?;
    d.events.of_kind(&b.id, "start")?;
    same("the events", d.events.story(&b.id), ["create", "start"].map(String::from))?;
    d.end(&b, &task)?;
    d.finish()
}

fn bad_ids(t: &Test) -> Verdict {
    beside(t, |d, task, b| {
        for id in ["", ".", "..", "a/b", "../x", "a\0b"] {
            let task = Task::new(task.shim.clone(), id);
            fails(
                &format!("Create of {id:?}"),
                task.try_create(d, b, &Io::null()),
                &[INVALID_ARGUMENT, UNKNOWN],
                "",
            )?;
        }
        Ok(())
    })
}

fn malformed_process(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let exec = |n: usize, url: &str, value: &[u8]| {
        let request = Message::new().text(1, &b.id).text(2, &format!("x{n}")).any(7, url, value);
        task.shim.call("Exec", &request)
    };
    for (n, value) in
        [&b""[..], b"{", b"[]", b"7", b"{\"args\": 7}", b"{\"args\": []}", b"{}"].into_iter().enumerate()
    {
        // What the shim does not refuse at Exec, it must at Start.
        if exec(n, PROCESS, value).is_ok() {
            let name = format!("x{n}");
            let text = String::from_utf8_lossy(value);
            fails(&format!("Start of {text:?}"), task.start(&name), &WRONG, "")?;
            task.delete(&name)?;
        }
    }
    let no_spec = task.shim.call("Exec", &Message::new().text(1, &b.id).text(2, "none"));
    if no_spec.is_ok() {
        fails("Start without a process", task.start("none"), &WRONG, "")?;
        task.delete("none")?;
    }
    let no_id = task.exec("", &["/probe"], &Io::null());
    check!(no_id.is_err(), "an exec without an id");
    same("the state", task.state("")?.status, RUNNING)?;
    same("an exec", task.execute("good", &["/probe", "exit", "4"], &Io::null())?.status, 4)?;
    d.end(&b, &task)?;
    d.finish()
}

fn malformed_resources(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    for value in [&b"{"[..], b"[]", b"7", b"{\"pids\": 7}", b"{\"memory\": {\"limit\": \"much\"}}"] {
        let request = Message::new().text(1, &b.id).any(2, RESOURCES, value);
        let text = String::from_utf8_lossy(value);
        fails(&format!("Update to {text:?}"), task.shim.call("Update", &request), &WRONG, "")?;
    }
    let without = task.shim.call("Update", &Message::new().text(1, &b.id));
    fails("Update without resources", without, &WRONG, "")?;
    same("the state", task.state("")?.status, RUNNING)?;
    d.end(&b, &task)?;
    d.finish()
}

fn terminal_without_stdout(t: &Test) -> Verdict {
    beside(t, |d, task, b| {
        let b = b.clone().set("/process/terminal", json!(true));
        b.write()?;
        let io = Io { terminal: true, ..Io::default() };
        fails("Create", task.try_create(d, &b, &io), &[INVALID_ARGUMENT], "stdout|terminal")
    })
}

fn fifo_that_is_a_directory(t: &Test) -> Verdict {
    beside(t, |d, task, b| {
        let dir = t.path("directory");
        fs::create_dir_all(&dir)?;
        let created = task.try_create(d, b, &Io::both(&dir.to_string_lossy()));
        fails("Create", created, &WRONG, "is a directory|not a fifo|directory")
    })
}

fn fifo_that_does_not_exist(t: &Test) -> Verdict {
    beside(t, |d, task, b| {
        let created = task.try_create(d, b, &Io::both(&t.file("no/such/fifo")));
        fails("Create", created, &WRONG, "no such file")
    })
}

fn unknown_io_scheme(t: &Test) -> Verdict {
    beside(t, |d, task, b| {
        let created = task.try_create(d, b, &Io::both("carrier-pigeon:///coop"));
        fails("Create", created, &WRONG, "carrier-pigeon|scheme")
    })
}

fn rootfs_mounts(t: &Test) -> Verdict {
    beside(t, |d, task, b| {
        let good = d.rootfs().remove(0);
        for bad in [
            Message::new().text(1, "no-such-fs").text(2, "x"),
            Message::new().text(1, "bind").text(2, "/no/such/source").text(4, "rbind"),
            Message::new().text(1, "overlay").text(2, "overlay").text(4, "lowerdir=/no/such"),
            Message::new().text(1, "format/mkdir/overlay").text(2, "overlay"),
        ] {
            let created = create(task, b, &[good.clone(), bad], Message::new());
            fails("Create", created, &WRONG, "")?;
            check!(fs::read_dir(b.dir.join("rootfs"))?.next().is_none(), "the first mount is still there");
        }
        Ok(())
    })
}

/// Configurations that the runtime refuses late: nothing may remain of the attempt.
fn failed_create(t: &Test) -> Verdict {
    beside(t, |d, task, b| {
        let bads = [
            (
                "/mounts/-",
                json!({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}),
            ),
            ("/process/cwd", json!("relative")),
            ("/linux/namespaces/-", json!({"type": "network", "path": "/no/such"})),
            ("/hooks/createRuntime/-", json!({"path": "/bin/false"})),
            ("/root/path", json!("no-such-rootfs")),
        ];
        for (pointer, value) in bads {
            let config = b.config.clone();
            let bad = Bundle { config, ..b.clone() }.set(pointer, value);
            bad.write()?;
            fails(pointer, task.try_create(d, &bad, &Io::null()), &WRONG, "")?;
            check!(
                fs::read_dir(b.dir.join("rootfs"))?.next().is_none(),
                "{pointer}: the rootfs is still mounted"
            );
        }
        Ok(())
    })
}
