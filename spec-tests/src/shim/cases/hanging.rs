// SPDX-License-Identifier: Apache-2.0
//! Work that hangs: the program of an exec lies on a file system whose server does not answer. Only those who wait for
//! it may notice.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::task::{Io, RUNNING, Task};
use crate::shim::ttrpc::Pending;
use crate::shim::wire::Message;

/// How many execs hang: more than the shim starts at once for one container.
const HANGING: usize = 12;
/// What another container may have to wait meanwhile.
const SOON: Duration = Duration::from_millis(500);

/// The chapter.
pub fn cases() -> Vec<Case> {
    let fuse = [Need::File("/dev/fuse")];
    vec![
        case("hanging/execs-and-the-others", execs_and_the_others)
            .takes(60.0)
            .needs(&fuse)
            .runc("Pids of the container itself waits"),
        case("hanging/execs-and-the-end", execs_and_the_end)
            .takes(60.0)
            .needs(&fuse)
            .runc("says that what was killed in its start has started"),
        case("hanging/execs-and-orphans", execs_and_orphans).takes(60.0).needs(&fuse),
    ]
}

/// A FUSE file system at `/dev/dead` of the container, which nobody serves. It answers (with an error) when this is dropped.
struct Dead(#[expect(dead_code, reason = "held open")] File);

impl Dead {
    fn mount(pid: u64) -> Result<Self, Trouble> {
        fs::create_dir_all(format!("/proc/{pid}/root/dev/dead"))?;
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| Trouble::NotRun(format!("open(/dev/fuse): {error}")))?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let space = File::open(format!("/proc/{pid}/ns/mnt"))?;
        // A thread of its own, which is in the container's mount namespace until it ends.
        let mounting = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS)?;
            setns(space, CloneFlags::CLONE_NEWNS)?;
            mount(Some("dead"), "/dev/dead", Some("fuse"), MsFlags::empty(), Some(options.as_str()))
        });
        mounting.join().map_err(|_| "a thread panicked")??;
        Ok(Self(device))
    }

    /// Execs whose starts hang.
    fn start(&self, task: &Task) -> Result<Vec<Pending>, Trouble> {
        let mut starts = Vec::new();
        for n in 0..HANGING {
            let name = format!("hangs{n}");
            task.exec(&name, &["/dev/dead/program"], &Io::null())?;
            starts.push(task.shim.begin("Start", &Message::new().text(1, &task.id).text(2, &name)));
        }
        std::thread::sleep(Duration::from_millis(300));
        check!(starts.iter().all(Pending::is_open), "a start did not hang");
        Ok(starts)
    }
}

fn soon<T, E>(what: &str, call: impl FnOnce() -> Result<T, E>) -> Result<T, Trouble>
where
    Trouble: From<E>,
{
    let begin = Instant::now();
    let answer = call()?;
    within(what, begin.elapsed(), SOON)?;
    Ok(answer)
}

/// Two containers in one shim; the first one is where execs will hang.
fn two(d: &Daemon) -> Result<[(Bundle, Task); 2], Trouble> {
    let (one, first) = d.launch("forever")?;
    let member = d.bundle("forever")?.set("/annotations/io.kubernetes.cri.sandbox-id", json!(one.id));
    let second = d.create(&member, &Io::null())?;
    second.start("")?;
    same("the shim", second.shim.pid, first.shim.pid)?;
    Ok([(one, first), (member, second)])
}

fn execs_and_the_others(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let [(one, first), (member, second)] = two(&d)?;
    let dead = Dead::mount(first.state("")?.pid)?;
    let starts = dead.start(&first)?;
    let exit = soon("an exec elsewhere", || second.execute("x", &["/probe", "exit", "5"], &Io::null()))?;
    same("its status", exit.status, 5)?;
    soon("Stats elsewhere", || second.stats())?;
    soon("Pids elsewhere", || second.pids())?;
    soon("Pause elsewhere", || second.pause())?;
    soon("Resume elsewhere", || second.resume())?;
    // The container itself, too.
    soon("Stats", || first.stats())?;
    soon("Pids", || first.pids())?;
    same("the state", soon("State", || first.state(""))?.status, RUNNING)?;
    soon("Update", || first.update(&json!({"pids": {"limit": 500}})).or(Ok::<_, Trouble>(())))?;
    let third = d.bundle("exit 3")?.set("/annotations/io.kubernetes.cri.sandbox-id", json!(one.id));
    let begin = Instant::now();
    let more = d.create(&third, &Io::null())?;
    more.start("")?;
    same("the third's status", more.exit("")?.status, 3)?;
    more.delete("")?;
    soon("Kill elsewhere", || second.end())?;
    soon("Delete elsewhere", || second.delete(""))?;
    within("a third container and the second one's end", begin.elapsed(), Duration::from_secs(2))?;
    d.remove(&third)?;
    d.remove(&member)?;
    drop(dead);
    for start in starts {
        check!(start.within(10.0).is_err(), "an exec of what is not there started");
    }
    d.end(&one, &first)?;
    d.finish()
}

/// Init ends: that is told while the starts still hang, and they are answered.
fn execs_and_the_end(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let [(one, first), (member, second)] = two(&d)?;
    let dead = Dead::mount(first.state("")?.pid)?;
    let starts = dead.start(&first)?;
    let begin = Instant::now();
    first.kill("", 9, false)?;
    same("the status", first.exit("")?.status, 137)?;
    d.events.exit(&one.id, "")?;
    within("init's end", begin.elapsed(), Duration::from_secs(4))?;
    for start in starts {
        check!(start.within(5.0).is_err(), "an exec started in a container that has ended");
    }
    first.delete("")?;
    same("the other's state", second.state("")?.status, RUNNING)?;
    drop(dead);
    d.remove(&one)?;
    d.end(&member, &second)?;
    d.finish()
}

/// What comes to the shim because its parent has ended is reaped all the same.
fn execs_and_orphans(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (one, first) = d.launch("forever")?;
    let member = d.bundle("forever")?.set("/annotations/io.kubernetes.cri.sandbox-id", json!(one.id));
    let member = member.without_namespace("pid");
    let second = d.create(&member, &Io::null())?;
    second.start("")?;
    let dead = Dead::mount(first.state("")?.pid)?;
    let starts = dead.start(&first)?;
    for n in 0..5 {
        let args = ["/probe", "spawn", "sleep", "0.05"];
        second.execute(&format!("x{n}"), &args, &Io::null())?;
    }
    std::thread::sleep(Duration::from_millis(100));
    t.until(
        || "the orphans to be reaped".into(),
        || Ok((procs::usage(second.shim.pid)?.zombies == 0).then_some(())),
    )?;
    drop(dead);
    for start in starts {
        check!(start.within(10.0).is_err(), "an exec of what is not there started");
    }
    second.end()?;
    second.delete("")?;
    d.remove(&member)?;
    d.end(&one, &first)?;
    d.finish()
}
