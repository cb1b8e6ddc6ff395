// SPDX-License-Identifier: Apache-2.0
//! Performs a plan on one shim, and says what a client and containerd were told.
//!
//! Nothing that is told may depend on who was faster: before a step the process is asked for its state, which names the step,
//! and after one that ends something the end is waited for.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::model::{Manner, Step};
use super::plan::Plan;
use crate::harness::bundle::Bundle;
use crate::harness::case::Trouble;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::fifo::Streams;
use crate::shim::task::{CREATED, Io, PAUSED, RUNNING, STOPPED, Task};
use crate::shim::ttrpc::{Answer, CLOSED, Client, NOT_FOUND, Pending, SILENT, request};
use crate::shim::wire::{Fields, Message};

/// How long an answer, or an end that must come, may take at most.
pub const PATIENCE: f64 = 30.0;

/// A container of a performance.
pub struct Container {
    pub bundle: Bundle,
    pub task: Option<Task>,
    pub streams: Option<Streams>,
    /// Those of earlier Creates: their readers read on.
    pub all_streams: Vec<Streams>,
    /// Somebody hung up in the midst of a change: nobody can say what came of it.
    pub unsure: bool,
    /// By exec id, empty for the first process: the pids that were told.
    pub pids: BTreeMap<String, u64>,
    /// Processes whose start was successful.
    pub started: BTreeSet<String>,
    /// What the execs run.
    pub programs: BTreeMap<String, String>,
    /// What will end when the container is resumed.
    pub doomed: Vec<String>,
}

/// A performance.
pub struct Stage<'a> {
    pub d: &'a Daemon<'a>,
    pub plan: &'a Plan,
    pub options: Message,
    pub containers: BTreeMap<String, Container>,
    pub waits: Vec<(String, Pending)>,
    pub seen: Vec<Value>,
}

/// What was seen, a value for each step and some for the end.
pub fn perform(t: &Test, plan: &Plan) -> Result<Vec<Value>, Trouble> {
    let d = Daemon::new(t)?;
    let mut options = d.options();
    if plan.behind {
        let runc = t.host.runc.as_ref().ok_or_else(|| Trouble::NotRun("no --runc".to_owned()))?;
        options = options.text(6, &runc.to_string_lossy());
    }
    let mut stage =
        Stage { d: &d, plan, options, containers: BTreeMap::new(), waits: Vec::new(), seen: Vec::new() };
    for name in ["a", "b", "z"] {
        let container = stage.container(name)?;
        stage.containers.insert(name.to_owned(), container);
    }
    stage.connect("a")?;
    for text in &plan.steps {
        stage.step(&Step::read(text)?)?;
    }
    stage.end()?;
    Ok(stage.seen)
}

fn status_name(status: u64) -> &'static str {
    match status {
        CREATED => "created",
        RUNNING => "running",
        STOPPED => "stopped",
        PAUSED => "paused",
        _ => "unknown",
    }
}

/// The code of an answer, 0 for success.
pub fn code(answer: &Answer) -> u64 {
    answer.as_ref().err().map_or(0, |failure| failure.code)
}

impl Stage<'_> {
    fn container(&self, name: &str) -> Result<Container, Trouble> {
        let id = format!("{}-{name}", self.d.t.place.mark);
        let words = if self.plan.init.is_empty() { "forever" } else { &self.plan.init };
        let mut bundle = self.d.bundle_named(&id, words)?;
        if words == "missing" {
            bundle = bundle.args(&["/no/such/program"]);
        }
        if name == "b" {
            let group = json!(format!("{}-a", self.d.t.place.mark));
            bundle = bundle.set("/annotations/io.kubernetes.cri.sandbox-id", group);
        }
        if self.plan.io == "terminal" {
            bundle = bundle.set("/process/terminal", json!(true));
        }
        bundle.write()?;
        Ok(Container {
            bundle,
            task: None,
            streams: None,
            all_streams: Vec::new(),
            unsure: false,
            pids: BTreeMap::new(),
            started: BTreeSet::new(),
            programs: BTreeMap::new(),
            doomed: Vec::new(),
        })
    }

    /// `start` of the container's shim, as containerd calls it before Create.
    pub fn connect(&mut self, name: &str) -> Result<Task, Trouble> {
        let held = self.containers.get(name).and_then(|container| container.task.clone());
        if let Some(task) = held.filter(|task| task.shim.client.is_open()) {
            return Ok(task);
        }
        let container = self.containers.get_mut(name).ok_or("no such container")?;
        // One that is about to end may still have answered.
        let mut tries = 0;
        let shim = loop {
            match self.d.shim(&container.bundle) {
                Ok(shim) => break shim,
                Err(trouble) if tries > 20 => return Err(trouble),
                Err(_) => tries += 1,
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let task = Task::new(shim, &container.bundle.id);
        container.task = Some(task.clone());
        Ok(task)
    }

    fn task(&mut self, name: &str) -> Result<Task, Trouble> {
        if name == "z" {
            let first = self.connect("a")?;
            let id = self.containers.get(name).map(|c| c.bundle.id.clone()).unwrap_or_default();
            return Ok(Task::new(first.shim, &id));
        }
        self.connect(name)
    }

    fn step(&mut self, step: &Step) -> Result<(), Trouble> {
        let unsure = self.containers.get(&step.container).is_none_or(|container| container.unsure);
        if unsure || (step.container == "z" && step.verb == "create") {
            return Ok(());
        }
        let task = self.task(&step.container)?;
        let before = self.status(&task, &step.process);
        let label = match step.process.is_empty() {
            true => format!("{} init {before}", step.verb),
            false => format!("{} exec {before} in {}", step.verb, self.status(&task, "")),
        };
        if step.verb == "create" {
            self.make_streams(&step.container)?;
        }
        let unready = step.verb == "kill" && before == "created" && step.process.is_empty();
        if unready && [10, 15, 64].contains(&step.signal()) {
            // What waits for its start is the runtime's: runc's, a Go program, dies of any signal, and Corten's does not.
            return Ok(());
        }
        let message = self.request(step, &task)?;
        let mut seen = json!({ "step": label, "before": before });
        match step.manner {
            Manner::Waits => self.ask(step, &task, &before, &message, &mut seen)?,
            manner => self.cut(step, &task, manner, &message, &mut seen)?,
        }
        self.seen.push(seen);
        Ok(())
    }

    /// New FIFOs for each Create, as containerd makes them.
    fn make_streams(&mut self, name: &str) -> Result<(), Trouble> {
        let number = self.seen.len();
        let streams = match self.plan.io.as_str() {
            "" => None,
            kind => Some(Streams::make(self.d.t, &format!("{name}{number}"), kind == "terminal")?),
        };
        let container = self.containers.get_mut(name).ok_or("no such container")?;
        // Those of a Create that fails belong to nobody; the container keeps its own.
        container.all_streams.extend(container.streams.take());
        container.streams = streams;
        Ok(())
    }

    fn request(&self, step: &Step, task: &Task) -> Result<Message, Trouble> {
        let container = self.containers.get(&step.container).ok_or("no such container")?;
        let io = match &container.streams {
            Some(streams) => streams.io.clone(),
            None => Io::null(),
        };
        Ok(step.request(self.d, task, &container.bundle, &io, &self.options))
    }

    /// The state of a process, in a word.
    fn status(&self, task: &Task, process: &str) -> String {
        match task.state(process) {
            Ok(state) => status_name(state.status).to_owned(),
            Err(failure) if failure.code == NOT_FOUND => "absent".to_owned(),
            Err(failure) => format!("code {}", failure.code),
        }
    }

    fn ask(
        &mut self,
        step: &Step,
        task: &Task,
        before: &str,
        message: &Message,
        seen: &mut Value,
    ) -> Result<(), Trouble> {
        let pending = task.shim.begin(step.method(), message);
        if step.verb == "wait" && ["created", "running", "paused"].contains(&before) {
            let whose = if step.process.is_empty() { "init" } else { "exec" };
            self.waits.push((format!("{whose} {before}"), pending));
            seen["code"] = json!(0);
            return Ok(());
        }
        let answer = pending.within(PATIENCE);
        seen["code"] = json!(match code(&answer) {
            // The Go shim ends before its answer is out.
            CLOSED if step.verb == "shutdown" => 0,
            code => code,
        });
        if step.verb == "shutdown" {
            // It ends, or it does not: both are seen by the next step, when enough time has passed.
            self.settle_shutdown(task);
        }
        if let Ok(answer) = answer {
            self.told(step, task, &answer, seen)?;
        }
        Ok(())
    }

    /// A shim that has no container is given the time to end.
    fn settle_shutdown(&self, task: &Task) {
        let any = self
            .containers
            .values()
            .any(|container| container.task.as_ref().is_some_and(|task| task.state("").is_ok()));
        let begin = Instant::now();
        while !any && task.shim.client.is_open() && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What a successful answer tells, and what follows from it.
    fn told(&mut self, step: &Step, task: &Task, answer: &Fields, seen: &mut Value) -> Result<(), Trouble> {
        match step.verb.as_str() {
            "create" | "start" => {
                let pid = answer.number(1);
                let container = self.containers.get_mut(&step.container).ok_or("no such container")?;
                seen["pid"] = json!(pid != 0);
                container.pids.insert(step.process.clone(), pid);
                if step.verb == "start" {
                    container.started.insert(step.process.clone());
                    let program = container.programs.get(&step.process).map_or("", String::as_str);
                    let stays = match step.process.is_empty() {
                        true => self.plan.init.is_empty() || self.plan.init.ends_with("forever"),
                        false => program == "stays" || program == "terminal",
                    };
                    program_runs(pid, stays);
                    self.follow(step, task)?;
                } else {
                    container.started.clear();
                }
            }
            "exec" => {
                let container = self.containers.get_mut(&step.container).ok_or("no such container")?;
                container.programs.insert(step.process.clone(), step.program().to_owned());
            }
            "kill" | "resume" => self.follow(step, task)?,
            "delete" => {
                seen["pid"] = json!(self.known(step, answer.number(1)));
                seen["status"] = json!(answer.number(2));
                seen["ended"] = json!(answer.time(3)? > 0.0);
                let container = self.containers.get_mut(&step.container).ok_or("no such container")?;
                container.started.remove(&step.process);
            }
            "state" => self.state(step, task, answer, seen)?,
            "wait" => {
                seen["status"] = json!(answer.number(1));
                seen["ended"] = json!(answer.time(2)? > 0.0);
            }
            "pids" => seen["list"] = json!(pids(answer)?),
            "stats" => {
                let any = answer.message(1)?;
                seen["type"] = json!(any.text(1));
                let metrics = any.message(2)?;
                seen["fields"] = json!((1..20).filter(|field| metrics.has(*field)).collect::<Vec<_>>());
            }
            "connect" => {
                seen["shim"] = json!(answer.number(1) != 0);
                seen["pid"] = json!(self.known(step, answer.number(2)));
            }
            _ => {}
        }
        Ok(())
    }

    /// What State says.
    fn state(&self, step: &Step, task: &Task, answer: &Fields, seen: &mut Value) -> Result<(), Trouble> {
        seen["pid"] = json!(self.known(step, answer.number(3)));
        seen["status"] = json!(status_name(answer.number(4)));
        seen["terminal"] = json!(answer.number(8) == 1);
        seen["streams"] = json!([5, 6, 7].map(|field| !answer.text(field).is_empty()));
        seen["exit"] = json!(answer.number(9));
        seen["ended"] = json!(answer.time(10)? > 0.0);
        seen["id"] = json!(answer.text(1) == task.id);
        seen["exec"] = json!(answer.text(11));
        Ok(())
    }

    /// Whose pid it is, by what was told before.
    fn known(&self, step: &Step, pid: u64) -> String {
        let container = &self.containers[&step.container];
        let name = container.pids.iter().find(|(_, told)| **told == pid).map(|(name, _)| name.as_str());
        match name {
            _ if pid == 0 => "0".to_owned(),
            Some("") => "init's".to_owned(),
            Some(name) => name.to_owned(),
            None => "another".to_owned(),
        }
    }

    /// The processes that a successful start or kill ends.
    fn ends(&self, step: &Step) -> Vec<String> {
        let container = &self.containers[&step.container];
        let execs = || container.started.iter().filter(|name| !name.is_empty()).cloned();
        let (init, signal) = (step.process.is_empty(), step.signal());
        if step.verb == "start" {
            let program = container.programs.get(&step.process).map_or("", String::as_str);
            // Without input `echo` has nothing to wait for.
            let short = self.plan.init.starts_with("exit")
                || self.plan.init.starts_with("echo") && self.plan.io.is_empty();
            let runs_out = if init { short } else { program == "exits" };
            return if runs_out { vec![step.process.clone()] } else { Vec::new() };
        }
        // The probe that stays ends by what it waits for; else the first process of a pid namespace ignores signals.
        let waits = self.plan.init.is_empty() || self.plan.init.ends_with("forever");
        let init_ends = init && (signal == 9 || waits && [10, 15].contains(&signal));
        if init_ends {
            return std::iter::once(String::new()).chain(execs()).collect();
        }
        let ends = [9, 10, 15, 64].contains(&signal);
        execs().filter(|name| ends && (*name == step.process || (init && step.all()))).collect()
    }

    /// After a successful start, kill or resume: waits for the ends that come of it. A frozen process ends when it is resumed.
    fn follow(&mut self, step: &Step, task: &Task) -> Result<(), Trouble> {
        let mut ends = if step.verb == "resume" { Vec::new() } else { self.ends(step) };
        let frozen = step.verb == "kill" && step.signal() != 9 && self.status(task, "") == "paused";
        let container = self.containers.get_mut(&step.container).ok_or("no such container")?;
        if frozen {
            container.doomed.append(&mut ends);
            return Ok(());
        }
        ends.append(&mut container.doomed);
        for process in ends {
            // An end that does not come is a difference, too: the next step sees it.
            let begin = Instant::now();
            while begin.elapsed().as_secs_f64() < PATIENCE / 3.0 {
                let status = self.status(task, &process);
                if status == "stopped" || status == "absent" || status.starts_with("code") {
                    break;
                }
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        Ok(())
    }

    /// A request whose client does not wait for the answer.
    fn cut(
        &mut self,
        step: &Step,
        task: &Task,
        manner: Manner,
        message: &Message,
        seen: &mut Value,
    ) -> Result<(), Trouble> {
        seen["step"] = json!(format!("cut {}", step.verb));
        seen["code"] = json!(0);
        if let Some(fields) = seen.as_object_mut() {
            fields.remove("before");
        }
        let client = Client::connect(&task.shim.address)?;
        let bytes = request(&task.shim.service(), step.method(), message);
        match manner {
            Manner::HangsUp(after) => {
                let pending = client.begin_bytes(step.method(), &bytes.0);
                std::thread::sleep(after);
                drop(pending);
                drop(client);
            }
            Manner::Limits(after) => {
                let nanos = (after.as_nanos() as u64).max(1);
                let pending = client.begin_bytes(step.method(), &bytes.number(4, nanos).0);
                if code(&pending.within(PATIENCE)) == SILENT {
                    seen["answer"] = json!("none");
                }
            }
            Manner::Waits => {}
        }
        if !step.only_looks() {
            let container = self.containers.get_mut(&step.container).ok_or("no such container")?;
            container.unsure = true;
        }
        Ok(())
    }
}

/// What Pids says: the exec ids, sorted.
fn pids(answer: &Fields) -> Result<Vec<String>, Trouble> {
    let one = |one| {
        let info = Fields::read(one)?;
        let named = info.message(2)?.message(2)?.text(1);
        Ok(format!("{}{named}", if info.number(1) == 0 { "0 " } else { "" }))
    };
    let mut list = answer.all(1).map(one).collect::<Result<Vec<_>, Trouble>>()?;
    list.sort();
    Ok(list)
}

/// Waits until a process is the container's program: until then a signal meets the runtime's own code. One that stays is ready
/// when it has blocked SIGTERM, which it waits for.
fn program_runs(pid: u64, stays: bool) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"));
        let blocked = blocked.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
        let ready = words.starts_with(b"/probe") && (!stays || blocked & (1 << 14) != 0);
        if words.is_empty() || ready {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
