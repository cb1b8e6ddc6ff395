// SPDX-License-Identifier: Apache-2.0
//! What a case holds in its hands: bundles, the runtime's commands, and waiting.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use serde_json::Value;

use super::bundle::Bundle;
use super::case::{Trouble, Verdict};
use super::done::Done;
use super::host::Host;
use super::hostdiff::{Place, Snapshot, all_processes};
use super::report::Report;
use super::user::as_owner_of;
use crate::{check, sys};

/// The tools of one case.
pub struct Test {
    pub host: Host,
    pub place: Place,
    count: Cell<usize>,
    /// Children this case started itself and waits for; all others are orphans of the runtime.
    own: RefCell<HashSet<i32>>,
    ended: RefCell<HashMap<i32, i32>>,
    at_end: RefCell<Vec<Box<dyn FnOnce()>>>,
}

/// A command of the runtime that is still running.
pub struct Running {
    pub child: Child,
    words: String,
    started: Instant,
    out: PathBuf,
}

impl Running {
    /// Its output so far and to come.
    pub fn log(&self) -> Log {
        Log(self.out.clone())
    }
}

impl Test {
    /// For the warden.
    pub fn new(host: Host, place: Place) -> Self {
        Self {
            host,
            place,
            count: Cell::new(0),
            own: RefCell::default(),
            ended: RefCell::default(),
            at_end: RefCell::default(),
        }
    }

    /// Undoes something the case itself did to the host, when the case is over.
    pub fn at_end(&self, undo: impl FnOnce() + 'static) {
        self.at_end.borrow_mut().push(Box::new(undo));
    }

    /// Mounts something on the host until the case is over.
    pub fn mount(&self, kind: &str, source: &str, at: &Path, flags: MsFlags, options: &str) -> Verdict {
        mount(Some(source), at, Some(kind), flags, Some(options))?;
        let at = at.to_owned();
        self.at_end(move || {
            umount2(&at, MntFlags::MNT_DETACH).ok();
        });
        Ok(())
    }

    fn next_number(&self) -> usize {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// A path in the case's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.dir.join(name)
    }

    /// The same as text.
    pub fn file(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// A new bundle with an id and a cgroup path of its own, whose container reports what it sees.
    pub fn bundle(&self) -> Result<Bundle, Trouble> {
        let n = self.next_number();
        let id = format!("{}-{n}", self.place.mark);
        let cgroup = format!("/{id}");
        Bundle::make(self.path(&format!("bundle-{n}")), id, &cgroup, &std::env::current_exe()?)
    }

    /// The runtime with this case's state root, as its owner, ready for more words.
    pub fn runtime(&self) -> Command {
        let mut command = Command::new(&self.host.runtime);
        as_owner_of(&self.place.root, &mut command);
        command.arg("--root").arg(&self.place.root);
        command.env("SPEC_TESTS", &self.place.mark);
        command
    }

    /// A name for files of output, to which endings are put.
    pub fn new_output(&self) -> PathBuf {
        self.path("out").join(self.next_number().to_string())
    }

    /// Starts a command with its output going to files (a container may keep them open for ever).
    pub fn spawn(&self, mut command: Command) -> Result<Running, Trouble> {
        let out = self.new_output();
        command.stdin(Stdio::null());
        command.stdout(fs::File::create(out.with_extension("out"))?);
        command.stderr(fs::File::create(out.with_extension("err"))?);
        self.spawn_as_it_is(command, out)
    }

    /// Starts a command whose standard input, output and error the case has set up itself.
    pub fn spawn_as_it_is(&self, mut command: Command, out: PathBuf) -> Result<Running, Trouble> {
        let words = command.get_args().skip(2).map(|word| word.to_string_lossy().into_owned());
        let words = words.collect::<Vec<_>>().join(" ").replace(&*self.place.dir.to_string_lossy(), "DIR");
        let child = command.spawn()?;
        self.own.borrow_mut().insert(child.id() as i32);
        Ok(Running { child, words, started: Instant::now(), out })
    }

    /// Waits for a command of this case.
    pub fn finish(&self, mut running: Running) -> Result<Done, Trouble> {
        let what = format!("the end of `{}`", running.words);
        let status = self.until(
            || what.clone(),
            || {
                let status = running.child.try_wait()?;
                // A first process ends only when the others of its pid namespace have been waited for.
                if status.is_none() && running.started.elapsed() > Duration::from_millis(30) {
                    self.reap();
                }
                Ok(status)
            },
        )?;
        use std::os::unix::process::ExitStatusExt;
        Ok(self.done(&running, status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0))))
    }

    /// A command of this case that has been waited for, and how it ended.
    pub fn done(&self, running: &Running, code: i32) -> Done {
        self.own.borrow_mut().remove(&(running.child.id() as i32));
        let read = |kind| {
            let bytes = fs::read(running.out.with_extension(kind)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Done {
            words: running.words.clone(),
            code,
            stdout: read("out"),
            stderr: read("err"),
            took: running.started.elapsed(),
        }
    }

    /// Runs a command to its end.
    pub fn complete(&self, command: Command) -> Result<Done, Trouble> {
        self.spawn(command).and_then(|running| self.finish(running))
    }

    /// Runs the runtime with these words.
    pub fn cli_words(&self, words: &[&str]) -> Result<Done, Trouble> {
        let mut command = self.runtime();
        command.args(words);
        self.complete(command)
    }

    /// Runs the runtime with these words, split at white space.
    pub fn cli(&self, words: &str) -> Result<Done, Trouble> {
        self.cli_words(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// `VERB [options] -b BUNDLE ID` after writing config.json.
    pub fn bundle_command(&self, verb: &str, bundle: &Bundle) -> Result<Command, Trouble> {
        bundle.write()?;
        let mut command = self.runtime();
        command.args(verb.split_whitespace()).arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
        Ok(command)
    }

    /// `create`, with options after the verb when given: `create --no-pivot`.
    pub fn try_create(&self, verb: &str, bundle: &Bundle) -> Result<Done, Trouble> {
        self.complete(self.bundle_command(verb, bundle)?)
    }

    /// A successful `create`; its output is where the container's goes.
    pub fn create(&self, bundle: &Bundle) -> Result<Log, Trouble> {
        let running = self.spawn(self.bundle_command("create", bundle)?)?;
        let log = running.log();
        self.finish(running)?.ok()?;
        Ok(log)
    }

    /// A successful `create` and `start`.
    pub fn launch(&self, bundle: &Bundle) -> Result<Log, Trouble> {
        let log = self.create(bundle)?;
        self.cli(&format!("start {}", bundle.id))?.ok()?;
        Ok(log)
    }

    /// `run` to its end, whatever that is.
    pub fn run(&self, bundle: &Bundle) -> Result<Done, Trouble> {
        self.try_create("run", bundle)
    }

    /// `run` of a probe that reports; it must succeed.
    pub fn report(&self, bundle: &Bundle) -> Result<Report, Trouble> {
        let done = self.run(bundle)?;
        Report::read(&done.ok()?.stdout)
    }

    /// `exec` of words in a container.
    pub fn exec(&self, bundle: &Bundle, options: &str, words: &str) -> Result<Done, Trouble> {
        self.cli(&format!("exec {options} {} {words}", bundle.id))
    }

    /// Runs the container with these operations; each must have the outcome beside it, `ok` or an errno.
    pub fn expect(&self, bundle: Bundle, table: &[(&str, &str)]) -> Result<Vec<Value>, Trouble> {
        let bundle = bundle.tries(table.iter().map(|(op, _)| *op));
        let done = self.run(&bundle)?;
        self.compare(&done.ok()?.stdout, table)
    }

    /// Compares a probe's attempts with a table, and gives the data they brought.
    pub fn compare(&self, stdout: &str, table: &[(&str, &str)]) -> Result<Vec<Value>, Trouble> {
        let lines: Vec<Value> = stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        check!(lines.len() == table.len(), "{} answers to {} questions: {stdout}", lines.len(), table.len());
        for (line, (op, want)) in lines.iter().zip(table) {
            let got = line["errno"].as_str().unwrap_or_default();
            check!(want.split('|').any(|one| one == got), "`{op}` gave {got}, not {want}");
        }
        Ok(lines.into_iter().map(|mut line| line["data"].take()).collect())
    }

    /// The container's `state`.
    pub fn state(&self, bundle: &Bundle) -> Result<Value, Trouble> {
        self.cli(&format!("state {}", bundle.id))?.ok()?.json()
    }

    /// The container must have this status.
    pub fn has_status(&self, bundle: &Bundle, want: &str) -> Verdict {
        let got = self.state(bundle)?;
        check!(got["status"] == want, "status is {}, not {want}", got["status"]);
        Ok(())
    }

    /// The container must come to have this status.
    pub fn await_status(&self, bundle: &Bundle, want: &str) -> Verdict {
        self.until(
            || format!("status {want}"),
            || {
                self.reap();
                Ok((self.state(bundle)?["status"] == want).then_some(()))
            },
        )
    }

    /// The container must come to be stopped, or be no more.
    pub fn await_status_or_gone(&self, bundle: &Bundle) -> Verdict {
        self.until(
            || "the end of the container".into(),
            || {
                self.reap();
                let done = self.cli(&format!("state {}", bundle.id))?;
                Ok((done.code != 0 || done.json()?["status"] == "stopped").then_some(()))
            },
        )
    }

    /// The host's pid of the container's first process.
    pub fn pid(&self, bundle: &Bundle) -> Result<i32, Trouble> {
        let pid = self.state(bundle)?["pid"].as_i64().unwrap_or(0) as i32;
        check!(pid > 0, "state tells no pid");
        Ok(pid)
    }

    /// The exit code of an orphan of the runtime, as a shim or conmon would get it: a signal counts 128 more.
    pub fn exit_code(&self, pid: i32) -> Result<i32, Trouble> {
        self.until(
            || format!("the end of process {pid}"),
            || {
                self.reap();
                Ok(self.ended.borrow().get(&pid).copied())
            },
        )
    }

    /// Waits for the orphans of the runtime that have ended, as whoever starts a runtime must.
    pub fn reap(&self) {
        let own = self.own.borrow();
        self.ended.borrow_mut().extend(reap_orphans(|pid| own.contains(&pid)));
    }

    /// Asks again and again until there is an answer; fails after half the case's time.
    pub fn until<T>(
        &self,
        what: impl Fn() -> String,
        mut ask: impl FnMut() -> Result<Option<T>, Trouble>,
    ) -> Result<T, Trouble> {
        let begin = Instant::now();
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            let waited = begin.elapsed();
            check!(waited.as_secs_f64() < self.host.patience / 2.0, "waited in vain for {}", what());
            std::thread::sleep(Duration::from_millis(if waited.as_millis() < 50 { 1 } else { 10 }));
        }
    }

    /// The host as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.host, &self.place)
    }

    /// The host must be as it was, at once but for what the kernel finishes by itself.
    pub fn unchanged_since(&self, before: &Snapshot) -> Verdict {
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            self.reap();
            let left = before.differences(&self.snapshot());
            if left.is_empty() {
                return Ok(());
            }
            check!(Instant::now() < end, "not as before: {}", left.join("; "));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        self.at_end.take().into_iter().rev().for_each(|undo| undo());
    }
}

/// Waits for children that have ended and are not the case's own: their pids and exit codes.
pub fn reap_orphans(is_own: impl Fn(i32) -> bool) -> Vec<(i32, i32)> {
    // The kernel is asked first whether anybody has ended: looking at all processes costs some 200 system calls, and whoever waits
    // asks often. (EINVAL is an end by a signal that nix has no name for.)
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    if matches!(waitid(Id::All, look), Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD)) {
        return Vec::new();
    }
    let this = std::process::id() as i32;
    let ended = all_processes().into_iter().filter(|p| p.zombie && p.parent == this && !is_own(p.pid));
    ended.filter_map(|process| Some((process.pid, sys::reaped(process.pid)?))).collect()
}

/// Where the output of a detached container goes.
pub struct Log(PathBuf);

impl Log {
    /// Nobody will look at it any more.
    pub fn forget(self) {
        for kind in ["out", "err"] {
            fs::remove_file(self.0.with_extension(kind)).ok();
        }
    }

    /// What is there by now.
    pub fn text(&self) -> String {
        fs::read_to_string(self.0.with_extension("out")).unwrap_or_default()
    }

    /// Waits for this many lines, and gives them all.
    pub fn lines(&self, test: &Test, count: usize) -> Result<Vec<String>, Trouble> {
        test.until(
            || format!("{count} lines of output, there is {:?}", self.text()),
            || {
                let text = self.text();
                let complete = text.matches('\n').count() >= count;
                Ok(complete.then(|| text.lines().map(str::to_owned).collect()))
            },
        )
    }

    /// Waits for a report among the output.
    pub fn report(&self, test: &Test) -> Result<Report, Trouble> {
        self.lines(test, 1).and_then(|lines| Report::read(&lines.join("\n")))
    }
}
