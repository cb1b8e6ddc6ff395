// SPDX-License-Identifier: Apache-2.0
//! `spec-tests shim …`.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use super::cases;
use super::task::Shim;
use crate::harness::case::Case;
use crate::harness::host::Host;
use crate::harness::{runner, warden};

const USAGE: &str = "\
usage: spec-tests shim --shim PATH [--runc PATH] [--env NAME] [--filter TEXT]… [--list] [--long] [--jobs N]
                       [--timeout SECONDS] [--tmp DIR] [--no-excuses] [--times] [--rootfs-busybox DIR]

--shim     the shim under test; its file's name tells which it is
--runc     the runtime that the Go shim is to find
--long     the cases that need minutes, too
--no-excuses  the Go shim's known differences count as failures
--one      (for its own use) runs one case in this process";

#[derive(Default)]
struct Options {
    shim: PathBuf,
    runc: Option<PathBuf>,
    env: String,
    filters: Vec<String>,
    list: bool,
    one: Option<String>,
    jobs: Option<usize>,
    timeout: Option<f64>,
    tmp: Option<PathBuf>,
    long: bool,
    no_excuses: bool,
    times: bool,
    busybox: Option<PathBuf>,
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

/// For a case: asks a shim something as whoever we are, and says what came of it.
pub fn ask(args: &[String]) -> ExitCode {
    let [address, id] = args else { return ExitCode::from(2) };
    match Shim::connect(address, 3, id).or_else(|_| Shim::connect(address, 2, id)) {
        Ok(shim) => println!("answered by {}", shim.pid),
        Err(trouble) => println!("refused: {trouble:?}"),
    }
    ExitCode::SUCCESS
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--shim" => options.shim = value()?.into(),
            "--runc" => options.runc = Some(value()?.into()),
            "--env" => options.env = value()?,
            "--filter" => options.filters.push(value()?),
            "--one" => options.one = Some(value()?),
            "--jobs" => options.jobs = Some(value()?.parse().map_err(|_| "--jobs takes a number")?),
            "--timeout" => options.timeout = Some(value()?.parse().map_err(|_| "--timeout takes seconds")?),
            "--tmp" => options.tmp = Some(value()?.into()),
            "--rootfs-busybox" => options.busybox = Some(value()?.into()),
            "--list" => options.list = true,
            "--long" => options.long = true,
            "--no-excuses" => options.no_excuses = true,
            "--times" => options.times = true,
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
    let mut host = Host::look_at_shim(&options.shim)?;
    host.busybox = options.busybox.clone();
    host.runc = options.runc.clone();
    host.long = options.long;
    host.patience = options.timeout.unwrap_or(30.0);
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
    let words: Vec<String> = std::iter::once("shim".to_owned()).chain(args.iter().cloned()).collect();
    let mut count = runner::run(&cases, &host, &words, options.jobs.unwrap_or(2));
    if options.times {
        count.took.sort();
        let slowest = count.took.iter().rev().take(20);
        slowest.for_each(|(took, name)| println!("{:7.2} s {name}", took.as_secs_f64()));
    }
    let place =
        if options.env.is_empty() { String::new() } else { format!(" ({} on {})", host.name, options.env) };
    println!("{} passed, {} failed, {} skipped{place}", count.passed, count.failed, count.skipped);
    Ok(if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
