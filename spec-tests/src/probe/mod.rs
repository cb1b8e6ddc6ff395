// SPDX-License-Identifier: Apache-2.0
//! What the containers of the cases run: a program that tells what it sees and does as it is told.
//!
//! `probe ACTION [ARG…] [-- ACTION [ARG…]]…` performs the actions in order:
//!
//! | action | does |
//! |---|---|
//! | `report` | prints everything it sees as one line of JSON |
//! | `try OP…` | performs one operation of [`ops`] and prints `{"op","errno","data"}` as one line |
//! | `print TEXT…`, `complain TEXT…` | prints a line on stdout, stderr |
//! | `put FILE TEXT…`, `report-to FILE` | writes the text, the report, to a file |
//! | `hook FILE KIND` | adds to the file what a hook sees, as one line of JSON: environment, directory, input, ids, filter |
//! | `keep-stdin FILE` | copies stdin to a file |
//! | `echo` | copies stdin to stdout until its end |
//! | `sleep SECONDS`, `exit CODE`, `die SIGNAL` | that |
//! | `forever` | waits for a signal that ends it |
//! | `await` | waits for one signal, prints `got SIGNAL`, goes on |
//! | `notify LINE…` | sends the lines to the socket `NOTIFY_SOCKET` in one message |
//! | `block SIGNAL…` | blocks signals, so that a later `await` gets them |
//! | `spawn ACTION…` | runs the rest (with `++` for `--`) in a child and goes on |
//! | `flood BYTES` | prints so many bytes: the numbers of 8 bytes from 0 on, little-endian |
//! | `eat BYTES` | touches so much memory, and keeps it |
//! | `bomb` | forks without end: each process makes others and is gone soon, so that no list of them holds |
//! | `sizes N` | prints the terminal's size now and after each of N changes |
//! | `hunt DIR MARKER` | looks for what processes that come bring along: see [`hunt`] |
//! | `overmount DIR` | lays trees over /proc again and again: see [`overmount`] |
//! | `grab DIR` | opens the program of every process that comes: see [`grab`] |
//! | `keep-clock` | says that it is ready, waits for the end of its input, and sets the clock as it would be by then |
//! | `wait-for FILE` | waits until the file exists |
//! | `hold THING…` | has things that a checkpoint must carry along, and counts: see [`hold`] |
//!
//! Must never depend on anything but the kernel: it is alone in the container.

#![forbid(unsafe_code)]

mod grab;
mod hold;
mod hunt;
mod lookout;
mod ops;
mod overmount;
mod report;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, exit};
use std::time::Duration;

use nix::sys::signal::{self, SigSet, Signal};
use nix::time::{ClockId, clock_settime};

use crate::sys;

/// Performs the actions in `args`; exit code 0, or that of `exit`; 99 for an action it does not know or that fails.
pub fn main(args: &[String]) -> ExitCode {
    for action in args.split(|arg| arg == "--") {
        if let Err(error) = act(action) {
            eprintln!("probe {}: {error}", action.join(" "));
            return ExitCode::from(99);
        }
    }
    ExitCode::SUCCESS
}

type Outcome = Result<(), String>;

fn act(action: &[String]) -> Outcome {
    let Some((verb, args)) = action.split_first() else { return Ok(()) };
    let text = args.join(" ");
    let first = args.first().map(String::as_str).unwrap_or_default();
    match verb.as_str() {
        "report" => say(&report::everything().to_string()),
        "report-to" => put(first, &report::everything().to_string()),
        "try" => say(&ops::attempt(&text).to_string()),
        "print" => say(&text),
        "complain" => writeln!(std::io::stderr(), "{text}").map_err(shown),
        "put" => put(first, &args.get(1..).unwrap_or_default().join(" ")),
        "hook" => hook(first, args.get(1).map(String::as_str).unwrap_or_default()),
        "keep-stdin" => keep_stdin(first),
        "echo" => echo(),
        "sleep" => sleep(first),
        "exit" => exit(first.parse().map_err(shown)?),
        "die" => signal::raise(named(first)?).map_err(shown),
        "forever" => forever(),
        "await" => await_signal().and_then(|signal| say(&format!("got {signal}"))),
        "block" => block(args),
        "notify" => notify(args),
        "spawn" => spawn(args),
        "flood" => flood(first.parse().map_err(shown)?),
        "eat" => eat(first.parse().map_err(shown)?),
        "bomb" => bomb(),
        "sizes" => sizes(first.parse().map_err(shown)?),
        "wait-for" => wait_for(first),
        "keep-clock" => keep_clock(),
        "hold" => hold::hold(args),
        "overmount" => overmount::overmount(first),
        "grab" => grab::grab(first),
        "hunt" => hunt::hunt(first, args.get(1).map(String::as_str).unwrap_or_default()),
        _ => Err("no such action".into()),
    }
}

fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn say(line: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(shown)
}

fn put(file: &str, text: &str) -> Outcome {
    std::fs::write(file, text).map_err(shown)
}

fn hook(file: &str, kind: &str) -> Outcome {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(shown)?;
    let told = report::of_hook(kind, &text);
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).map_err(shown)?;
    writeln!(file, "{told}").map_err(shown)
}

fn keep_stdin(file: &str) -> Outcome {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).map_err(shown)?;
    std::fs::write(file, text).map_err(shown)
}

fn echo() -> Outcome {
    std::io::copy(&mut std::io::stdin(), &mut std::io::stdout()).map(drop).map_err(shown)
}

fn sleep(seconds: &str) -> Outcome {
    std::thread::sleep(Duration::from_secs_f64(seconds.parse().map_err(shown)?));
    Ok(())
}

/// Waits without end; TERM, INT and HUP end it with 128 + the signal, which pid 1 would not get by default.
fn forever() -> Outcome {
    let signal = await_signal()?;
    exit(128 + signal as i32)
}

/// The signals `await` and `forever` wait for.
const AWAITED: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGQUIT];

fn awaited() -> SigSet {
    AWAITED.iter().fold(SigSet::empty(), |mut set, signal| {
        set.add(*signal);
        set
    })
}

fn await_signal() -> Result<Signal, String> {
    let set = awaited();
    set.thread_block().map_err(shown)?;
    set.wait().map_err(shown)
}

fn block(names: &[String]) -> Outcome {
    let mut set = SigSet::empty();
    for name in names {
        set.add(named(name)?);
    }
    set.thread_block().map_err(shown)
}

fn notify(lines: &[String]) -> Outcome {
    let path = std::env::var("NOTIFY_SOCKET").map_err(shown)?;
    let socket = std::os::unix::net::UnixDatagram::unbound().map_err(shown)?;
    socket.send_to(lines.join("\n").as_bytes(), path).map(drop).map_err(shown)
}

fn named(name: &str) -> Result<Signal, String> {
    name.parse().map_err(|_| format!("no signal {name}"))
}

fn spawn(args: &[String]) -> Outcome {
    let args = args.iter().map(|arg| if arg == "++" { "--" } else { arg });
    let this = std::env::args_os().next().unwrap_or_else(|| "/probe".into());
    Command::new(this).args(args).spawn().map(drop).map_err(shown)
}

fn flood(bytes: u64) -> Outcome {
    let mut out = std::io::stdout().lock();
    let mut block = Vec::with_capacity(65536);
    for number in 0..bytes / 8 {
        block.extend(number.to_le_bytes());
        if block.len() == 65536 || number + 1 == bytes / 8 {
            out.write_all(&block).map_err(shown)?;
            block.clear();
        }
    }
    out.flush().map_err(shown)
}

fn eat(bytes: usize) -> Outcome {
    let mut memory = Vec::new();
    while memory.len() * 65536 < bytes {
        memory.push(vec![1u8; 65536]);
    }
    std::hint::black_box(&memory);
    Ok(())
}

/// A process that makes two and is gone a moment later, unless it is the first.
fn bomb() -> Outcome {
    sys::forget_children();
    let this = std::env::args_os().next().unwrap_or_else(|| "/probe".into());
    let is_first = std::process::id() == 1 || std::env::var_os("BOMB").is_none();
    for round in 0.. {
        if !is_first && round == 3 {
            exit(0);
        }
        let child = Command::new(&this).arg("bomb").env("BOMB", "1").spawn();
        std::thread::sleep(Duration::from_millis(if child.is_ok() { 3 } else { 1 }));
    }
    Ok(())
}

fn sizes(changes: usize) -> Outcome {
    let mut set = SigSet::empty();
    set.add(Signal::SIGWINCH);
    set.thread_block().map_err(shown)?;
    let stdin = std::io::stdin();
    let print = || match sys::window_size(stdin.as_fd()) {
        Some((rows, columns)) => say(&format!("size {rows} {columns}")),
        None => Err("stdin is no terminal".into()),
    };
    print()?;
    for _ in 0..changes {
        set.wait().map_err(shown)?;
        print()?;
    }
    Ok(())
}

fn keep_clock() -> Outcome {
    let now = |clock| ClockId::now(clock).map_err(shown);
    let ahead = now(ClockId::CLOCK_REALTIME)? - now(ClockId::CLOCK_BOOTTIME)?;
    say("ready")?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).map_err(shown)?;
    clock_settime(ClockId::CLOCK_REALTIME, now(ClockId::CLOCK_BOOTTIME)? + ahead).map_err(shown)
}

fn wait_for(file: &str) -> Outcome {
    while !std::path::Path::new(file).exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
