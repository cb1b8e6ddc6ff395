// SPDX-License-Identifier: Apache-2.0
//! Pods without a pause container: the sandbox service. Crashes of its shim stand in `sandbox_crash.rs`.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::pod::{NODE, POD, Pod, PodConfig, inside, namespace, network_of_user};
use crate::shim::ttrpc::{ALREADY_EXISTS, Answer, FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, UNKNOWN};
use crate::shim::wire::Message;

/// Why the Go shim has none of these.
pub const NONE: &str = "has no sandbox service";
/// What the first process of a pod may take, in KiB.
const RESIDENT: i64 = 64;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("sandbox/in-order", in_order).runc(NONE),
        case("sandbox/out-of-order", out_of_order).runc(NONE),
        case("sandbox/bad-input", bad_input).runc(NONE),
        case("sandbox/files", files).runc(NONE),
        case("sandbox/containers", containers).runc(NONE),
        case("sandbox/holder", holder).runc(NONE),
        case("sandbox/shared-pids", shared_pids).runc(NONE),
        case("sandbox/host-namespaces", host_namespaces).runc(NONE),
        case("sandbox/user-namespace", user_namespace).runc(NONE),
        case("sandbox/sysctls", sysctls).runc(NONE),
        case("sandbox/stopped-with-containers", stopped_with_containers).runc(NONE),
        case("sandbox/holder-killed", holder_killed).runc(NONE),
    ]
}

/// It was refused, with this code.
fn refused(what: &str, answer: Answer, code: u64) -> Verdict {
    match answer {
        Err(failure) => same(&format!("the code of {what} ({})", failure.text), failure.code, code),
        Ok(_) => Err(format!("{what} was not refused").into()),
    }
}

fn in_order(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let pod = Pod::begin(&d, PodConfig::usual(t)?)?;
    same("the version told for a sandbox", pod.version, 3)?;
    pod.create()?;
    let platform = pod.call("Platform")?.message(1)?;
    same("the system", platform.text(1).as_str(), "linux")?;
    check!(["amd64", "arm64"].contains(&platform.text(2).as_str()), "the machine is {:?}", platform.text(2));
    same("its state before the start", pod.status()?.state.as_str(), "SANDBOX_NOTREADY")?;
    let started = pod.call("StartSandbox")?;
    let pid = started.number(1);
    check!(procs::is_alive(pid as i32), "nothing holds it");
    let status = pod.status()?;
    same("the pid", status.pid, pid)?;
    same("its state", status.state.as_str(), "SANDBOX_READY")?;
    same("when it was made", status.created_at, started.time(2)?)?;
    pod.call("PingSandbox")?;
    let verbose = pod.ask("SandboxStatus", &pod.id().number(2, 1))?;
    check!(verbose.message(4)?.text(2).contains("\"hostname\":\"pod-host\""), "verbose says {verbose:?}");
    let waits = pod.begin_call("WaitSandbox", &pod.id());
    check!(waits.is_open(), "WaitSandbox is answered early");
    pod.call("StopSandbox")?;
    let ended = waits.within(5.0)?;
    same("its status", ended.number(1), 137)?;
    let status = pod.status()?;
    same("its state after the stop", status.state.as_str(), "SANDBOX_NOTREADY")?;
    same("the pid after the stop", status.pid, 0)?;
    same("when it ended", status.exited_at, ended.time(2)?)?;
    check!(!procs::is_alive(pid as i32), "what held it lives");
    check!(pod.root().join("hosts").exists(), "its files went with the stop");
    pod.end()?;
    d.finish()
}

/// Twice, too early, too late.
fn out_of_order(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let pod = Pod::begin(&d, PodConfig::usual(t)?)?;
    for method in
        ["StartSandbox", "StopSandbox", "WaitSandbox", "SandboxStatus", "PingSandbox", "SandboxMetrics"]
    {
        refused(method, pod.call(method), NOT_FOUND)?;
    }
    pod.create()?;
    refused("a second CreateSandbox", pod.create(), ALREADY_EXISTS)?;
    let other = Message::new().text(1, "other").text(2, "/");
    refused("another's CreateSandbox", pod.ask("CreateSandbox", &other), FAILED_PRECONDITION)?;
    refused(
        "another's ShutdownSandbox",
        pod.ask("ShutdownSandbox", &Message::new().text(1, "other")),
        NOT_FOUND,
    )?;
    pod.call("StartSandbox")?;
    refused("a second StartSandbox", pod.call("StartSandbox"), FAILED_PRECONDITION)?;
    pod.call("StopSandbox")?;
    pod.call("StopSandbox")?;
    refused("StartSandbox after the stop", pod.call("StartSandbox"), FAILED_PRECONDITION)?;
    pod.call("WaitSandbox")?;
    pod.end()?;
    // Stopped before it was started; shut down without a stop; and before there is anything.
    let pod = Pod::begin(&d, PodConfig::usual(t)?)?;
    pod.create()?;
    let waits = pod.begin_call("WaitSandbox", &pod.id());
    pod.call("StopSandbox")?;
    waits.within(5.0)?;
    refused("StartSandbox after the stop", pod.call("StartSandbox"), FAILED_PRECONDITION)?;
    pod.end()?;
    let (pod, _) = Pod::ready(&d, PodConfig::usual(t)?)?;
    pod.call("ShutdownSandbox")?;
    d.is_gone(&pod.shim)?;
    pod.delete()?;
    pod.nothing_left()?;
    let pod = Pod::begin(&d, PodConfig::usual(t)?)?;
    pod.call("ShutdownSandbox")?;
    d.is_gone(&pod.shim)?;
    pod.delete()?;
    d.finish()
}

fn bad_input(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let pod = Pod::begin(&d, PodConfig::usual(t)?)?;
    let dir = pod.bundle.dir.to_string_lossy().into_owned();
    let id = || pod.id();
    let requests = [
        ("an empty id", Message::new().text(2, &dir)),
        ("an id that leads away", Message::new().text(1, "../x").text(2, &dir)),
        ("no bundle", id()),
        ("a bundle that is none of its own", id().text(2, "/")),
        ("options of another type", id().text(2, &dir).any(4, "runtime.v1.Other", b"")),
        ("options that are cut off", id().text(2, &dir).any(4, "runtime.v1.PodSandboxConfig", &[0x12, 9])),
        ("a root file system", id().text(2, &dir).message(3, &Message::new().text(1, "bind"))),
        ("a host name of two lines", {
            let config = Message::new().text(2, "a\nb");
            id().text(2, &dir).any(4, "runtime.v1.PodSandboxConfig", &config.0)
        }),
    ];
    for (what, request) in requests {
        match pod.ask("CreateSandbox", &request) {
            Err(failure) => check!(
                [INVALID_ARGUMENT, UNKNOWN].contains(&failure.code) && !failure.text.is_empty(),
                "{what}: {failure:?}"
            ),
            Ok(_) => return Err(format!("{what} was not refused").into()),
        }
    }
    // What shows only when it is made leaves nothing, and a later start may do.
    let mut config = PodConfig::usual(t)?;
    config.network = t.path("absent");
    let absent =
        Pod { config, d: &d, bundle: pod.bundle.clone(), shim: pod.shim.clone(), version: pod.version };
    absent.create()?;
    let failure = absent.call("StartSandbox").err().ok_or("it starts without a network namespace")?;
    check!(
        failure.text.contains("absent") && failure.text.contains("ENOENT"),
        "StartSandbox says {failure:?}"
    );
    absent.nothing_left()?;
    same("its state", absent.status()?.state.as_str(), "SANDBOX_NOTREADY")?;
    absent.end()?;
    d.finish()
}

fn files(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let mut config = PodConfig::usual(t)?;
    config.servers = vec!["10.0.0.10".into(), "fd00::10".into()];
    let (pod, _) = Pod::ready(&d, config)?;
    let read = |name: &str| fs::read_to_string(pod.root().join(name));
    same("hostname", read("hostname")?.as_str(), "pod-host\n")?;
    same("hosts", read("hosts")?, fs::read_to_string("/etc/hosts").unwrap_or_default())?;
    same("resolv.conf", read("resolv.conf")?.as_str(), "nameserver 10.0.0.10\nnameserver fd00::10\n")?;
    let shm = fs::metadata(pod.shm())?;
    same("the mode of shm", shm.permissions().mode() & 0o7777, 0o1777)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let line = mounts.lines().find(|line| line.contains(&format!("{} ", pod.shm().display())));
    let line = line.ok_or("shm is not mounted")?;
    for word in ["nosuid", "nodev", "noexec", "size=65536k", "- tmpfs shm"] {
        check!(line.contains(word), "shm has no {word}: {line}");
    }
    pod.end()?;
    let mut config = PodConfig::usual(t)?;
    config.hostname.clear();
    let (pod, _) = Pod::ready(&d, config)?;
    let ours = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    same("hostname without one", fs::read_to_string(pod.root().join("hostname"))?, format!("{ours}\n"))?;
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    same("resolv.conf without servers", fs::read_to_string(pod.root().join("resolv.conf"))?, host)?;
    pod.end()?;
    d.finish()
}

/// Containers join what the pod holds; the shim outlives them, and is one for all.
fn containers(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (pod, pid) = Pod::ready(&d, PodConfig::usual(t)?)?;
    let (first, task) = pod.container(pid, "forever")?;
    let (second, other) = pod.container(pid, "forever")?;
    let pids = [task.state("")?.pid, other.state("")?.pid];
    for kind in ["ipc", "uts", "net"] {
        let held = namespace(pid, kind)?;
        for pid in pids {
            same(&format!("the {kind} namespace"), namespace(pid, kind)?, held.clone())?;
        }
        check!(namespace(std::process::id().into(), kind)? != held, "the {kind} namespace is the host's");
    }
    check!(namespace(pids[0], "pid")? != namespace(pids[1], "pid")?, "they share a pid namespace");
    let name = inside(pids[0], &["uts"], nix::unistd::gethostname)??;
    same("its host name", name.to_string_lossy().as_ref(), "pod-host")?;
    pod.end_container(&first, &task)?;
    pod.end_container(&second, &other)?;
    pod.call("PingSandbox")?;
    let (third, task) = pod.container(pid, "forever")?;
    pod.end_container(&third, &task)?;
    same("its state", pod.status()?.state.as_str(), "SANDBOX_READY")?;
    pod.end()?;
    d.finish()
}

/// What holds the namespaces is small, has nothing, and may do nothing.
fn holder(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (pod, pid) = Pod::ready(&d, PodConfig::usual(t)?)?;
    has_nothing(t, pid)?;
    same(
        "its groups",
        fs::read_to_string(format!("/proc/{pid}/cgroup"))?,
        fs::read_to_string(format!("/proc/{}/cgroup", pod.shim.pid))?,
    )?;
    pod.end()?;
    d.finish()
}

fn has_nothing(t: &Test, pid: u64) -> Verdict {
    // The last that it does, a moment after it was recorded.
    let name = || Ok((fs::read_to_string(format!("/proc/{pid}/comm"))? == "corten-pod\n").then_some(()));
    t.until(|| "its name".into(), name)?;
    let usage = procs::usage(pid as i32)?;
    check!(usage.rss <= RESIDENT, "it has {} KiB resident", usage.rss);
    same("its threads", usage.threads, 1)?;
    same("its descriptors", usage.fds, 3)?;
    for fd in 0..3 {
        same(
            "what is open",
            fs::read_link(format!("/proc/{pid}/fd/{fd}"))?.to_string_lossy().as_ref(),
            "/dev/null",
        )?;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let line = format!("{set}:\t0000000000000000");
        check!(status.contains(&line), "not {line:?}: {status}");
    }
    check!(status.contains("Groups:\t \n") || status.contains("Groups:\t\n"), "its groups: {status}");
    Ok(())
}

/// Orphans come to the pod's first process, and are gone when they end; who looks at it sees nothing of the host.
fn shared_pids(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let config = PodConfig { pid_mode: POD, ..PodConfig::usual(t)? };
    let (pod, pid) = Pod::ready(&d, config)?;
    has_nothing(t, pid)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    check!(
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")),
        "not pid 1: {status}"
    );
    let root = fs::read_dir(format!("/proc/{pid}/root"))?.count();
    same("what is in its root", root, 0)?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    same("its mounts", mounts.lines().count(), 1)?;
    check!(mounts.contains(" ro,") && mounts.contains("tmpfs"), "its root is {mounts}");
    let (bundle, task) = pod.container(pid, "forever")?;
    same("the pid namespace", namespace(task.state("")?.pid, "pid")?, namespace(pid, "pid")?)?;
    task.exec("x", &["/probe", "spawn", "sleep", "0.2", "--", "exit", "0"], &Default::default())?;
    task.start("x")?;
    task.exit("x")?;
    let children = || Ok::<_, Trouble>(fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?);
    t.until(|| "the orphan".into(), || Ok((!children()?.is_empty()).then_some(())))?;
    t.until(|| "the orphan's end".into(), || Ok(children()?.is_empty().then_some(())))?;
    task.delete("x")?;
    // What its containers may send it does not end it.
    task.exec("k", &["/probe", "try", "syscall", "62", "1", "9"], &Default::default())?;
    task.start("k")?;
    task.exit("k")?;
    task.delete("k")?;
    same("its state", pod.status()?.state.as_str(), "SANDBOX_READY")?;
    // With the first process everything in there ends.
    pod.call("StopSandbox")?;
    same("the container's status", task.exit("")?.status, 137)?;
    pod.end_container(&bundle, &task)?;
    pod.end()?;
    d.finish()
}

fn host_namespaces(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let config = PodConfig { network_mode: NODE, pid_mode: NODE, ipc_mode: NODE, ..PodConfig::usual(t)? };
    let (pod, pid) = Pod::ready(&d, config)?;
    for kind in ["net", "uts", "ipc", "pid", "mnt", "user"] {
        same(&format!("the {kind} namespace"), namespace(pid, kind)?, namespace(pod.shim.pid as u64, kind)?)?;
    }
    check!(!pod.shm().exists(), "it has a shm of its own");
    same("its host name", fs::read_to_string(pod.root().join("hostname"))?.as_str(), "pod-host\n")?;
    pod.end()?;
    d.finish()
}

/// It is the one that the network namespace was made in; all that the pod has belongs to its root.
fn user_namespace(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let network = network_of_user(t)?;
    for pid_mode in [crate::shim::pod::CONTAINER, POD] {
        let sysctl = ("net.ipv4.tcp_syncookies".to_owned(), "2".to_owned());
        let config = PodConfig {
            network: network.clone(),
            user: true,
            pid_mode,
            sysctls: vec![sysctl],
            ..PodConfig::usual(t)?
        };
        let (pod, pid) = Pod::ready(&d, config)?;
        has_nothing(t, pid)?;
        let map = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
        same("its users", map.split_whitespace().collect::<Vec<_>>(), vec!["0", "100000", "65536"])?;
        same("who owns shm", fs::metadata(pod.shm())?.uid(), 100_000)?;
        let (bundle, task) = pod.container(pid, "forever")?;
        let inner = task.state("")?.pid;
        for kind in ["user", "ipc", "uts", "net"] {
            same(&format!("the {kind} namespace"), namespace(inner, kind)?, namespace(pid, kind)?)?;
        }
        let value = inside(pid, &["net"], || fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies"))??;
        same("the parameter", value.trim(), "2")?;
        pod.end_container(&bundle, &task)?;
        pod.end()?;
    }
    d.finish()
}

fn sysctls(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let mut config = PodConfig::usual(t)?;
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    config.sysctls = vec![set("kernel.shm_rmid_forced", "1"), set("net.ipv4.tcp_syncookies", "2")];
    let read = |pid: u64, name: &'static str| -> Result<String, Trouble> {
        let text = inside(pid, &["net", "ipc"], move || fs::read_to_string(format!("/proc/sys/{name}")))??;
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let host = fs::read_to_string("/proc/sys/kernel/shm_rmid_forced")?;
    let (pod, pid) = Pod::ready(&d, config.clone())?;
    for (name, value) in [
        ("kernel/shm_rmid_forced", "1"),
        ("net/ipv4/tcp_syncookies", "2"),
        // What the pause controller sets unasked.
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/ping_group_range", "0 2147483647"),
    ] {
        same(name, read(pid, name)?.as_str(), value)?;
    }
    same("the host's", fs::read_to_string("/proc/sys/kernel/shm_rmid_forced")?, host)?;
    pod.end()?;
    // One that is the whole host's, or that the pod shares with it, is nobody's to set.
    for (name, mode) in [("kernel.panic", POD), ("kernel.shmmax", NODE)] {
        let config = PodConfig { sysctls: vec![set(name, "1")], ipc_mode: mode, ..config.clone() };
        let pod = Pod::begin(&d, config)?;
        pod.create()?;
        let failure = pod.call("StartSandbox").err().ok_or(format!("{name} was set"))?;
        check!(failure.text.contains(name), "it says {failure:?}");
        pod.nothing_left()?;
        pod.end()?;
    }
    d.finish()
}

fn stopped_with_containers(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (pod, pid) = Pod::ready(&d, PodConfig::usual(t)?)?;
    let (first, task) = pod.container(pid, "forever")?;
    let (second, other) = pod.container(pid, "spawn forever -- forever")?;
    pod.call("StopSandbox")?;
    for task in [&task, &other] {
        same("its status", task.exit("")?.status, 137)?;
    }
    // The server stays until the last of them has been deleted, whatever comes first.
    pod.call("ShutdownSandbox")?;
    pod.nothing_left()?;
    pod.end_container(&first, &task)?;
    other.delete("")?;
    d.is_gone(&pod.shim)?;
    d.delete(&second)?;
    d.remove(&second)?;
    pod.delete()?;
    d.finish()
}

/// Who waits is told, and the state says so; containers go on.
fn holder_killed(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (pod, pid) = Pod::ready(&d, PodConfig::usual(t)?)?;
    let (bundle, task) = pod.container(pid, "forever")?;
    let waits = pod.begin_call("WaitSandbox", &pod.id());
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
    same("its status", waits.within(5.0)?.number(1), 137)?;
    same("its state", pod.status()?.state.as_str(), "SANDBOX_NOTREADY")?;
    same("the container's state", task.state("")?.status, crate::shim::task::RUNNING)?;
    pod.end_container(&bundle, &task)?;
    pod.end()?;
    d.finish()
}
