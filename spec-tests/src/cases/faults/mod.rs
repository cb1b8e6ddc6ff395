// SPDX-License-Identifier: Apache-2.0
//! Faults at every system call of the runtime: killed there (R01 of docs/reliability.md), or the call fails (R02).
//!
//! Each verb is performed once undisturbed to see what it calls, on the host's side and in the stage, and then once for each call
//! with a fault there. `--every 1` tries every point, `--every 7` every seventh; else it is some of each scene, the same every time. Each case tells on
//! stderr how many points it has tried: `FAULTS name points …`.

#![forbid(unsafe_code)]

mod fail;
mod impostors;
mod kernels;
mod kill;
mod scarce;
mod scenes;

use std::time::{Duration, Instant};

use crate::harness::case::{Case, Trouble, Verdict};
use crate::harness::hostdiff::Snapshot;
use crate::harness::pace::within;
use crate::harness::tracer::{Fault, Point, Traced, name_of, trace};
use scenes::{Ground, SCENES};

/// The chapter.
pub fn cases() -> Vec<Case> {
    let points = SCENES.iter().flat_map(|scene| [kill::case_of(*scene), fail::case_of(*scene)]);
    points.chain(scarce::cases()).chain(impostors::cases()).chain(kernels::cases()).collect()
}

/// How long a command may take whatever is the matter with it, where others leave it the processors.
const LONGEST: Duration = Duration::from_secs(5);
/// When it is ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to clear away after one.
const CLEARING: Duration = Duration::from_secs(1);
/// Points of a scene when it is to be short.
const FEW: usize = 10;
/// So many findings are told; then the case gives up.
const MOST: usize = 400;

/// A scene that is played again and again.
struct Play<'t> {
    ground: Ground<'t>,
    before: Snapshot,
    begin: Instant,
    tried: usize,
    missed: usize,
    found: Vec<String>,
}

impl<'t> Play<'t> {
    fn of(ground: Ground<'t>) -> Self {
        let before = ground.t.snapshot();
        Self { ground, before, begin: Instant::now(), tried: 0, missed: 0, found: Vec::new() }
    }

    /// What it calls undisturbed: all points of each process, by number.
    fn calls(&mut self) -> Result<Vec<Vec<i64>>, Trouble> {
        let t = self.ground.t;
        self.ground.prepare()?;
        let (command, held) = self.ground.command()?;
        let seen = trace(t, command, None, PATIENCE)?;
        drop(held);
        let fails = self.ground.scene.fails_anyway();
        if seen.hung || (seen.done.code != 0) != fails {
            return Err(format!("undisturbed: {}", seen.done).into());
        }
        self.clear_away()?;
        Ok(seen.calls)
    }

    /// The points to try: all that `matter`, of which it is told the calls of their process, or a few of them.
    fn points(&mut self, matter: impl Fn(Point, &[i64]) -> bool) -> Result<Vec<Point>, Trouble> {
        let calls = self.calls()?;
        let of =
            |(process, calls): (usize, &Vec<i64>)| (0..calls.len()).map(move |call| Point { process, call });
        let mut all: Vec<Point> = calls.iter().enumerate().flat_map(of).collect();
        all.retain(|point| matter(*point, &calls[point.process]));
        let step = self.ground.t.host.every.unwrap_or_else(|| all.len().div_ceil(FEW)).max(1);
        Ok(all.into_iter().skip(step / 2).step_by(step).collect())
    }

    /// Plays it with a fault at a point, lets `judge` say what is to be said of that, and clears away.
    fn disturb(&mut self, point: Point, fault: Fault, judge: impl Fn(&Self, &Traced) -> Verdict) -> Verdict {
        self.ground.prepare()?;
        let (command, held) = self.ground.command()?;
        let came = trace(self.ground.t, command, Some((point, fault)), PATIENCE)?;
        drop(held);
        self.missed += usize::from(came.hit.is_none());
        let in_time = within(&format!("(hangs: {}) it", came.done), came.done.took, LONGEST);
        let verdict = in_time.and_then(|()| judge(self, &came)).and_then(|()| self.clear_away());
        let name = came.hit.map_or("not reached".to_owned(), name_of);
        let at = format!("call {} of process {} ({name}) with {fault:?}", point.call, point.process);
        self.note(verdict, &format!("{}: {at}", self.ground.scene.name()))
    }

    /// `delete --force` must work in time, and leave nothing.
    fn clear_away(&self) -> Verdict {
        let t = self.ground.t;
        let deleted = self.ground.cli(&format!("delete --force {}", self.ground.bundle.id))?;
        deleted.ok()?;
        within("delete --force", deleted.took, CLEARING)?;
        t.unchanged_since(&self.before)
    }

    /// Notes what went wrong at a point, and begins anew with another container. An error when that is often enough.
    fn note(&mut self, verdict: Verdict, at: &str) -> Verdict {
        self.tried += 1;
        let Err(Trouble::Fail(text)) = verdict else { return verdict };
        eprintln!("FAULT {at}: {text}");
        self.found.push(format!("{at}: {text}"));
        if self.found.len() >= MOST {
            return Err(self.told());
        }
        self.ground.cli(&format!("delete --force {}", self.ground.bundle.id)).ok();
        self.ground = self.ground.scene.ground(self.ground.t)?;
        self.before = self.ground.t.snapshot();
        Ok(())
    }

    fn told(&self) -> Trouble {
        Trouble::Fail(format!("{} of {} points: {}", self.found.len(), self.tried, self.found.join(" || ")))
    }

    /// The sum, and the verdict.
    fn end(self, name: &str) -> Verdict {
        if !self.found.is_empty() {
            return Err(self.told());
        }
        let seconds = self.begin.elapsed().as_secs_f64();
        let Self { tried, missed, .. } = &self;
        eprintln!(
            "FAULTS {name} {tried} points, {missed} not reached, {:.0} a second, 0 left",
            *tried as f64 / seconds
        );
        Ok(())
    }
}
