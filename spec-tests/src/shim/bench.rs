// SPDX-License-Identifier: Apache-2.0
//! `spec-tests shim-bench`: the figures of two shims side by side, taken in turns in one run, as a Markdown table.
//!
//! A figure is a function of a fresh [`Daemon`]; every round takes it from each shim, the median counts.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::fifo;
use super::task::{Io, Task};
use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Host;
use crate::harness::procs;
use crate::harness::test::Test;
use crate::harness::{runner, suite, warden};

const USAGE: &str = "usage: spec-tests shim-bench --corten SHIM --go SHIM --runc RUNC --rootfs-busybox DIR [--rounds N] [--more] [--out FILE]";

/// One line of the table: what, its unit, what ours may be of the other's, and how it is measured.
struct Figure {
    name: &'static str,
    unit: &'static str,
    aim: Aim,
    rounds: usize,
    measure: fn(&Daemon) -> Result<f64, Trouble>,
}

/// What the figure of ours has to be.
#[derive(Clone, Copy)]
enum Aim {
    /// At most so much.
    Below(f64),
    /// At most this part of the Go shim's.
    Part(f64),
    /// At least the Go shim's times this.
    AtLeast(f64),
    /// Only told.
    None,
}

fn figures() -> Vec<Figure> {
    let figure = |name, unit, aim, rounds, measure| Figure { name, unit, aim, rounds, measure };
    use Aim::{AtLeast, Below, None, Part};
    vec![
        figure("idle shim, one container: RSS", "KB", Below(1200.0), 3, |d| idle(d, 1, |u| u.rss)),
        figure("idle shim, one container: private dirty", "KB", Below(160.0), 3, |d| idle(d, 1, |u| u.dirty)),
        figure("idle shim, one container: threads", "", Below(1.0), 3, |d| idle(d, 1, |u| u.threads)),
        figure("five shims: PSS of each", "KB", Below(400.0), 3, |d| idle(d, 5, |u| u.pss)),
        figure("private dirty more after 1,000 execs", "KB", Below(64.0), 1, growth),
        figure("`start` to the first answered Connect", "ms", Part(1.0 / 8.0), 15, start_to_connect),
        figure("Create + Start of `true`", "ms", Part(1.0 / 5.0), 15, create_and_start),
        figure("Exec, Start, exit of `true`", "ms", Part(1.0 / 10.0), 9, exec_to_exit),
        figure("Kill to the answered Wait", "ms", None, 5, kill_to_wait),
        figure("Delete", "ms", None, 5, delete),
        figure("State, one task in the shim: round trip", "µs", None, 5, |d| {
            state_among(d, 1).map(|(one, _)| one)
        }),
        figure("State, 100 tasks in the shim: round trip", "µs", None, 1, |d| {
            state_among(d, 100).map(|(_, all)| all)
        }),
        figure("State, 100 tasks: times that with one", "", Below(1.1), 3, |d| {
            state_among(d, 100).map(|(one, all)| all / one)
        }),
        figure("output to a FIFO: 512 MiB", "MB/s", AtLeast(1.0), 7, |d| output(d).map(|(rate, _)| rate)),
        figure("output to a FIFO: the shim's CPU for 512 MiB", "ms", Part(1.0 / 3.0), 7, |d| {
            output(d).map(|(_, cpu)| cpu)
        }),
    ]
}

/// The median of repeated measurements.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn milliseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

const SLEEP: &[&str] = &["/bin/busybox", "sleep", "1000"];
const TRUE: &[&str] = &["/bin/true"];

/// A container of busybox, which every shim starts in the same way.
fn launch(d: &Daemon, args: &[&str]) -> Result<(crate::harness::bundle::Bundle, Task), Trouble> {
    let b = d.bundle("")?.args(args);
    let task = d.create(&b, &Io::null())?;
    task.start("")?;
    Ok((b, task))
}

fn idle(d: &Daemon, count: usize, of: fn(&procs::Usage) -> i64) -> Result<f64, Trouble> {
    let all: Vec<_> = (0..count).map(|_| launch(d, SLEEP)).collect::<Result<_, _>>()?;
    std::thread::sleep(Duration::from_millis(1000));
    let mut sum = 0;
    for (_, task) in &all {
        sum += of(&procs::usage(task.shim.pid)?);
    }
    for (b, task) in &all {
        d.end(b, task)?;
    }
    Ok(sum as f64 / count as f64)
}

fn growth(d: &Daemon) -> Result<f64, Trouble> {
    let (b, task) = launch(d, SLEEP)?;
    task.execute("first", TRUE, &Io::null())?;
    let before = procs::usage(task.shim.pid)?.dirty;
    for n in 0..1000 {
        task.execute(&format!("x{n}"), TRUE, &Io::null())?;
    }
    let after = procs::usage(task.shim.pid)?.dirty;
    d.end(&b, &task)?;
    Ok((after - before) as f64)
}

fn start_to_connect(d: &Daemon) -> Result<f64, Trouble> {
    let b = d.bundle("")?;
    let begin = Instant::now();
    let shim = d.shim(&b)?;
    let took = milliseconds(begin);
    d.shut_down(&shim)?;
    d.remove(&b)?;
    Ok(took)
}

fn create_and_start(d: &Daemon) -> Result<f64, Trouble> {
    let b = d.bundle("")?.args(TRUE);
    b.write()?;
    let task = Task::new(d.shim(&b)?, &b.id);
    let begin = Instant::now();
    task.try_create(d, &b, &Io::null())?;
    task.start("")?;
    let took = milliseconds(begin);
    task.exit("")?;
    d.end(&b, &task)?;
    Ok(took)
}

fn exec_to_exit(d: &Daemon) -> Result<f64, Trouble> {
    let (b, task) = launch(d, SLEEP)?;
    let mut all = Vec::new();
    for n in 0..20 {
        let name = format!("x{n}");
        let begin = Instant::now();
        task.exec(&name, TRUE, &Io::null())?;
        task.start(&name)?;
        task.exit(&name)?;
        all.push(milliseconds(begin));
        task.delete(&name)?;
    }
    d.end(&b, &task)?;
    Ok(median(all))
}

fn kill_to_wait(d: &Daemon) -> Result<f64, Trouble> {
    let (b, task) = launch(d, SLEEP)?;
    let wait = task.wait("");
    let begin = Instant::now();
    task.kill("", 9, false)?;
    wait.within(10.0)?;
    let took = milliseconds(begin);
    d.end(&b, &task)?;
    Ok(took)
}

fn delete(d: &Daemon) -> Result<f64, Trouble> {
    let (b, task) = launch(d, TRUE)?;
    task.exit("")?;
    let begin = Instant::now();
    task.delete("")?;
    let took = milliseconds(begin);
    d.shut_down(&task.shim)?;
    d.remove(&b)?;
    Ok(took)
}

/// The round trip with one task in the shim, and with `count`.
fn state_among(d: &Daemon, count: usize) -> Result<(f64, f64), Trouble> {
    let (b, task) = launch(d, SLEEP)?;
    let one = round_trip(&task)?;
    let mut others = Vec::new();
    for _ in 1..count {
        let b = d.bundle("")?.args(SLEEP);
        let other = Task::new(task.shim.clone(), &b.id);
        other.create(d, &b, &Io::null())?;
        other.start("")?;
        others.push((b, other));
    }
    let all = round_trip(&task)?;
    for (b, other) in &others {
        other.end()?;
        other.delete("")?;
        d.remove(b)?;
    }
    d.end(&b, &task)?;
    Ok((one, all))
}

/// A State's, in microseconds.
fn round_trip(task: &Task) -> Result<f64, Trouble> {
    let mut all = Vec::new();
    for _ in 0..2000 {
        let begin = Instant::now();
        task.state("")?;
        all.push(milliseconds(begin) * 1e3);
    }
    Ok(median(all))
}

/// Megabytes per second, and the shim's processor time in milliseconds.
fn output(d: &Daemon) -> Result<(f64, f64), Trouble> {
    const BYTES: usize = 512 << 20;
    let count = (BYTES >> 16).to_string();
    let count = format!("count={count}");
    let b = d.bundle("")?.args(&["/bin/busybox", "dd", "if=/dev/zero", "bs=64k", &count]);
    let (stdout, stderr) = (fifo::make(d.t, &format!("o{}", b.id))?, fifo::make(d.t, &format!("e{}", b.id))?);
    let _errors = fifo::Reader::open(&stderr)?;
    let mut reader = fifo::open_reader(&stdout)?;
    let task = d.create(&b, &Io { stdout, stderr, ..Io::default() })?;
    let before = procs::cpu(task.shim.pid)?;
    let begin = Instant::now();
    task.start("")?;
    let (mut got, mut block) = (0, vec![0; 1 << 20]);
    while got < BYTES {
        match fifo::read_some(&mut reader, &mut block) {
            Some(0) => return Err(format!("only {got} bytes").into()),
            Some(len) => got += len,
            None => check!(begin.elapsed() < Duration::from_secs(60), "only {got} bytes"),
        }
    }
    let took = begin.elapsed().as_secs_f64();
    let cpu = procs::cpu(task.shim.pid)? - before;
    task.exit("")?;
    d.end(&b, &task)?;
    Ok((BYTES as f64 / 1e6 / took, cpu))
}

#[derive(Default, Clone)]
struct Options {
    shims: [PathBuf; 2],
    runc: Option<PathBuf>,
    busybox: Option<PathBuf>,
    rounds: Option<usize>,
    out: Option<PathBuf>,
    /// The table alone, after what is in `out` already.
    more: bool,
    /// For its own use: which shim and which figure, and where the result goes.
    one: Option<String>,
}

/// Takes the figures and prints the table; exit code 1 when a measurement failed. `words` begin with the command's name.
pub fn main(words: &[String]) -> ExitCode {
    suite::conclude(parse(&words[1..]).and_then(|options| run(&options, words)), USAGE)
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    suite::read(args, |arg, value| {
        match arg {
            "--corten" => options.shims[0] = value()?.into(),
            "--go" => options.shims[1] = value()?.into(),
            "--runc" => options.runc = Some(value()?.into()),
            "--rootfs-busybox" => options.busybox = Some(value()?.into()),
            "--rounds" => options.rounds = suite::number(arg, value)?,
            "--out" => options.out = Some(value()?.into()),
            "--more" => options.more = true,
            "--one" => options.one = Some(value()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

fn host(options: &Options, which: usize) -> Result<Host, String> {
    let mut host = Host::look_at_shim(&options.shims[which])?;
    host.busybox = Some(options.busybox.clone().ok_or("--rootfs-busybox is missing")?);
    host.runc = if which == 1 { options.runc.clone() } else { None };
    host.patience = 300.0;
    Ok(host)
}

fn run(options: &Options, words: &[String]) -> Result<ExitCode, String> {
    if let Some(one) = &options.one {
        let mut words = one.split(',');
        let mut number =
            || words.next().and_then(|word| word.parse::<usize>().ok()).ok_or("--one takes numbers");
        let (which, line) = (number()?, number()?);
        let host = host(options, which)?;
        runner::hand_up(warden::run(measurement(line), &host));
        return Ok(ExitCode::SUCCESS);
    }
    // A program just built lies in dirty pages, which would count as the process's own.
    nix::unistd::sync();
    let all = figures();
    let mut rows = Vec::new();
    let mut failed = false;
    for (line, figure) in all.iter().enumerate() {
        let mut values = [Vec::new(), Vec::new()];
        for _ in 0..options.rounds.unwrap_or(figure.rounds).min(figure.rounds) {
            for (which, values) in values.iter_mut().enumerate() {
                match measure_once(words, which, line) {
                    Ok(value) => values.push(value),
                    Err(reason) => {
                        eprintln!("{} ({}): {reason}", figure.name, ["Corten", "Go"][which]);
                        failed = true;
                    }
                }
            }
        }
        let [ours, theirs] = values.map(median);
        rows.push(row(figure, ours, theirs));
        eprintln!("{}", rows[rows.len() - 1]);
    }
    let page = page(options, &rows);
    print!("{page}");
    if let Some(out) = &options.out {
        let before =
            if options.more { fs::read_to_string(out).unwrap_or_default() + "\n" } else { String::new() };
        fs::write(out, before + &page).map_err(|e| format!("{}: {e}", out.display()))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A measurement is a case whose value goes to stderr of its process.
fn measurement(line: usize) -> Case {
    case("measurement", move |t: &Test| -> Verdict {
        let figures = figures();
        let figure = figures.get(line).ok_or("no such figure")?;
        let d = Daemon::new(t)?;
        let value = (figure.measure)(&d)?;
        eprintln!("value {value}");
        Ok(())
    })
}

fn measure_once(words: &[String], which: usize, line: usize) -> Result<f64, String> {
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(this);
    command.args(words).args(["--one", &format!("{which},{line}")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut out));
    child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut err));
    child.wait().map_err(|e| e.to_string())?;
    let value = err.lines().find_map(|line| line.strip_prefix("value ")?.parse().ok());
    value.filter(|_| out.starts_with("pass")).ok_or_else(|| format!("{out} {err}"))
}

fn row(figure: &Figure, ours: f64, theirs: f64) -> String {
    let (aim, met) = match figure.aim {
        Aim::Below(most) => (format!("≤ {most} {}", figure.unit).trim_end().to_owned(), Some(ours <= most)),
        Aim::Part(part) => (format!("≤ 1/{:.0}", 1.0 / part), Some(ours <= theirs * part)),
        Aim::AtLeast(times) => (format!("≥ {times} ×"), Some(ours >= theirs * times)),
        Aim::None => (String::new(), None),
    };
    let met = match met {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    };
    let told = |value: f64| match value {
        value if value.is_nan() => "failed".to_owned(),
        value if value.abs() >= 100.0 => format!("{value:.0}"),
        value if value.abs() >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    };
    let name = format!("{} ({})", figure.name, figure.unit).replace(" ()", "");
    format!("| {name} | {} | {} | {:.3} | {aim} | {met} |", told(ours), told(theirs), ours / theirs)
}

fn page(options: &Options, rows: &[String]) -> String {
    let version = |shim: &PathBuf| {
        let out = Command::new(shim).arg("-v").output();
        let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let unified = PathBuf::from("/sys/fs/cgroup/cgroup.controllers").exists();
    let table = format!(
        "## {}\n\n| figure | Corten | Go shim | ratio | aim | |\n|---|---|---|---|---|---|\n{}\n",
        if unified { "On pure cgroup v2" } else { "On cgroup v1" },
        rows.join("\n")
    );
    if options.more {
        return table;
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "# The shim beside containerd-shim-runc-v2\n\n\
         Written by `make bench-shim`: both shims are driven by the same client, in turns, in one run; medians. Linux {}, {} processors.\n\n\
         - Corten: {}\n- Go: {}, with runc\n\n{table}",
        kernel.trim(),
        std::thread::available_parallelism().map_or(1, |n| n.get()),
        version(&options.shims[0]),
        version(&options.shims[1]),
    )
}
