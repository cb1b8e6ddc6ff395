// SPDX-License-Identifier: Apache-2.0
//! Races with whoever can write to the rootfs while the runtime sets it up: a second container with the same volume, or
//! an image's owner. S08, S10, S13 and S17 of the list of advisories.
//!
//! Each has a positive control: the same attacker against a resolver that looks and then acts by path, as the runtimes of
//! those advisories did, must win at least once. Where it does not, the machine cannot show the race: not run. A case
//! takes at most [`CONTROL`] and [`ATTACK`].

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::console::Receiver;
use crate::harness::hands::{Attacked, OTHERS, in_all_hands};
use crate::harness::report::Report;
use crate::harness::test::Test;
use crate::sys;

/// How long the naive resolver may take to lose.
const CONTROL: Duration = Duration::from_millis(900);
/// How long the runtime is attacked.
const ATTACK: Duration = Duration::from_millis(1800);

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = in_all_hands("race/S08-mount-point-becomes-a-link", &OTHERS, |w| {
        let dest = |b: Bundle| b.mount("tmpfs", "S08", "/d", &[]);
        for report in attacked(w, "d", dest)? {
            // Wherever it is by now, it is inside.
            let mounts = report.at("/mounts").to_string();
            check!(mounts.contains("S08"), "the tmpfs is not in the container: {mounts}");
        }
        attacked(w, "d", |b| bind(w.t, b, "/d")).map(drop)
    });
    all.extend(in_all_hands("race/S10-parent-of-a-missing-mount-point", &OTHERS, |w| {
        let dest = |b: Bundle| b.mount("tmpfs", "tmpfs", "/d/new/deep", &[]);
        attacked(w, "d", dest).and_then(|_| attacked(w, "d", |b| bind(w.t, b, "/d/new/file")).map(drop))
    }));
    all.extend(in_all_hands("race/dev-becomes-a-link", &OTHERS, |w| {
        let own = |b: Bundle| {
            let device = json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 3});
            b.without_mount("/dev").push("/linux/devices", device)
        };
        attacked(w, "dev", own).map(drop)
    }));
    all.extend([
        case("race/S13-bind-source-changes", source_changes),
        case("race/S17-proc-becomes-a-link", proc_becomes_a_link)
            .both("at times: masks by name, and misses a /proc that is renamed"),
        case("race/S21-console-becomes-a-link", |t| console_changes(t, "dev/console"))
            .runc("at times: a container that was made has ended by itself")
            .crun("makes the file on the host that a link at /dev/console leads to"),
        case("race/S21-parent-of-the-console", |t| console_changes(t, "dev"))
            .runc("at times: a container that was made has ended by itself")
            .crun("at times: makes none"),
        case("race/exec-cwd-becomes-a-link", exec_cwd),
    ]);
    all
}

/// Exchanges two paths as fast as it can, until it is dropped.
struct Attacker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Attacker {
    fn on(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // What is mounted on cannot be renamed in every moment.
                sys::exchange(&one, &other).ok();
                std::thread::yield_now();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A resolver that looks at `dir` and then makes a file in it, by path, must at times make it in `outside`.
fn naive_loses(dir: &Path, outside: &Path) -> Verdict {
    let end = Instant::now() + CONTROL;
    let mut number = 0u64;
    while Instant::now() < end {
        number += 1;
        let name = format!("naive-{number}");
        if fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir()) {
            // Whatever else a runtime has to do between its look and its deed.
            std::thread::yield_now();
            fs::write(dir.join(&name), "").ok();
            if fs::remove_file(outside.join(&name)).is_ok() {
                return Ok(());
            }
        }
    }
    Err(Trouble::NotRun(format!("the attacker did not win against a naive resolver in {number} attempts")))
}

/// Control first, in a tree of its own; then containers are made while `name` in their rootfs changes between a directory
/// and a link to the canary tree. Each works or ends with one line of error, and nothing outside changes.
fn attacked(w: &Attacked, name: &str, change: impl Fn(Bundle) -> Bundle) -> Result<Vec<Report>, Trouble> {
    let t = w.t;
    control(t)?;
    let b = bait(t, name, change(w.bundle()?.writable()))?;
    // Whose files they are is said before any of them moves.
    w.bundle_command("run", &b)?;
    let before = t.snapshot();
    let _attacker = Attacker::on(b.rootfs(name), b.rootfs("elsewhere"));
    let mut reports = Vec::new();
    let end = Instant::now() + ATTACK / 2;
    while Instant::now() < end {
        let done = w.run_as_it_is(&b)?;
        if done.code == 0 {
            reports.push(Report::read(&done.stdout)?);
        } else {
            check!(!done.errors().is_empty(), "{done}");
            // What was started and failed is not there any more.
            check!(w.cli(&format!("state {}", b.id))?.code != 0, "a failed container is left: {done}");
        }
    }
    t.unchanged_since(&before)?;
    Ok(reports)
}

/// The control of [`attacked`], and a bundle to attack.
fn prepared(t: &Test, name: &str, change: impl Fn(Bundle) -> Bundle) -> Result<Bundle, Trouble> {
    control(t)?;
    bait(t, name, change(t.bundle()?.writable()))
}

/// Beside the directory that the bundle is about there is a link out, to change places with.
fn bait(t: &Test, name: &str, b: Bundle) -> Result<Bundle, Trouble> {
    b.dir(name, 0o755)?.link("elsewhere", &t.place.outside().to_string_lossy())
}

fn control(t: &Test) -> Verdict {
    let (dir, link, bait) = (t.path("control-dir"), t.path("control-link"), t.path("control-bait"));
    for dir in [&dir, &bait] {
        fs::create_dir_all(dir)?;
    }
    if fs::symlink_metadata(&link).is_err() {
        std::os::unix::fs::symlink(&bait, &link)?;
    }
    let attacker = Attacker::on(dir.clone(), link);
    naive_loses(&dir, &bait)?;
    drop(attacker);
    Ok(())
}

/// The terminal is bound on /dev/console, which an image without a /dev of the runtime's has for itself: what is bound there is the
/// container's own pseudo terminal, and whatever it is bound on lies in the root.
fn console_changes(t: &Test, name: &str) -> Verdict {
    let own = |b: Bundle| b.without_mount("/dev").set("/process/terminal", json!(true));
    let mut b = prepared(t, "dev", |b| own(b).probe("forever"))?;
    if name != "dev" {
        b = b.file(name, "")?;
        fs::remove_file(b.rootfs("elsewhere"))?;
        std::os::unix::fs::symlink(t.place.outside().join("canary-of-the-console"), b.rootfs("elsewhere"))?;
    }
    let before = t.snapshot();
    let (end, mut made) = (Instant::now() + ATTACK, 0);
    while Instant::now() < end {
        let attacker = Attacker::on(b.rootfs(name), b.rootfs("elsewhere"));
        let path = t.path("console");
        let receiver = Receiver::listen(&path)?;
        let done =
            t.complete(t.bundle_command(&format!("create --console-socket={}", path.display()), &b)?)?;
        drop(attacker);
        fs::remove_file(&path).ok();
        if done.code != 0 {
            check!(!done.errors().is_empty(), "{done}");
            check!(t.cli(&format!("state {}", b.id))?.code != 0, "a failed container is left: {done}");
            continue;
        }
        drop(receiver);
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", t.pid(&b)?))?;
        let consoles = table.lines().filter(|line| line.contains(" - devpts ") && line.contains("/console "));
        made += consoles.count();
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        t.reap();
    }
    t.unchanged_since(&before)?;
    check!(made > 0, "no console was bound");
    Ok(())
}

/// A mount point of another mount namespace can be renamed, and what is mounted there goes with it: so nobody can promise
/// that /proc is a procfs in the end, but wherever a procfs is, what was to be hidden in it is hidden.
///
/// Control: who looks masked paths up by name in the very same container finds nothing there at times.
fn proc_becomes_a_link(t: &Test) -> Verdict {
    let b = prepared(t, "proc", |b| b)?;
    let before = t.snapshot();
    let (end, mut made, mut missed) = (Instant::now() + ATTACK, 0, 0);
    while Instant::now() < end {
        let attacker = Attacker::on(b.rootfs("proc"), b.rootfs("elsewhere"));
        let done = t.try_create("create", &b)?;
        if done.code != 0 {
            check!(!done.errors().is_empty(), "{done}");
            check!(t.cli(&format!("state {}", b.id))?.code != 0, "a failed container is left: {done}");
            continue;
        }
        let pid = t.pid(&b)?;
        let by_name = format!("/proc/{pid}/root/proc/sys");
        missed += (0..200).filter(|_| fs::metadata(&by_name).is_err()).count();
        // The table is read in one piece only while nobody renames.
        drop(attacker);
        made += hidden_everywhere(&fs::read_to_string(format!("/proc/{pid}/mountinfo"))?)?;
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
        t.reap();
    }
    t.unchanged_since(&before)?;
    if made == 0 || missed == 0 {
        let text = format!("{made} procfs made under attack, {missed} look-ups by name missed");
        return Err(Trouble::NotRun(text));
    }
    Ok(())
}

/// In every procfs of this mount table, what the default configuration hides or makes read-only there is so, as far as the
/// kernel has it. How many there were.
fn hidden_everywhere(table: &str) -> Result<usize, Trouble> {
    const HIDDEN: [&str; 9] = [
        "acpi",
        "asound",
        "kcore",
        "keys",
        "latency_stats",
        "timer_list",
        "timer_stats",
        "sched_debug",
        "scsi",
    ];
    const READONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
    let mounts: Vec<(&str, &str, &str, &str)> = table
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            Some((*left.get(3)?, *left.get(4)?, *left.get(5)?, right.split(' ').next()?))
        })
        .collect();
    let whole = |mount: &&(&str, &str, &str, &str)| mount.3 == "proc" && mount.0 == "/";
    let procs: Vec<&str> = mounts.iter().filter(whole).map(|mount| mount.1).collect();
    for proc in &procs {
        for name in HIDDEN.iter().chain(&READONLY).filter(|name| Path::new("/proc").join(name).exists()) {
            let at = format!("{proc}/{name}");
            let cover = mounts.iter().rev().find(|mount| mount.1 == at);
            let (_, _, options, fstype) =
                cover.ok_or_else(|| Trouble::Fail(format!("nothing covers {at}: {table}")))?;
            let hides = *fstype != "proc";
            check!(hides == HIDDEN.contains(name), "{at} is covered by a {fstype}: {table}");
            check!(hides || options.starts_with("ro"), "{at} is covered with {options}: {table}");
        }
    }
    Ok(procs.len())
}

fn bind(t: &Test, b: Bundle, dest: &str) -> Bundle {
    let source = t.file("bound");
    fs::write(&source, "bound").ok();
    if dest == "/d" {
        b.mount("bind", "/usr", dest, &["bind", "ro"])
    } else {
        b.mount("bind", &source, dest, &["bind", "ro"])
    }
}

/// The source changes between two directories: whatever the container
/// gets, it got as a whole, and read-only.
fn source_changes(t: &Test) -> Verdict {
    let (first, second) = (t.path("first"), t.path("second"));
    for (dir, text) in [(&first, "one"), (&second, "two")] {
        fs::create_dir(dir)?;
        fs::write(dir.join("a"), text)?;
        fs::write(dir.join("b"), text)?;
    }
    let _attacker = Attacker::on(first.clone(), second);
    // Control: two reads by path, one after the other, come to differ.
    let (end, mut lost) = (Instant::now() + CONTROL, false);
    while !lost && Instant::now() < end {
        let read = |name: &str| fs::read_to_string(first.join(name)).unwrap_or_default();
        lost = read("a") != read("b");
    }
    if !lost {
        return Err(Trouble::NotRun("two reads by path never differed".into()));
    }
    let b = t.bundle()?.mount("bind", &first.to_string_lossy(), "/m", &["rbind", "ro", "nosuid"]);
    let end = Instant::now() + ATTACK;
    while Instant::now() < end {
        let table = [("read /m/a", "ok"), ("read /m/b", "ok"), ("create /m/c", "EROFS")];
        let got = t.expect(b.clone(), &table)?;
        check!(got[0] == got[1], "one half is {}, the other {}", got[0], got[1]);
    }
    Ok(())
}

/// `exec --cwd` while that directory changes to a descriptor of the process: it may fail, it may not see the host.
fn exec_cwd(t: &Test) -> Verdict {
    let b = t.bundle()?.writable().dir("work", 0o755)?.link("trap", "/proc/self/fd/7")?.probe("forever");
    t.launch(&b)?;
    // Control: what is looked at and what is then read by path differ.
    let attacker = Attacker::on(b.rootfs("work"), b.rootfs("trap"));
    let (end, mut lost) = (Instant::now() + CONTROL, false);
    while !lost && Instant::now() < end {
        let is_dir = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
        lost = is_dir(&b.rootfs("work")) && !is_dir(&b.rootfs("work"));
    }
    if !lost {
        return Err(Trouble::NotRun("two looks by path never differed".into()));
    }
    let end = Instant::now() + ATTACK;
    while Instant::now() < end {
        let done = t.exec(&b, "--cwd /work", "/probe report")?;
        if done.code == 0 {
            Report::read(&done.stdout)?
                .is("/cwd", "/work")
                .or_else(|_| Report::read(&done.stdout)?.is("/cwd", "/trap"))?;
        }
    }
    drop(attacker);
    Ok(())
}
