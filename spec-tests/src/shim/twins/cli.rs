// SPDX-License-Identifier: Apache-2.0
//! `spec-tests shim-twins …`: makes sequences, lets both shims perform them, judges, and sums up.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::perform::perform;
use super::plan::{Plan, plans};
use crate::harness::host::Host;
use crate::harness::suite;
use crate::twins::cli::{generator, in_parallel};
use crate::twins::compare::{Difference, differences};
use crate::twins::rows::{self, Row};
use crate::twins::worker;

const USAGE: &str = "\
usage: spec-tests shim-twins --shim PATH --peer PATH --runc PATH --rows FILE [--env NAME] [--runs N] [--seconds N] [--seed N]
                             [--from N] [--jobs N] [--survey] [--plan JSON|FILE|NUMBER] [--tmp DIR]

--shim, --peer  the shims: ours, and the Go one
--runc          what the Go shim is to find, and what both have behind them
--rows          the differences that are known: docs/differences.md
--runs          sequences at most (100); --seconds: no new ones after so long
--seed, --from  the same seed makes the same sequences; the first of them
--survey        counts every field that differs and is not known; nothing is made smaller
--plan          performs this one, or the seed's of that number, and prints what is seen
--one           (for its own use) performs in this process";

/// How many sequences are tried to make a finding smaller.
const SHRINK: usize = 60;

struct Options {
    shims: Vec<PathBuf>,
    runc: Option<PathBuf>,
    one: Option<PathBuf>,
    plan: Option<String>,
    rows: Option<PathBuf>,
    tmp: PathBuf,
    env: String,
    runs: usize,
    from: usize,
    seed: u64,
    jobs: usize,
    seconds: Option<u64>,
    survey: bool,
}

/// Runs what the arguments ask for: exit code 0 when nothing differs but what is known, 1 when something does, 77 when there
/// is no peer.
pub fn main(words: &[String]) -> ExitCode {
    suite::conclude(read(&words[1..]).and_then(|options| run(&options)), USAGE)
}

fn read(words: &[String]) -> Result<Options, String> {
    let mut all = Options {
        shims: Vec::new(),
        runc: None,
        one: None,
        plan: None,
        rows: None,
        tmp: std::env::temp_dir(),
        env: "shim".to_owned(),
        runs: 100,
        from: 0,
        seed: 10,
        jobs: 2,
        seconds: None,
        survey: false,
    };
    suite::read(words, |arg, value| {
        match arg {
            "--shim" => all.shims.insert(0, value()?.into()),
            "--peer" => all.shims.push(value()?.into()),
            "--runc" => all.runc = Some(value()?.into()),
            "--one" => all.one = Some(value()?.into()),
            "--plan" => all.plan = Some(value()?),
            "--rows" => all.rows = Some(value()?.into()),
            "--tmp" => all.tmp = value()?.into(),
            "--env" => all.env = value()?,
            "--runs" => all.runs = suite::number(arg, value)?.unwrap_or(all.runs),
            "--from" => all.from = suite::number(arg, value)?.unwrap_or(0),
            "--seed" => all.seed = suite::number(arg, value)?.unwrap_or(all.seed),
            "--jobs" => all.jobs = suite::number(arg, value)?.unwrap_or(all.jobs),
            "--seconds" => all.seconds = suite::number(arg, value)?,
            "--survey" => all.survey = true,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(all)
}

fn look(shim: &Path, options: &Options) -> Result<Host, String> {
    let mut host = Host::look_at_shim(shim)?;
    (host.runc, host.patience, host.tmp) = (options.runc.clone(), 60.0, options.tmp.clone());
    Ok(host)
}

/// The runtime that is behind, and its version.
fn behind(runc: Option<&Path>) -> String {
    let host = runc.and_then(|runc| Host::look(runc).ok());
    host.map_or_else(String::new, |host| format!(", with {} {}", host.name, host.version))
}

fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn run(options: &Options) -> Result<ExitCode, String> {
    if let Some(shim) = &options.one {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(shown)?;
        let plan: Plan = serde_json::from_str(&text).map_err(shown)?;
        let seen = worker::on_stage(look(shim, options)?, move |test| perform(test, &plan));
        println!("{}", Value::from(seen.map_err(|trouble| format!("{trouble:?}"))?));
        return Ok(ExitCode::SUCCESS);
    }
    let [ours, theirs] = &options.shims[..] else { return Err("--shim and one --peer are needed".into()) };
    let (one, other) = match (look(ours, options), look(theirs, options)) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(why), _) => return Err(why),
        (_, Err(why)) => {
            println!("not run: {why}");
            return Ok(ExitCode::from(77));
        }
    };
    println!("TWINS shim {} {} on {}, seed {}", one.name, one.version, options.env, options.seed);
    println!("PEER {} {}{}", other.name, other.version, behind(options.runc.as_deref()));
    let rows = options.rows.as_deref().map(|file| rows::read::<Plan>(file, "shims")).transpose()?;
    let session = Session {
        options,
        ours: ours.clone(),
        theirs: theirs.clone(),
        rows: rows.unwrap_or_default(),
        tally: Mutex::default(),
    };
    if let Some(plan) = &options.plan {
        return session.one_plan(plan);
    }
    session.witnesses();
    session.random();
    Ok(session.sum())
}

#[derive(Default)]
struct Tally {
    sequences: usize,
    rows: BTreeMap<String, usize>,
    findings: BTreeMap<String, String>,
    survey: BTreeMap<String, (usize, usize)>,
    again: usize,
    unsteady: Vec<String>,
    failures: Vec<String>,
}

struct Session<'a> {
    options: &'a Options,
    ours: PathBuf,
    theirs: PathBuf,
    rows: Vec<Row<Plan>>,
    tally: Mutex<Tally>,
}

impl Session<'_> {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs in a process of its own.
    fn perform(&self, shim: &Path, plan: &Plan) -> Result<Vec<Value>, String> {
        let mut command = Command::new(std::env::current_exe().map_err(shown)?);
        command.args(["shim-twins", "--one"]).arg(shim).arg("--tmp").arg(&self.options.tmp);
        if let Some(runc) = &self.options.runc {
            command.arg("--runc").arg(runc);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(shown)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(serde_json::to_string(plan).map_err(shown)?.as_bytes()).map_err(shown)?;
        }
        let output = child.wait_with_output().map_err(shown)?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).map_err(|e| format!("no performance of {} ({e}): {text}", shim.display()))
    }

    fn compare(&self, plan: &Plan) -> Result<Vec<Difference>, String> {
        Ok(differences(&self.perform(&self.ours, plan)?, &self.perform(&self.theirs, plan)?))
    }

    fn row(&self, plan: &Plan, difference: &Difference) -> Option<&Row<Plan>> {
        let facts = json!(plan);
        self.rows
            .iter()
            .find(|row| row.holds_for("runc", &self.options.env) && row.explains(difference, &facts))
    }

    fn unexplained(&self, plan: &Plan) -> Result<Vec<Difference>, String> {
        let found = self.compare(plan)?;
        Ok(found.into_iter().filter(|difference| self.row(plan, difference).is_none()).collect())
    }

    fn one_plan(&self, plan: &str) -> Result<ExitCode, String> {
        let plan: Plan = match plan.parse() {
            Ok(number) => self.tree(number)?.current(),
            Err(_) if plan.starts_with('{') => serde_json::from_str(plan).map_err(shown)?,
            Err(_) => serde_json::from_str(&std::fs::read_to_string(plan).map_err(shown)?).map_err(shown)?,
        };
        println!("{}", json!(plan));
        let (ours, theirs) = (self.perform(&self.ours, &plan)?, self.perform(&self.theirs, &plan)?);
        for (one, other) in ours.iter().zip(&theirs) {
            println!("{one}\n{}{other}", if one == other { "  = " } else { "  ! " });
        }
        let mut all_known = true;
        for difference in differences(&ours, &theirs) {
            let row = self.row(&plan, &difference);
            all_known &= row.is_some();
            println!("{difference} [{}]", row.map_or("unexplained", |row| &row.name));
        }
        Ok(if all_known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Each row must still be seen in its witness, and nothing else there.
    fn witnesses(&self) {
        in_parallel(self.options.jobs, self.rows.len(), &|number| {
            let row = &self.rows[number];
            let plan = &row.says.witness;
            let mut words = String::new();
            // What depends on timing may need a second look.
            for _ in 0..3 {
                let found = match self.compare(plan) {
                    Ok(found) => found,
                    Err(error) => {
                        words = error;
                        continue;
                    }
                };
                let facts = json!(plan);
                let shown = found.iter().any(|difference| row.explains(difference, &facts));
                let other: Vec<_> = found
                    .iter()
                    .filter(|one| self.row(plan, one).is_none())
                    .map(Difference::to_string)
                    .collect();
                if (shown || row.says.at_times) && other.is_empty() {
                    return;
                }
                words = if shown {
                    format!("shows more: {}", other.join("; "))
                } else {
                    "no longer occurs".into()
                };
            }
            println!("FAIL row {:?}: {words}", row.name);
            self.tally().failures.push(row.name.clone());
        });
    }

    fn random(&self) {
        let begin = Instant::now();
        in_parallel(self.options.jobs, self.options.runs, &|number| {
            if self.options.seconds.is_some_and(|most| begin.elapsed() > Duration::from_secs(most)) {
                return;
            }
            let number = self.options.from + number;
            if let Err(error) = self.judge(number) {
                println!("FAIL sequence {number}: {error}");
                self.tally().failures.push(error);
            }
        });
    }

    /// The sequence of this number, and the way to smaller ones.
    fn tree(&self, number: usize) -> Result<Box<dyn ValueTree<Value = Plan>>, String> {
        let rng = generator(self.options.seed, number);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        plans().new_tree(&mut runner).map_err(|reason| reason.to_string())
    }

    fn judge(&self, number: usize) -> Result<(), String> {
        let plan = self.tree(number)?.current();
        let found = self.compare(&plan).map_err(|error| format!("{} in {}", error, json!(plan)))?;
        let done = {
            let mut tally = self.tally();
            tally.sequences += 1;
            tally.sequences
        };
        if done.is_multiple_of(100) {
            println!("{done} sequences so far");
        }
        let mut left = Vec::new();
        for difference in found {
            match self.row(&plan, &difference) {
                Some(row) => *self.tally().rows.entry(row.name.clone()).or_default() += 1,
                None => left.push(difference),
            }
        }
        if self.options.survey {
            for difference in left {
                let mut tally = self.tally();
                let (count, _) = tally.survey.entry(difference.to_string()).or_insert((0, number));
                *count += 1;
                if *count == 1 {
                    println!("FIRST (sequence {number}) {difference}");
                }
            }
            return Ok(());
        }
        match left.first() {
            Some(first) => self.look_into(&plan, number, first),
            None => Ok(()),
        }
    }

    /// A difference that nobody knows: is it steady, and what is the smallest sequence that shows it?
    fn look_into(&self, plan: &Plan, number: usize, first: &Difference) -> Result<(), String> {
        let key = first.to_string();
        if self.tally().findings.contains_key(&key) {
            self.tally().again += 1;
            return Ok(());
        }
        let shows = |plan: &Plan| {
            self.unexplained(plan).is_ok_and(|found| found.iter().any(|one| one.field == first.field))
        };
        if !(0..2).any(|_| shows(plan)) {
            println!("UNSTEADY sequence {number}: {key}: {}", json!(plan));
            self.tally().unsteady.push(key);
            return Ok(());
        }
        self.tally().findings.insert(key.clone(), String::new());
        let smallest = shrink(plan, &shows);
        println!("FAIL sequence {number}: {key}\n     {}", json!(smallest));
        for difference in self.unexplained(&smallest)? {
            println!("     {difference}");
        }
        self.tally().findings.insert(key, json!(smallest).to_string());
        Ok(())
    }

    fn sum(&self) -> ExitCode {
        let tally = self.tally();
        for (difference, (count, number)) in &tally.survey {
            println!("NEW {count:5} (sequence {number}) {difference}");
        }
        for (row, count) in &tally.rows {
            println!("KNOWN {count:5} {row}");
        }
        println!(
            "{} sequences, {} rows, {} findings ({} more alike), {} unsteady, {} failures (shim on {})",
            tally.sequences,
            self.rows.len(),
            tally.findings.len(),
            tally.again,
            tally.unsteady.len(),
            tally.failures.len(),
            self.options.env
        );
        let failed = tally.findings.len() + tally.failures.len();
        let all = tally.sequences + self.rows.len();
        println!("{} passed, {failed} failed, 0 skipped (shim twins)", all.saturating_sub(failed));
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Leaves out what can be left out: requests, then all that is not as plain as can be.
fn shrink(plan: &Plan, fails: &dyn Fn(&Plan) -> bool) -> Plan {
    let mut smallest = plan.clone();
    let (mut at, mut left) = (0, SHRINK);
    while at < smallest.steps.len() && left > 0 {
        left -= 1;
        let mut plan = smallest.clone();
        plan.steps.remove(at);
        if fails(&plan) { smallest = plan } else { at += 1 }
    }
    let plainer: [fn(&mut Plan); 3] =
        [|plan| plan.behind = false, |plan| plan.io.clear(), |plan| plan.init.clear()];
    for make in plainer {
        let mut plan = smallest.clone();
        make(&mut plan);
        if plan != smallest && fails(&plan) {
            smallest = plan;
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::twins::model::Step;

    #[test]
    fn the_rows_of_the_document_can_be_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md");
        let rows = rows::read::<Plan>(&file, "shims").unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        assert!(!rows.is_empty());
        for row in &rows {
            let section = text.split("\n## ").find(|part| part.starts_with(&row.name)).unwrap_or_default();
            for word in ["Right: ", "Source: "] {
                assert!(section.contains(word), "{}: does not say \"{word}\"", row.name);
            }
            assert!(row.says.witness.steps.iter().all(|step| Step::read(step).is_ok()), "{}", row.name);
        }
    }

    #[test]
    fn a_seed_makes_the_same_sequences() {
        let plan = |number| {
            let mut runner = TestRunner::new_with_rng(Config::default(), generator(10, number));
            plans().new_tree(&mut runner).unwrap().current()
        };
        assert_eq!(plan(3), plan(3));
        assert!((0..9).any(|number| plan(number) != plan(number + 1)));
    }
}
