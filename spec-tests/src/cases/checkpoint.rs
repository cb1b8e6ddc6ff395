// SPDX-License-Identifier: Apache-2.0
//! checkpoint and restore (runc's command line; criu(8)): a container that counts goes on counting where it was.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::criu::carried;
use crate::harness::host::Need;
use crate::harness::test::Test;

/// Three of 25 dumps that follow a start at once (decisions/0076).
pub(super) const FREEZER: &str = "at times: names the freezer, and CRIU waits for it in vain";
/// Seen with CRIU 4.2.1, natively on v2: mnt: No mapping for the mount of a mask; and v1's groups of all others twice.
pub(super) const CRUN: Need =
    Need::NoRuntime("crun", "its restore fails, and makes the groups of others on the host anew");

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = [trips(), kinds(), refused(), images()].into_iter().flatten().collect();
    for case in &mut all {
        case.needs.extend([Need::Criu, Need::Busybox, CRUN]);
        case.differs("runc", FREEZER);
    }
    all
}

/// Counts into /count: every tick is one more line.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >>/count; sleep 0.02; done";

pub(super) fn counter(t: &Test) -> Result<Bundle, Trouble> {
    shell(t, COUNT)
}

/// A shell whose streams are the container's own: the caller's are files of the host's here, which neither runc nor crun dumps.
pub(super) fn shell(t: &Test, script: &str) -> Result<Bundle, Trouble> {
    printing(t, &format!("exec </dev/null >/dev/null 2>&1; {script}"))
}

/// A shell with the caller's streams.
fn printing(t: &Test, script: &str) -> Result<Bundle, Trouble> {
    let b = t.bundle()?.writable();
    let from = t.host.busybox.as_ref().ok_or("no busybox")?;
    let copied = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(b.rootfs("")).status()?;
    check!(copied.success(), "cp: {copied}");
    Ok(carried(b.args(&["/bin/sh", "-c", script])))
}

pub(super) fn lines(b: &Bundle) -> usize {
    fs::read_to_string(b.rootfs("count")).unwrap_or_default().lines().count()
}

/// Waits until it has counted on.
pub(super) fn counts_on(t: &Test, b: &Bundle) -> Verdict {
    let before = lines(b);
    t.until(|| "a container that counts".to_owned(), || Ok((lines(b) > before + 2).then_some(())))
}

/// Not a tick twice, and none left out.
pub(super) fn lost_nothing(b: &Bundle) -> Verdict {
    let text = fs::read_to_string(b.rootfs("count"))?;
    let ticks: Vec<usize> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let first = ticks.iter().zip(1..).find(|(tick, wanted)| **tick != *wanted);
    check!(first.is_none(), "a tick is not what it should be: {first:?} (tick, wanted)");
    Ok(())
}

pub(super) fn launched(t: &Test, b: &Bundle) -> Verdict {
    t.launch(b)?;
    counts_on(t, b)
}

/// `VERB --image-path IMAGES`, both words and options.
pub(super) fn checkpoint(t: &Test, b: &Bundle, options: &str) -> Verdict {
    try_checkpoint(t, b, options)?.ok()?;
    Ok(())
}

pub(super) fn try_checkpoint(
    t: &Test,
    b: &Bundle,
    options: &str,
) -> Result<crate::harness::done::Done, Trouble> {
    t.cli(&format!("checkpoint --image-path {} {options} {}", t.file("images"), b.id))
}

pub(super) fn try_restore(
    t: &Test,
    b: &Bundle,
    options: &str,
) -> Result<crate::harness::done::Done, Trouble> {
    t.try_create(&format!("restore --detach --image-path {} {options}", t.file("images")), b)
}

pub(super) fn restore(t: &Test, b: &Bundle) -> Verdict {
    try_restore(t, b, "")?.ok()?;
    t.has_status(b, "running")
}

/// A checkpoint that ends it, and a restore that goes on.
pub(super) fn round(t: &Test, b: &Bundle, options: &str) -> Verdict {
    checkpoint(t, b, options)?;
    check!(t.cli(&format!("state {}", b.id))?.code != 0, "the container is still there after its checkpoint");
    let before = lines(b);
    try_restore(t, b, options)?.ok()?;
    t.has_status(b, "running")?;
    t.until(|| "a restored container that counts".to_owned(), || Ok((lines(b) > before + 2).then_some(())))
}

fn trips() -> Vec<Case> {
    vec![
        case("checkpoint/goes-on-where-it-was", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            round(t, &b, "")?;
            lost_nothing(&b)
        }),
        case("checkpoint/many-times-over", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            let trips = if t.host.long { 50 } else { 5 };
            (0..trips).try_for_each(|_| {
                fs::remove_dir_all(t.path("images")).or_else(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })?;
                round(t, &b, "")
            })?;
            lost_nothing(&b)
        })
        .takes(120.0),
        case("checkpoint/leave-running", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            checkpoint(t, &b, "--leave-running")?;
            t.has_status(&b, "running")?;
            counts_on(t, &b)?;
            lost_nothing(&b)
        }),
        case("checkpoint/output-in-a-file-of-the-hosts", |t| {
            let b = printing(t, COUNT)?;
            launched(t, &b)?;
            round(t, &b, "")?;
            lost_nothing(&b)
        })
        .runc("cannot dump what is open on a mount that the container does not have"),
        case("checkpoint/paused", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            t.cli(&format!("pause {}", b.id))?.ok()?;
            checkpoint(t, &b, "--leave-running")?;
            t.has_status(&b, "paused")?;
            t.cli(&format!("resume {}", b.id))?.ok()?;
            counts_on(t, &b)
        }),
        case("checkpoint/work-path", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            checkpoint(t, &b, &format!("--leave-running --work-path {}", t.file("work")))?;
            check!(t.path("work/dump.log").exists(), "no log in the work directory");
            check!(!t.path("images/dump.log").exists(), "a log beside the images");
            Ok(())
        }),
        case("checkpoint/restored-takes-an-exec", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            round(t, &b, "")?;
            let done = t.exec(&b, "", "/bin/echo inside")?;
            same("its output", done.ok()?.stdout.trim(), "inside")
        }),
        case("checkpoint/restored-has-its-groups-and-lo", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            let groups = |t: &Test| -> Result<String, Trouble> {
                Ok(fs::read_to_string(format!("/proc/{}/cgroup", t.pid(&b)?))?)
            };
            let before = groups(t)?;
            round(t, &b, "")?;
            same("/proc/PID/cgroup", groups(t)?, before)?;
            let link = t.exec(&b, "", "/sbin/ip -o link show lo")?.ok()?.stdout.clone();
            check!(t.host.name != "corten" || link.contains("LOWER_UP"), "lo is down: {link}");
            Ok(())
        }),
        case("checkpoint/pid-file-and-exit-code", |t| {
            let b = shell(t, "touch /count; while [ ! -e /stop ]; do sleep 0.02; done; exit 7")?;
            t.launch(&b)?;
            checkpoint(t, &b, "")?;
            let mut command = t.bundle_command(
                &format!("restore --image-path {} --pid-file {}", t.file("images"), t.file("pid")),
                &b,
            )?;
            command.stdin(std::process::Stdio::null());
            let running = t.spawn(command)?;
            t.until(|| "the pid file".to_owned(), || Ok(t.path("pid").exists().then_some(())))?;
            same("the pid", fs::read_to_string(t.path("pid"))?, t.pid(&b)?.to_string())?;
            fs::write(b.rootfs("stop"), "")?;
            same("the exit code", t.finish(running)?.code, 7)
        }),
    ]
}

/// What a container can have.
fn kinds() -> Vec<Case> {
    vec![
        case("checkpoint/binds-and-tmpfs", |t| {
            fs::create_dir_all(t.path("volume/deep"))?;
            fs::write(t.path("volume/deep/file"), "of the host")?;
            let script = format!("echo own >/own/file; {COUNT}");
            let b = shell(t, &script)?.mount("bind", &t.file("volume"), "/v", &["rbind", "ro"]).mount(
                "tmpfs",
                "tmpfs",
                "/own",
                &[],
            );
            launched(t, &b)?;
            round(t, &b, "")?;
            let done = t.exec(&b, "", "/bin/cat /v/deep/file /own/file")?;
            same("the files", done.ok()?.stdout.as_str(), "of the hostown\n")?;
            let done = t.exec(&b, "", "/bin/touch /v/x")?;
            check!(done.code != 0, "a read-only bind is writable after the restore");
            Ok(())
        }),
        case("checkpoint/mount-point-that-the-rootfs-lacks", |t| {
            fs::create_dir_all(t.path("volume"))?;
            let b = counter(t)?.mount("bind", &t.file("volume"), "/not/there/yet", &["bind"]);
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            fs::remove_dir_all(b.rootfs("not"))?;
            restore(t, &b)?;
            counts_on(t, &b)
        }),
        case("checkpoint/cgroup-namespace", |t| {
            let b = counter(t)?.namespace("cgroup", None);
            launched(t, &b)?;
            round(t, &b, "")?;
            lost_nothing(&b)
        }),
        case("checkpoint/network-of-the-host", |t| {
            let b = counter(t)?.without_namespace("network");
            launched(t, &b)?;
            round(t, &b, "")
        }),
        case("checkpoint/unlinked-file", |t| {
            let b = shell(t, &format!("exec 9>/gone; rm /gone; {COUNT}"))?;
            launched(t, &b)?;
            round(t, &b, "")
        }),
        case("checkpoint/several-processes", |t| {
            let script = "for n in 1 2 3 4; do (while :; do sleep 0.5; done) & done; (trap 'exit 3' TERM; while :; do sleep 0.02; done) & \
                          i=0; while :; do i=$((i+1)); echo $i >>/count; sleep 0.02; done";
            let b = shell(t, script)?;
            launched(t, &b)?;
            round(t, &b, "")?;
            let listed = t.cli(&format!("ps --format json {}", b.id))?.ok()?.stdout.clone();
            let pids: Vec<i32> = serde_json::from_str(&listed)?;
            check!(pids.len() >= 6, "{pids:?}");
            lost_nothing(&b)
        }),
        case("checkpoint/limits-are-the-bundles", |t| {
            let b = counter(t)?.set("/linux/resources/pids", json!({"limit": 50}));
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            let b = b.set("/linux/resources/pids", json!({"limit": 40}));
            restore(t, &b)?;
            let groups = fs::read_to_string(format!("/proc/{}/cgroup", t.pid(&b)?))?;
            let path =
                groups.lines().find_map(|line| line.split(":pids:").nth(1)).unwrap_or_default().to_owned();
            let path =
                if path.is_empty() { groups.trim().trim_start_matches("0::").to_owned() } else { path };
            let dir = t.host.hierarchies().into_iter().map(|dir| dir.join(path.trim_start_matches('/')));
            let file = dir.map(|dir| dir.join("pids.max")).find(|file| file.exists());
            same("pids.max", fs::read_to_string(file.ok_or("no pids.max")?)?.trim(), "40")
        })
        .needs(&[Need::Controller("pids")]),
        case("checkpoint/seccomp-and-no-new-privileges", |t| {
            let b = counter(t)?.set("/process/noNewPrivileges", json!(true)).set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}),
            );
            launched(t, &b)?;
            let status = |t: &Test| -> Result<Vec<String>, Trouble> {
                let text = fs::read_to_string(format!("/proc/{}/status", t.pid(&b)?))?;
                // What is blocked or pending changes while a shell starts something.
                let names =
                    ["Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:", "SigIgn:", "SigCgt:"];
                Ok(text
                    .lines()
                    .filter(|line| names.iter().any(|name| line.starts_with(name)))
                    .map(str::to_owned)
                    .collect())
            };
            let before = status(t)?;
            round(t, &b, "")?;
            same("/proc/PID/status", status(t)?, before)
        })
        .needs(&[Need::CriuFrom(3, 19)]),
        case("checkpoint/hooks-of-a-restore", |t| {
            let hook = |name: &str| {
                let line = format!("cat >/dev/null; echo {name} >>{}", t.file("hooks"));
                json!([{"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/usr/bin:/bin"]}])
            };
            let b = counter(t)?;
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            let b = b.set(
                "/hooks",
                json!({"prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
                "poststart": hook("poststart"), "poststop": hook("poststop")}),
            );
            restore(t, &b)?;
            same("the hooks", fs::read_to_string(t.path("hooks"))?, "prestart\ncreateRuntime\npoststart\n")?;
            t.cli(&format!("delete -f {}", b.id))?.ok()?;
            check!(fs::read_to_string(t.path("hooks"))?.ends_with("poststop\n"), "no poststop hook");
            Ok(())
        })
        .runc("runs no poststart hooks when it restores"),
    ]
}

/// What cannot be, is said; and the container runs on.
fn refused() -> Vec<Case> {
    vec![
        case("checkpoint/created-is-refused", |t| {
            let b = counter(t)?;
            t.create(&b)?;
            try_checkpoint(t, &b, "")?.refuses(&["cannot be checkpointed in created state"])?;
            t.has_status(&b, "created")
        }),
        case("checkpoint/exec-inside-is-refused-by-its-pid", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            t.cli_words(&["exec", "--detach", &b.id, "/bin/sleep", "1000"])?.ok()?;
            let done = try_checkpoint(t, &b, "")?;
            check!(done.code != 0, "it is dumped");
            check!(
                t.host.name != "corten" || done.stderr.contains("(sleep) was brought in by an exec"),
                "{}",
                done.stderr
            );
            t.has_status(&b, "running")?;
            counts_on(t, &b)
        })
        .runc("dumps without what the exec brought in, which is lost"),
        case("checkpoint/into-what-is-no-directory", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            fs::write(t.path("images"), "")?;
            check!(try_checkpoint(t, &b, "")?.code != 0, "it is dumped");
            counts_on(t, &b)
        }),
        case("checkpoint/no-room-is-said-and-it-runs-on", |t| {
            let b = shell(
                t,
                &format!(
                    "head -c 4000000 /dev/urandom >/dev/shm/x; a=$(head -c 3000000 /dev/zero | tr '\\0' x); {COUNT}"
                ),
            )?;
            launched(t, &b)?;
            fs::create_dir(t.path("images"))?;
            t.mount("tmpfs", "tmpfs", &t.path("images"), nix::mount::MsFlags::empty(), "size=1m,mode=700")?;
            let done = try_checkpoint(t, &b, "")?;
            check!(done.code != 0, "it is dumped");
            check!(t.host.name != "corten" || done.stderr.contains("MiB are free"), "{}", done.stderr);
            t.has_status(&b, "running")?;
            counts_on(t, &b)
        }),
        case("checkpoint/values-of-flags", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            for (flags, words) in [
                ("--manage-cgroups-mode some", "Invalid manage-cgroups-mode value"),
                ("--page-server nowhere", "Use --page-server ADDRESS:PORT to specify page server"),
                ("--empty-ns pid", "is not supported"),
                ("--parent-path /x", "--parent-path must be relative"),
                ("--parent-path ../none", "invalid --parent-path"),
            ] {
                let done = try_checkpoint(t, &b, flags)?;
                check!(done.code != 0 && done.stderr.contains(words), "{flags}: {}", done.stderr);
            }
            counts_on(t, &b)
        })
        .runc("1.3 says the first in other words"),
        // CRIU: Pid-reuse detection failed: no parent inventory, check warnings in get_parent_inventory.
        case("checkpoint/a-whole-one-is-no-parent", |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            checkpoint(t, &b, "--leave-running")?;
            let other = t.file("other");
            let done = t.cli(&format!("checkpoint --image-path {other} --parent-path ../images {}", b.id))?;
            done.refuses(&["invalid --parent-path", "a checkpoint without --pre-dump and --parent-path"])?;
            counts_on(t, &b)
        })
        .runc("leaves it to CRIU")
        .needs(&[Need::DirtyTracking]),
        case("checkpoint/restore-of-nothing", |t| {
            let b = counter(t)?;
            let before = t.snapshot();
            check!(try_restore(t, &b, "")?.code != 0, "nothing is restored");
            fs::create_dir_all(t.path("images"))?;
            check!(try_restore(t, &b, "")?.code != 0, "nothing is restored");
            t.unchanged_since(&before)
        }),
    ]
}

/// Hostile or broken images: an error, and nothing is left.
fn images() -> Vec<Case> {
    let broken = |name: &'static str, words: &'static str, spoil: fn(&Path, &Test) -> Verdict| {
        case(format!("checkpoint/images-{name}"), move |t| {
            let b = counter(t)?;
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            let before = t.snapshot();
            spoil(&t.path("images"), t)?;
            let done = try_restore(t, &b, "")?;
            check!(done.code != 0, "it is restored");
            check!(t.host.name != "corten" || done.stderr.contains(words), "{}", done.stderr);
            same("lines of the error", done.stderr.lines().count(), 1)?;
            check!(t.cli(&format!("state {}", b.id))?.code != 0, "a container is left");
            t.unchanged_since(&before)
        })
        .needs(&[Need::Runtime("corten")])
    };
    vec![
        broken("with-a-link", "core-1.img is no regular file", |dir, t| {
            fs::rename(dir.join("core-1.img"), t.path("elsewhere"))?;
            Ok(symlink(t.path("elsewhere"), dir.join("core-1.img"))?)
        }),
        broken("with-a-linked-log", "restore.log is no regular file", |dir, t| {
            fs::write(t.path("victim"), "precious")?;
            Ok(symlink(t.path("victim"), dir.join("restore.log"))?)
        }),
        broken("with-a-pipe", "descriptors.json is no regular file", |dir, _| {
            fs::remove_file(dir.join("descriptors.json"))?;
            Ok(nix::unistd::mkfifo(&dir.join("descriptors.json"), nix::sys::stat::Mode::S_IRWXU)?)
        }),
        broken("with-endless-descriptors", "descriptors.json", |dir, _| {
            Ok(fs::write(dir.join("descriptors.json"), vec![b'['; 2 << 20])?)
        }),
        broken("cut-short", "pages-1.img: is cut short", |dir, _| {
            let file = fs::OpenOptions::new().write(true).open(dir.join("pages-1.img"))?;
            Ok(file.set_len(4096)?)
        }),
        broken("without-inventory", "no checkpoint is in it", |dir, _| {
            Ok(fs::remove_file(dir.join("inventory.img"))?)
        }),
        broken("of-a-later-layout", "layout 9 is not known", |dir, _| {
            Ok(fs::write(dir.join("corten.json"), r#"{"version": 9}"#)?)
        }),
        broken("that-others-may-write", "others may write", |dir, _| {
            use std::os::unix::fs::PermissionsExt;
            Ok(fs::set_permissions(dir, fs::Permissions::from_mode(0o777))?)
        }),
        case("checkpoint/a-wider-checkpoint-is-refused", |t| {
            let b = counter(t)?.set("/process/noNewPrivileges", json!(false)).grants(&["SYS_ADMIN", "KILL"]);
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            let narrow = b.grants(&["KILL"]);
            let before = t.snapshot();
            let done = try_restore(t, &narrow, "")?;
            check!(done.code != 0 && done.stderr.contains("has CAP_SYS_ADMIN"), "{}", done.stderr);
            t.unchanged_since(&before)
        })
        .needs(&[Need::Runtime("corten")]),
        case("checkpoint/a-mount-that-the-bundle-lacks", |t| {
            fs::create_dir(t.path("volume"))?;
            let b = counter(t)?.mount("bind", &t.file("volume"), "/v", &["bind"]);
            launched(t, &b)?;
            checkpoint(t, &b, "")?;
            let b = b.without_mount("/v");
            let done = try_restore(t, &b, "")?;
            check!(done.code != 0 && done.stderr.contains("/v, and config.json has none"), "{}", done.stderr);
            Ok(())
        })
        .needs(&[Need::Runtime("corten")]),
    ]
}
