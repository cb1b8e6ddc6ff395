// SPDX-License-Identifier: Apache-2.0
//! `spec-tests run …`.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::host::Host;
use super::suite;
use crate::cases;

/// How to call this program.
pub const USAGE: &str = "\
usage: spec-tests run --runtime PATH [--env NAME] [--filter TEXT]… [--list] [--long] [--every N] [--hours H] [--jobs N] [--timeout SECONDS]
                      [--tmp DIR] [--alone] [--no-excuses] [--times] [--rootfs-busybox DIR] [--rootfs-debian DIR]
       spec-tests shim … (`spec-tests shim` tells)
       spec-tests probe ACTION…

--filter   only cases whose name contains one of the texts
--env      a name for this environment, printed with the result
--alone    nobody else uses this machine: any new cgroup, socket or keyring on it counts as left behind
--long     the cases that need minutes, too
--every    of the points at which a fault can happen every N-th is tried, not some few
--hours    how long the cases of soak/ go on; without it, they make some rounds
--no-excuses  a peer's known differences count as failures
--times    prints the twenty slowest cases
--one      (for its own use) runs one case in this process";

/// Runs what the arguments ask for. Exit code 0 when no case failed, 1 when one did, 2 for wrong usage. `words` begin with
/// the command's name.
pub fn main(words: &[String]) -> ExitCode {
    suite::conclude(run(words), USAGE)
}

fn run(words: &[String]) -> Result<ExitCode, String> {
    let mut options = suite::Options::default();
    let (mut runtime, mut debian, mut alone, mut long, mut every) =
        (PathBuf::new(), None, false, false, None);
    suite::read(&words[1..], |arg, value| {
        match arg {
            "--runtime" => runtime = value()?.into(),
            "--rootfs-debian" => debian = Some(value()?.into()),
            "--alone" => alone = true,
            "--long" => long = true,
            "--every" => every = suite::number(arg, value)?,
            _ => return options.take_option(arg, value),
        }
        Ok(true)
    })?;
    let look = || {
        let mut host = Host::look(&runtime)?;
        (host.debian, host.alone, host.long, host.every) = (debian, alone, long, every);
        Ok(host)
    };
    options.run(words, cases::all(), look, |host| {
        if alone && !Path::new("/dev/loop-control").exists() {
            // Before the first look at the host. Where there is no such module, cases say that they were not run.
            Command::new("modprobe").arg("loop").status().ok();
        }
        println!("RUNTIME {} {} on {}", host.name, host.version, host.env);
        std::thread::available_parallelism().map_or(1, |n| n.get()).min(2)
    })
}
