// SPDX-License-Identifier: Apache-2.0
//! `spec-tests scale SOCKET RUNTIME ROOTFS DIR GROUP COUNT SPARE_MIB LIST…`: more and more containers stay alive in a containerd that listens on SOCKET, and
//! at each hundred of them one more is made and ended some times. Prints a JSON object for each such point, and one for the end of all.
//!
//! ROOTFS, DIR and GROUP are those of [`super::fleet`]. LIST is the runtime's own command that lists them. It ends early, and says so, when the machine
//! has less than SPARE_MIB left.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bench::median;
use super::cri::{conclude, text};
use super::fleet::Fleet;
use super::wire::{Fields, Message};
use crate::check;
use crate::harness::case::{Trouble, same};
use crate::harness::hostdiff::all_processes;
use crate::harness::procs;

const USAGE: &str = "usage: spec-tests scale SOCKET RUNTIME ROOTFS DIR GROUP COUNT SPARE_MIB LIST...";
/// So many containers more at each point.
const STEP: usize = 100;
/// Samples of each figure at a point.
const ROUNDS: usize = 15;
/// After so long a shim is at rest.
const REST: Duration = Duration::from_secs(2);
/// Deletions at once, at the end.
const HANDS: usize = 8;

struct Scale {
    fleet: Fleet,
    list: Vec<String>,
}

/// Prints the points; exit code 1 when something is not as it should be.
pub fn main(args: &[String]) -> ExitCode {
    let [socket, runtime, rootfs, dir, group, count, spare, list @ ..] = args else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let (Ok(count), Ok(spare)) = (count.parse(), spare.parse()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let args = ["/bin/busybox", "sleep", "100000"];
    let fleet = match Fleet::new([socket, runtime, rootfs, dir, group], &args) {
        Ok(fleet) => fleet,
        Err(trouble) => return conclude(Err(trouble)),
    };
    let scale = Scale { fleet, list: list.to_vec() };
    conclude(scale.run(count, spare))
}

impl Scale {
    /// The curve from one container to `count`, then all of them away.
    fn run(&self, count: usize, spare: u64) -> Result<(), Trouble> {
        self.warm_up()?;
        let mut alive = 0;
        let mut goal = 1.min(count);
        while alive < count && available()? > spare {
            for number in alive..goal {
                self.launch(&name(number))?;
            }
            alive = goal;
            println!("{}", self.point(alive)?);
            goal = (alive / STEP * STEP + STEP).min(count);
        }
        if alive < count {
            eprintln!("{}: less than {spare} MiB left with {alive} containers", self.fleet.runtime);
        }
        println!("{}", self.end(alive)?);
        Ok(())
    }

    /// The first containers after a daemon's start are dearer than all later ones.
    fn warm_up(&self) -> Result<(), Trouble> {
        for _ in 0..3 {
            self.launch("first")?;
            self.remove("first")?;
        }
        Ok(())
    }

    /// All figures with so many alive: times in milliseconds, memory in KiB.
    fn point(&self, alive: usize) -> Result<Value, Trouble> {
        let (mut made, mut ended) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let id = format!("more-{round}");
            made.push(self.launch(&id)?);
            ended.push(self.remove(&id)?);
        }
        let (mut state, mut list, mut ls) = (Vec::new(), Vec::new(), Vec::new());
        // One after the other, as a single container has them: a shim of which nothing was asked for a while has given its pages back,
        // and the first answer of it takes longer, however many there are.
        let one = text(&name(alive / 2));
        self.task("Get", &one)?;
        for _ in 0..ROUNDS {
            state.push(timed(|| self.task("Get", &one))?.0);
        }
        for _ in 0..ROUNDS {
            let (time, answer) = timed(|| self.task("List", &Message::new()))?;
            same("tasks in the list", answer.all(1).count(), alive)?;
            list.push(time);
            let (time, lines) = timed(|| self.listed())?;
            same("containers in the runtime's list", lines, alive)?;
            ls.push(time);
        }
        let shims = settled(alive)?;
        Ok(json!({
            "alive": alive, "start": median(made), "end": median(ended), "state": median(state), "list": median(list), "ls": median(ls),
            "pss": shims.iter().map(|shim| shim.pss).sum::<i64>(), "shims": shims.len(), "mounts": mounts()?,
        }))
    }

    /// How many the runtime's own command lists.
    fn listed(&self) -> Result<usize, Trouble> {
        let (program, args) = self.list.split_first().ok_or("no LIST")?;
        let output = Command::new(program).args(args).output()?;
        check!(
            output.status.success(),
            "{}: {}",
            self.list.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count())
    }

    /// Ends and deletes all of them, several at once.
    fn end(&self, alive: usize) -> Result<Value, Trouble> {
        let next = AtomicUsize::new(0);
        let begin = Instant::now();
        let work = || -> Result<(), Trouble> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= alive {
                    return Ok(());
                }
                self.remove(&name(number))?;
            }
        };
        std::thread::scope(|scope| {
            let hands: Vec<_> = (0..HANDS).map(|_| scope.spawn(work)).collect();
            hands.into_iter().try_for_each(|hand| hand.join().map_err(|_| Trouble::from("a thread died"))?)
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        // A shim answers before it has ended.
        let begin = Instant::now();
        while !shims()?.is_empty() {
            check!(begin.elapsed() < Duration::from_secs(60), "{} shims are left", shims()?.len());
            std::thread::sleep(Duration::from_millis(20));
        }
        same("tasks in the list", self.task("List", &Message::new())?.all(1).count(), 0)?;
        Ok(json!({"deleted": alive, "seconds": seconds, "groups": self.groups(), "mounts": mounts()?}))
    }

    /// Makes a container and starts it; how long the task's Create and Start took together.
    fn launch(&self, id: &str) -> Result<f64, Trouble> {
        let create = self.fleet.make(id)?;
        let (time, _) = timed(|| {
            self.task("Create", &create)?;
            self.task("Start", &text(id))
        })?;
        Ok(time)
    }

    /// Kills it, waits for that, deletes it; how long that took.
    fn remove(&self, id: &str) -> Result<f64, Trouble> {
        let (time, _) = timed(|| {
            self.task("Kill", &text(id).number(3, libc::SIGKILL as u64).flag(4, true))?;
            self.task("Wait", &text(id))?;
            self.task("Delete", &text(id))
        })?;
        self.fleet.forget(id)?;
        Ok(time)
    }

    fn task(&self, method: &str, request: &Message) -> Result<Fields, Trouble> {
        self.fleet.task(method, request)
    }

    /// The containers' groups that are there, in all hierarchies.
    fn groups(&self) -> usize {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let own =
            hierarchies.filter_map(|entry| fs::read_dir(entry.path().join(&self.fleet.group[1..])).ok());
        own.flatten().flatten().filter(|entry| entry.path().is_dir()).count()
    }
}

fn name(number: usize) -> String {
    format!("c{number}")
}

fn timed<T>(what: impl FnOnce() -> Result<T, Trouble>) -> Result<(f64, T), Trouble> {
    let begin = Instant::now();
    let answer = what()?;
    Ok((begin.elapsed().as_secs_f64() * 1e3, answer))
}

/// The same once it is one for each container, and those have given back what they do not need at rest.
fn settled(alive: usize) -> Result<Vec<procs::Usage>, Trouble> {
    let begin = Instant::now();
    while shims()?.len() != alive && begin.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(REST);
    shims()
}

/// What every shim of this pid namespace uses.
fn shims() -> Result<Vec<procs::Usage>, Trouble> {
    let is_shim = |pid: i32| {
        let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .next()
            .is_some_and(|program| String::from_utf8_lossy(program).contains("containerd-shim-"))
    };
    let all = all_processes().into_iter().filter(|process| !process.zombie && is_shim(process.pid));
    // One that ends meanwhile is none.
    Ok(all.filter_map(|process| procs::usage(process.pid).ok()).collect())
}

fn mounts() -> Result<usize, Trouble> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().count())
}

/// MiB that the machine has left.
fn available() -> Result<u64, Trouble> {
    let table = fs::read_to_string("/proc/meminfo")?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse::<u64>().ok());
    Ok(kib.ok_or("/proc/meminfo has no MemAvailable")? / 1024)
}
