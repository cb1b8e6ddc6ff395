// SPDX-License-Identifier: Apache-2.0
//! `corten doctor` on hosts that lack something: what is taken away is found, what is wrong is named, and what is dead goes.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::MsFlags;
use serde_json::{Value, json};

use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::pace;
use crate::harness::test::Test;
use crate::harness::user::User;
use crate::{check, sys};

/// The chapter.
pub fn cases() -> Vec<Case> {
    let all = [form(), missing(), engines(), leftovers()].into_iter().flatten();
    // No other runtime has it (compatibility S19).
    all.map(|case| case.needs(&[Need::Runtime("corten")])).collect()
}

/// What `doctor --json` says, whatever it finds.
fn doctor(t: &Test, mut command: Command) -> Result<Value, Trouble> {
    command.args(["doctor", "--json"]);
    let done = t.complete(command)?;
    let told = done.json()?;
    same("the exit code", done.code, i32::from(told["result"] == "fail"))?;
    Ok(told)
}

/// All that was told by this id.
fn told<'a>(all: &'a Value, id: &str) -> Vec<&'a Value> {
    all["checks"].as_array().into_iter().flatten().filter(|check| check["id"] == id).collect()
}

/// One of the findings by this id must be as bad as this, and speak of `say`; with advice, unless all is well.
fn finds(all: &Value, id: &str, health: &str, say: &str) -> Verdict {
    let checks = told(all, id);
    let wanted = |check: &&&Value| {
        check["health"] == health && check["found"].as_str().is_some_and(|found| found.contains(say))
    };
    let Some(found) = checks.iter().find(wanted) else {
        return Err(format!("{id}: no {health} of {say:?} in {checks:?}").into());
    };
    check!(["ok", "unknown"].contains(&health) || found["advice"].is_string(), "no advice: {found}");
    Ok(())
}

fn form() -> Vec<Case> {
    vec![
        case("doctor/tells-every-check-and-changes-nothing", |t| {
            let modules = || fs::read_to_string("/proc/modules").unwrap_or_default().lines().count();
            let (before, loaded) = (t.snapshot(), modules());
            let all = doctor(t, t.runtime())?;
            t.unchanged_since(&before)?;
            same("modules", modules(), loaded)?;
            check!(!t.place.root.exists(), "it made the state root");
            for check in all["checks"].as_array().into_iter().flatten() {
                let texts = ["id", "health", "found", "lost"].iter().all(|key| check[key].is_string());
                check!(texts && check["id"].as_str().is_some_and(|id| id.contains('.')), "{check}");
            }
            for id in [
                "kernel.clone3",
                "kernel.mount-setattr",
                "cgroup.layout",
                "user.namespaces",
                "files.root",
                "programs.criu",
            ] {
                same(id, told(&all, id).len(), 1)?;
            }
            same("since", &told(&all, "kernel.clone3")[0]["since"], "Linux 5.3")
        }),
        case("doctor/takes-a-second-at-most", |t| {
            let done = t.cli("doctor")?;
            check!(done.stdout.contains("  clone3  "), "{done}");
            pace::within("doctor", done.took, Duration::from_secs(1))
        }),
        case("doctor/text-has-a-line-for-each", |t| {
            let all = doctor(t, t.runtime())?;
            let done = t.cli("doctor")?;
            let count = all["checks"].as_array().map_or(0, Vec::len);
            let lines =
                done.stdout.lines().filter(|line| line.starts_with("  ") && !line.starts_with("       "));
            same("lines", lines.count(), count)?;
            check!(
                !done.stdout.contains('\x1b')
                    && done.stdout.contains("\nkernel\n") | done.stdout.starts_with("kernel\n"),
                "{}",
                done.stdout
            );
            let quiet = t.cli("doctor --quiet")?;
            check!(!quiet.stdout.contains("  ok  "), "{}", quiet.stdout);
            same("the exit codes", quiet.code, done.code)
        }),
        case("doctor/inside-a-container", |t| {
            let b = t.bundle()?.args(&["/corten", "doctor", "--json"]);
            fs::copy(&t.host.runtime, b.rootfs("corten"))?;
            let done = t.run(&b)?;
            let all: Value = serde_json::from_str(&done.stdout)?;
            finds(&all, "security.capabilities", "fail", "CAP_SYS_ADMIN")?;
            // Refused for want of a capability, and not missing.
            finds(&all, "kernel.mount-api", "ok", "")?;
            same("the exit code", done.code, 1)?;
            let b = t.bundle()?.args(&["/corten", "doctor", "--json"]).user_namespace();
            fs::copy(&t.host.runtime, b.rootfs("corten"))?;
            let all: Value = serde_json::from_str(&t.run(&b)?.stdout)?;
            finds(&all, "security.proc", "warn", "a new one is refused")
        }),
        case("doctor/as-a-user", |t| {
            let u = User::new(t)?;
            let all = doctor(t, u.runtime())?;
            finds(&all, "user.subids", "warn", "corten-test")?;
            finds(&all, "user.runtime-dir", "warn", "XDG_RUNTIME_DIR")?;
            finds(&all, "files.idmap", "unknown", "only the host's root")?;
            check!(told(&all, "security.capabilities").is_empty(), "a user is asked for root's capabilities");
            let all = doctor(t, u.with_ranges()?.runtime())?;
            finds(&all, "user.subids", "ok", "65536")
        }),
    ]
}

fn missing() -> Vec<Case> {
    let mut all: Vec<Case> = [
        ("kernel.clone3", libc::SYS_clone3, libc::ENOSYS, "fail"),
        ("kernel.openat2", libc::SYS_openat2, libc::ENOSYS, "fail"),
        ("kernel.mount-api", libc::SYS_fsopen, libc::EPERM, "fail"),
        ("kernel.pidfd", libc::SYS_pidfd_open, libc::ENOSYS, "fail"),
        ("kernel.close-range", libc::SYS_close_range, libc::ENOSYS, "fail"),
        ("kernel.mount-setattr", libc::SYS_mount_setattr, libc::ENOSYS, "warn"),
        ("kernel.keyring", libc::SYS_keyctl, libc::ENOSYS, "note"),
        ("kernel.memory-policy", libc::SYS_get_mempolicy, libc::ENOSYS, "note"),
        ("user.namespaces", libc::SYS_unshare, libc::EPERM, "warn"),
        ("files.idmap", libc::SYS_mount_setattr, libc::ENOSYS, "note"),
    ]
    .into_iter()
    .map(|(id, call, errno, health)| {
        case(format!("doctor/without-{}", id.replace('.', "-")), move |t| {
            let mut command = t.runtime();
            sys::without_syscall(&mut command, call, errno);
            let all = doctor(t, command)?;
            finds(&all, id, health, "")?;
            finds(&all, "security.filter", "note", "seccomp")
        })
    })
    .collect();
    all.extend([
        case("doctor/user-namespaces-are-forbidden", |t| {
            let mut command = Command::new("unshare");
            let script =
                "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" --root \"$1\" doctor --json";
            command.args(["-Ur", "sh", "-c", script]).arg(&t.host.runtime).arg(&t.place.root);
            let all: Value = serde_json::from_str(&t.complete(command)?.stdout)?;
            finds(&all, "user.sysctls", "warn", "user.max_user_namespaces=0")?;
            finds(&all, "user.namespaces", "fail", "ENOSPC")
        })
        .needs(&[Need::File("/usr/bin/unshare")]),
        case("doctor/groups-are-read-only", |t| {
            let v2 = Path::new("/sys/fs/cgroup");
            let at = if t.host.is_v2() { v2.to_owned() } else { first_hierarchy()? };
            let name = at.to_string_lossy().into_owned();
            t.mount("", &name, &at, MsFlags::MS_BIND, "")?;
            let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            nix::mount::mount(None::<&str>, &at, None::<&str>, read_only, None::<&str>)?;
            finds(&doctor(t, t.runtime())?, "cgroup.writable", "fail", "read-only")
        }),
        case("doctor/a-state-root-that-others-may-write-to", |t| {
            use std::os::unix::fs::PermissionsExt;
            fs::create_dir(&t.place.root)?;
            fs::set_permissions(&t.place.root, fs::Permissions::from_mode(0o777))?;
            finds(&doctor(t, t.runtime())?, "files.root", "fail", "others may write to it")
        }),
        case("doctor/what-lies-on-noexec", |t| {
            let home = t.path("home");
            fs::create_dir(&home)?;
            t.mount("tmpfs", "tmpfs", &home, MsFlags::MS_NOEXEC, "mode=755")?;
            let u = User::new(t)?;
            let mut command = u.runtime();
            command.env("HOME", &home);
            finds(&doctor(t, command)?, "files.options", "warn", "noexec")
        }),
    ]);
    all
}

/// Of those on v1, where the first stands in the mount table.
fn first_hierarchy() -> Result<PathBuf, Trouble> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let first = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup"));
    let point = first.and_then(|line| line.split(' ').nth(1)).ok_or("no cgroup mount")?;
    Ok(PathBuf::from(point))
}

/// An /etc of the case's own, in its mounts, with this file in it.
fn etc(t: &Test, file: &str, text: &str) -> Verdict {
    let etc = t.path("etc");
    let path = etc.join(file);
    fs::create_dir_all(path.parent().unwrap_or(&etc))?;
    fs::write(path, text)?;
    fs::copy("/etc/passwd", etc.join("passwd"))?;
    t.mount("", &etc.to_string_lossy(), Path::new("/etc"), MsFlags::MS_BIND, "")
}

/// A file, what it says, and what is to be found: the check, how bad it is, and a word of it.
type Wrong = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

const WRONG: [Wrong; 8] = [
    (
        "a-handler-in-the-table-of-another-version",
        "containerd/config.toml",
        "version = 3\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.corten]\nruntime_type = \"io.containerd.corten.v2\"\n",
        "containerd.config",
        "fail",
        "does not read",
    ),
    (
        "a-containerd-configuration-that-does-not-read",
        "containerd/config.toml",
        "version = \"2\n",
        "containerd.config",
        "fail",
        "line 1",
    ),
    (
        "a-handler-whose-shim-is-missing",
        "containerd/config.toml",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.c]\nruntime_type = \"io.containerd.runc.v2\"\nruntime_path = \"/nowhere/containerd-shim-corten-v2\"\n",
        "containerd.handler",
        "fail",
        "is no program",
    ),
    (
        "a-handler-of-another-type-with-options",
        "containerd/config.toml",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.c]\nruntime_type = \"io.containerd.corten.v2\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.c.options]\nSystemdCgroup = true\n",
        "containerd.features",
        "warn",
        "only runc's",
    ),
    (
        "docker-whose-configuration-is-not-json",
        "docker/daemon.json",
        "{\"runtimes\": {",
        "docker.runtime",
        "fail",
        "not JSON",
    ),
    (
        "docker-with-a-path-to-nowhere",
        "docker/daemon.json",
        "{\"runtimes\": {\"c\": {\"path\": \"/nowhere/corten\"}}}",
        "docker.runtime",
        "fail",
        "is no program",
    ),
    (
        "podman-without-nocgroup",
        "containers/containers.conf",
        "[engine.runtimes]\ncorten = [\"/nowhere/corten\"]\n",
        "podman.nocgroup",
        "warn",
        "runtime_supports_nocgroup",
    ),
    (
        "crio-with-a-path-to-nowhere",
        "crio/crio.conf.d/10-corten.conf",
        "[crio.runtime.runtimes.corten]\nruntime_path = \"/nowhere/corten\"\n",
        "crio.runtime",
        "fail",
        "is no program",
    ),
];

fn engines() -> Vec<Case> {
    let wrong = WRONG.iter().map(|(name, file, text, id, health, say)| {
        case(format!("doctor/{name}"), move |t| {
            etc(t, file, text)?;
            finds(&doctor(t, t.runtime())?, id, health, say)
        })
    });
    wrong.collect()
}

/// A container that has ended and was not deleted.
fn stopped(t: &Test) -> Result<Bundle, Trouble> {
    let b = t.bundle()?.probe("exit 0");
    t.launch(&b)?;
    t.await_status(&b, "stopped")?;
    Ok(b)
}

/// Changes what a container's state says.
fn rewrite(t: &Test, id: &str, change: impl FnOnce(&mut Value)) -> Verdict {
    let path = t.place.root.join(id).join("state.json");
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    change(&mut state);
    Ok(fs::write(path, state.to_string())?)
}

/// `doctor --clean` must remove exactly these.
fn cleans(t: &Test, ids: &[&str]) -> Verdict {
    let mut command = t.runtime();
    command.arg("doctor").args(["--clean", "--json"]);
    let told = t.complete(command)?.json()?;
    let cleaned: Vec<&Value> = told["cleaned"].as_array().into_iter().flatten().collect();
    let ours = |what: &&&Value| {
        what["what"].as_str().is_some_and(|what| what.contains(&*t.place.root.to_string_lossy()))
    };
    same("removed", cleaned.iter().filter(ours).count(), ids.len())?;
    for id in ids {
        check!(!t.place.root.join(id).exists(), "{id} is there: {cleaned:?}");
    }
    Ok(())
}

fn leftovers() -> Vec<Case> {
    const ID: &str = "leftovers.containers";
    vec![
        case("doctor/what-has-stopped-stays", |t| {
            let (b, running) = (stopped(t)?, t.bundle()?.probe("forever"));
            t.launch(&running)?;
            finds(&doctor(t, t.runtime())?, ID, "note", &b.id)?;
            cleans(t, &[])?;
            t.has_status(&b, "stopped")?;
            t.has_status(&running, "running")
        }),
        case("doctor/cleans-what-lost-its-bundle", |t| {
            let (b, running) = (stopped(t)?, t.bundle()?.probe("forever"));
            t.launch(&running)?;
            fs::remove_dir_all(&b.dir)?;
            fs::remove_dir_all(&running.dir)?;
            finds(&doctor(t, t.runtime())?, ID, "warn", &b.id)?;
            cleans(t, &[&b.id])?;
            t.has_status(&running, "running")?;
            finds(&doctor(t, t.runtime())?, ID, "ok", "none")
        }),
        case("doctor/cleans-what-is-of-another-boot", |t| {
            let b = stopped(t)?;
            rewrite(t, &b.id, |state| {
                state["init"]["bootId"] = json!("b9f2d7d4-0000-4000-8000-000000000000")
            })?;
            finds(&doctor(t, t.runtime())?, ID, "warn", "of another boot")?;
            cleans(t, &[&b.id])
        }),
        case("doctor/cleans-what-was-half-made", |t| {
            let b = stopped(t)?;
            rewrite(t, &b.id, |state| state["init"] = Value::Null)?;
            finds(&doctor(t, t.runtime())?, ID, "warn", "its create died")?;
            cleans(t, &[&b.id])
        }),
        case("doctor/leaves-what-somebody-is-at-work-on", |t| {
            let b = stopped(t)?;
            rewrite(t, &b.id, |state| state["init"] = Value::Null)?;
            let dir = fs::File::open(t.place.root.join(&b.id))?;
            let _lock = nix::fcntl::Flock::lock(dir, nix::fcntl::FlockArg::LockExclusive)
                .map_err(|(_, errno)| errno)?;
            finds(&doctor(t, t.runtime())?, ID, "ok", "none")?;
            cleans(t, &[])?;
            check!(t.place.root.join(&b.id).exists(), "it was removed under a lock");
            Ok(())
        }),
        case("doctor/tells-a-state-that-does-not-read", |t| {
            let b = stopped(t)?;
            let path = t.place.root.join(&b.id).join("state.json");
            let good = fs::read_to_string(&path)?;
            fs::write(&path, "{")?;
            finds(&doctor(t, t.runtime())?, ID, "warn", "state.json")?;
            cleans(t, &[])?;
            Ok(fs::write(&path, good)?)
        }),
        case("doctor/finds-and-cleans-a-dead-shim", dead_shim).needs(&[Need::File("/run")]),
    ]
}

/// A bundle as a shim leaves it that was killed, with its socket; nothing else is to be had without containerd.
fn dead_shim(t: &Test) -> Verdict {
    let program = t.host.runtime.with_file_name("containerd-shim-corten-v2");
    if !program.exists() {
        return Err(Trouble::NotRun("the shim is not beside the runtime".into()));
    }
    let b = stopped(t)?;
    let state: Value =
        serde_json::from_str(&fs::read_to_string(t.place.root.join(&b.id).join("state.json"))?)?;
    t.mount("tmpfs", "tmpfs", Path::new("/run"), MsFlags::empty(), "mode=755")?;
    let (namespace, socket) =
        (Path::new("/run/containerd/io.containerd.runtime.v2.task/n"), Path::new("/run/containerd/s/x"));
    let bundle = namespace.join("c");
    fs::create_dir_all(&bundle)?;
    fs::create_dir_all("/run/containerd/s")?;
    drop(std::os::unix::net::UnixListener::bind(socket)?);
    // A process that has been and is no more: the one of a container that has ended.
    let record = json!({"version": 1, "id": "c", "address": "unix:///run/containerd/s/x", "server": state["init"], "pid": 0});
    fs::write(bundle.join("corten.json"), record.to_string())?;
    let call = |words: &[&str]| {
        let mut command = t.runtime();
        command.args(words).env("PATH", program.parent().unwrap_or(Path::new("/")));
        command
    };
    finds(&doctor(t, call(&[]))?, "leftovers.shims", "warn", "n/c")?;
    let told = t.complete(call(&["doctor", "--clean", "--json"]))?.json()?;
    same("removed", &told["cleaned"], &json!([{"what": "shim of n/c"}]))?;
    check!(!socket.exists(), "its socket is there");
    finds(&told, "leftovers.shims", "ok", "none")
}
