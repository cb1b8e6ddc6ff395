// SPDX-License-Identifier: Apache-2.0
//! The process of one case: private mounts, a time limit, cleaning up, and the comparison of the host.
//!
//! The body runs in a second thread, so that the first can give it up. All that the runtime leaves behind becomes a
//! child of this process (it is a subreaper): nothing can hide, and nobody else's process is ever touched.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::case::{Case, Trouble, Verdict};
use super::host::Host;
use super::hostdiff::{Place, Snapshot, descendants};
use super::pace::slowdown;
use super::test::{Test, reap_orphans};
use super::user::as_owner_of;
use crate::sys;

/// Runs the case in this process, which must be single-threaded and is of no use afterwards.
pub fn run(case: Case, host: &Host) -> Verdict {
    let mut host = host.clone();
    let limit = case.time_limit(&host);
    host.patience = case.patience(&host);
    let host = &host;
    let told = sys::told_to_end()?;
    let place = prepare(host)?;
    let before = Snapshot::take(host, &place);
    let (send, receive) = mpsc::channel();
    let (its_host, its_place) = (host.clone(), place.clone());
    // Should the runner be ended in the midst of the case, what it made goes as after a failure.
    let end = send.clone();
    std::thread::spawn(move || {
        if fs::File::from(told).read_exact(&mut [0]).is_ok() {
            end.send(Err("told to end".into())).ok();
        }
    });
    std::thread::spawn(move || {
        let test = Test::new(its_host, its_place);
        let verdict = catch_unwind(AssertUnwindSafe(|| (case.body)(&test)));
        drop(test);
        send.send(verdict.unwrap_or_else(|_| Err("the case panicked".into())))
    });
    let verdict = receive.recv_timeout(Duration::from_secs_f64(limit));
    let verdict = verdict.unwrap_or_else(|_| Err(format!("nothing after {limit} s").into()));
    clean_up(host, &place);
    let left = settle(host, &place, &before, || slowdown().unwrap_or(1.0));
    remove_directory(&place.dir);
    match (verdict, left.is_empty()) {
        (Err(trouble @ Trouble::NotRun(_)), true) => Err(trouble),
        (Err(Trouble::Fail(text)), false) => {
            let (some, more) = left.split_at(left.len().min(3));
            let more = if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
            Err(format!("{text}; left: {}{more}", some.join("; ")).into())
        }
        (_, false) => Err(format!("left: {}", left.join("; ")).into()),
        (verdict, true) => verdict,
    }
}

/// Removes the case's directory and what is mounted below it, and nothing else.
pub fn remove_directory(dir: &Path) {
    unmount_below(dir);
    if !is_mounted_below(dir) {
        fs::remove_dir_all(dir).ok();
    }
}

/// A mount namespace in which everything is shared, as systemd makes it, so that whatever spreads is seen.
pub fn prepare(host: &Host) -> Result<Place, Trouble> {
    sys::becomes_subreaper()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    for kind in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, kind | MsFlags::MS_REC, None::<&str>)?;
    }
    // A run that was killed may have left the directory of an earlier process with our number.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mark = format!("corten-test-{}-{:x}", std::process::id(), now.subsec_micros());
    let dir = host.tmp.join(&mark);
    let place = Place { root: dir.join("root"), dir, mark };
    for dir in [&place.dir, &place.dir.join("out"), &place.outside(), &place.outside().join("sub")] {
        fs::create_dir(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    for name in ["null", "ptmx", "console", "fd", "marker", "sub/marker"] {
        fs::write(place.outside().join(name), "untouched")?;
    }
    Ok(place)
}

/// Removes every container in the state root, and kills what lives on below this process.
pub fn clean_up(host: &Host, place: &Place) {
    let entries = fs::read_dir(&place.root).into_iter().flatten().flatten();
    for id in entries.map(|e| e.file_name()).filter(|id| !id.to_string_lossy().starts_with('.')) {
        let mut command = Command::new(&host.runtime);
        command.arg("--root").arg(&place.root).args(["delete", "--force"]).arg(id);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        as_owner_of(&place.root, &mut command);
        // A peer that lies in root's home (the lab) only root can execute here; the case had it bound elsewhere.
        if !wait_briefly(&mut command) {
            wait_briefly(command.uid(0).gid(0));
        }
        reap();
    }
}

/// Whether it could be started.
fn wait_briefly(command: &mut Command) -> bool {
    let Ok(mut child) = command.spawn() else { return false };
    let end = Instant::now() + Duration::from_secs(10);
    while child.try_wait().is_ok_and(|status| status.is_none()) {
        if Instant::now() > end {
            child.kill().ok();
        }
        let id = child.id() as i32;
        reap_orphans(|pid| pid == id);
        std::thread::sleep(Duration::from_millis(3));
    }
    true
}

fn reap() {
    while sys::reaped(-1).is_some() {}
}

/// The kernel's OOM reaper holds on to what it killed, and so to its keyring, for two seconds; systemd on a slow machine needs
/// several to take away the slices that are empty.
const SETTLING: Duration = Duration::from_secs(6);

/// Gives the host a moment to become as it was, so many times longer as `slower` says once that is over; then says what is not, and
/// ends the processes and groups left.
pub fn settle(host: &Host, place: &Place, before: &Snapshot, slower: impl Fn() -> f64) -> Vec<String> {
    let begin = Instant::now();
    let mut patience = None;
    loop {
        reap();
        let left = before.differences(&Snapshot::take(host, place));
        let waited = begin.elapsed();
        let over = waited > SETTLING && waited > *patience.get_or_insert_with(|| SETTLING.mul_f64(slower()));
        if left.is_empty() || over {
            for process in descendants() {
                kill(Pid::from_raw(process.pid), Signal::SIGKILL).ok();
            }
            if !left.is_empty() {
                let end = Instant::now() + SETTLING;
                // What was killed takes its time to be gone, on a busy machine more of it.
                while !remove_groups(host, &place.mark) && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(20));
                    reap();
                }
            }
            return left;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_mounted_below(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).any(|at| Path::new(at).starts_with(dir))
}

/// Removes what is still mounted below `dir`, so that deleting `dir` cannot reach anything else.
fn unmount_below(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places =
        table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|at| Path::new(at).starts_with(dir));
    for place in places.collect::<Vec<_>>().into_iter().rev() {
        nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

/// Removes cgroups that bear the mark, so that a failed case does not disturb the machine; whether all are gone.
fn remove_groups(host: &Host, mark: &str) -> bool {
    let entries = |top: PathBuf| fs::read_dir(top).into_iter().flatten().flatten();
    let all = host.mounted_hierarchies().into_iter().flat_map(entries);
    let ours = all.filter(|entry| entry.file_name().to_string_lossy().contains(mark));
    ours.filter(|entry| !remove_group(&entry.path())).count() == 0
}

fn remove_group(dir: &Path) -> bool {
    fs::write(dir.join("freezer.state"), "THAWED").ok();
    fs::write(dir.join("cgroup.freeze"), "0").ok();
    let below = fs::read_dir(dir).into_iter().flatten().flatten();
    below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).for_each(|e| _ = remove_group(&e.path()));
    fs::remove_dir(dir).is_ok()
}
