// SPDX-License-Identifier: Apache-2.0
//! Pods without a pause container, and what dies: the shim at each step, room on the disk, the program of the shim.

#![forbid(unsafe_code)]

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::crash::{fill, small_state};
use super::sandbox::NONE;
use super::upgrade::command;
use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::pace::within;
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::pod::{POD, Pod, PodConfig};

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("sandbox/killed-at-each-step", killed_at_each_step).runc(NONE).takes(60.0),
        case("sandbox/killed-at-any-moment", killed_at_any_moment).runc(NONE).takes(120.0),
        case("sandbox/killed-with-containers", killed_with_containers).runc(NONE),
        case("sandbox/full-disk", full_disk).runc(NONE),
        case("sandbox/upgrade", upgrade).runc(NONE).takes(60.0),
        case("sandbox/alone", alone).runc(NONE).takes(60.0),
    ]
}

fn kill_shim(pod: &Pod<'_, '_>) -> Verdict {
    kill(Pid::from_raw(pod.shim.pid), Signal::SIGKILL)?;
    let d = pod.d;
    d.t.until(|| "the end of the shim".into(), || Ok((!procs::is_alive(pod.shim.pid)).then_some(())))?;
    d.t.reap();
    Ok(())
}

/// The binary's `delete` after the shim's death; what held the pod and all it had are gone.
fn cleaned_up(pod: &Pod<'_, '_>, what: &str) -> Verdict {
    let d = pod.d;
    d.delete(&pod.bundle)?;
    d.delete(&pod.bundle)?; // once more
    d.t.reap();
    let begin = Instant::now();
    d.remove(&pod.bundle).map_err(|trouble| format!("{what}: {trouble:?}"))?;
    pod.nothing_left().map_err(|trouble| format!("{what}: {trouble:?}"))?;
    while let Err(trouble) = d.finish() {
        within(&format!("{what}: {trouble:?}: this"), begin.elapsed(), Duration::from_secs(2))?;
        d.t.reap();
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn killed_at_each_step(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let steps = ["CreateSandbox", "StartSandbox", "StopSandbox", "ShutdownSandbox"];
    for last in 0..=steps.len() {
        let pod = Pod::begin(&d, PodConfig { pid_mode: POD, ..PodConfig::usual(t)? })?;
        for step in &steps[..last] {
            match *step {
                "CreateSandbox" => drop(pod.create()?),
                step => drop(pod.call(step)?),
            }
        }
        let what = format!("killed after {:?}", steps[..last].last());
        if last == steps.len() {
            d.is_gone(&pod.shim)?;
        } else {
            kill_shim(&pod)?;
        }
        cleaned_up(&pod, &what)?;
    }
    Ok(())
}

fn killed_at_any_moment(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    for method in ["StartSandbox", "ShutdownSandbox"] {
        for n in 0..16_u64 {
            let pod = Pod::begin(&d, PodConfig { pid_mode: n % 2, ..PodConfig::usual(t)? })?;
            pod.create()?;
            if method != "StartSandbox" {
                pod.call("StartSandbox")?;
            }
            let asked = pod.begin_call(method, &pod.id());
            let begin = Instant::now();
            std::thread::sleep(Duration::from_micros(n * n * 40));
            kill(Pid::from_raw(pod.shim.pid), Signal::SIGKILL).ok();
            let what = format!("killed {:?} into {method}", begin.elapsed());
            d.t.until(
                || "the end of the shim".into(),
                || Ok((!procs::is_alive(pod.shim.pid)).then_some(())),
            )?;
            d.t.reap();
            drop(asked);
            cleaned_up(&pod, &what)?;
        }
    }
    Ok(())
}

/// Whoever is deleted first takes the whole pod along, as with a pause container.
fn killed_with_containers(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (pod, pid) = Pod::ready(&d, PodConfig::usual(t)?)?;
    let (bundle, task) = pod.container(pid, "forever")?;
    let inner = task.state("")?.pid;
    kill_shim(&pod)?;
    let (told, status, _) = d.delete(&bundle)?;
    same("the pid that delete tells", told, inner)?;
    same("the status that delete tells", status, 137)?;
    d.t.until(
        || "the pod's end".into(),
        || {
            d.t.reap();
            Ok((!procs::is_alive(pid as i32) && !procs::is_alive(inner as i32)).then_some(()))
        },
    )?;
    pod.nothing_left()?;
    d.remove(&bundle)?;
    let (told, _, _) = d.delete(&pod.bundle)?;
    same("the pid that the pod's delete tells", told, pid)?;
    d.remove(&pod.bundle)?;
    d.finish()
}

/// What cannot be written down is not made; what was begun is taken away; with room again all goes well.
fn full_disk(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let room = small_state(&d)?;
    let pod = Pod::begin(&d, PodConfig::usual(t)?)?;
    fill(&room)?;
    let failure = pod.create().err().ok_or("CreateSandbox needs no room")?;
    check!(failure.text.contains("ENOSPC"), "CreateSandbox says {:?}", failure.text);
    fs::remove_file(&room)?;
    pod.create()?;
    // Now where its files are.
    fs::create_dir_all(t.path("containerd-root"))?;
    t.mount("tmpfs", "tmpfs", &t.path("containerd-root"), nix::mount::MsFlags::empty(), "size=64k,mode=755")?;
    let room = t.path("containerd-root").join("fill");
    fill(&room)?;
    let failure = pod.call("StartSandbox").err().ok_or("StartSandbox needs no room")?;
    check!(failure.text.contains("ENOSPC"), "StartSandbox says {:?}", failure.text);
    pod.nothing_left()?;
    fs::remove_file(&room)?;
    let pid = pod.call("StartSandbox")?.number(1);
    let (bundle, task) = pod.container(pid, "forever")?;
    pod.end_container(&bundle, &task)?;
    pod.end()?;
    d.finish()
}

/// Another program goes on as the shim of a pod, in each of its states: whoever waits, containers, the end.
fn upgrade(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let go_on = |pod: &Pod<'_, '_>| -> Verdict {
        let called = command(&t.host.runtime, &[&pod.bundle.id])?;
        check!(called.code == Some(0), "upgrade ended with {:?}: {}", called.code, called.text());
        Ok(())
    };
    let pod = Pod::begin(&d, PodConfig { pid_mode: POD, ..PodConfig::usual(t)? })?;
    pod.create()?;
    go_on(&pod)?;
    let waits = pod.begin_call("WaitSandbox", &pod.id());
    check!(waits.is_open(), "WaitSandbox is answered early");
    let pid = pod.call("StartSandbox")?.number(1);
    let before = pod.status()?;
    let (bundle, task) = pod.container(pid, "forever")?;
    go_on(&pod)?;
    same("the pod's status", pod.status()?, before)?;
    let (second, other) = pod.container(pid, "exit 3")?;
    same("a container's status", other.exit("")?.status, 3)?;
    pod.end_container(&second, &other)?;
    go_on(&pod)?;
    pod.end_container(&bundle, &task)?;
    check!(waits.is_open(), "WaitSandbox is answered early");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
    same("its status", waits.within(5.0)?.number(1), 137)?;
    go_on(&pod)?;
    same("its state", pod.status()?.state.as_str(), "SANDBOX_NOTREADY")?;
    same("its status, asked again", pod.call("WaitSandbox")?.number(1), 137)?;
    pod.end()?;
    // Killed after an upgrade, `delete` finds it all the same.
    let (pod, _) = Pod::ready(&d, PodConfig::usual(t)?)?;
    go_on(&pod)?;
    kill_shim(&pod)?;
    cleaned_up(&pod, "killed after an upgrade")
}

/// A containerd that is away for longer than a server without anything would stay.
fn alone(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (pod, pid) = Pod::ready(&d, PodConfig::usual(t)?)?;
    let Pod { bundle, shim, config, version, .. } = pod;
    let (address, shim_pid) = (shim.address.clone(), shim.pid);
    drop(shim);
    std::thread::sleep(Duration::from_secs(32));
    check!(procs::is_alive(shim_pid), "the shim has ended");
    check!(procs::is_alive(pid as i32), "what held the pod has ended");
    let shim = crate::shim::task::Shim::connect(&address, 2, &bundle.id)
        .map_err(|trouble| Trouble::from(format!("after 32 s: {trouble:?}")))?;
    let pod = Pod { d: &d, bundle, shim: shim.into(), config, version };
    same("its state", pod.status()?.state.as_str(), "SANDBOX_READY")?;
    pod.end()?;
    d.finish()
}
