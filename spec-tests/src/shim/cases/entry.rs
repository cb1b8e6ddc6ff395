// SPDX-License-Identifier: Apache-2.0
//! The shim's binary: `start` in all dialects, `delete`, `-info`, and the socket.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::{Daemon, Dialect, GRPC_ADDRESS, RUNC_OPTIONS, call, read_reply};
use crate::shim::task::{Io, RUNNING, Shim, Task};
use crate::shim::wire::{Fields, Message};
use crate::sys;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("entry/containerd-1.6", |t| dialect(t, Dialect::V16)).runc("2.x answers with JSON"),
        case("entry/containerd-1.7", |t| dialect(t, Dialect::V17)).runc("2.x answers version 3"),
        case("entry/containerd-2.0", |t| dialect(t, Dialect::V20)),
        case("entry/containerd-2.3", |t| dialect(t, Dialect::V23)),
        case("entry/no-options", no_options),
        case("entry/no-event-sink", no_event_sink),
        case("entry/version", version),
        case("entry/info", info),
        case("entry/info-of-a-table", info_of_a_table).runc("takes no options but its own"),
        case("entry/socket", socket),
        case("entry/socket-despite-umask", socket_despite_umask),
        case("entry/other-users-are-refused", other_users),
        case("entry/stale-socket", stale_socket),
        case("entry/start-twice", start_twice),
        case("entry/starts-race", starts_race).runc("at times: leaves its socket"),
        case("entry/daemon-holds-nothing", daemon_holds_nothing),
        case("entry/oom-score", oom_score).needs(&[Need::Capability(24)]),
        case("entry/core-scheduling", core_scheduling),
        case("entry/shim-cgroup", shim_cgroup),
        case("entry/bad-arguments", bad_arguments).runc("takes an empty id"),
        case("entry/delete-of-nothing", delete_of_nothing),
        case("entry/long-names", long_names),
        case("entry/full-log", full_log),
        case("entry/old-shim-new-daemon", version_skew).runc("2.x answers version 3"),
    ]
}

fn dialect(t: &Test, dialect: Dialect) -> Verdict {
    let d = Daemon::new(t)?;
    d.dialect.set(dialect);
    let (b, task) = d.launch("exit 6")?;
    same("the status", task.exit("")?.status, 6)?;
    if t.host.name != "runc" {
        // 1.6 and 1.7 find the shim again by this file; the Go shim of 2.x no longer writes it.
        let address = fs::read_to_string(b.dir.join("address"))?;
        same("the file address", address.trim_start_matches("unix://"), task.shim.address.as_str())?;
    }
    same("the exit's status", d.events.exit(&b.id, "")?.status, 6)?;
    check!(d.runtime_root().exists(), "the options' root was not used");
    d.end(&b, &task)?;
    d.finish()
}

fn no_options(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("exit 0")?;
    let mut command = d.command(&b);
    command.arg("start");
    let called = call(command, &[], true)?;
    check!(called.code == Some(0), "start ended with {:?}: {}", called.code, called.text());
    let reply = read_reply(&called.output, Dialect::V20)?;
    let task = Task::new(std::sync::Arc::new(Shim::connect(&reply.address, reply.version, &b.id)?), &b.id);
    let rootfs = d.rootfs().remove(0);
    let request = Message::new().text(1, &b.id).text(2, &b.dir.to_string_lossy()).message(3, &rootfs);
    task.shim.call("Create", &request)?;
    task.start("")?;
    same("the status", task.exit("")?.status, 0)?;
    d.end(&b, &task)?;
    d.finish()
}

fn no_event_sink(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    d.events.close();
    let (b, task) = d.launch("exit 8")?;
    same("the status", task.exit("")?.status, 8)?;
    task.delete("")?;
    task.shim.call("Shutdown", &Message::new().text(1, &b.id).flag(2, true)).ok();
    d.is_gone(&task.shim)?;
    d.remove(&b)?;
    d.finish()
}

fn version(t: &Test) -> Verdict {
    for flag in ["-v", "-version", "--version"] {
        if t.host.name == "runc" && flag != "-v" {
            continue; // the Go shim knows only the short one
        }
        let mut command = Command::new(&t.host.runtime);
        command.arg(flag);
        let called = call(command, &[], true)?;
        check!(
            called.code == Some(0) && called.text().contains("containerd-shim"),
            "{flag}: {}",
            called.text()
        );
    }
    Ok(())
}

/// Asked with runc's options, and with none.
fn info(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("")?;
    let options = Message::new().text(1, RUNC_OPTIONS).bytes(2, &d.options().0);
    for stdin in [&options.0[..], &[]] {
        features_are_told(&d, stdin)?;
    }
    d.remove(&b)
}

/// Asked with the options of any other type: the handler's table.
fn info_of_a_table(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("")?;
    let table = Message::new().text(1, "some.type.v1.Options").bytes(3, b"SystemdCgroup = false\n");
    let options = Message::new().text(1, "runtimeoptions.v1.Options").bytes(2, &table.0);
    features_are_told(&d, &options.0)?;
    d.remove(&b)
}

fn features_are_told(d: &Daemon, stdin: &[u8]) -> Verdict {
    let mut command = Command::new(&d.t.host.runtime);
    command
        .arg("-info")
        .env("PATH", d.t.host.runc.as_deref().and_then(Path::parent).unwrap_or(Path::new("/bin")));
    let called = call(command, stdin, false)?;
    check!(called.code == Some(0), "-info ended with {:?}", called.code);
    let info = Fields::read(&called.output)?;
    check!(!info.text(1).is_empty(), "no name");
    check!(!info.message(2)?.text(1).is_empty(), "no version");
    let features = info.message(4)?;
    let kind = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
    same("the features' type", features.text(1).as_str(), kind)?;
    let features: Value = serde_json::from_slice(features.bytes(2))?;
    let has = |list: &str, what: &str| {
        features.pointer(list).and_then(Value::as_array).is_some_and(|all| all.iter().any(|one| one == what))
    };
    check!(has("/mountOptions", "rro") && has("/linux/namespaces", "user"), "features: {features}");
    same("idmap", &features["linux"]["mountExtensions"]["idmap"]["enabled"], &json!(true))?;
    Ok(())
}

/// hex(sha256(address / namespace / id))
fn socket(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let name = format!("{GRPC_ADDRESS}/{}/{}", d.namespace, b.id);
    sum.stdin.take().ok_or("no pipe")?.write_all(name.as_bytes())?;
    let sum = String::from_utf8_lossy(&sum.wait_with_output()?.stdout).into_owned();
    let want = format!("/run/containerd/s/{}", sum.split_whitespace().next().unwrap_or_default());
    same("the address", task.shim.address.as_str(), want.as_str())?;
    d.end(&b, &task)?;
    d.finish()
}

fn modes(task: &Task) -> Verdict {
    let mode = |path: &str| fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777);
    same("the socket's mode", mode(&task.shim.address)?, 0o600)?;
    same("its directory's mode", mode("/run/containerd/s")? & 0o077, 0)
}

fn socket_despite_umask(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    let mut command = d.command(&b);
    command.arg("start");
    sys::with_groups_and_umask(&mut command, Vec::new(), 0);
    let called = call(command, &d.stdin(&b, Some(&d.options())), true)?;
    let reply = read_reply(&called.output, Dialect::V20)?;
    let task = Task::new(std::sync::Arc::new(Shim::connect(&reply.address, reply.version, &b.id)?), &b.id);
    modes(&task)?;
    task.create(&d, &b, &Io::null())?;
    d.end(&b, &task)?;
    let abstracts = fs::read_to_string("/proc/net/unix")?.lines().filter(|line| line.contains(&b.id)).count();
    same("abstract sockets", abstracts, 0)?;
    d.finish()
}

/// The socket's mode keeps others away; whoever comes by all the same is refused by his credentials.
fn other_users(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    fs::set_permissions("/run/containerd/s", fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(&task.shim.address, fs::Permissions::from_mode(0o666))?;
    // The harness may lie where only root can go.
    let copy = t.path("stranger");
    fs::copy(std::env::current_exe()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let mut stranger = Command::new(&copy);
    stranger.args(["shim-ask", &task.shim.address, &b.id]);
    sys::as_user(&mut stranger, 1000);
    let said = call(stranger, &[], true)?;
    check!(said.text().starts_with("refused"), "another user's call: {}", said.text());
    let mut ourselves = Command::new(&copy);
    ourselves.args(["shim-ask", &task.shim.address, &b.id]);
    let said = call(ourselves, &[], true)?;
    check!(said.text().starts_with("answered"), "our own call: {}", said.text());
    d.end(&b, &task)?;
    d.finish()
}

fn stale_socket(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let address = task.shim.address.clone();
    d.end(&b, &task)?;
    drop(UnixListener::bind(&address)?); // a socket that nobody listens on
    let b = d.bundle_named(&b.id, "forever")?;
    let task = d.create(&b, &Io::null())?;
    same("the address", &task.shim.address, &address)?;
    d.end(&b, &task)?;
    d.finish()
}

fn start_twice(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let again = d.start(&b)?;
    same("the second answer's address", again.address.as_str(), task.shim.address.as_str())?;
    let pid = Shim::connect(&again.address, again.version, &b.id)?.pid;
    same("the second answer's shim", pid, task.shim.pid)?;
    d.end(&b, &task)?;
    d.finish()
}

/// `start`s of one group at a time: one shim, one address.
fn starts_race(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    for round in 0..10 {
        let sandbox = format!("{}-group{round}", t.place.mark);
        let bundles: Vec<Bundle> = (0..6)
            .map(|_| {
                Ok(d.bundle("forever")?.set("/annotations/io.kubernetes.cri.sandbox-id", json!(sandbox)))
            })
            .collect::<Result<_, Trouble>>()?;
        let mut commands = Vec::new();
        for b in &bundles {
            b.write()?;
            let mut command = d.command(b);
            command.arg("start");
            commands.push((command, d.stdin(b, Some(&d.options()))));
        }
        let threads: Vec<_> = commands
            .into_iter()
            .map(|(c, stdin)| std::thread::spawn(move || call(c, &stdin, true)))
            .collect();
        let mut addresses = Vec::new();
        for thread in threads {
            let called = thread.join().map_err(|_| "a thread panicked")??;
            check!(called.code == Some(0), "a start failed: {}", called.text());
            addresses.push(read_reply(&called.output, Dialect::V20)?);
        }
        check!(addresses.iter().all(|reply| reply == &addresses[0]), "different answers: {addresses:?}");
        let shim = Shim::connect(&addresses[0].address, addresses[0].version, &bundles[0].id)?;
        d.shut_down(&shim)?;
        for b in &bundles {
            d.remove(b)?;
        }
        d.finish()?;
    }
    Ok(())
}

fn daemon_holds_nothing(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let link = |name: &str| fs::read_link(format!("/proc/{}/{name}", task.shim.pid));
    for fd in ["fd/0", "fd/1"] {
        same(fd, link(fd)?.as_path(), Path::new("/dev/null"))?;
    }
    let stat = fs::read_to_string(format!("/proc/{}/stat", task.shim.pid))?;
    let words: Vec<_> = stat.rsplit_once(") ").map_or("", |(_, tail)| tail).split(' ').collect();
    same("the process group", words[2].parse::<i32>().unwrap_or(0), task.shim.pid)?;
    same("the terminal", words[4], "0")?;
    d.end(&b, &task)?;
    d.finish()
}

fn oom_score(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")?.trim().parse().unwrap_or(0);
    let (b, task) = d.launch("forever")?;
    let shim = fs::read_to_string(format!("/proc/{}/oom_score_adj", task.shim.pid))?;
    same("the shim's score", shim.trim(), (own + 1).min(1000).to_string().as_str())?;
    d.end(&b, &task)?;
    d.finish()
}

/// With SCHED_CORE=1 the shim is alone on its core, or does not start.
fn core_scheduling(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    let mut command = d.command(&b);
    command.arg("start").env("SCHED_CORE", "1");
    let called = call(command, &d.stdin(&b, Some(&d.options())), true)?;
    if let Err(errno) = sys::core_scheduling_cookie(0) {
        check!(called.code != Some(0), "it starts, though the kernel says errno {errno}");
        let (text, errno) = (called.text(), nix::errno::Errno::from_raw(errno));
        let told = match t.host.name.as_str() {
            "runc" => text.contains("sched core"),
            _ => text.contains("prctl(PR_SCHED_CORE): ") && text.contains(&format!("({errno:?})")),
        };
        check!(told, "{errno:?}, and it says {text:?}");
    } else {
        let reply = read_reply(&called.output, Dialect::V20)?;
        let shim = Shim::connect(&reply.address, reply.version, &b.id)?;
        let cookie = sys::core_scheduling_cookie(shim.pid).map_err(|errno| format!("errno {errno}"))?;
        check!(cookie != 0, "the shim has no cookie");
        d.shut_down(&shim)?;
    }
    d.remove(&b)?;
    d.finish()
}

fn shim_cgroup(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    let group = format!("/{}-shim", t.place.mark);
    for top in t.host.hierarchies() {
        fs::create_dir(top.join(&group[1..]))?;
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let above = fs::read_to_string(top.join(name)).unwrap_or_default();
            fs::write(top.join(&group[1..]).join(name), above.trim()).ok();
        }
    }
    let mut command = d.command(&b);
    command.arg("start");
    let called = call(command, &d.stdin(&b, Some(&d.options().text(3, &group))), true)?;
    check!(called.code == Some(0), "start: {}", called.text());
    let reply = read_reply(&called.output, Dialect::V20)?;
    let task = Task::new(std::sync::Arc::new(Shim::connect(&reply.address, reply.version, &b.id)?), &b.id);
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", task.shim.pid))?;
    check!(groups.contains(&group), "the shim is in {groups:?}");
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    for top in t.host.hierarchies() {
        t.until(
            || "an empty cgroup".into(),
            || {
                let dir = top.join(&group[1..]);
                Ok((!dir.exists() || fs::remove_dir(&dir).is_ok()).then_some(()))
            },
        )?;
    }
    d.finish()
}

fn bad_arguments(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("")?;
    for (args, says) in [
        (&["-id", "", "start"][..], "id"),
        (&["-namespace", "", "start"], "namespace"),
        (&["frobnicate"], ""),
    ] {
        let mut command = d.command(&b);
        command.args(args);
        let called = call(command, &[], true)?;
        check!(called.code != Some(0), "{args:?} succeeded: {}", called.text());
        check!(called.text().contains(says), "{args:?}: {}", called.text());
        check!(!called.text().is_empty(), "{args:?}: no word");
    }
    d.remove(&b)?;
    d.finish()
}

fn delete_of_nothing(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("")?;
    for _ in 0..2 {
        let (_, status, at) = d.delete(&b)?;
        same("the status", status, 137)?;
        check!(at > 1e9, "the time is {at}");
    }
    fs::remove_file(b.dir.join("config.json"))?;
    d.delete(&b)?;
    d.remove(&b)?;
    d.finish()
}

fn long_names(t: &Test) -> Verdict {
    let mut d = Daemon::new(t)?;
    d.namespace = "n".repeat(76);
    let id = format!("{:x<76}", t.place.mark);
    let b = d.bundle_named(&id, "exit 2")?;
    let task = d.create(&b, &Io::null())?;
    task.start("")?;
    same("the status", task.exit("")?.status, 2)?;
    d.end(&b, &task)?;
    d.finish()
}

/// A log that nobody reads must not stop the shim.
fn full_log(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let b = d.bundle("forever")?;
    d.fill_log(&b)?;
    let task = d.create(&b, &Io::null())?;
    task.start("")?;
    for n in 0..50 {
        let name = format!("x{n}");
        task.exec(&name, &["/no/such"], &Io::null())?;
        task.start(&name).err();
        task.delete(&name)?;
    }
    if t.host.name == "corten" {
        // It tells a warning; the Go shim would end.
        kill(Pid::from_raw(task.shim.pid), Signal::SIGTERM)?;
        std::thread::sleep(Duration::from_millis(50));
        same("the state", task.state("")?.status, RUNNING)?;
    }
    d.end(&b, &task)?;
    d.finish()
}

/// A grouped `start` in a newer dialect finds a shim of an older one: the answer must fit what the shim speaks.
fn version_skew(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (first, one) = d.launch("forever")?;
    let b = d.bundle("exit 3")?.set("/annotations/io.kubernetes.cri.sandbox-id", json!(first.id));
    for dialect in [Dialect::V16, Dialect::V23, Dialect::V17] {
        d.dialect.set(dialect);
        let reply = d.start(&b)?;
        same("the address", reply.address.as_str(), one.shim.address.as_str())?;
        let shim = Shim::connect(&reply.address, reply.version, &b.id)?;
        same("the shim", shim.pid, one.shim.pid)?;
    }
    let task = Task::new(one.shim.clone(), &b.id);
    task.create(&d, &b, &Io::null())?;
    task.start("")?;
    same("the status", task.exit("")?.status, 3)?;
    task.delete("")?;
    d.remove(&b)?;
    check!(procs::is_alive(one.shim.pid), "the shim is gone");
    d.end(&first, &one)?;
    d.finish()
}
