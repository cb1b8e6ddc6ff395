// SPDX-License-Identifier: Apache-2.0
//! `spec-tests cri-figures SOCKET HANDLER,… IMAGE CGROUP DIR PODS`: what so many pods of one container cost with each handler, in turns, as lines
//! `HANDLER key value …`: times in milliseconds (the median, and the least), sizes in KiB, counts.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::{Cri, conclude, read, shims_of};
use crate::harness::case::{Trouble, Verdict};
use crate::harness::hostdiff::all_processes;
use crate::harness::procs;
use crate::shim::bench;

/// Prints the lines; exit code 1 when something is not well.
pub fn main(args: &[String]) -> ExitCode {
    let [socket, handlers, rest @ .., count] = args else { return ExitCode::from(2) };
    let Ok(count) = count.parse() else { return ExitCode::from(2) };
    let one = |handler: &str| {
        let words = [&[socket.clone(), handler.to_owned()], rest].concat();
        read("cri-figures", &words).map(|cri| Cri { own_pids: true, ..cri })
    };
    let Some(cris) = handlers.split(',').map(one).collect::<Option<Vec<_>>>() else {
        return ExitCode::from(2);
    };
    conclude(figures(&cris, count))
}

/// Longer than a shim takes to find that nothing happens.
const IDLE: Duration = Duration::from_millis(600);

/// Times of one pod.
struct Times {
    pod: f64,
    container: f64,
}

/// What is there, on the whole host.
struct Counted {
    mounts: usize,
    overlays: usize,
    groups: usize,
}

impl Counted {
    fn now() -> Result<Self, Trouble> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let overlays = mounts.lines().filter(|line| line.contains(" - overlay ")).count();
        Ok(Self {
            mounts: mounts.lines().count(),
            overlays,
            groups: directories(Path::new("/sys/fs/cgroup")),
        })
    }
}

fn directories(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    inner.map(|entry| 1 + directories(&entry.path())).sum()
}

/// What one pod cost.
struct Figures {
    times: Times,
    end: f64,
    sizes: Sizes,
    mounts: f64,
    overlays: f64,
    groups: f64,
}

/// In turns, so that whatever else the machine does hits all alike. The first of each is for warmth.
fn figures(cris: &[Cri], count: usize) -> Verdict {
    let mut all: Vec<Vec<Figures>> = cris.iter().map(|_| Vec::new()).collect();
    for round in 0..=count {
        for (cri, figures) in cris.iter().zip(&mut all) {
            let taken = cri.one_pod(round)?;
            if round > 0 {
                figures.push(taken);
            }
        }
    }
    for (cri, figures) in cris.iter().zip(&all) {
        let median = |of: fn(&Figures) -> f64| bench::median(figures.iter().map(of).collect());
        let least = |of: fn(&Figures) -> f64| figures.iter().map(of).fold(f64::INFINITY, f64::min);
        let both = |of: fn(&Figures) -> f64| format!("{:.1} {:.1}", median(of), least(of));
        println!(
            "{} start {} pod {} end {} processes {:.0} shim {:.0} holder {:.0} mounts {:.0} overlays {:.0} groups {:.0}",
            cri.handler,
            both(|figures| figures.times.pod + figures.times.container),
            both(|figures| figures.times.pod),
            both(|figures| figures.end),
            median(|figures| figures.sizes.processes),
            median(|figures| figures.sizes.shim),
            median(|figures| figures.sizes.holder),
            median(|figures| figures.mounts),
            median(|figures| figures.overlays),
            median(|figures| figures.groups),
        );
    }
    Ok(())
}

impl Cri {
    fn one_pod(&self, round: usize) -> Result<Figures, Trouble> {
        let before = Counted::now()?;
        let (pod, times) = self.begun(&format!("pod{round}"))?;
        let after = Counted::now()?;
        // An idle shim gives back what it can have again.
        std::thread::sleep(IDLE);
        let sizes = sizes_of(&pod)?;
        let begin = Instant::now();
        self.end_pod(&pod)?;
        let end = begin.elapsed().as_secs_f64() * 1000.0;
        let more = |before: usize, after: usize| after as f64 - before as f64;
        Ok(Figures {
            times,
            end,
            sizes,
            mounts: more(before.mounts, after.mounts),
            overlays: more(before.overlays, after.overlays),
            groups: more(before.groups, after.groups),
        })
    }

    /// A pod with a container that runs.
    fn begun(&self, name: &str) -> Result<(String, Times), Trouble> {
        let begin = Instant::now();
        let pod = self.run_pod(name)?;
        let ready = begin.elapsed();
        self.start(&pod, name, &["sleep", "1000"], 0)?;
        let (all, ready) = (begin.elapsed().as_secs_f64() * 1000.0, ready.as_secs_f64() * 1000.0);
        Ok((pod, Times { pod: ready, container: all - ready }))
    }
}

/// The processes of one pod, and what those take that are not its container's.
struct Sizes {
    processes: f64,
    shim: f64,
    holder: f64,
}

fn sizes_of(pod: &str) -> Result<Sizes, Trouble> {
    let shim = shims_of(pod).next().ok_or("no shim")?;
    let all = all_processes();
    let children: Vec<_> =
        all.iter().filter(|process| process.parent == shim).map(|process| process.pid).collect();
    // The container sleeps for longer than any other does.
    let is_container =
        |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\x001000\0");
    let pss = |pid: i32| procs::usage(pid).map_or(0.0, |usage| usage.pss as f64);
    Ok(Sizes {
        processes: (1 + children.len()) as f64,
        shim: pss(shim),
        holder: children.iter().filter(|pid| !is_container(**pid)).map(|pid| pss(*pid)).sum(),
    })
}
