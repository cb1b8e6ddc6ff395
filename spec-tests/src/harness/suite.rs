// SPDX-License-Identifier: Apache-2.0
//! What the commands that run cases share: reading options, choosing cases, running them, the sums.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use super::case::Case;
use super::host::Host;
use super::runner::Count;
use super::{runner, warden};

/// Reads the value of the option at hand.
pub type Value<'a> = dyn FnMut() -> Result<String, String> + 'a;

/// Exit code 2, and how to call the command, for wrong usage.
pub fn conclude(outcome: Result<ExitCode, String>, usage: &str) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("spec-tests: {error}\n{usage}");
        ExitCode::from(2)
    })
}

/// Gives each option to `take`, which says whether it knows it.
pub fn read(
    args: &[String],
    mut take: impl FnMut(&str, &mut Value) -> Result<bool, String>,
) -> Result<(), String> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().ok_or_else(|| format!("{arg} needs a value"));
        if !take(arg, &mut value)? {
            return Err(format!("unknown argument {arg}"));
        }
    }
    Ok(())
}

pub fn number<T: std::str::FromStr>(option: &str, value: &mut Value) -> Result<Option<T>, String> {
    value()?.parse().map(Some).map_err(|_| format!("{option} takes a number"))
}

/// What every command that runs cases can be told.
#[derive(Default)]
pub struct Options {
    env: String,
    timeout: Option<f64>,
    filters: Vec<String>,
    list: bool,
    one: Option<String>,
    jobs: Option<usize>,
    tmp: Option<PathBuf>,
    hours: Option<f64>,
    no_excuses: bool,
    times: bool,
    busybox: Option<PathBuf>,
}

impl Options {
    /// Takes `arg` if it is one of these options.
    pub fn take_option(&mut self, arg: &str, value: &mut Value) -> Result<bool, String> {
        match arg {
            "--env" => self.env = value()?,
            "--filter" => self.filters.push(value()?),
            "--one" => self.one = Some(value()?),
            "--jobs" => self.jobs = number(arg, value)?,
            "--timeout" => self.timeout = number(arg, value)?,
            "--hours" => self.hours = number(arg, value)?,
            "--tmp" => self.tmp = Some(value()?.into()),
            "--rootfs-busybox" => self.busybox = Some(value()?.into()),
            "--list" => self.list = true,
            "--no-excuses" => self.no_excuses = true,
            "--times" => self.times = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Runs the chosen of `cases`, or lists them. `words` are what this program was given; `look` tells of the machine and
    /// the program under test; `begin` comes before the first case, and says how many may run at a time if that is not told.
    pub fn run(
        &self,
        words: &[String],
        mut cases: Vec<Case>,
        look: impl FnOnce() -> Result<Host, String>,
        begin: impl FnOnce(&Host) -> usize,
    ) -> Result<ExitCode, String> {
        if self.list {
            cases.iter().filter(|case| self.chosen(case)).for_each(|case| println!("{}", case.name));
            return Ok(ExitCode::SUCCESS);
        }
        let mut host = look()?;
        host.env = self.env.clone();
        host.busybox = self.busybox.clone();
        host.patience = self.timeout.unwrap_or(host.patience);
        host.hours = self.hours;
        host.tmp = self.tmp.clone().unwrap_or(host.tmp);
        if let Some(name) = &self.one {
            let at = cases.iter().position(|case| case.name == *name).ok_or("no such case")?;
            runner::hand_up(warden::run(cases.swap_remove(at), &host));
            return Ok(ExitCode::SUCCESS);
        }
        cases.retain(|case| self.chosen(case));
        if self.no_excuses {
            cases.iter_mut().for_each(|case| case.peers.clear());
        }
        let jobs = begin(&host);
        let count = runner::run(&cases, &host, words, self.jobs.unwrap_or(jobs));
        Ok(self.sum(count, &host))
    }

    fn chosen(&self, case: &Case) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|text| case.name.contains(text.as_str()))
    }

    fn sum(&self, mut count: Count, host: &Host) -> ExitCode {
        if self.times {
            count.took.sort();
            let slowest = count.took.iter().rev().take(20);
            slowest.for_each(|(took, name)| println!("{:7.2} s {name}", took.as_secs_f64()));
        }
        let place =
            if self.env.is_empty() { String::new() } else { format!(" ({} on {})", host.name, self.env) };
        println!("{} passed, {} failed, {} skipped{place}", count.passed, count.failed, count.skipped);
        if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
