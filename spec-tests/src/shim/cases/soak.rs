// SPDX-License-Identifier: Apache-2.0
//! Whole lives of containers through shims, again and again, mixed (R28 of docs/reliability.md): in a shim that stays, whose helpers are
//! killed at any moment, and in shims of their own, which are killed themselves and cleared away as containerd does.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::crash::kill_shim;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::dice::Dice;
use crate::harness::hostdiff::descendants;
use crate::harness::soak::{Soak, held_by, held_on_host};
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::task::{Io, Task};
use crate::shim::ttrpc::CLOSED;

/// What is killed is killed within so many microseconds.
const MOMENTS: u64 = 12_000;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![case("soak/shims", soak).runc("leaves its socket").takes(180.0)]
}

fn soak(t: &Test) -> Verdict {
    let mut soak = Soak::of(&t.host, 48, 3);
    let d = Daemon::new(t)?;
    let (first, keeper) = d.launch("forever")?;
    let staying = descendants().iter().map(|process| process.pid).collect();
    let mut lives = Lives { d: &d, keeper: &keeper, staying, dice: Dice::of(28), count: 0 };
    while soak.goes_on() {
        soak.killed += usize::from(lives.one()?);
        if soak.round() {
            lives.nothing_else_lives()?;
            let mut held =
                held_on_host(t, &[&d.state(), &d.runtime_root(), std::path::Path::new("/run/containerd")])?;
            held.extend(held_by("shim", keeper.shim.pid)?);
            soak.sample(held);
            // What is over has been judged, and need not be kept.
            d.events.forget_all_but(&keeper.id)?;
            d.forget_shims();
        }
    }
    d.end(&first, &keeper)?;
    d.finish()?;
    soak.judge("shims")
}

struct Lives<'a> {
    d: &'a Daemon<'a>,
    keeper: &'a Task,
    /// The shim that stays, and its container.
    staying: BTreeSet<i32>,
    dice: Dice,
    count: usize,
}

impl Lives<'_> {
    /// One life; whether something was killed in its midst.
    fn one(&mut self) -> Result<bool, Trouble> {
        self.count += 1;
        match self.dice.below(12) {
            0 => self.shim_of_its_own(false),
            1 => self.shim_of_its_own(true),
            2 => self.failing(),
            3 => self.helper_killed(),
            _ => {
                let bundle = self.d.bundle("forever")?;
                let task = Task::new(self.keeper.shim.clone(), &bundle.id);
                self.whole(&bundle, &task)?;
                self.d.remove(&bundle)?;
                Ok(false)
            }
        }
    }

    fn whole(&mut self, bundle: &Bundle, task: &Task) -> Verdict {
        task.create(self.d, bundle, &Io::null())?;
        task.start("")?;
        for n in 0..self.dice.below(4) {
            match self.dice.below(5) {
                0 => {
                    task.pause()?;
                    task.state("")?;
                    task.resume()?;
                }
                1 => task.update(&json!({"pids": {"limit": 40}}))?,
                2 => drop(task.pids()?),
                3 => drop(task.stats()?),
                _ => {
                    let exit = task.execute(&format!("x{n}"), &["/probe", "exit", "5"], &Io::null())?;
                    same("an exec's status", exit.status, 5)?;
                }
            }
        }
        task.kill("", 9, true)?;
        same("the status", task.exit("")?.status, 137)?;
        task.delete("")?;
        self.d.events.of_kind(&task.id, "delete")?;
        Ok(())
    }

    /// A shim for one container; or killed at some moment of its life.
    fn shim_of_its_own(&mut self, killed: bool) -> Result<bool, Trouble> {
        let bundle = self.d.bundle("forever")?;
        let task = Task::new(self.d.shim(&bundle)?, &bundle.id);
        if !killed {
            self.whole(&bundle, &task)?;
            self.d.shut_down(&task.shim)?;
            self.d.remove(&bundle)?;
            return Ok(false);
        }
        let request = task.create_request(&bundle, &Io::null(), &self.d.rootfs(), &self.d.options());
        let create = task.shim.begin("Create", &request);
        self.moment();
        kill_shim(self.d, &task.shim)?;
        drop(create);
        self.d.delete(&bundle)?;
        self.d.t.reap();
        self.d.remove(&bundle)?;
        Ok(true)
    }

    fn failing(&mut self) -> Result<bool, Trouble> {
        let bundle = self.d.bundle("forever")?.args(&["/no/such"]);
        bundle.write()?;
        let task = Task::new(self.keeper.shim.clone(), &bundle.id);
        let created = task.try_create(self.d, &bundle, &Io::null());
        check!(created.is_err(), "a container was made of a program that is not there");
        self.d.remove(&bundle)?;
        Ok(false)
    }

    /// Whatever process the shim has made for a Create is killed.
    fn helper_killed(&mut self) -> Result<bool, Trouble> {
        let bundle = self.d.bundle("forever")?;
        let task = Task::new(self.keeper.shim.clone(), &bundle.id);
        let request = task.create_request(&bundle, &Io::null(), &self.d.rootfs(), &self.d.options());
        let create = task.shim.begin("Create", &request);
        self.moment();
        let helpers = descendants().into_iter().filter(|process| !self.staying.contains(&process.pid));
        let mut killed = false;
        for helper in helpers {
            killed |= kill(Pid::from_raw(helper.pid), Signal::SIGKILL).is_ok();
        }
        match create.within(20.0) {
            Ok(_) => {
                task.kill("", 9, true)
                    .or_else(|failure| if failure.code == 5 { Ok(()) } else { Err(failure) })?;
                same("the status", task.exit("")?.status, 137)?;
                task.delete("")?;
            }
            Err(failure) => check!(killed && failure.code < CLOSED, "Create: {failure:?}"),
        }
        self.d.remove(&bundle)?;
        Ok(killed)
    }

    fn moment(&mut self) {
        std::thread::sleep(Duration::from_micros(self.dice.below(MOMENTS)));
    }

    fn nothing_else_lives(&self) -> Verdict {
        let left =
            || descendants().into_iter().filter(|process| !self.staying.contains(&process.pid)).count();
        self.d.t.until(
            || format!("the end of {} processes after {} lives", left(), self.count),
            || {
                self.d.t.reap();
                Ok((left() == 0).then_some(()))
            },
        )
    }
}
