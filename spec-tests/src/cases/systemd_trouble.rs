// SPDX-License-Identifier: Apache-2.0
//! The systemd cgroup driver when something is wrong: refused names and properties, a systemd that is absent, hung, or
//! talks nonsense; and the user's manager; and no manager at all (`--cgroup-manager=disabled`).

#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::mount::MsFlags;
use serde_json::json;

use super::systemd::{BELOW, SYSTEMD, act, bundle, create, gone, group_of, on, shown, systemctl};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::test::Test;
use crate::sys;

/// The chapter.
pub fn cases() -> Vec<Case> {
    [refusals(), trouble(), without()].into_iter().flatten().collect()
}

fn refused(t: &Test, b: &Bundle, says: &[&str]) -> Verdict {
    let before = t.snapshot();
    let done = act(t, "create", b)?;
    done.refuses(says)?;
    t.unchanged_since(&before)
}

fn refusals() -> Vec<Case> {
    vec![
        case("systemd/paths-that-are-refused", |t| {
            for (path, says) in [
                ("/a/b", "slice:prefix:name"),
                ("a.slice:b", "slice:prefix:name"),
                ("a.slice:b:c:d", "slice:prefix:name"),
                ("a:p:n", "slice"),
                ("a--b.slice:p:n", "slice"),
                ("a.slice/b.slice:p:n", "slice"),
                ("system.slice:p:a/../b", "unit|name"),
            ] {
                refused(t, &t.bundle()?.set("/linux/cgroupsPath", json!(path)), &[says])?;
            }
            Ok(())
        })
        .crun("takes paths of other forms"),
        case("systemd/annotations-that-are-refused", |t| {
            for (name, value) in [
                ("ExecStartPre", "'/bin/true'"),
                ("Slice", "'system.slice'"),
                ("Wants", "['rescue.target']"),
                ("FailureAction", "'reboot'"),
                ("timeoutStopSec", "5"),
                ("ab", "5"),
                ("TimeoutStopUSec", "five"),
                ("TimeoutStopUSec", "'5'"),
            ] {
                let (b, _) = bundle(t, "system.slice")?;
                let name = format!("org.systemd.property.{name}");
                refused(t, &b.set("/annotations", json!({name.as_str(): value})), &[&name])?;
            }
            Ok(())
        })
        .both("hands every property on to systemd (S32)"),
        case("systemd/what-systemd-refuses-is-told", |t| {
            let (b, unit) = bundle(t, "system.slice")?;
            let b = b.set("/annotations", json!({"org.systemd.property.OOMPolicy": "'nonsense'"}));
            refused(t, &b, &[&unit, "OOMPolicy"])?;
            gone(t, &unit)
        })
        .crun("does not name the unit"),
        case("systemd/a-name-that-is-taken", |t| {
            let (first, unit) = bundle(t, "ctest.slice")?;
            create(t, &first)?;
            let second = t.bundle()?.set("/linux/cgroupsPath", first.config["linux"]["cgroupsPath"].clone());
            refused(t, &second, &[&format!("{unit}|not empty")])?;
            same("ActiveState", shown(&unit, "ActiveState"), "active")?;
            t.has_status(&first, "created")
        }),
        case("systemd/failed-create-leaves-no-unit", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            let before = t.snapshot();
            act(t, "create", &b.args(&["/no/such/program"]))?.refuses(&["no such file"])?;
            gone(t, &unit)?;
            // The slice is systemd's, which takes it away in its own time.
            systemctl(&["stop", "ctest.slice"]);
            t.unchanged_since(&before)
        }),
    ]
    .into_iter()
    .map(|case| case.needs(SYSTEMD))
    .collect()
}

/// Puts something in the place of both sockets of the system's manager.
fn instead_of_systemd(t: &Test, put: impl Fn(&Path) -> Verdict) -> Verdict {
    for path in ["/run/systemd/private", "/run/dbus/system_bus_socket"] {
        if Path::new(path).exists() {
            put(Path::new(path))?;
        }
    }
    // What asks the file system instead of the socket.
    if t.host.name != "corten" && Path::new("/run/systemd/system").exists() {
        t.mount("tmpfs", "tmpfs", Path::new("/run/systemd/system"), MsFlags::empty(), "")?;
    }
    Ok(())
}

/// Lets everybody in, and then says what no message is.
fn babble(listener: &UnixListener, over: &AtomicBool) {
    for mut socket in listener.incoming().flatten() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        socket.write_all(b"OK 00\r\n").ok();
        socket.write_all(&[b'l', 2, 0, 1, 255, 255, 255, 127, 1, 0, 0, 0, 255, 255, 0, 0]).ok();
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn trouble() -> Vec<Case> {
    vec![
        case("systemd/absent", |t| {
            let (b, _) = bundle(t, "ctest.slice")?;
            t.mount("tmpfs", "tmpfs", Path::new("/run/systemd"), MsFlags::empty(), "")?;
            if Path::new("/run/dbus").exists() {
                t.mount("tmpfs", "tmpfs", Path::new("/run/dbus"), MsFlags::empty(), "")?;
            }
            refused(t, &b, &["systemd"])
        })
        .crun("does not say that systemd is meant"),
        case("systemd/hung", |t| {
            let (b, _) = bundle(t, "ctest.slice")?;
            let mute = t.path("mute");
            let listener = UnixListener::bind(&mute)?;
            t.at_end(move || drop(listener));
            instead_of_systemd(t, |path| {
                let mute = mute.to_string_lossy().into_owned();
                t.mount("", &mute, path, MsFlags::MS_BIND, "")
            })?;
            let before = t.snapshot();
            let done = act(t, "create", &b)?;
            done.refuses(&["systemd", "timed out|timeout"])?;
            within("it", done.took, Duration::from_secs(15))?;
            t.unchanged_since(&before)
        })
        .both("waits for ever, or much longer, or does not say for what"),
        case("systemd/babbling", |t| {
            let (b, _) = bundle(t, "ctest.slice")?;
            let path = t.path("babble");
            let listener = UnixListener::bind(&path)?;
            let over = Arc::new(AtomicBool::new(false));
            let (stop, to_wake) = (over.clone(), path.clone());
            let babbler = std::thread::spawn(move || babble(&listener, &over));
            t.at_end(move || {
                stop.store(true, Ordering::Relaxed);
                UnixStream::connect(to_wake).ok();
                babbler.join().ok();
            });
            instead_of_systemd(t, |at| {
                let path = path.to_string_lossy().into_owned();
                t.mount("", &path, at, MsFlags::MS_BIND, "")
            })?;
            refused(t, &b, &["/run/systemd/private", "D-Bus"])
        })
        .needs(&[Need::Runtime("corten")]),
        case("systemd/over-the-bus-alone", |t| {
            if !Path::new("/run/dbus/system_bus_socket").exists() {
                return Err(Trouble::NotRun("no bus daemon is running".into()));
            }
            let (b, unit) = bundle(t, "ctest.slice")?;
            t.mount("", "/dev/null", Path::new("/run/systemd/private"), MsFlags::MS_BIND, "")?;
            create(t, &b)?;
            let group = group_of(t.pid(&b)?)?;
            same("the group", group.clone(), Path::new("/sys/fs/cgroup/ctest.slice").join(unit))?;
            on(t, &format!("delete --force {}", b.id))?.ok()?;
            check!(!group.exists(), "{} is left", group.display());
            Ok(())
        })
        .crun(BELOW),
        case("systemd/user-manager", user_manager)
            .runc("leaves the exec in the caller's group")
            .crun("cannot enter the scope from another slice"),
    ]
    .into_iter()
    .map(|case| case.needs(SYSTEMD))
    .collect()
}

/// The user's keyrings, which his manager's session has made, stay as long as the kernel likes: a thread that is this user has them
/// collected now (keyctl(2), KEYCTL_INVALIDATE).
fn invalidate_keyrings(user: i64) {
    const KEYCTL_GET_KEYRING_ID: i64 = 0;
    const KEYCTL_INVALIDATE: i64 = 21;
    // KEY_SPEC_USER_SESSION_KEYRING and KEY_SPEC_USER_KEYRING (linux/keyctl.h). Naming one makes what is missing of both, so both are
    // looked up before either goes.
    const KEYRINGS: [i64; 2] = [-5, -4];
    let keyctl = |operation, key| sys::syscall(libc::SYS_keyctl, [operation, key, 0, 0, 0, 0]);
    let forget = move || {
        let user_now = sys::syscall(libc::SYS_setresuid, [user, user, user, 0, 0, 0]);
        let all = KEYRINGS.map(|keyring| keyctl(KEYCTL_GET_KEYRING_ID, keyring));
        for keyring in all.into_iter().flatten().filter(|_| user_now.is_ok()) {
            let _ = keyctl(KEYCTL_INVALIDATE, keyring);
        }
    };
    let _ = std::thread::spawn(forget).join();
}

/// Root of a user namespace, the one of `user` (1000), below his own manager.
fn user_manager(t: &Test) -> Verdict {
    let was = shown("user@1000.service", "ActiveState");
    systemctl(&["start", "user@1000.service"]);
    if was != "active" {
        // With its slice, which systemd would take away when it has nothing better to do.
        t.at_end(|| {
            drop(systemctl(&[
                "stop",
                "user@1000.service",
                "user-runtime-dir@1000.service",
                "user-1000.slice",
            ]));
            invalidate_keyrings(1000);
        });
    }
    // His runtime directory was mounted after this case got mounts of its own.
    if !Path::new("/proc/1/root/run/user/1000/systemd/private").exists() {
        return Err(Trouble::NotRun("no user manager for user 1000 can be had".into()));
    }
    let (b, unit) = bundle(t, "user.slice")?;
    let b = b.set("/linux/resources", json!({"pids": {"limit": 55}})).set("/root/readonly", json!(true));
    b.write()?;
    let own = Command::new("chown").args(["-R", "1000:1000"]).arg(&b.dir).status()?;
    check!(own.success(), "chown failed");
    let group = format!("/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/{unit}");
    let script = format!(
        "set -e; R='{} --root /run/user/1000/{}'; $R --systemd-cgroup create --bundle {} {id}; cat {group}/pids.max; \
         $R start {id}; $R exec -d --pid-file {pid} {id} /probe forever; cat /proc/$(cat {pid})/cgroup; \
         $R kill {id} KILL; $R delete --force {id}; rmdir /run/user/1000/{}; ls -d {group} || echo gone",
        t.host.runtime.display(),
        t.place.mark,
        b.dir.display(),
        t.place.mark,
        id = b.id,
        pid = b.dir.join("pid").display(),
    );
    let mut command = Command::new("nsenter");
    command.args([
        "--mount=/proc/1/ns/mnt",
        "setpriv",
        "--reuid",
        "1000",
        "--regid",
        "1000",
        "--init-groups",
        "env",
        "-i",
    ]);
    command.args(["XDG_RUNTIME_DIR=/run/user/1000", "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus"]);
    command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"]);
    command.args(["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "sh", "-c", &script]);
    let done = t.complete(command)?;
    let lines: Vec<&str> = done.ok()?.stdout.lines().collect();
    check!(lines.first() == Some(&"55"), "pids.max is not 55: {done}");
    check!(lines.get(1).is_some_and(|line| line.ends_with(&unit)), "exec is in another group: {done}");
    check!(lines.last() == Some(&"gone"), "the group is left: {done}");
    Ok(())
}

fn without() -> Vec<Case> {
    let run = |t: &Test, b: &Bundle, verb: &str| {
        b.write()?;
        let mut command = t.runtime();
        command.arg("--cgroup-manager=disabled").arg(verb).arg("--bundle").arg(&b.dir).arg(&b.id);
        t.complete(command)
    };
    let own = || fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    vec![
        case("cgroup/disabled-makes-none", move |t| {
            let b =
                t.bundle()?.set("/linux/resources", json!({})).without_namespace("cgroup").probe("forever");
            run(t, &b, "create")?.ok()?;
            same("its groups", fs::read_to_string(format!("/proc/{}/cgroup", t.pid(&b)?))?, own())?;
            t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
        })
        .runc("has no --cgroup-manager"),
        case("cgroup/disabled-refuses-a-limit", move |t| {
            let b = t.bundle()?.set("/linux/resources", json!({"pids": {"limit": 5}}));
            let before = t.snapshot();
            run(t, &b, "create")?.refuses(&["pids", "cgroup-manager"])?;
            t.unchanged_since(&before)
        })
        .runc("has no --cgroup-manager")
        .crun("forgets the limit"),
    ]
}
