// SPDX-License-Identifier: Apache-2.0
//! How many system calls each verb makes on runc's default configuration, the stage's among them, up to the user's program.
//! Time is not stable, these are: a verb that has become longer by more than 3 % is seen here.

#![forbid(unsafe_code)]

use std::time::Duration;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::harness::tracer::trace;

/// A verb, and what it calls natively on v1 and on v2, with Linux 6.18.
struct Row {
    verb: &'static str,
    v1: usize,
    v2: usize,
}

const ROWS: [Row; 8] = [
    Row { verb: "run", v1: 768, v2: 456 },
    Row { verb: "create", v1: 687, v2: 415 },
    Row { verb: "start", v1: 49, v2: 49 },
    Row { verb: "exec", v1: 261, v2: 205 },
    Row { verb: "state", v1: 41, v2: 41 },
    Row { verb: "kill", v1: 48, v2: 45 },
    Row { verb: "delete", v1: 77, v2: 41 },
    // For each further container.
    Row { verb: "list", v1: 15, v2: 15 },
];

/// How many hierarchies the v1 host has of which the table tells, cgroup2's beside them included.
const HIERARCHIES: usize = 10;

/// Under a tracer, and beside other work.
const PATIENCE: Duration = Duration::from_secs(20);

/// The chapter.
pub fn cases() -> Vec<Case> {
    let needs = &[Need::Runtime("corten"), Need::Kernel("pidfs", 6, 9)];
    vec![case("calls/of-each-verb", of_each_verb).needs(needs)]
}

fn of_each_verb(t: &Test) -> Verdict {
    let hierarchies = t.host.mounted_hierarchies().len();
    if !t.host.env.starts_with("native") || !t.host.is_v2() && hierarchies != HIERARCHIES {
        return Err(Trouble::NotRun(format!("the table is of a host with {HIERARCHIES} hierarchies, or v2")));
    }
    let b = t.bundle()?.probe("sleep 1000");
    let mut seen = vec![("run", of_launch(t, "run", &t.bundle()?.probe("exit 0"))?)];
    seen.push(("create", of_launch(t, "create", &b)?));
    seen.push(("start", of(t, &format!("start {}", b.id))?));
    seen.push(("exec", of(t, &format!("exec {} /probe exit 0", b.id))?));
    seen.push(("state", of(t, &format!("state {}", b.id))?));
    let one = of(t, "list")?;
    let others = (0..10).map(|_| t.bundle().map(|b| b.probe("sleep 1000")));
    for other in others {
        t.launch(&other?)?;
    }
    seen.push(("list", (of(t, "list")? - one).div_ceil(10)));
    seen.push(("kill", of(t, &format!("kill {} KILL", b.id))?));
    t.await_status(&b, "stopped")?;
    seen.push(("delete", of(t, &format!("delete {}", b.id))?));
    judge(t, &seen)
}

fn judge(t: &Test, seen: &[(&str, usize)]) -> Verdict {
    let told: Vec<String> = seen.iter().map(|(verb, calls)| format!("{verb} {calls}")).collect();
    eprintln!("CALLS {}", told.join(", "));
    for row in &ROWS {
        let most = if t.host.is_v2() { row.v2 } else { row.v1 };
        let calls = seen.iter().find(|(verb, _)| *verb == row.verb).map_or(0, |(_, calls)| *calls);
        check!(calls > 0, "{}: not counted", row.verb);
        let name = row.verb;
        check!(
            calls * 100 <= most * 103,
            "{name}: {calls} calls, {most} were known: what has made it longer?"
        );
        check!(
            calls * 100 >= most * 90,
            "{name}: {calls} calls, {most} were known: put the gain into the table"
        );
    }
    Ok(())
}

fn of_launch(t: &Test, verb: &str, bundle: &Bundle) -> Result<usize, Trouble> {
    counted(t, t.bundle_command(verb, bundle)?)
}

fn of(t: &Test, words: &str) -> Result<usize, Trouble> {
    let mut command = t.runtime();
    command.args(words.split_whitespace());
    counted(t, command)
}

fn counted(t: &Test, command: std::process::Command) -> Result<usize, Trouble> {
    let seen = trace(t, command, None, PATIENCE)?;
    seen.done.ok()?;
    check!(!seen.hung, "hangs: {}", seen.done);
    Ok(seen.calls.iter().map(Vec::len).sum())
}
