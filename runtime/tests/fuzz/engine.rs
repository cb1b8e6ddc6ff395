// SPDX-License-Identifier: Apache-2.0
//! The fuzzer: keeps inputs that reach something new, changes them, and watches what the target does with the result.
//!
//! A failure is a panic (of the library, or of a target that finds a promise broken), an execution of more than a
//! second, or one that holds more than 64 MiB and 32 bytes for each of its input. Failing inputs are written to `target/fuzz/failures/`. Environment:
//! `CORTEN_FUZZ` is how many executions of each target, `CORTEN_FUZZ_INPUT` a file to execute alone, and
//! `CORTEN_FUZZ_SAVE=1` writes the committed corpus anew. `make fuzz` sets them.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::json::Json;
use crate::mutate::{self, Shape, Words};
use crate::random::{Random, hash};
use crate::targets::Target;
use crate::{corpus, counters};

/// How long one execution may take. An unoptimised build is given the benefit of its slowness.
const SLOWEST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 4000 } else { 1000 });
/// How much one execution may hold, and how much more for each byte of its input: targets make things twice.
const LARGEST: usize = 64 << 20;
const LARGER: usize = 32;
/// One target stops after so many different failures.
const FAILURES: usize = 20;

struct Entry {
    input: Vec<u8>,
    json: Option<Rc<Json>>,
    /// What it reaches, without the counts.
    edges: Vec<u32>,
    accepted: bool,
}

struct Fuzzer<'a> {
    target: &'a Target,
    random: Random,
    words: Words,
    entries: Vec<Entry>,
    /// For each edge, a bit for each size of its counts so far.
    seen: Vec<u16>,
    inputs: HashSet<u64>,
    /// Longer inputs are not kept.
    longest: usize,
    /// By place and message.
    failures: BTreeMap<String, PathBuf>,
    executions: usize,
    accepted: usize,
    slowest: Duration,
    largest: usize,
}

/// Fuzzes one target as the environment says, and fails if anything failed.
pub fn fuzz(target: &Target) {
    silence_panics();
    let mut fuzzer = Fuzzer::new(target);
    if let Ok(path) = std::env::var("CORTEN_FUZZ_INPUT") {
        fuzzer.execute(&std::fs::read(path).unwrap());
    } else {
        let wanted = std::env::var("CORTEN_FUZZ").map_or(target.short, |n| n.parse().unwrap());
        fuzzer.run(wanted);
    }
    fuzzer.tell();
    if std::env::var_os("CORTEN_FUZZ_SAVE").is_some() {
        fuzzer.save();
    }
    let failures: Vec<String> =
        fuzzer.failures.iter().map(|(what, input)| format!("{}: {what}", input.display())).collect();
    assert!(failures.is_empty(), "{} failures of {}:\n{}", failures.len(), target.name, failures.join("\n"));
}

impl<'a> Fuzzer<'a> {
    fn new(target: &'a Target) -> Self {
        Fuzzer {
            target,
            random: Random(hash(target.name.as_bytes())),
            words: Words::default(),
            entries: Vec::new(),
            seen: vec![0; counters::count()],
            inputs: HashSet::new(),
            longest: 0,
            failures: BTreeMap::new(),
            executions: 0,
            accepted: 0,
            slowest: Duration::ZERO,
            largest: 0,
        }
    }

    fn run(&mut self, wanted: usize) {
        let start = Instant::now();
        for seed in (self.target.seeds)().into_iter().chain(corpus::load(self.target.name)) {
            self.try_input(seed, true);
        }
        assert!(!self.entries.is_empty(), "{}: no seeds", self.target.name);
        let mut told = Instant::now();
        while self.executions < wanted && self.failures.len() < FAILURES {
            let input = self.next();
            self.try_input(input, false);
            if told.elapsed().as_secs() >= 60 {
                told = Instant::now();
                let rate = self.executions as f64 / start.elapsed().as_secs_f64();
                println!(
                    "{:10} … {} executions, {rate:.0} a second, {} edges",
                    self.target.name,
                    self.executions,
                    self.edges()
                );
            }
        }
    }

    /// An input made of a kept one: of the last ones more often.
    fn next(&mut self) -> Vec<u8> {
        let count = self.entries.len();
        let recent = if self.random.one_in(2) { (count / 4).max(1) } else { count };
        let mut pick = || count - 1 - self.random.below(recent);
        // Most changes of what was refused are refused for the same reason.
        let picked = [pick(), pick(), pick()];
        let mut accepted = picked.into_iter().filter(|at| self.entries[*at].accepted);
        // What is short is quick, and says as much: the long ones come by in their turn.
        let chosen = if self.random.one_in(4) {
            accepted.next()
        } else {
            accepted.min_by_key(|at| self.entries[*at].input.len())
        };
        let entry = &self.entries[chosen.unwrap_or(picked[0])];
        let other = &self.entries[self.random.below(count)].input;
        let mut input = entry.input.clone();
        let json = entry.json.as_deref();
        mutate::input(self.target.shape, &mut input, json, &self.words, other, &mut self.random);
        input
    }

    fn try_input(&mut self, input: Vec<u8>, seed: bool) {
        let before = self.accepted;
        self.execute(&input);
        let accepted = self.accepted > before;
        let (mut edges, mut new) = (Vec::new(), false);
        counters::reached(|edge, count| {
            edges.push(edge as u32);
            // 1, 2, 3, 4 to 7, 8 to 15 …: AFL's classes, near enough.
            let class = if count < 4 { u32::from(count) } else { 2 + count.ilog2() };
            new |= self.seen[edge] >> class & 1 == 0;
            self.seen[edge] |= 1 << class;
        });
        // Large inputs are executed, but what comes of them is slow.
        if !seed && (!new || input.len() > self.longest) || !self.inputs.insert(hash(&input)) {
            return;
        }
        if seed {
            self.longest = self.longest.max(input.len() + 1024);
        }
        let json = match self.target.shape {
            Shape::Json => input.get(1..).and_then(Json::read).map(Rc::new),
            Shape::Bytes(_) => None,
        };
        if let Some(json) = json.as_ref().filter(|_| seed) {
            self.words.learn(json);
        }
        self.entries.push(Entry { input, json, edges, accepted });
    }

    fn execute(&mut self, input: &[u8]) {
        self.executions += 1;
        let run = self.target.run;
        counters::clear();
        counters::start_counting();
        let start = counters::time();
        let result = catch_unwind(AssertUnwindSafe(|| run(input)));
        let (took, held) = (counters::time() - start, counters::most_held());
        self.slowest = self.slowest.max(took);
        self.largest = self.largest.max(held);
        match result {
            Err(_) => self.fail(PANIC.take(), input),
            Ok(_) if took > SLOWEST => {
                self.fail(format!("slow: {took:?} for {} bytes", input.len() >> 12 << 12), input)
            }
            Ok(_) if held > LARGEST + LARGER * input.len() => {
                self.fail(format!("large: {} MiB", held >> 20), input)
            }
            Ok(accepted) => self.accepted += usize::from(accepted),
        }
    }

    fn fail(&mut self, what: String, input: &[u8]) {
        // One for each place in the source.
        let place = what.split(": ").next().unwrap_or_default().to_owned();
        if self.failures.keys().any(|known| known.starts_with(&place)) {
            return;
        }
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../fuzz/failures");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{}-{:016x}", self.target.name, hash(input)));
        std::fs::write(&file, input).unwrap();
        self.failures.insert(what, file);
    }

    /// How many edges were reached.
    fn edges(&self) -> usize {
        self.seen.iter().filter(|classes| **classes != 0).count()
    }

    fn tell(&self) {
        let edges = match counters::count() {
            0 => "not instrumented".to_owned(),
            _ => format!("{} edges", self.edges()),
        };
        println!(
            "fuzz: {:9} {:8} executions, {:7} accepted, {edges}, {} inputs, slowest {:.1?}, largest {} KiB, {} failures",
            self.target.name,
            self.executions,
            self.accepted,
            self.entries.len(),
            self.slowest,
            self.largest >> 10,
            self.failures.len()
        );
        if let Ok(folder) = std::env::var("CORTEN_FUZZ_REACHED") {
            counters::write_places(&PathBuf::from(folder).join(self.target.name), &self.seen);
        }
    }

    /// The committed corpus: what the seeds do not reach, each input made shorter.
    fn save(&mut self) {
        let mut known = HashSet::new();
        for seed in (self.target.seeds)() {
            self.execute(&seed);
            counters::reached(|edge, _| {
                known.insert(edge as u32);
            });
        }
        let entries: Vec<_> =
            self.entries.iter().map(|entry| (entry.input.clone(), entry.edges.clone())).collect();
        let mut chosen = Vec::new();
        for input in corpus::smallest_cover(entries, &known) {
            let input = self.shorten(input, &known);
            counters::reached(|edge, _| {
                known.insert(edge as u32);
            });
            chosen.push(input);
        }
        corpus::save(self.target.name, &chosen);
    }

    /// Takes away what is not needed for what the input alone reaches; the counters are its afterwards.
    fn shorten(&mut self, mut input: Vec<u8>, known: &HashSet<u32>) -> Vec<u8> {
        let mut wanted = HashSet::new();
        self.execute(&input);
        counters::reached(|edge, _| {
            if !known.contains(&(edge as u32)) {
                wanted.insert(edge);
            }
        });
        let structured = self.target.shape == Shape::Json;
        let mut keeps = |input: &[u8]| {
            self.execute(input);
            let mut found = 0;
            counters::reached(|edge, _| found += usize::from(wanted.contains(&edge)));
            found == wanted.len()
        };
        let mut json = input.get(1..).and_then(Json::read).filter(|_| structured);
        let written = |first: u8, json: &Json| {
            let mut out = vec![first];
            json.write(&mut out);
            out
        };
        if let Some(json) = &mut json {
            let first = input[0];
            without(json, &mut |json| keeps(&written(first, json)));
            input = written(first, json);
        } else {
            for size in [64, 16, 4, 1] {
                let mut at = 0;
                while at + size <= input.len() {
                    let shorter = [&input[..at], &input[at + size..]].concat();
                    if keeps(&shorter) { input = shorter } else { at += size }
                }
            }
        }
        keeps(&input);
        input
    }
}

/// Removes values of `top`, from large to small ones, as long as it `keeps` what it is for.
fn without(top: &mut Json, keeps: &mut impl FnMut(&Json) -> bool) {
    let mut at = 0;
    loop {
        let mut tried = top.clone();
        let mut left = at;
        if !remove_nth(&mut tried, &mut left) {
            return;
        }
        if keeps(&tried) { *top = tried } else { at += 1 }
    }
}

/// Removes the `n`th value below, parents before their values; false when there are not so many.
fn remove_nth(json: &mut Json, n: &mut usize) -> bool {
    for child in 0..json.length() {
        if *n == 0 {
            json.remove(child);
            return true;
        }
        *n -= 1;
        if json.child(child).is_some_and(|(_, child)| remove_nth(child, n)) {
            return true;
        }
    }
    false
}

thread_local! {
    /// Where the last panic of this thread was, and what it said.
    static PANIC: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// Panics of targets are kept, not printed.
fn silence_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload_as_str().unwrap_or("?").chars().take(600).collect::<String>();
            let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
            PANIC.set(format!("{}: {text}", place.unwrap_or_default()));
            if text.contains(" failures of ") || std::env::var_os("CORTEN_FUZZ_INPUT").is_some() {
                usual(info);
            }
        }));
    });
}
