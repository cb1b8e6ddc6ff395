// SPDX-License-Identifier: Apache-2.0
//! R06: a container's pid is somebody else's by now. Nothing that is asked of the container may reach that process.

#![forbid(unsafe_code)]

use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::hostdiff::all_processes;
use crate::harness::test::Test;
use crate::sys;

pub fn cases() -> Vec<Case> {
    vec![case("faults/pid-of-another", pid_of_another).takes(900.0)]
}

fn pid_of_another(t: &Test) -> Verdict {
    let (few, begin) = (15, Instant::now());
    let rounds = if t.host.every == Some(1) { 1000 } else { few };
    let before = t.snapshot();
    let b = t.bundle()?.probe("forever");
    let (mut met, mut round) = (0, 0);
    while met < rounds {
        round += 1;
        check!(round < 3 * rounds + few, "the pid was somebody else's in {} of {round} rounds", round - met);
        t.launch(&b)?;
        let pid = t.pid(&b)?;
        t.cli(&format!("kill {} KILL", b.id))?.ok()?;
        t.exit_code(pid)?;
        // Whoever else starts processes may have been given the number.
        if sys::child_with_pid(pid).is_ok() {
            met += 1;
            let spared = with_impostor(t, &b.id, pid);
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            t.until(
                || "the end of the impostor".into(),
                || {
                    t.reap();
                    Ok((!lives(pid)).then_some(()))
                },
            )?;
            spared.map_err(|trouble| Trouble::Fail(format!("round {round}: {trouble:?}")))?;
        }
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
    }
    let rate = f64::from(rounds) / begin.elapsed().as_secs_f64();
    eprintln!(
        "FAULTS faults/pid-of-another {rounds} points, {} not reached, {rate:.0} a second, 0 left",
        round - met
    );
    t.unchanged_since(&before)
}

fn lives(pid: i32) -> bool {
    all_processes().iter().any(|process| process.pid == pid && !process.zombie)
}

fn with_impostor(t: &Test, id: &str, pid: i32) -> Verdict {
    for (words, code) in [
        (format!("state {id}"), None),
        (format!("kill {id} KILL"), Some(1)),
        (format!("exec {id} /probe exit 0"), Some(255)),
        (format!("pause {id}"), Some(1)),
        (format!("delete --force {id}"), Some(0)),
    ] {
        let done = t.cli(&words)?;
        match code {
            None => check!(done.ok()?.json()?["status"] == "stopped", "{done}"),
            Some(0) => drop(done.ok()?),
            // A peer has its own code for an exec that fails.
            Some(_) => check!(done.code != 0, "{done}"),
        }
        check!(lives(pid), "{done}, and the process that has its pid now is dead");
    }
    Ok(())
}
