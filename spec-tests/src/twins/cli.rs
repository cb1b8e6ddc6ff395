// SPDX-License-Identifier: Apache-2.0
//! `spec-tests twins …`: makes plans, lets them be performed, judges, and sums up.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::compare::{Difference, differences};
use super::dimensions;
use super::finding::{self, configuration_of};
use super::plan::Plan;
use super::rows::{self, Row};
use super::shrink::shrink;
use super::worker::{self, Twin};
use crate::harness::suite;

const USAGE: &str = "\
usage: spec-tests twins --runtime PATH --peer PATH… --rows FILE… [--env NAME] [--runs N] [--seconds N] [--seed N] [--from N]
                        [--jobs N] [--only DIMENSION]… [--witnesses all|own|none] [--survey] [--plan FILE] [--out DIR] [--tmp DIR]
                        [--timeout SECONDS] [--shrink N]

--rows     the differences that are known: docs/differences.md
--runs     containers at most (200); --seconds: no new ones after so long
--seed     the same seed makes the same containers; --from: the first of them
--only     these dimensions alone
--witnesses of all rows that hold here (all), or of those alone that do not hold everywhere (own), or of none
--survey   counts every field that differs and is not known; nothing is made smaller
--shrink   plans that are tried at most to make a finding smaller (as many as it takes)
--plan     performs this one plan and prints what differs
--out      where findings are written (target/twins)
--one      (for its own use) performs in this process";

/// What the command line says.
struct Options {
    twins: Vec<PathBuf>,
    one: Option<PathBuf>,
    plan: Option<PathBuf>,
    rows: Vec<PathBuf>,
    out: PathBuf,
    tmp: PathBuf,
    env: String,
    runs: usize,
    from: usize,
    seed: u64,
    jobs: usize,
    seconds: Option<u64>,
    patience: f64,
    only: Vec<String>,
    witnesses: Witnesses,
    survey: bool,
    shrink: usize,
}

/// Whose witnesses are performed.
#[derive(Clone, Copy)]
enum Witnesses {
    All,
    /// Of rows that hold in some environments only: elsewhere nobody sees to them.
    Own,
    None,
}

impl Witnesses {
    fn read(word: &str) -> Result<Self, String> {
        match word {
            "all" => Ok(Self::All),
            "own" => Ok(Self::Own),
            "none" => Ok(Self::None),
            other => Err(format!("--witnesses {other}: not all, own or none")),
        }
    }

    fn want(self, row: &Row<Plan>) -> bool {
        match self {
            Self::All => true,
            Self::Own => row.is_of_some(),
            Self::None => false,
        }
    }
}

/// Runs what the arguments ask for: exit code 0 when nothing differs but what is known, 1 when something does.
pub fn main(words: &[String]) -> ExitCode {
    suite::conclude(read(&words[1..]).and_then(|options| run(&options)), USAGE)
}

fn read(words: &[String]) -> Result<Options, String> {
    let mut all = Options {
        twins: Vec::new(),
        one: None,
        plan: None,
        rows: Vec::new(),
        out: "target/twins".into(),
        tmp: std::env::temp_dir(),
        env: "native".to_owned(),
        runs: 200,
        from: 0,
        seed: 10,
        jobs: std::thread::available_parallelism().map_or(1, |count| count.get()).min(2),
        seconds: None,
        patience: 30.0,
        only: Vec::new(),
        witnesses: Witnesses::All,
        survey: false,
        shrink: usize::MAX,
    };
    suite::read(words, |arg, value| {
        match arg {
            "--runtime" => all.twins.insert(0, value()?.into()),
            "--peer" => all.twins.push(value()?.into()),
            "--one" => all.one = Some(value()?.into()),
            "--plan" => all.plan = Some(value()?.into()),
            "--rows" => all.rows.push(value()?.into()),
            "--out" => all.out = value()?.into(),
            "--tmp" => all.tmp = value()?.into(),
            "--env" => all.env = value()?,
            "--runs" => all.runs = suite::number(arg, value)?.unwrap_or(all.runs),
            "--from" => all.from = suite::number(arg, value)?.unwrap_or(0),
            "--seed" => all.seed = suite::number(arg, value)?.unwrap_or(all.seed),
            "--jobs" => all.jobs = suite::number(arg, value)?.unwrap_or(all.jobs),
            "--seconds" => all.seconds = suite::number(arg, value)?,
            "--timeout" => all.patience = suite::number(arg, value)?.unwrap_or(all.patience),
            "--shrink" => all.shrink = suite::number(arg, value)?.unwrap_or(all.shrink),
            "--survey" => all.survey = true,
            "--witnesses" => all.witnesses = Witnesses::read(&value()?)?,
            "--only" => all.only.push(value()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    match all.only.iter().find(|name| !dimensions::NAMES.contains(&name.as_str())) {
        Some(name) => Err(format!("no dimension {name}: {}", dimensions::NAMES.join(", "))),
        None => Ok(all),
    }
}

fn run(options: &Options) -> Result<ExitCode, String> {
    if let Some(path) = &options.one {
        let done = Twin::look(path, options.patience, &options.tmp).and_then(|twin| worker::main(&twin));
        return Ok(done.unwrap_or_else(|error| {
            println!("{error}");
            ExitCode::FAILURE
        }));
    }
    let [ours, peers @ ..] = &options.twins[..] else { return Err("--runtime is missing".into()) };
    let ours = Twin::look(ours, options.patience, &options.tmp)?;
    println!("TWINS {} {} on {}, seed {}", ours.host.name, ours.host.version, options.env, options.seed);
    let mut present = Vec::new();
    for path in peers {
        match Twin::look(path, options.patience, &options.tmp) {
            Ok(peer) if peer.host.name == "crun" && !peer.host.is_v2() => {
                println!("not run: crun {}: it refuses the hybrid layout", peer.host.version)
            }
            Ok(peer) => {
                println!("PEER {} {}", peer.host.name, peer.host.version);
                present.push(peer);
            }
            Err(why) => println!("not run: {why}"),
        }
    }
    let rows: Vec<_> = options.rows.iter().map(|file| rows::read(file, "twins")).collect::<Result<_, _>>()?;
    let rows = rows.into_iter().flatten().collect();
    let session = Session { options, ours, peers: present, rows, tally: Mutex::default() };
    if let Some(file) = &options.plan {
        return session.one_plan(file);
    }
    session.witnesses();
    session.random();
    Ok(session.sum())
}

/// What has been counted.
#[derive(Default)]
struct Tally {
    containers: usize,
    /// Differences explained, by row.
    rows: BTreeMap<String, usize>,
    /// Findings: the first field that differs, and where it is written.
    findings: BTreeMap<String, String>,
    /// For `--survey`: how often, and in which container first.
    survey: BTreeMap<String, (usize, usize)>,
    /// More plans that show the same field.
    again: usize,
    /// Seen once and not again.
    unsteady: Vec<String>,
    failures: Vec<String>,
}

struct Session<'a> {
    options: &'a Options,
    ours: Twin,
    peers: Vec<Twin>,
    rows: Vec<Row<Plan>>,
    tally: Mutex<Tally>,
}

impl Session<'_> {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// All that differs beside this peer.
    fn compare(&self, peer: &Twin, plan: &Plan) -> Result<Vec<Difference>, String> {
        let (ours, theirs) = (self.ours.perform(plan)?, peer.perform(plan)?);
        Ok(differences(&ours, &theirs))
    }

    /// The row that explains a difference.
    fn row(&self, peer: &Twin, plan: &Plan, difference: &Difference) -> Option<&Row<Plan>> {
        let facts = plan.facts(&configuration_of(plan));
        let here = self.rows.iter().filter(|row| row.holds_for(&peer.host.name, &self.options.env));
        here.into_iter().find(|row| row.explains(difference, &facts))
    }

    fn unexplained(&self, peer: &Twin, plan: &Plan, found: Vec<Difference>) -> Vec<Difference> {
        found.into_iter().filter(|difference| self.row(peer, plan, difference).is_none()).collect()
    }

    /// `--plan`: prints what differs.
    fn one_plan(&self, file: &std::path::Path) -> Result<ExitCode, String> {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let plan: Plan = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut all_known = true;
        for peer in &self.peers {
            let (ours, theirs) = (self.ours.perform(&plan)?, peer.perform(&plan)?);
            for (one, other) in ours.iter().zip(&theirs) {
                println!("{}: ours {one}\n{}: {} {other}", one["step"], other["step"], peer.host.name);
            }
            for difference in differences(&ours, &theirs) {
                let row = self.row(peer, &plan, &difference);
                all_known &= row.is_some();
                println!("{}: {difference} [{}]", peer.host.name, row.map_or("unexplained", |row| &row.name));
            }
        }
        Ok(if all_known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Each row must still be seen in its witness, and nothing else there. A plan that is several rows' is performed once.
    fn witnesses(&self) {
        let mut plans: Vec<(&Plan, Vec<&Row<Plan>>)> = Vec::new();
        for row in self.rows.iter().filter(|row| self.options.witnesses.want(row)) {
            match plans.iter_mut().find(|(plan, _)| *plan == &row.says.witness) {
                Some((_, rows)) => rows.push(row),
                None => plans.push((&row.says.witness, vec![row])),
            }
        }
        in_parallel(self.options.jobs, plans.len(), &|at| {
            let (plan, rows) = &plans[at];
            for said in self.witness(plan, rows).unwrap_or_else(|error| vec![error]) {
                println!("FAIL {said}");
                self.tally().failures.push(said);
            }
        });
    }

    /// What is wrong with this witness of these rows.
    fn witness(&self, plan: &Plan, rows: &[&Row<Plan>]) -> Result<Vec<String>, String> {
        let facts = plan.facts(&configuration_of(plan));
        let mut wrong = Vec::new();
        let mut ours = None;
        for peer in &self.peers {
            let here: Vec<_> =
                rows.iter().filter(|row| row.holds_for(&peer.host.name, &self.options.env)).collect();
            let Some(first) = here.first() else { continue };
            let ours = match &mut ours {
                Some(ours) => ours,
                none => none.insert(self.ours.perform(plan)?),
            };
            let found = differences(ours, &peer.perform(plan)?);
            for row in &here {
                if !row.says.at_times && !found.iter().any(|one| row.explains(one, &facts)) {
                    let all = found.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ");
                    wrong.push(format!(
                        "row {:?}: is not seen any more beside {}: {all}",
                        row.name, peer.host.name
                    ));
                }
            }
            if let Some(more) = self.unexplained(peer, plan, found).first() {
                wrong.push(format!(
                    "row {:?}: its witness shows something else, too, beside {}: {more}",
                    first.name, peer.host.name
                ));
            }
        }
        Ok(wrong)
    }

    fn random(&self) {
        let begin = Instant::now();
        in_parallel(self.options.jobs, self.options.runs, &|number| {
            if self.options.seconds.is_some_and(|most| begin.elapsed() > Duration::from_secs(most)) {
                return;
            }
            if let Err(error) = self.judge(self.options.from + number) {
                println!("FAIL container {}: {error}", self.options.from + number);
                self.tally().failures.push(error);
            }
        });
    }

    /// Makes the plan of this number, and judges it beside every peer.
    fn judge(&self, number: usize) -> Result<(), String> {
        let strategy =
            dimensions::plans(&self.ours.host, self.options.env.contains("systemd"), &self.options.only);
        let mut runner = TestRunner::new_with_rng(Config::default(), generator(self.options.seed, number));
        let mut tree = strategy.new_tree(&mut runner).map_err(|reason| reason.to_string())?;
        let plan = tree.current();
        if self.options.survey && self.options.runs == 1 {
            println!("PLAN {}", serde_json::to_string(&plan).unwrap_or_default());
        }
        let ours = self.ours.perform(&plan)?;
        let mut tally = self.tally();
        tally.containers += 1;
        if tally.containers.is_multiple_of(100) {
            println!("{} containers so far, the last is {number}", tally.containers);
        }
        drop(tally);
        for peer in &self.peers {
            let found = differences(&ours, &peer.perform(&plan)?);
            for row in found.iter().filter_map(|difference| self.row(peer, &plan, difference)) {
                *self.tally().rows.entry(row.name.clone()).or_default() += 1;
            }
            let left = self.unexplained(peer, &plan, found);
            if self.options.survey {
                left.iter().for_each(|difference| self.note(peer, number, difference));
            } else if !left.is_empty() {
                self.look_into(peer, tree.as_mut(), number, left)?;
            }
        }
        Ok(())
    }

    /// For `--survey`.
    fn note(&self, peer: &Twin, number: usize, difference: &Difference) {
        let key = format!("{} {difference}", peer.host.name);
        let mut tally = self.tally();
        let (count, _) = tally.survey.entry(key).or_insert((0, number));
        *count += 1;
    }

    /// A difference that nobody knows: is it steady, and what is the smallest plan that shows it?
    fn look_into(
        &self,
        peer: &Twin,
        tree: &mut dyn ValueTree<Value = Plan>,
        number: usize,
        left: Vec<Difference>,
    ) -> Result<(), String> {
        let first = left[0].clone();
        let key = format!("{} {}: {} / {}", peer.host.name, first.field, first.ours, first.theirs);
        if self.tally().findings.contains_key(&key) {
            println!("ALIKE container {number}: {key}");
            self.tally().again += 1;
            return Ok(());
        }
        let shows = |plan: &Plan| {
            let found =
                self.compare(peer, plan).map(|found| self.unexplained(peer, plan, found)).unwrap_or_default();
            found.iter().any(|difference| difference.field == first.field)
        };
        let plan = tree.current();
        if !(0..3).any(|_| shows(&plan)) {
            println!("UNSTEADY container {number}: {key}");
            // Not one byte of output may differ by timing.
            match first.field.ends_with("/out") {
                true => _ = self.tally().findings.insert(key, "at times".to_owned()),
                false => self.tally().unsteady.push(key),
            }
            return Ok(());
        }
        self.tally().findings.insert(key.clone(), String::new());
        let smallest = shrink(tree, self.options.shrink, &mut { shows });
        let found = self.compare(peer, &smallest).map(|found| self.unexplained(peer, &smallest, found))?;
        let name = format!("{}-{}-{number}", self.options.env, self.options.seed);
        let dir = finding::write(&self.options.out, &name, &peer.host.name, &smallest, &found)
            .map_err(|e| e.to_string())?;
        println!("FAIL container {number} beside {}: {}", peer.host.name, dir.display());
        found.iter().for_each(|difference| println!("     {difference}"));
        println!("     {}", serde_json::to_string(&smallest).unwrap_or_default());
        self.tally().findings.insert(key, dir.to_string_lossy().into_owned());
        Ok(())
    }

    fn sum(&self) -> ExitCode {
        let tally = self.tally();
        for (difference, (count, number)) in &tally.survey {
            println!("NEW {count:5} (container {number}) {difference}");
        }
        for (row, count) in &tally.rows {
            println!("KNOWN {count:5} {row}");
        }
        println!(
            "{} containers beside {} peers, {} rows, {} findings ({} more alike), {} unsteady, {} failures",
            tally.containers,
            self.peers.len(),
            self.rows.len(),
            tally.findings.len(),
            tally.again,
            tally.unsteady.len(),
            tally.failures.len(),
        );
        let failed = tally.findings.len() + tally.again + tally.failures.len();
        println!(
            "{} passed, {failed} failed, {} skipped ({} on {})",
            tally.containers.saturating_sub(failed),
            self.options.twins.len() - 1 - self.peers.len(),
            self.ours.host.name,
            self.options.env
        );
        if tally.findings.is_empty() && tally.failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Does `work` for all numbers below `count`, `jobs` of them at a time.
pub fn in_parallel(jobs: usize, count: usize, work: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

/// Random numbers that depend on the seed and the container's number only.
pub fn generator(seed: u64, number: usize) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}
