// SPDX-License-Identifier: Apache-2.0
//! `spec-tests run …`.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use super::case::Case;
use super::host::Host;
use super::{runner, warden};
use crate::cases;

/// How to call this program.
pub const USAGE: &str = "\
usage: spec-tests run --runtime PATH [--env NAME] [--filter TEXT]… [--list] [--jobs N] [--timeout SECONDS]
                      [--tmp DIR] [--alone] [--no-excuses] [--times] [--rootfs-busybox DIR] [--rootfs-debian DIR]
       spec-tests shim … (`spec-tests shim` tells)
       spec-tests probe ACTION…

--filter   only cases whose name contains one of the texts
--env      a name for this environment, printed with the result
--alone    nobody else uses this machine: any new cgroup, socket or keyring on it counts as left behind
--no-excuses  a peer's known differences count as failures
--times    prints the twenty slowest cases
--one      (for its own use) runs one case in this process";

#[derive(Default)]
struct Options {
    runtime: PathBuf,
    env: String,
    filters: Vec<String>,
    list: bool,
    one: Option<String>,
    jobs: Option<usize>,
    timeout: Option<f64>,
    tmp: Option<PathBuf>,
    alone: bool,
    no_excuses: bool,
    times: bool,
    busybox: Option<PathBuf>,
    debian: Option<PathBuf>,
}

/// Runs what the arguments ask for. Exit code 0 when no case failed, 1 when one did, 2 for wrong usage.
pub fn main(args: &[String]) -> ExitCode {
    match parse(args).and_then(|options| run(options, args)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("spec-tests: {error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--runtime" => options.runtime = value()?.into(),
            "--env" => options.env = value()?,
            "--filter" => options.filters.push(value()?),
            "--one" => options.one = Some(value()?),
            "--jobs" => options.jobs = Some(value()?.parse().map_err(|_| "--jobs takes a number")?),
            "--timeout" => options.timeout = Some(value()?.parse().map_err(|_| "--timeout takes seconds")?),
            "--tmp" => options.tmp = Some(value()?.into()),
            "--rootfs-busybox" => options.busybox = Some(value()?.into()),
            "--rootfs-debian" => options.debian = Some(value()?.into()),
            "--list" => options.list = true,
            "--no-excuses" => options.no_excuses = true,
            "--times" => options.times = true,
            "--alone" => options.alone = true,
            _ => return Err(format!("unknown argument {arg}")),
        }
    }
    Ok(options)
}

fn run(options: Options, args: &[String]) -> Result<ExitCode, String> {
    let chosen = |case: &Case| {
        options.filters.is_empty() || options.filters.iter().any(|text| case.name.contains(text.as_str()))
    };
    let mut cases = cases::all();
    if options.list {
        cases.iter().filter(|case| chosen(case)).for_each(|case| println!("{}", case.name));
        return Ok(ExitCode::SUCCESS);
    }
    let mut host = Host::look(&options.runtime)?;
    host.env = options.env.clone();
    host.busybox = options.busybox.clone();
    host.debian = options.debian.clone();
    host.alone = options.alone;
    host.patience = options.timeout.unwrap_or(host.patience);
    host.tmp = options.tmp.clone().unwrap_or(host.tmp);
    if let Some(name) = &options.one {
        let at = cases.iter().position(|case| case.name == *name).ok_or("no such case")?;
        runner::hand_up(warden::run(cases.swap_remove(at), &host));
        return Ok(ExitCode::SUCCESS);
    }
    cases.retain(chosen);
    if options.no_excuses {
        cases.iter_mut().for_each(|case| case.peers.clear());
    }
    if options.alone && !std::path::Path::new("/dev/loop-control").exists() {
        // Before the first look at the host. Where there is no such module, cases say that they were not run.
        std::process::Command::new("modprobe").arg("loop").status().ok();
    }
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    let jobs = options.jobs.unwrap_or(processors.min(2));
    let words: Vec<String> = std::iter::once("run".to_owned()).chain(args.iter().cloned()).collect();
    println!("RUNTIME {} {} on {}", host.name, host.version, options.env);
    let mut count = runner::run(&cases, &host, &words, jobs);
    if options.times {
        count.took.sort();
        count
            .took
            .iter()
            .rev()
            .take(20)
            .for_each(|(took, name)| println!("{:7.2} s {name}", took.as_secs_f64()));
    }
    let place =
        if options.env.is_empty() { String::new() } else { format!(" ({} on {})", host.name, options.env) };
    println!("{} passed, {} failed, {} skipped{place}", count.passed, count.failed, count.skipped);
    Ok(if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
