// SPDX-License-Identifier: Apache-2.0
//! Whole lives of containers by the command line, again and again, mixed, with kills of the commands at any moment (R28 of
//! docs/reliability.md). Meanwhile `events` follows one container, and `run` has another on a terminal: they may not grow.

#![forbid(unsafe_code)]

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::dice::Dice;
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::soak::{Held, Soak, held_by, held_on_host};
use crate::harness::terminal::Terminal;
use crate::harness::test::{Running, Test};

/// One of so many commands is killed.
const KILLED: u64 = 25;
/// It is killed within so many microseconds.
const MOMENTS: u64 = 12_000;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let own = &[
        Need::LongUnlessV1,
        Need::NoRuntime("runc", "its figures are its own"),
        Need::NoRuntime("crun", "it has no events"),
    ];
    vec![case("soak/commands", soak).needs(own).takes(120.0)]
}

fn soak(t: &Test) -> Verdict {
    let mut soak = Soak::of(&t.host, 48, 3);
    let mut lives = Lives::new(t)?;
    let mut staying = Staying::new(t)?;
    let before = t.snapshot();
    while soak.goes_on() {
        soak.killed += usize::from(lives.one()?);
        if soak.round() {
            t.unchanged_since(&before)
                .map_err(|trouble| format!("after {} lifecycles: {trouble:?}", soak.done))?;
            soak.sample(staying.held(t)?);
        }
    }
    staying.end(t)?;
    eprintln!(
        "SOAK commands {} samples by events, {} lines through run",
        staying.samples.load(Ordering::SeqCst),
        staying.lines
    );
    soak.judge("commands")
}

/// Commands that stay.
struct Staying {
    followed: Bundle,
    events: Running,
    /// What events has told.
    samples: Arc<AtomicUsize>,
    terminal: Terminal,
    run: Running,
    lines: usize,
}

impl Staying {
    fn new(t: &Test) -> Result<Self, Trouble> {
        let followed = t.bundle()?.probe("forever");
        t.launch(&followed)?;
        let mut command = t.runtime();
        // A long run has ten thousand samples and more; a short one is over before they would take long.
        command.args(["events", "--interval", "40ms", &followed.id]);
        let (reader, writer) = std::io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
        let events = t.spawn_as_it_is(command, t.new_output())?;
        let samples: Arc<AtomicUsize> = Arc::default();
        let counted = samples.clone();
        std::thread::spawn(move || {
            use std::io::BufRead;
            let lines = std::io::BufReader::new(reader).lines().map_while(Result::ok);
            lines.for_each(|_| _ = counted.fetch_add(1, Ordering::SeqCst));
        });
        let attached = t.bundle()?.probe("echo").set("/process/terminal", json!(true));
        let terminal = Terminal::open(24, 80)?;
        let run = terminal.spawn(t, t.bundle_command("run", &attached)?)?;
        let mut staying = Self { followed, events, samples, terminal, run, lines: 0 };
        staying.lines()?;
        Ok(staying)
    }

    /// Some lines through the terminals, and back.
    fn lines(&mut self) -> Verdict {
        for _ in 0..25 {
            self.lines += 1;
            let line = format!("line {}.", self.lines);
            self.terminal.seen.clear();
            self.terminal.write(format!("{line}\n").as_bytes())?;
            // Once as it is typed, and once as the program says it.
            while self.terminal.seen.matches(&line).count() < 2 {
                self.terminal.expect(&line)?;
                self.terminal.pump()?;
            }
        }
        Ok(())
    }

    fn held(&mut self, t: &Test) -> Result<Vec<Held>, Trouble> {
        self.lines()?;
        let mut all = held_on_host(t, &[&t.place.root])?;
        all.extend(held_by("events", self.events.child.id() as i32)?);
        all.extend(held_by("run", self.run.child.id() as i32)?);
        Ok(all)
    }

    fn end(&mut self, t: &Test) -> Verdict {
        self.terminal.write(b"\x04")?;
        t.cli(&format!("delete --force {}", self.followed.id))?.ok()?;
        for running in [&mut self.events, &mut self.run] {
            t.until(
                || "the end of a command that stayed".into(),
                || {
                    t.reap();
                    Ok(running.child.try_wait()?)
                },
            )?;
        }
        Ok(())
    }
}

/// Containers that live again and again.
struct Lives<'t> {
    t: &'t Test,
    dice: Dice,
    good: Vec<Bundle>,
    /// Their `create` fails at one step or another.
    failing: Vec<Bundle>,
    /// A command of the life at hand was killed.
    killed: bool,
}

impl<'t> Lives<'t> {
    fn new(t: &'t Test) -> Result<Self, Trouble> {
        let new = || t.bundle().map(|bundle| bundle.probe("forever"));
        let limits = json!({"pids": {"limit": 40}, "memory": {"limit": 67_108_864}});
        let hook = |args: &[&str]| json!([{"path": "/bin/sh", "args": args}]);
        let good = vec![
            new()?,
            new()?.user_namespace(),
            new()?.set("/linux/resources", limits),
            new()?
                .set("/hooks/createRuntime", hook(&["sh", "-c", "true"]))
                .set("/hooks/poststop", hook(&["sh", "-c", "true"])),
            new()?.mount("tmpfs", "tmpfs", "/tmp", &["size=1m"]),
        ];
        let failing = vec![
            new()?.args(&["/no/such"]),
            new()?.mount("bind", "/no/such", "/tmp", &["bind"]),
            new()?.set("/hooks/createRuntime", hook(&["sh", "-c", "exit 3"])),
            new()?.set("/process/cwd", json!("/no/such/../../etc/passwd")),
        ];
        good.iter().chain(&failing).try_for_each(|bundle| bundle.write())?;
        Ok(Self { t, dice: Dice::of(28), good, failing, killed: false })
    }

    /// One life, chosen at random; whether one of its commands was killed.
    fn one(&mut self) -> Result<bool, Trouble> {
        self.killed = false;
        let bundle = self.dice.one(&self.good).clone();
        match self.dice.below(8) {
            0 => self.in_the_foreground(&bundle)?,
            1 => self.detached(&bundle)?,
            2 => self.failing()?,
            _ => self.whole(&bundle)?,
        }
        Ok(self.killed)
    }

    /// A command that must succeed, unless it is killed; then the container is taken away, and this is false.
    fn does(&mut self, bundle: &Bundle, words: &[&str]) -> Result<bool, Trouble> {
        match self.ends(words)? {
            Some(done) => {
                done.ok()?;
                Ok(true)
            }
            None => self.gives_up(bundle).map(|()| false),
        }
    }

    /// A command and how it ended; nothing if it was killed in the midst.
    fn ends(&mut self, words: &[&str]) -> Result<Option<Done>, Trouble> {
        let mut command = self.t.runtime();
        command.args(words);
        let running = self.t.spawn(command)?;
        let shot = self.dice.once_in(KILLED);
        if shot {
            std::thread::sleep(Duration::from_micros(self.dice.below(MOMENTS)));
            kill(Pid::from_raw(running.child.id() as i32), Signal::SIGKILL)?;
            self.killed = true;
        }
        let out = running.log();
        let done = self.t.finish(running)?;
        out.forget();
        Ok((!shot).then_some(done))
    }

    fn gives_up(&self, bundle: &Bundle) -> Verdict {
        self.t.cli(&format!("delete --force {}", bundle.id))?.ok()?;
        Ok(())
    }

    fn whole(&mut self, bundle: &Bundle) -> Verdict {
        let (id, dir) = (bundle.id.as_str(), bundle.dir.to_string_lossy());
        let mut steps: Vec<Vec<&str>> = vec![vec!["create", "--bundle", &dir, id], vec!["start", id]];
        for _ in 0..self.dice.below(4) {
            match self.dice.below(5) {
                0 => steps.extend([vec!["pause", id], vec!["state", id], vec!["resume", id]]),
                1 => steps.push(vec!["update", "--pids-limit", "30", id]),
                2 => steps.push(vec!["ps", id]),
                3 => steps.push(vec!["list"]),
                _ => steps.push(vec!["exec", id, "/probe", "exit", "0"]),
            }
        }
        steps.push(vec!["kill", id, "KILL"]);
        for step in steps {
            if !self.does(bundle, &step)? {
                return Ok(());
            }
        }
        self.t.await_status(bundle, "stopped")?;
        self.does(bundle, &["delete", id]).map(drop)
    }

    fn in_the_foreground(&mut self, bundle: &Bundle) -> Verdict {
        let bundle = bundle.clone().probe("exit 7");
        bundle.write()?;
        let dir = bundle.dir.to_string_lossy();
        match self.ends(&["run", "--bundle", &dir, &bundle.id])? {
            Some(done) => drop(done.exits(7)?),
            None => self.gives_up(&bundle)?,
        }
        bundle.probe("forever").write()
    }

    fn detached(&mut self, bundle: &Bundle) -> Verdict {
        let dir = bundle.dir.to_string_lossy();
        if self.does(bundle, &["run", "--detach", "--bundle", &dir, &bundle.id])? {
            self.does(bundle, &["delete", "--force", &bundle.id])?;
        }
        Ok(())
    }

    fn failing(&mut self) -> Verdict {
        let bundle = self.dice.one(&self.failing).clone();
        let dir = bundle.dir.to_string_lossy();
        match self.ends(&["run", "--detach", "--bundle", &dir, &bundle.id])? {
            Some(done) => {
                check!(done.code != 0, "{done}");
                check!(!self.t.place.root.join(&bundle.id).exists(), "{done}, and has left its state");
                Ok(())
            }
            None => self.gives_up(&bundle),
        }
    }
}
