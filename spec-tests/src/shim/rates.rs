// SPDX-License-Identifier: Apache-2.0
//! `spec-tests rates SOCKET RUNTIME ROOTFS DIR GROUP DAEMON SECONDS WORKERS…`: so many workers at once make containers of `true` in a containerd, one after the
//! other, for so many seconds. Prints a JSON object for each number of workers: containers, seconds, and what a container cost in processor time, in milliseconds,
//! by who had it. The last line is the number of all containers.
//!
//! ROOTFS, DIR and GROUP are those of [`super::fleet`]. DAEMON is containerd's pid. It must run in a pid namespace of
//! its own: what nobody else has waited for, the shims' servers and with them the containers, is then its first process's.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cri::{conclude, text};
use super::fleet::Fleet;
use crate::harness::case::{Trouble, same};
use crate::harness::procs;

const USAGE: &str = "usage: spec-tests rates SOCKET RUNTIME ROOTFS DIR GROUP DAEMON SECONDS WORKERS...";
/// The first containers after a daemon's start are dearer than all later ones.
const WARM_UP: usize = 5;

/// Prints the rates; exit code 1 when a container did not do what it should.
pub fn main(args: &[String]) -> ExitCode {
    let [socket, runtime, rootfs, dir, group, daemon, seconds, workers @ ..] = args else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let workers: Result<Vec<usize>, _> = workers.iter().map(|word| word.parse()).collect();
    let (Ok(daemon), Ok(seconds), Ok(workers)) = (daemon.parse(), seconds.parse(), workers) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let rates = Fleet::new([socket, runtime, rootfs, dir, group], &["/bin/true"]).map(|fleet| Rates {
        fleet,
        daemon,
        made: AtomicUsize::new(0),
    });
    conclude(rates.and_then(|rates| rates.run(seconds, &workers)))
}

struct Rates {
    fleet: Fleet,
    daemon: i32,
    made: AtomicUsize,
}

/// Processor time so far, in milliseconds.
#[derive(Clone, Copy)]
struct Spent {
    /// Of containerd itself.
    daemon: f64,
    /// Of what it has started and waited for: the shims' `start` and `delete`.
    executions: f64,
    /// Of all the rest: servers, and containers.
    servers: f64,
}

impl Rates {
    fn run(&self, seconds: f64, workers: &[usize]) -> Result<(), Trouble> {
        for _ in 0..WARM_UP {
            self.one()?;
        }
        for &workers in workers {
            println!("{}", self.rate(seconds, workers)?);
        }
        println!("{}", json!({"all": self.made.load(Ordering::Relaxed)}));
        Ok(())
    }

    fn rate(&self, seconds: f64, workers: usize) -> Result<Value, Trouble> {
        let (before, first) = (self.spent()?, self.made.load(Ordering::Relaxed));
        let begin = Instant::now();
        let work = || -> Result<(), Trouble> {
            while begin.elapsed() < Duration::from_secs_f64(seconds) {
                self.one()?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let hands: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            hands.into_iter().try_for_each(|hand| hand.join().map_err(|_| Trouble::from("a thread died"))?)
        })?;
        let took = begin.elapsed().as_secs_f64();
        let count = self.made.load(Ordering::Relaxed) - first;
        // A shim answers Shutdown before it has ended; then its time is not yet its parent's.
        std::thread::sleep(Duration::from_millis(300));
        let after = self.spent()?;
        let each = |of: fn(&Spent) -> f64| (of(&after) - of(&before)) / count as f64;
        Ok(json!({
            "workers": workers, "containers": count, "seconds": took, "rate": count as f64 / took,
            "daemon": each(|s| s.daemon), "executions": each(|s| s.executions), "servers": each(|s| s.servers),
        }))
    }

    /// A container from its making to its end.
    fn one(&self) -> Result<(), Trouble> {
        let id = format!("r{}", self.made.fetch_add(1, Ordering::Relaxed));
        let create = self.fleet.make(&id)?;
        self.fleet.task("Create", &create)?;
        self.fleet.task("Start", &text(&id))?;
        let end = self.fleet.task("Wait", &text(&id))?;
        same("exit status of `true`", end.number(1), 0)?;
        self.fleet.task("Delete", &text(&id))?;
        self.fleet.forget(&id)
    }

    fn spent(&self) -> Result<Spent, Trouble> {
        let [daemon, executions] = procs::times(self.daemon)?;
        let [_, servers] = procs::times(1)?;
        Ok(Spent { daemon, executions, servers })
    }
}
