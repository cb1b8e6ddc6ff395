// SPDX-License-Identifier: Apache-2.0
//! Many workers, few ids, verbs at random (R07 and R08 of docs/reliability.md): what each was answered is kept with the times of
//! its call and answer, and for each id there must be an order of its operations that explains all of them (`harness::linear`).
//!
//! The number of operations is given, not a time. `HISTORIES …` on stderr says how many there were of what.

#![forbid(unsafe_code)]

mod model;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::check;
use crate::harness::case::{Case, Verdict, case};
use crate::harness::host::Need;
use crate::harness::linear::{Operation, explain};
use crate::harness::test::Test;
use model::{Answer, Call, Container};
use workers::{Told, Workers};

const IDS: usize = 8;
const WORKERS: usize = 64;
/// Before and after the first that cannot be explained so many are shown.
const SHOWN: usize = 24;

const RUNC: &str = "at times: of two creates of one id, the later one tells of a mkdir that failed";

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("histories/of-64-workers", |t| linearizable(t, 1200))
            .needs(&[Need::LongUnlessV1])
            .takes(120.0)
            .runc(RUNC),
        case("histories/of-64-workers-150000", |t| linearizable(t, 150_000))
            .needs(&[Need::Long])
            .takes(3600.0)
            .runc(RUNC),
    ]
}

fn linearizable(t: &Test, count: usize) -> Verdict {
    // There is a state root, and so `list` has something to look at.
    let first = t.bundle()?;
    t.create(&first)?;
    t.cli(&format!("delete {}", first.id))?.ok()?;
    let before = t.snapshot();
    let bundles =
        (0..IDS).map(|_| t.bundle().map(|bundle| bundle.probe("forever"))).collect::<Result<Vec<_>, _>>()?;
    bundles.iter().try_for_each(|bundle| bundle.write())?;
    let begin = Instant::now();
    let told = Workers::new(t, &bundles, count).work(WORKERS)?;
    let seconds = begin.elapsed().as_secs_f64();
    for bundle in &bundles {
        t.cli(&format!("delete --force {}", bundle.id))?.ok()?;
    }
    t.unchanged_since(&before)?;
    let mut sums: BTreeMap<String, usize> = BTreeMap::new();
    for one in told.iter().flatten() {
        *sums.entry(format!("{:?} {}", one.0.call.verb, short(&one.0.call))).or_default() += 1;
    }
    let sums: Vec<_> = sums.into_iter().map(|(what, count)| format!("{count} {what}")).collect();
    let all: usize = told.iter().map(Vec::len).sum();
    eprintln!(
        "HISTORIES {all} operations of {WORKERS} workers on {IDS} ids, {:.0} a second: {}",
        all as f64 / seconds,
        sums.join(", ")
    );
    let failed = told.iter().flatten().filter(|(one, _)| one.call.answer == Answer::Failed);
    let failed: BTreeSet<String> =
        failed.map(|(one, words)| format!("{:?}{}", one.call.verb, without_ids(words))).collect();
    failed.iter().for_each(|words| eprintln!("HISTORIES failed: {words}"));
    told.iter().try_for_each(|of_one| explained(of_one))
}

/// Without times and numbers, so that the same words are told once.
fn without_ids(words: &str) -> String {
    let message = words.rsplit("msg=").next().unwrap_or(words);
    message.chars().filter(|one| !one.is_ascii_digit()).collect()
}

fn short(call: &Call) -> &str {
    match &call.answer {
        Answer::Done => "done",
        Answer::Refused => "refused",
        Answer::Failed => "failed",
        Answer::Status(told) => told,
        Answer::Nothing => "nothing",
    }
}

fn explained(told: &[Told]) -> Verdict {
    let history: Vec<Operation<Call>> = told.iter().map(|(operation, _)| operation.clone()).collect();
    let Err(number) = explain::<Container>(&history) else { return Ok(()) };
    let mut around: Vec<_> = told.iter().filter(|(one, _)| one.begin <= history[number].end).collect();
    around.sort_by_key(|(one, _)| one.end);
    let line = |(one, words): &&Told| {
        format!("{}-{} {:?} {}{words}", one.begin, one.end, one.call.verb, short(&one.call))
    };
    let around: Vec<_> = around.iter().rev().take(SHOWN).rev().map(line).collect();
    let (wrong, words) = &told[number];
    check!(
        false,
        "no order explains {:?} {}{words} (microseconds {}-{}) after: {}",
        wrong.call.verb,
        short(&wrong.call),
        wrong.begin,
        wrong.end,
        around.join("; ")
    );
    Ok(())
}
