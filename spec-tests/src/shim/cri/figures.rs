// SPDX-License-Identifier: Apache-2.0
//! `spec-tests cri-figures SOCKET HANDLER IMAGE CGROUP DIR PODS`: what so many pods of one container cost, one after the other and then all alive, as a
//! line `key value …`: times in milliseconds (medians), sizes in KiB, counts for each pod.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use super::{Cri, conclude, read, text};
use crate::harness::case::{Trouble, Verdict};
use crate::harness::hostdiff::all_processes;
use crate::shim::procs;
use crate::shim::wire::Message;

/// Prints the line; exit code 1 when something is not well.
pub fn main(args: &[String]) -> ExitCode {
    let Some((pods, args)) = args.split_last() else { return ExitCode::from(2) };
    let (Ok(pods), Some(cri)) = (pods.parse(), read("cri-figures", args)) else { return ExitCode::from(2) };
    conclude(Cri { own_pids: true, ..cri }.figures(pods))
}

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

impl Cri {
    fn figures(&self, count: usize) -> Verdict {
        let (pod, _) = self.begun("warm")?;
        self.ended_pod(&pod)?;
        let before = Counted::now()?;
        let mut pods = Vec::new();
        for n in 0..count {
            pods.push(self.begun(&format!("pod{n}"))?);
        }
        let after = Counted::now()?;
        let mut sizes = Vec::new();
        for (pod, _) in &pods {
            sizes.push(sizes_of(pod)?);
        }
        let begin = Instant::now();
        for (pod, _) in &pods {
            self.ended_pod(pod)?;
        }
        let end = begin.elapsed().as_secs_f64() * 1000.0 / count as f64;
        let times = |of: fn(&Times) -> f64| median(pods.iter().map(|(_, times)| of(times)).collect());
        let sizes = |of: fn(&Sizes) -> f64| median(sizes.iter().map(of).collect());
        let each = |before: usize, after: usize| (after as f64 - before as f64) / count as f64;
        println!(
            "start {:.1} pod {:.1} container {:.1} end {:.1} processes {:.0} shim {:.0} holder {:.0} mounts {:.1} overlays {:.1} groups {:.1}",
            times(|times| times.pod + times.container),
            times(|times| times.pod),
            times(|times| times.container),
            end,
            sizes(|sizes| sizes.processes),
            sizes(|sizes| sizes.shim),
            sizes(|sizes| sizes.holder),
            each(before.mounts, after.mounts),
            each(before.overlays, after.overlays),
            each(before.groups, after.groups),
        );
        Ok(())
    }

    /// A pod with a container that runs.
    fn begun(&self, name: &str) -> Result<(String, Times), Trouble> {
        let begin = Instant::now();
        let run = Message::new().message(1, &self.config_of(name)).text(2, &self.handler);
        let pod = self.call("RunPodSandbox", &run)?.text(1);
        let ready = begin.elapsed();
        self.start(&pod, name, &["sleep", "1000"], 0)?;
        let (all, ready) = (begin.elapsed().as_secs_f64() * 1000.0, ready.as_secs_f64() * 1000.0);
        Ok((pod, Times { pod: ready, container: all - ready }))
    }

    fn ended_pod(&self, pod: &str) -> Verdict {
        self.call("StopPodSandbox", &text(pod))?;
        self.call("RemovePodSandbox", &text(pod)).map(drop)
    }
}

/// The processes of one pod, and what those take that are not its container's.
struct Sizes {
    processes: f64,
    shim: f64,
    holder: f64,
}

fn sizes_of(pod: &str) -> Result<Sizes, Trouble> {
    let words = format!("-id\0{pod}\0");
    let all = all_processes();
    let line = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_shim = |pid: i32| String::from_utf8_lossy(&line(pid)).contains(&words);
    let shim = all.iter().map(|process| process.pid).find(|pid| is_shim(*pid)).ok_or("no shim")?;
    let children: Vec<_> =
        all.iter().filter(|process| process.parent == shim).map(|process| process.pid).collect();
    // The container sleeps for longer than any other does.
    let is_container = |pid: i32| line(pid) == b"sleep\x001000\0";
    let pss = |pid: i32| procs::usage(pid).map_or(0.0, |usage| usage.pss as f64);
    Ok(Sizes {
        processes: (1 + children.len()) as f64,
        shim: pss(shim),
        holder: children.iter().filter(|pid| !is_container(**pid)).map(|pid| pss(*pid)).sum(),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
