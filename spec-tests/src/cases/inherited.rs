// SPDX-License-Identifier: Apache-2.0
//! What the process of an `exec` inherits, over many of them, by callers of all kinds (R15 of docs/reliability.md): the same every
//! time, and what the configuration and the kernel say. No signal ignored or blocked, no descriptor, no group of the caller's.

#![forbid(unsafe_code)]

use std::time::Instant;

use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::dice::Dice;
use crate::harness::host::Need;
use crate::harness::report::Report;
use crate::harness::test::{Running, Test};
use crate::sys::{self, Attributes};

/// Execs at once.
const HANDS: usize = 4;
/// What each process has of its own.
const ITS_OWN: [&str; 7] = ["pid", "ppid", "sid", "pgid", "fds", "argv", "cgroup"];

const RUNC: &str = "at times: an exec begins with SIGWINCH blocked";

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("inherited/by-120-execs", |t| by_execs(t, 120))
            .needs(&[Need::LongUnlessV1])
            .takes(120.0)
            .runc(RUNC),
        case("inherited/by-100000-execs", |t| by_execs(t, 100_000))
            .needs(&[Need::Long])
            .takes(14_400.0)
            .runc(RUNC),
    ]
}

fn by_execs(t: &Test, count: usize) -> Verdict {
    let b = t.bundle()?.probe("forever");
    let b = b.set("/process/env", json!(["PATH=/bin", "TERM=xterm", "NAME=value"]));
    let b = b.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1234, "hard": 2345}]));
    let b = b.set("/process/user/additionalGids", json!([5, 7])).set("/process/oomScoreAdj", json!(321));
    t.launch(&b)?;
    let (begin, mut dice) = (Instant::now(), Dice::of(15));
    let mut first: Option<Value> = None;
    for batch in 0..count.div_ceil(HANDS) {
        let running: Vec<_> = (0..HANDS).map(|_| begun(t, &b, &mut dice)).collect::<Result<_, _>>()?;
        for one in running {
            let log = one.log();
            let done = t.finish(one)?;
            let report = Report::read(&done.ok()?.stdout)?;
            log.forget();
            let told = judged(&report)?;
            match &first {
                Some(first) => {
                    same_as(first, &told).map_err(|trouble| format!("exec {}: {trouble:?}", batch * HANDS))?
                }
                None => {
                    as_configured(&report)?;
                    first = Some(told);
                }
            }
        }
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    eprintln!("INHERITED {count} execs, {HANDS} at once, {rate:.0} a second, 0 differ");
    Ok(())
}

/// An exec by a caller that is somehow.
fn begun(t: &Test, b: &Bundle, dice: &mut Dice) -> Result<Running, Trouble> {
    let mut command = t.runtime();
    command.args(["exec", &b.id, "/probe", "report"]);
    // KILL and STOP cannot be had; CHLD and the real-time signals of the C library would hinder the caller itself.
    let mut some = |most| {
        (0..dice.below(most)).map(|_| *dice.one(&[1, 2, 3, 10, 12, 13, 14, 15, 20, 21, 22, 28])).collect()
    };
    let (ignored, blocked) = (some(5), some(5));
    sys::with_attributes(
        &mut command,
        Attributes {
            umask: Some(*dice.one(&[0o000, 0o022, 0o027, 0o077, 0o777])),
            ignored,
            blocked,
            leaks: dice.below(6) as u32,
            groups: (0..dice.below(4)).map(|_| dice.below(5000) as u32).collect(),
            ..Attributes::default()
        },
    );
    t.spawn(command)
}

/// Its descriptors are the three; the rest of what must be the same.
fn judged(report: &Report) -> Result<Value, Trouble> {
    let mut told = report.0.clone();
    let fds: Vec<_> = told["fds"].as_object().into_iter().flat_map(|fds| fds.keys().cloned()).collect();
    check!(fds == ["0", "1", "2"], "it has the descriptors {fds:?}");
    check!(report.at("/argv") == &json!(["/probe", "report"]), "its words are {}", report.at("/argv"));
    if let Some(entries) = told.as_object_mut() {
        entries.retain(|name, _| !ITS_OWN.contains(&name.as_str()));
    }
    Ok(told)
}

fn same_as(first: &Value, told: &Value) -> Verdict {
    let entries = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (first, told) = (entries(first), entries(told));
    check!(
        first.len() == told.len() && first.len() > 30,
        "{} things were told, not {}",
        told.len(),
        first.len()
    );
    for (name, value) in &first {
        check!(told.get(name) == Some(value), "{name} is {:?}, and was {value}", told.get(name));
    }
    Ok(())
}

/// What config.json says, and for what it does not, the kernel's and the specification's default.
fn as_configured(report: &Report) -> Verdict {
    report.is("/sig_ignored", "0000000000000000")?;
    report.is("/sig_blocked", "0000000000000000")?;
    report.is("/umask", "0022")?;
    report.is("/cwd", "/")?;
    report
        .is("/env", json!(["PATH=/bin", "TERM=xterm", "NAME=value", "HOME=/root"]))
        .or_else(|_| report.is("/env", json!(["HOME=/root", "PATH=/bin", "TERM=xterm", "NAME=value"])))?;
    report.is("/uid", json!([0, 0, 0, 0]))?;
    report.is("/groups", json!([5, 7]))?;
    report.is("/rlimits/RLIMIT_NOFILE", json!([1234, 2345]))?;
    report.is("/oom_score_adj", "321")?;
    report.is("/no_new_privs", "1")?;
    report.is("/timer_slack", 50_000)?;
    report.is("/securebits", 0)
}
