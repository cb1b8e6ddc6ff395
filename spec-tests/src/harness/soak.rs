// SPDX-License-Identifier: Apache-2.0
//! Does anything grow while the same is done again and again? What is held is sampled at moments at which nothing is under way, a
//! line is laid through each series by least squares, and its slope must be about zero.
//!
//! How long that goes on is `--hours`; without it, it is a number of rounds, for `make test`.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::case::{Trouble, Verdict};
use super::host::Host;
use super::hostdiff::{all_processes, descendants};
use super::test::Test;
use crate::check;

/// Samples of a run with `--hours`.
const SAMPLES: u32 = 400;
/// Of them the first are left out: what is used for the first time stays.
const WARMING: usize = 4;

/// A series, and by how much the line through it may rise from its first to its last sample; `None`: it is told, not judged.
pub type Held = (String, f64, Option<f64>);

/// When how much was held, in hours; and by how much the line may rise.
type Series = (Vec<(f64, f64)>, Option<f64>);

/// A run, and what was held.
pub struct Soak {
    begin: Instant,
    end: Option<Duration>,
    rounds: usize,
    every: usize,
    last: Duration,
    pub done: usize,
    pub killed: usize,
    series: BTreeMap<String, Series>,
}

/// The line through a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// For each unit of the first number of a point.
    pub slope: f64,
    /// How far points lie from it: the root of the mean square.
    pub noise: f64,
}

/// Least squares. A line through less than two different places is flat.
pub fn line_through(points: &[(f64, f64)]) -> Line {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let across: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let along: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope = if along > 0.0 { across / along } else { 0.0 };
    let off = points.iter().map(|point| (point.1 - y - slope * (point.0 - x)).powi(2)).sum::<f64>();
    Line { slope, noise: (off / count).sqrt() }
}

impl Soak {
    /// For the host's `--hours`, or so many rounds of which every so many-th is followed by a sample.
    pub fn of(host: &Host, rounds: usize, every: usize) -> Self {
        let end = host.hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
        let (begin, last) = (Instant::now(), Duration::ZERO);
        Self { begin, end, rounds, every, last, done: 0, killed: 0, series: BTreeMap::new() }
    }

    /// Whether there is another round.
    pub fn goes_on(&self) -> bool {
        self.end.map_or(self.done < self.rounds, |end| self.begin.elapsed() < end)
    }

    /// A round is done: whether it is time for a sample.
    pub fn round(&mut self) -> bool {
        self.done += 1;
        let Some(end) = self.end else { return self.done.is_multiple_of(self.every) };
        let now = self.begin.elapsed();
        let due = now - self.last >= end / SAMPLES;
        self.last = if due { now } else { self.last };
        due
    }

    pub fn sample(&mut self, held: Vec<Held>) {
        let now = self.begin.elapsed().as_secs_f64() / 3600.0;
        for (name, value, most) in held {
            let series = self.series.entry(name).or_default();
            series.0.push((now, value));
            series.1 = most;
        }
    }

    /// Tells all lines, as `SOAK …` on stderr, and fails if one rises.
    pub fn judge(&self, name: &str) -> Verdict {
        let hours = self.begin.elapsed().as_secs_f64() / 3600.0;
        let (done, killed) = (self.done, self.killed);
        let rate = done as f64 / (hours * 3600.0);
        eprintln!(
            "SOAK {name} {done} lifecycles, {killed} of them killed, {rate:.1} a second, {hours:.3} hours, 0 left"
        );
        let mut rising = Vec::new();
        for (what, (points, most)) in &self.series {
            let points = points.get(WARMING.min(points.len() / 4)..).unwrap_or_default();
            let (Some(first), Some(last)) = (points.first(), points.last()) else { continue };
            let line = line_through(points);
            let risen = line.slope * (last.0 - first.0);
            let told = format!(
                "{what}: {:.2} an hour, {risen:.2} in all, noise {:.2}, from {:.0} to {:.0} in {} samples",
                line.slope,
                line.noise,
                first.1,
                last.1,
                points.len()
            );
            eprintln!("SOAK {name} {told}");
            if most.is_some_and(|most| risen > most) {
                rising.push(told);
            }
        }
        check!(rising.is_empty(), "after {done} lifecycles these rise: {}", rising.join("; "));
        Ok(())
    }
}

/// What the case's own containers may leave on the host: groups in every hierarchy, mounts, processes, files below these directories.
pub fn held_on_host(t: &Test, roots: &[&Path]) -> Result<Vec<Held>, Trouble> {
    let most = Some(0.5);
    let groups =
        t.host.mounted_hierarchies().iter().map(|top| marked_below(top, &t.place.mark)).sum::<usize>();
    let this = std::process::id() as i32;
    let zombies =
        all_processes().into_iter().filter(|process| process.zombie && process.parent == this).count();
    let files = roots.iter().map(|root| files_below(root)).sum::<usize>();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?.lines().count();
    let all = [
        ("groups", groups),
        ("mounts", mounts),
        ("processes", descendants().len() + zombies),
        ("files in the state roots", files),
    ];
    let mut held: Vec<Held> =
        all.into_iter().map(|(name, count)| (name.into(), count as f64, most)).collect();
    // Of the whole machine: others use it, too.
    let table = fs::read_to_string("/proc/meminfo")?;
    for name in ["Slab", "Percpu"] {
        let line = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
        held.push((format!("{name} of the machine (KiB)"), kib, None));
    }
    Ok(held)
}

/// What a process that stays holds.
pub fn held_by(name: &str, pid: i32) -> Result<Vec<Held>, Trouble> {
    let usage = super::procs::usage(pid)?;
    let all = [
        ("descriptors", usage.fds, Some(0.5)),
        ("threads", usage.threads, Some(0.5)),
        ("zombies", usage.zombies, Some(0.5)),
        ("own memory (KiB)", usage.anonymous, Some(64.0)),
        // With the pages of its program's file, which a shim gives back at rest and reads again: when it was sampled, not what it holds.
        ("resident memory (KiB)", usage.rss, None),
    ];
    Ok(all.into_iter().map(|(what, count, most)| (format!("{name}: {what}"), count as f64, most)).collect())
}

fn marked_below(dir: &Path, mark: &str) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below
        .map(|entry| {
            let is_ours = usize::from(entry.file_name().to_string_lossy().contains(mark));
            is_ours + marked_below(&entry.path(), if is_ours == 1 { "" } else { mark })
        })
        .sum()
}

fn files_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            1 + if entry.file_type().is_ok_and(|kind| kind.is_dir()) { files_below(&entry.path()) } else { 0 }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soak_of(series: &[f64]) -> Verdict {
        let begin = Instant::now();
        let points = series.iter().enumerate().map(|(at, value)| (at as f64, *value)).collect();
        let series = BTreeMap::from([("things".to_owned(), (points, Some(0.5)))]);
        let (end, last) = (None, Duration::ZERO);
        Soak { begin, end, rounds: 1, every: 1, last, done: 1, killed: 0, series }.judge("test")
    }

    #[test]
    fn a_line_is_the_one_of_least_squares() {
        let line = line_through(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]);
        assert_eq!(line, Line { slope: 2.0, noise: 0.0 });
        assert_eq!(line_through(&[(1.0, 7.0)]).slope, 0.0);
        assert!(line_through(&[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]).noise > 0.4);
    }

    #[test]
    fn what_rises_is_refused_and_what_stays_is_not() {
        assert!(soak_of(&[5.0; 40]).is_ok());
        // The first of all is warming up.
        assert!(soak_of(&[&[1.0][..], &[5.0; 39]].concat()).is_ok());
        let rising: Vec<_> = (0..40).map(|n| f64::from(n / 10)).collect();
        assert!(soak_of(&rising).is_err());
    }
}
