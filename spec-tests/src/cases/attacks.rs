// SPDX-License-Identifier: Apache-2.0
//! Root file systems that lie: links out of the root in place of what the runtime mounts on, makes or masks.
//!
//! Each runs beside a tree (`outside`) that the warden compares afterwards, and with the host's mount table watched:
//! a case may end in a container that runs or in a clean error, but nothing outside may change. The names S09 … are
//! those of docs on advisories.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, case, same};
use crate::harness::hands::{OTHERS, in_all_hands};
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = mount_points();
    all.extend(dev());
    all.extend(null());
    all.extend(others());
    all
}

/// Ways to point out of the rootfs to the canary tree, and ways to point nowhere.
fn ways(t: &Test) -> [(&'static str, String); 6] {
    let outside = t.place.outside().to_string_lossy().into_owned();
    [
        ("absolute", outside.clone()),
        ("relative", "../../outside".to_owned()),
        ("many-dots", format!("{}{outside}", "../".repeat(32))),
        ("through-proc", format!("/proc/self/root{outside}")),
        ("dangling", "/no/such/place".to_owned()),
        ("loop", "loop".to_owned()),
    ]
}

fn mount_points() -> Vec<Case> {
    const TARGETS: [&str; 7] = ["proc", "sys", "dev/pts", "dev/shm", "dev/mqueue", "sys/fs/cgroup", "mnt"];
    let with_links = |target: &'static str| {
        in_all_hands(format!("attack/S09-link-at-{}", target.replace('/', "-")), &OTHERS, move |w| {
            for (_, way) in ways(w.t) {
                let b = w.bundle()?;
                // What is below /dev or /sys can only be faked when nothing is mounted there.
                let b = if target.starts_with("dev/") { b.without_mount("/dev") } else { b };
                let b = if target.starts_with("sys/") { b.without_mount("/sys") } else { b };
                let b = b.link(target, &way)?;
                let b = if target == "mnt" { b.mount("tmpfs", "S09", "/mnt", &[]) } else { b };
                w.contained(&b)?;
                let done = w.run(&b.probe("report"))?;
                // What was mounted is mounted inside.
                check!(
                    target != "mnt" || done.code != 0 || done.stdout.contains("S09"),
                    "it is not there: {done}"
                );
            }
            Ok(())
        })
    };
    let mut all: Vec<Case> = TARGETS.into_iter().flat_map(with_links).collect();
    all.extend([
        case("attack/S09-proc-must-be-a-directory", |t| {
            let b = t.bundle()?.dir("real-proc", 0o755)?.link("proc", "real-proc")?;
            t.run(&b)?
                .refuses(&["must be mounted on ordinary directory|/proc|`proc`|not a directory"])
                .map(drop)
        }),
        case("attack/S09-sys-must-be-a-directory", |t| {
            let b = t.bundle()?.dir("real-sys", 0o755)?.link("sys", "real-sys")?;
            t.run(&b)?
                .refuses(&["must be mounted on ordinary directory|/sys|`sys`|not a directory"])
                .map(drop)
        }),
    ]);
    all.extend(made_mount_points().into_iter().flatten());
    all
}

/// What is missing is made.
fn made_mount_points() -> [Vec<Case>; 3] {
    [
        in_all_hands("attack/mount-point-below-a-link-inside", &OTHERS, |w| {
            let b = w.bundle()?.dir("real", 0o755)?.link("alias", "/real")?;
            let b = b.mount("tmpfs", "tmpfs", "/alias/m", &[]);
            w.report(&b)?.mount("/real/m")?.fstype("tmpfs").map(drop)
        }),
        in_all_hands("attack/mount-point-made-below-a-link-out", &OTHERS, |w| {
            for (_, way) in ways(w.t) {
                let b = w.bundle()?.link("alias", &way)?.mount("tmpfs", "tmpfs", "/alias/new/dir", &[]);
                w.contained(&b)?;
                fs::write(w.t.path("src"), "")?;
                let b = w.bundle()?.link("alias", &way)?;
                w.contained(&b.mount("bind", &w.t.file("src"), "/alias/new/file", &["bind"]))?;
            }
            Ok(())
        }),
        in_all_hands("attack/dots-in-a-destination", &OTHERS, |w| {
            let b = w.bundle()?.mount("tmpfs", "tmpfs", "/../../outside/made", &[]);
            w.contained(&b)?;
            let b = w.bundle()?.mount("tmpfs", "tmpfs", "/tmp/../../../../outside/sub", &[]);
            w.contained(&b)
        }),
    ]
}

/// S11: CVE-2026-41579, CVE-2026-47766.
fn dev() -> Vec<Case> {
    let row = |name: &'static str, with_tmpfs: bool| {
        in_all_hands(format!("attack/S11-dev-is-a-link-{name}"), &OTHERS, move |w| {
            // In the canary tree something has the names of the first nodes already, which ends it early.
            let empty = w.dir("empty")?;
            let ways = ways(w.t).map(|(_, way)| way);
            for way in ways.into_iter().chain([empty.display().to_string()]) {
                let b = w.bundle()?.link("dev", &way)?;
                let b = if with_tmpfs { b } else { without_dev_mounts(b) };
                let b = b.push(
                    "/linux/devices",
                    json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 3}),
                );
                w.contained(&b)?;
                let made: Vec<_> = fs::read_dir(&empty)?.flatten().map(|entry| entry.file_name()).collect();
                check!(made.is_empty(), "outside of the rootfs there is {made:?}");
            }
            Ok(())
        })
    };
    let terminal = in_all_hands("attack/S11-console-is-a-link", &OTHERS, |w| {
        let t = w.t;
        for (_, way) in ways(w.t) {
            let b = without_dev_mounts(w.bundle()?).link("dev/console", &way)?;
            let b = b.mount("devpts", "devpts", "/dev/pts", &["newinstance", "ptmxmode=0666"]);
            let b = b.set("/process/terminal", json!(true)).probe("exit 0");
            let before = t.snapshot();
            let terminal = crate::harness::terminal::Terminal::open(24, 80)?;
            let running = terminal.spawn(t, w.bundle_command("run", &b)?)?;
            t.finish(running)?;
            drop(terminal);
            t.unchanged_since(&before)?;
        }
        Ok(())
    });
    let nodes = in_all_hands("attack/S11-default-nodes-are-links", &OTHERS, |w| {
        let outside = w.t.place.outside();
        let mut b = without_dev_mounts(w.bundle()?);
        for name in [
            "null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "stdout", "stderr",
            "core",
        ] {
            b = b.link(&format!("dev/{name}"), &outside.join("null").to_string_lossy())?;
        }
        w.contained(&b)
    });
    [row("with-tmpfs", true), row("without-tmpfs", false), terminal, nodes].into_iter().flatten().collect()
}

fn without_dev_mounts(b: Bundle) -> Bundle {
    ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"].into_iter().fold(b, |b, dest| b.without_mount(dest))
}

/// S20: CVE-2025-31133. A `/dev/null` that is none must not unmask anything, nor make it writable.
fn null() -> Vec<Case> {
    const KINDS: [&str; 4] = ["link-to-core-pattern", "file", "other-device", "directory"];
    let row = |kind: &'static str| {
        let mut all = in_all_hands(format!("attack/S20-null-is-a-{kind}"), &OTHERS, move |w| {
            let b = without_dev_mounts(w.bundle()?).writable();
            let null = b.rootfs("dev/null");
            let b = match kind {
                "file" => b.file("dev/null", "bait")?,
                "directory" => b.dir("dev/null", 0o777)?,
                "other-device" => {
                    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
                    mknod(&null, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5))?;
                    b
                }
                _ => b.link("dev/null", "/proc/sys/kernel/core_pattern")?,
            };
            let done = w.run(&b.tries(["read /proc/timer_list", "write /proc/timer_list x"]))?;
            if done.code != 0 {
                check!(done.errors().len() == 1, "{done}");
                return Ok(());
            }
            // A started container must have its masks: nothing to read, and nothing of the host to write to.
            let answers = [
                ("read /proc/timer_list", "ok|EACCES|EISDIR"),
                ("write /proc/timer_list x", "ok|EROFS|EACCES"),
            ];
            let got = w.t.compare(&done.stdout, &answers)?;
            check!(got[0].is_null() || got[0] == "", "the masked file gives {}", got[0]);
            Ok(())
        });
        all[0].differs("crun", if kind == "file" { "sends the output into that file" } else { "" });
        all
    };
    KINDS.into_iter().flat_map(row).collect()
}

fn others() -> Vec<Case> {
    [over_proc_and_files(), other_links()].into_iter().flatten().collect()
}

fn over_proc_and_files() -> Vec<Case> {
    let mut all = [
        in_all_hands("attack/S16-mounts-over-proc-are-refused", &OTHERS, |w| {
            let t = w.t;
            fs::create_dir(t.path("src"))?;
            // The last two by a link that leads there once its first step has been made.
            for dest in [
                "/proc/self",
                "/proc/sys/kernel",
                "/proc/1",
                "/proc/self/attr",
                "/way/self",
                "/way/sys/kernel",
            ] {
                let b = w.bundle()?.link("way", "missing/../proc")?;
                let b = b.mount("bind", &t.file("src"), dest, &["bind"]);
                let done = w.run(&b)?;
                check!(done.code != 0, "{dest} could be mounted over");
                check!(done.errors().len() == 1, "{done}");
            }
            Ok(())
        }),
        in_all_hands("attack/S16-lxcfs-files-may-be-mounted", &[], |w| {
            let t = w.t;
            for name in ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg"] {
                fs::write(t.path("fake"), "fake")?;
                let dest = format!("/proc/{name}");
                let b = w.bundle()?.mount("bind", &t.file("fake"), &dest, &["bind"]);
                same(name, &w.expect(b, &[(&format!("read {dest}"), "ok")])?[0], "fake")?;
            }
            Ok(())
        }),
        in_all_hands("attack/S12-mount-point-file-is-a-link-or-a-pipe", &OTHERS, |w| {
            let t = w.t;
            fs::write(t.path("src"), "content")?;
            for (_, way) in ways(t) {
                let way = if way.contains("outside") { format!("{way}/marker") } else { way };
                let b = w.bundle()?.link("etc/hosts", &way)?.mount(
                    "bind",
                    &t.file("src"),
                    "/etc/hosts",
                    &["bind"],
                );
                w.contained(&b)?;
                // What is mounted is mounted where a look-up from inside leads.
                let done = w.run(&b.tries(["read /etc/hosts"]))?;
                if done.code == 0 {
                    same(
                        "what is read there",
                        &t.compare(&done.stdout, &[("read /etc/hosts", "ok")])?[0],
                        "content",
                    )?;
                }
            }
            let b = w.bundle()?;
            nix::unistd::mkfifo(&b.rootfs("etc/hosts"), nix::sys::stat::Mode::from_bits_truncate(0o644))?;
            w.contained(&b.mount("bind", &t.file("src"), "/etc/hosts", &["bind"]))
        }),
    ];
    all[0][0].differs("crun", "allows them");
    all.into_iter().flatten().collect()
}

fn other_links() -> Vec<Case> {
    let mut all = [
        in_all_hands("attack/cwd-is-a-link-out", &OTHERS, |w| {
            let t = w.t;
            for (_, way) in ways(t) {
                let b = w.bundle()?.writable().link("work", &way)?.set("/process/cwd", json!("/work/made"));
                w.contained(&b)?;
            }
            Ok(())
        }),
        in_all_hands("attack/S22-readonly-and-masked-paths-are-links-out", &OTHERS, |w| {
            let t = w.t;
            for (_, way) in ways(t) {
                let b = w.bundle()?.link("entry", &way)?;
                w.contained(&b.clone().set("/linux/readonlyPaths", json!(["/entry", "/entry/sub"])))?;
                w.contained(&b.set("/linux/maskedPaths", json!(["/entry", "/entry/marker"])))?;
            }
            Ok(())
        }),
        in_all_hands("attack/readonly-path-is-a-link-to-proc", &OTHERS, |w| {
            // A copy of /proc comes to lie over /proc: what is masked there is masked in it, too.
            let b = w.bundle()?.link("entry", "/proc")?.set("/linux/readonlyPaths", json!(["/entry"]));
            let got = w.expect(b, &[("read /proc/keys", "ok"), ("write /proc/self/comm", "EROFS")])?;
            check!(got[0] == "", "/proc/keys has {}", got[0]);
            Ok(())
        }),
        in_all_hands("attack/tmpcopyup-of-a-link-out", &OTHERS, |w| {
            let t = w.t;
            for (_, way) in ways(t) {
                let b = w.bundle()?.link("data", &way)?.mount("tmpfs", "tmpfs", "/data", &["tmpcopyup"]);
                let before = t.snapshot();
                let done = w.run(&b.tries(["list /data"]))?;
                check!(!done.stdout.contains("marker"), "it copied from outside: {}", done.stdout);
                t.unchanged_since(&before)?;
            }
            Ok(())
        }),
        in_all_hands("attack/tmpcopyup-of-a-pseudo-file-system", &[], |w| {
            // A copy made with root's rights would hand out what only root may read, and to whom it was not given.
            let b = w.bundle()?.mount("tmpfs", "tmpfs", "/sys/kernel", &["tmpcopyup"]);
            let done = w.run(&b)?;
            check!(done.code != 0, "it made the copy");
            check!(done.errors().len() == 1 && done.errors()[0].contains("pseudo file system"), "{done}");
            Ok(())
        }),
        in_all_hands("attack/passwd-is-a-link-out", &OTHERS, |w| {
            let t = w.t;
            let outside = t.path("passwd");
            fs::write(&outside, "root:x:0:0:root:/stolen:/x\n")?;
            let b = w.bundle()?.link("etc/passwd", &outside.to_string_lossy())?;
            let done = w.run(&b)?;
            check!(!done.stdout.contains("/stolen"), "HOME came from outside");
            Ok(())
        }),
        in_all_hands("attack/exec-cwd-is-a-link-out", &OTHERS, |w| {
            let b = w.bundle()?.link("work", "/proc/1/cwd/../../../..")?.probe("forever");
            w.launch(&b)?;
            let done = w.cli(&format!("exec --cwd /work {} /probe try list .", b.id))?;
            check!(done.code != 0 || done.stdout.contains("\"probe\""), "it saw {}", done.stdout);
            Ok(())
        }),
    ];
    for peer in ["runc", "crun"] {
        all[4][0].differs(peer, "copies it");
    }
    all.into_iter().flatten().collect()
}
