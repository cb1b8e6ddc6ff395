// SPDX-License-Identifier: Apache-2.0
//! Gives each case a process of its own and collects what they say.

#![forbid(unsafe_code)]

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::case::{Case, Trouble, Verdict};
use super::host::Host;

/// How many cases ended how.
#[derive(Debug, Default, Clone)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// How long each took.
    pub took: Vec<(Duration, String)>,
}

/// What the runner has found out about a case.
enum Outcome {
    Passed,
    /// A peer failed as it is listed to, for this reason.
    Differs(&'static str),
    Failed(String),
    Skipped(String),
}

/// Runs `cases`, `jobs` at a time, printing a line for each. `options` are those this program was given, the verb first.
pub fn run(cases: &[Case], host: &Host, options: &[String], jobs: usize) -> Count {
    let queue = Mutex::new(cases.iter());
    let count = Mutex::new(Count::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(case) = locked(&queue).next() {
                    let begin = Instant::now();
                    let outcome = judge(case, host, options);
                    let mut count = locked(&count);
                    count.took.push((begin.elapsed(), case.name.clone()));
                    tell(&case.name, outcome, &mut count);
                }
            });
        }
    });
    count.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn tell(name: &str, outcome: Outcome, count: &mut Count) {
    match outcome {
        Outcome::Passed => {
            count.passed += 1;
            println!("PASS {name}");
        }
        Outcome::Differs(reason) => {
            count.skipped += 1;
            println!("DIFFERS {name}: {reason}");
        }
        Outcome::Failed(reason) => {
            count.failed += 1;
            println!("FAIL {name}: {reason}");
        }
        Outcome::Skipped(reason) => {
            count.skipped += 1;
            println!("NOT RUN {name}: {reason}");
        }
    }
}

fn judge(case: &Case, host: &Host, options: &[String]) -> Outcome {
    if let Some(obstacle) = case.obstacle(host) {
        return Outcome::Skipped(obstacle);
    }
    match (in_a_process(case, host, options), case.excuse(host)) {
        // What is listed and passes is as wrong as what is not listed and fails: the list would lie.
        (Ok(()), Some(difference)) if difference.is_certain() => Outcome::Failed(format!(
            "passes, although {} is listed as different: {}",
            host.name, difference.reason
        )),
        (Ok(()), _) => Outcome::Passed,
        (Err(Trouble::Fail(text)), None) => Outcome::Failed(text),
        (Err(Trouble::Fail(_)), Some(difference)) => Outcome::Differs(difference.reason),
        (Err(Trouble::NotRun(text)), _) => Outcome::Skipped(text),
    }
}

fn in_a_process(case: &Case, host: &Host, options: &[String]) -> Verdict {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(options).args(["--one", &case.name]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    let finished = wait(&mut child, Duration::from_secs_f64(case.time_limit(host) + 60.0));
    let mut text = String::new();
    if finished && let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut text)?;
    }
    match text.split_once(' ').unwrap_or((text.trim(), "")) {
        ("pass", _) => Ok(()),
        ("fail", reason) => Err(Trouble::Fail(reason.trim().to_owned())),
        ("skip", reason) => Err(Trouble::NotRun(reason.trim().to_owned())),
        _ => Err(format!("the case's process gave no verdict: {text:?}").into()),
    }
}

/// Prints a verdict for the process above.
pub fn hand_up(verdict: Verdict) {
    match verdict {
        Ok(()) => println!("pass"),
        Err(Trouble::Fail(text)) => println!("fail {}", text.replace('\n', "\\n")),
        Err(Trouble::NotRun(text)) => println!("skip {text}"),
    }
}

fn wait(child: &mut Child, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) | Err(_) => {
                child.kill().ok();
                child.wait().ok();
                return false;
            }
            Ok(Some(_)) => return true,
        }
    }
}
