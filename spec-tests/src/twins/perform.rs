// SPDX-License-Identifier: Apache-2.0
//! Performs a plan on one runtime, and tells what was seen: one object per step, in order, then what is left.
//!
//! Steps of the harness: `:report` waits for what the first process says, `:stopped` for its end, `:end` kills it behind the
//! runtime's back, `:look` reads what the kernel holds of it, `:reload` makes systemd read everything anew.

#![forbid(unsafe_code)]

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};

use super::normal::Normal;
use super::plan::{Plan, Step, Stream};
use super::{look, streams, things};
use crate::harness::bundle::Bundle;
use crate::harness::case::Trouble;
use crate::harness::done::Done;
use crate::harness::test::{Log, Test};
use crate::sys;

/// What stands under this key is shown and not compared.
pub const SHOWN_ONLY: &str = "(stderr)";

/// A performance under way.
struct Stage<'a> {
    t: &'a Test,
    plan: &'a Plan,
    /// `@` and `@2`.
    bundles: [Bundle; 2],
    /// Where the output of each container goes, once it is created.
    logs: [Option<Log>; 2],
    normal: Normal,
    seen: Vec<Value>,
    /// What has happened that values of groups must be told apart by.
    since: &'static str,
}

/// Follows `values` once an update has failed: what is left then says whether an update is all or nothing.
const FAILED: &str = " after a failed update";
/// Follows `values` once systemd has written its own.
const RELOADED: &str = " after a reload";

/// Performs `plan`; what was seen, with everything that must differ made equal.
pub fn perform(t: &Test, plan: &Plan) -> Result<Vec<Value>, Trouble> {
    let first = bundle(t, plan)?;
    let second = if plan.has_second() { bundle(t, plan)? } else { nothing(t) };
    let bundles = [first, second];
    let mut stage = Stage {
        t,
        plan,
        normal: Normal::new(t, &bundles),
        bundles,
        logs: [None, None],
        seen: Vec::new(),
        since: "",
    };
    let one_run = ["run @".into()];
    let steps = if plan.steps.is_empty() { &one_run[..] } else { &plan.steps };
    for step in steps {
        let seen = stage.step(step)?;
        stage.since = match (step.verb(), seen["code"] == 0) {
            ("update", false) => FAILED,
            (":reload", _) if stage.since.is_empty() => RELOADED,
            _ => stage.since,
        };
        stage.see(step.verb(), seen);
    }
    let left = stage.left();
    stage.see("left", left);
    Ok(stage.seen)
}

/// The bundle of a plan, with everything made that it needs.
fn bundle(t: &Test, plan: &Plan) -> Result<Bundle, Trouble> {
    let mut bundle = t.bundle()?;
    bundle = bundle.probe(&words_of_first(plan));
    if plan.caller.stdout == Stream::Closed {
        bundle = bundle.writable();
    }
    for thing in &plan.things {
        things::make(t, &bundle, thing)?;
    }
    bundle.config = configuration(bundle.config.clone(), &plan.config, &|text| fill(t, &bundle, text));
    bundle.write()?;
    Ok(bundle)
}

/// In place of a bundle that no step speaks of.
fn nothing(t: &Test) -> Bundle {
    Bundle { id: format!("{}-none", t.place.mark), dir: t.path("bundle-none"), config: Value::Null }
}

/// A text of the plan with this performance's names.
pub fn fill(t: &Test, bundle: &Bundle, text: &str) -> String {
    let text = text.replace("$DIR", &bundle.dir.to_string_lossy());
    text.replace("$ID", &bundle.id).replace("$MARK", &t.place.mark)
}

/// Edits a configuration; `fill` is what strings become.
pub fn configuration(base: Value, edits: &[(String, Value)], fill: &dyn Fn(&str) -> String) -> Value {
    let mut bundle = Bundle { id: String::new(), dir: Default::default(), config: base };
    for (pointer, value) in edits {
        bundle = match value {
            Value::Null => bundle.remove(pointer),
            value => bundle.set(pointer, filled(value, fill)),
        };
    }
    bundle.config
}

fn filled(value: &Value, fill: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => fill(text).into(),
        Value::Array(list) => list.iter().map(|one| filled(one, fill)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, one)| (key.clone(), filled(one, fill))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// What the first process does: it reports and tries, and stays where commands follow.
fn words_of_first(plan: &Plan) -> String {
    let stays = plan
        .steps
        .iter()
        .any(|step| matches!(step, Step::Words(words) if is_lasting(words) || words.starts_with("start ")));
    format!("{}{}", words_of_report(plan), if stays { " -- forever" } else { "" })
}

fn words_of_report(plan: &Plan) -> String {
    if plan.caller.stdout == Stream::Closed {
        return "report-to /tmp/report".to_owned();
    }
    let tries = plan.tries.iter().map(|op| format!(" -- try {op}"));
    format!("report{}", tries.collect::<String>())
}

impl Stage<'_> {
    fn see(&mut self, verb: &str, seen: Value) {
        let mut one = json!({ "step": verb.trim_start_matches(':') });
        if let (Some(one), Value::Object(seen)) = (one.as_object_mut(), seen) {
            one.extend(seen);
        }
        self.seen.push(one);
    }

    fn step(&mut self, step: &Step) -> Result<Value, Trouble> {
        match step {
            Step::Words(words) if words.starts_with(':') => self.harness_step(words),
            Step::Words(words) => self.runtime_step(words),
            Step::Exec { exec } => {
                let mut base = self.bundles[0].config["process"].clone();
                base["args"] =
                    json!(format!("/probe {}", words_of_report(self.plan)).split(' ').collect::<Vec<_>>());
                let process = configuration(base, exec, &|text| text.to_owned());
                let file = self.file("process.json", &process)?;
                self.runtime_step(&format!("exec --process {file} @"))
            }
            Step::Update { update } => {
                let file = self.file("resources.json", update)?;
                self.runtime_step(&format!("update --resources {file} @"))
            }
        }
    }

    fn file(&self, name: &str, content: &Value) -> Result<String, Trouble> {
        let file = self.t.file(name);
        fs::write(&file, serde_json::to_string(content)?)?;
        Ok(file)
    }

    /// Performs one command of the runtime's.
    fn runtime_step(&mut self, words: &str) -> Result<Value, Trouble> {
        let which = usize::from(words.contains("@2"));
        let words = if words == "exec @" {
            format!("exec @ /probe {}", words_of_report(self.plan))
        } else {
            words.to_owned()
        };
        let bundle = &self.bundles[which];
        let mut command = self.runtime(which);
        let mut all = words.split_whitespace();
        let verb = all.next().unwrap_or_default();
        command.arg(verb);
        if matches!(verb, "create" | "run") {
            command.arg("--bundle").arg(&bundle.dir).arg("--pid-file").arg(bundle.dir.join("pid"));
        }
        command.args(all.map(|word| match word {
            "@" | "@2" => bundle.id.as_str(),
            other => other,
        }));
        let (done, log) = self.call(command)?;
        let stays = matches!(verb, "create" | "run") && is_lasting(&words);
        if stays && self.logs[which].is_none() {
            self.logs[which] = Some(log);
        }
        // What a container says that stays is `:report`'s to tell.
        let mut seen = self.outcome(if is_lasting(&words) { "create" } else { verb }, &done);
        if is_lasting(&words) && !matches!(self.plan.caller.stderr, Stream::Plain | Stream::Closed) {
            // The container holds the other end, so that nobody knows when all has come through.
            seen.as_object_mut().map(|seen| seen.remove("complains"));
        }
        Ok(seen)
    }

    /// The runtime with the state root of that container.
    fn runtime(&self, which: usize) -> Command {
        let mut command = self.t.runtime();
        if which == 1 && self.plan.second_root {
            command = Command::new(&self.t.host.runtime);
            command.arg("--root").arg(self.t.path("root2")).env("SPEC_TESTS", &self.t.place.mark);
        }
        command.args(&self.plan.globals);
        command
    }

    /// Calls the runtime as the plan's caller does.
    fn call(&self, mut command: Command) -> Result<(Option<Done>, Log), Trouble> {
        let caller = &self.plan.caller;
        let out = self.t.new_output();
        let lasting = command.get_args().any(|word| is_lasting(&word.to_string_lossy()));
        let readers = streams::attach(&mut command, caller, &out)?;
        sys::with_attributes(&mut command, streams::attributes(caller));
        let running = self.t.spawn_as_it_is(command, out.clone())?;
        let log = running.log();
        let mut done = self.t.finish(running).ok();
        if !lasting {
            readers.finish();
        }
        if let Some(done) = &mut done {
            // What went through pipes and terminals is there only now.
            done.stdout = log.text();
            done.stderr = fs::read_to_string(out.with_extension("err")).unwrap_or_default();
        }
        Ok((done, log))
    }

    /// What a command's end tells. One that does not end has no code.
    fn outcome(&mut self, verb: &str, done: &Option<Done>) -> Value {
        let Some(done) = done else { return json!({ "code": "hangs" }) };
        let mut seen = json!({ "code": done.code, "complains": !done.errors().is_empty() });
        if done.code != 0 {
            // For people: what is said differs by nature.
            seen[SHOWN_ONLY] = json!(done.stderr);
        }
        if matches!(verb, "run" | "exec") {
            let file = self.bundles[0].rootfs("tmp/report");
            let written = fs::read_to_string(&file).unwrap_or_default();
            fs::remove_file(file).ok();
            self.told(&format!("{}{written}", done.stdout), &mut seen);
        } else if verb == "state" {
            seen["state"] = self.normal.state(&done.stdout);
        } else if verb == "ps" {
            seen["lines"] = json!(done.stdout.lines().count());
        } else if !done.stdout.is_empty() && verb != "create" {
            seen["out"] = json!(self.normal.text(&done.stdout));
        }
        seen
    }

    /// What probes said, and whatever else came out.
    fn told(&mut self, text: &str, seen: &mut Value) {
        let mut rest = String::new();
        let mut tries = Map::new();
        for line in text.split_inclusive('\n') {
            match serde_json::from_str::<Value>(line.trim_end()) {
                Ok(Value::Object(try_)) if try_.contains_key("op") => {
                    let op = self.normal.text(try_["op"].as_str().unwrap_or_default());
                    let mut answer = try_["errno"].clone();
                    if !try_["data"].is_null() {
                        answer = json!([answer, self.normal.value(&try_["data"])]);
                    }
                    tries.insert(op, answer);
                }
                Ok(Value::Object(report)) if report.contains_key("argv") => {
                    seen["report"] = self.normal.report(report.into())
                }
                _ => rest += line,
            }
        }
        if !tries.is_empty() {
            seen["try"] = tries.into();
        }
        if !rest.is_empty() {
            seen["out"] = json!(self.normal.text(&rest));
        }
    }

    fn harness_step(&mut self, words: &str) -> Result<Value, Trouble> {
        match words {
            ":report" => self.await_report(),
            ":stopped" => Ok(json!({ "ended": self.await_end(0) })),
            ":end" => {
                if let Some(pid) = self.pid(0) {
                    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
                }
                Ok(json!({ "ended": self.await_end(0) }))
            }
            ":hooks" => Ok(self.hooks()),
            ":look" => {
                let Some(pid) = self.pid(0) else { return Ok(json!({})) };
                let mut seen = self.normal.value(&look::at(&self.t.host, &self.t.place.mark, pid));
                if let Some(seen) = seen.as_object_mut()
                    && let Some(values) = seen.remove("values")
                {
                    seen.insert(format!("values{}", self.since), values);
                }
                Ok(seen)
            }
            ":reload" => {
                let done = Command::new("systemctl").arg("daemon-reload").stdin(Stdio::null()).status();
                Ok(json!({ "code": done.ok().and_then(|status| status.code()) }))
            }
            _ => Err(format!("no such step: {words}").into()),
        }
    }

    /// What hooks have written down, by kind; the second of a kind is `KIND 2`.
    fn hooks(&self) -> Value {
        let text = fs::read_to_string(self.bundles[0].dir.join("host/log/hooks")).unwrap_or_default();
        let mut all = Map::new();
        for told in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let kind = told["kind"].as_str().unwrap_or_default();
            let count = all.keys().filter(|name| name.split(' ').next() == Some(kind)).count();
            let name = if count == 0 { kind.to_owned() } else { format!("{kind} {}", count + 1) };
            all.insert(name, self.normal.hook(&told));
        }
        all.into()
    }

    /// The pid of a container's first process, as the pid file says, if it lives.
    fn pid(&self, which: usize) -> Option<i32> {
        let text = fs::read_to_string(self.bundles[which].dir.join("pid")).ok()?;
        let pid = text.trim().parse().ok()?;
        is_alive(pid).then_some(pid)
    }

    fn await_report(&mut self) -> Result<Value, Trouble> {
        let mut seen = json!({});
        let file = self.bundles[0].rootfs("tmp/report");
        let want = if self.plan.caller.stdout == Stream::Closed { 0 } else { 1 + self.plan.tries.len() };
        let mut text = String::new();
        let waited = self.t.until(
            || "the first process's report".to_owned(),
            || {
                let alive = self.pid(0).is_some();
                text = self.logs[0].as_ref().map(Log::text).unwrap_or_default();
                let there = match want {
                    0 => fs::read_to_string(&file)
                        .is_ok_and(|text| serde_json::from_str::<Value>(&text).is_ok()),
                    want => {
                        text.lines().filter(|line| line.starts_with('{')).count() >= want
                            && text.ends_with('\n')
                    }
                };
                Ok((there || !alive).then_some(()))
            },
        );
        if waited.is_err() {
            seen["hangs"] = json!(true);
        }
        text += &fs::read_to_string(&file).unwrap_or_default();
        self.told(&text, &mut seen);
        Ok(seen)
    }

    fn await_end(&self, which: usize) -> bool {
        let ended = self.t.until(
            || "the end of the first process".to_owned(),
            || {
                self.t.reap();
                Ok(self.pid(which).is_none().then_some(()))
            },
        );
        ended.is_ok()
    }

    /// What is there after the last command, before anything is removed.
    fn left(&mut self) -> Value {
        self.t.reap();
        let ids = [self.t.place.root.clone(), self.t.path("root2")].into_iter();
        let ids = ids.flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
        let mut ids: Vec<_> = ids.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        // What crun keeps for all its containers.
        ids.retain(|id| !id.starts_with('.'));
        ids.sort();
        let mut seen = json!({
            "containers": ids.iter().map(|id| self.normal.text(id)).collect::<Vec<_>>(),
            "alive": [self.pid(0).is_some(), self.pid(1).is_some()],
            "groups": look::groups(&self.t.host, &self.t.place.mark).iter().map(|path| self.normal.text(path)).collect::<Vec<_>>(),
        });
        for which in [0, 1] {
            if ids.contains(&self.bundles[which].id) {
                let mut command = self.runtime(which);
                command.args(["delete", "--force", &self.bundles[which].id]);
                let done = self.t.complete(command);
                seen[format!("delete{}", which + 1)] = json!(done.map_or(-1, |done| done.code));
            }
        }
        seen
    }
}

/// Whether something stays that holds the streams.
fn is_lasting(words: &str) -> bool {
    words.split(' ').any(|word| matches!(word, "create" | "--detach"))
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
