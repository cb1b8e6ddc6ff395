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
use super::told::{catches, status_name};
use crate::harness::bundle::Bundle;
use crate::harness::case::Trouble;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::fifo::Streams;
use crate::shim::task::{Io, Task};
use crate::shim::ttrpc::{Answer, CLOSED, Client, NOT_FOUND, Pending, SILENT, request};
use crate::shim::wire::Message;

/// How long an answer, or an end that must come, may take at most.
pub const PATIENCE: f64 = 30.0;

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

pub struct Stage<'a> {
    pub d: &'a Daemon<'a>,
    pub plan: &'a Plan,
    pub options: Message,
    pub containers: BTreeMap<String, Container>,
    pub waits: Vec<(String, Pending)>,
    pub seen: Vec<Value>,
    /// How many events have been looked at.
    pub heard: usize,
    /// Processes whose end the step has seen, by container and exec id.
    pub ended: Vec<(String, String)>,
    /// Whether the first process had a handler for the signal that it is about to get.
    pub caught: bool,
}

/// What was seen, a value for each step and some for the end.
pub fn perform(t: &Test, plan: &Plan) -> Result<Vec<Value>, Trouble> {
    let d = Daemon::new(t)?;
    let mut options = d.options();
    if plan.behind {
        let runc = t.host.runc.as_ref().ok_or_else(|| Trouble::NotRun("no --runc".to_owned()))?;
        options = options.text(6, &runc.to_string_lossy());
    }
    let mut stage = Stage {
        d: &d,
        plan,
        options,
        containers: BTreeMap::new(),
        waits: Vec::new(),
        seen: Vec::new(),
        heard: 0,
        ended: Vec::new(),
        caught: false,
    };
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
        let message = self.request(step, &task)?;
        let mut seen = json!({ "step": label, "before": before });
        match step.manner {
            Manner::Waits => self.ask(step, &task, &before, &message, &mut seen)?,
            manner => self.cut(step, &task, manner, &message, &mut seen)?,
        }
        if seen["code"] == 0 && step.manner == Manner::Waits {
            let expected = self.makes(step, &before);
            seen["events"] = self.heard(&expected);
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
    pub fn status(&self, task: &Task, process: &str) -> String {
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
        let init = self.containers.get(&step.container).and_then(|c| c.pids.get("").copied());
        self.caught = step.verb == "kill" && catches(init.unwrap_or(0), step.signal());
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
            self.told(step, task, before, &answer, seen)?;
        }
        Ok(())
    }

    /// A shim that has no container is given the time to end.
    fn settle_shutdown(&self, task: &Task) {
        let any = self
            .containers
            .values()
            .any(|container| container.task.as_ref().is_some_and(|task| task.state("").is_ok()));
        // Each has a connection of its own to it.
        let tasks = || self.containers.values().filter_map(|container| container.task.as_ref());
        let open = || tasks().any(|one| one.shim.pid == task.shim.pid && one.shim.client.is_open());
        let begin = Instant::now();
        while !any && (task.shim.client.is_open() || open()) && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The processes that a successful start or kill ends.
    fn ends(&self, step: &Step, before: &str) -> Vec<String> {
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
        let init_ends = init && (signal == 9 || before != "created" && waits && [10, 15].contains(&signal));
        if init_ends {
            return std::iter::once(String::new()).chain(execs()).collect();
        }
        let ends = [9, 10, 15, 64].contains(&signal);
        execs().filter(|name| ends && (*name == step.process || (init && step.all()))).collect()
    }

    /// After a successful start, kill or resume: waits for the ends that come of it. A frozen process ends when it is resumed.
    pub fn follow(&mut self, step: &Step, task: &Task, before: &str) -> Result<(), Trouble> {
        let mut ends = if step.verb == "resume" { Vec::new() } else { self.ends(step, before) };
        let frozen = step.verb == "kill" && step.signal() != 9 && self.status(task, "") == "paused";
        let container = self.containers.get_mut(&step.container).ok_or("no such container")?;
        if frozen {
            container.doomed.append(&mut ends);
            return Ok(());
        }
        ends.append(&mut container.doomed);
        for process in ends {
            if self.ends_soon(task, &process) {
                self.ended.push((step.container.clone(), process));
            }
        }
        Ok(())
    }

    /// Whether a process's end is told in time. One that is not is a difference, too: the next step sees it.
    fn ends_soon(&self, task: &Task, process: &str) -> bool {
        self.ends_within(PATIENCE / 3.0, task, process)
    }

    fn ends_within(&self, seconds: f64, task: &Task, process: &str) -> bool {
        let begin = Instant::now();
        while begin.elapsed().as_secs_f64() < seconds {
            let status = self.status(task, process);
            if status == "stopped" {
                return true;
            }
            if status == "absent" || status.starts_with("code") {
                return false;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        false
    }

    /// SIGTERM to what waits for its start, which is the runtime's: a program that catches it may end, and from there on there is no
    /// common ground; the first process of a pid namespace that does not, never gets it (pid_namespaces(7)).
    pub fn ends_before_its_start(&mut self, step: &Step, task: &Task, seen: &mut Value) {
        if self.caught {
            self.ends_soon(task, "");
        }
        seen["after"] = json!(self.status(task, ""));
        if let Some(container) = self.containers.get_mut(&step.container) {
            container.unsure = true;
        }
    }

    /// Whether the process has a terminal whose input can end.
    pub fn has_terminal(&self, step: &Step) -> bool {
        let program = self.containers[&step.container].programs.get(&step.process);
        self.plan.io == "terminal"
            && (step.process.is_empty() || program.is_some_and(|program| program == "terminal"))
    }

    /// The input of a terminal has ended: a shim that hangs it up ends whatever SIGHUP ends, and from there on there is no common
    /// ground.
    pub fn after_the_last_input(&mut self, step: &Step, task: &Task, seen: &mut Value) {
        self.ends_within(PATIENCE / 10.0, task, &step.process);
        seen["after"] = json!(self.status(task, &step.process));
        if let Some(container) = self.containers.get_mut(&step.container) {
            container.unsure = true;
        }
    }

    /// The events that a successful step makes.
    fn makes(&mut self, step: &Step, before: &str) -> Vec<(&'static str, String, String)> {
        let id = |name: &str| self.containers.get(name).map(|c| c.bundle.id.clone()).unwrap_or_default();
        let (whose, init) = (id(&step.container), step.process.is_empty());
        let ended = std::mem::take(&mut self.ended);
        let mut made: Vec<_> =
            ended.iter().map(|(name, process)| ("exit", id(name), process.clone())).collect();
        let kinds: &[&str] = match step.verb.as_str() {
            "create" => &["create"],
            "start" if init => &["start"],
            "start" => &["exec-started"],
            "exec" => &["exec-added"],
            "pause" => &["paused"],
            "resume" => &["resumed"],
            "delete" if init && before == "created" => &["exit", "delete"],
            "delete" if init => &["delete"],
            _ => &[],
        };
        made.extend(kinds.iter().map(|kind| (*kind, whose.clone(), step.process.clone())));
        made
    }

    /// The paths of input and output that the container's processes were given.
    pub fn paths(&self, step: &Step) -> Vec<String> {
        let container = &self.containers[&step.container];
        let streams = container.streams.iter().chain(&container.all_streams);
        streams.flat_map(|s| [&s.io.stdin, &s.io.stdout, &s.io.stderr].map(Clone::clone)).collect()
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
                if code(&pending.within(PATIENCE / 3.0)) == SILENT {
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
