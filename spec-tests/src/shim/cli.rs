// SPDX-License-Identifier: Apache-2.0
//! `spec-tests shim …`.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use super::cases;
use super::task::Shim;
use crate::harness::host::Host;
use crate::harness::suite;

const USAGE: &str = "\
usage: spec-tests shim --shim PATH [--runc PATH] [--env NAME] [--filter TEXT]… [--list] [--long] [--every N] [--hours H]
                       [--jobs N] [--timeout SECONDS] [--tmp DIR] [--no-excuses] [--times] [--rootfs-busybox DIR]

--shim     the shim under test; its file's name tells which it is
--runc     the runtime that the Go shim is to find
--long     the cases that need minutes, too
--every    of the points at which a call of the shim's can fail every N-th is tried, not some few
--hours    how long the cases of soak/ go on; without it, they make some rounds
--no-excuses  the Go shim's known differences count as failures
--one      (for its own use) runs one case in this process";

/// Runs what the arguments ask for. Exit code 0 when no case failed, 1 when one did, 2 for wrong usage. `words` begin with
/// the command's name.
pub fn main(words: &[String]) -> ExitCode {
    suite::conclude(run(words), USAGE)
}

/// For a case: asks a shim something as whoever we are, and says what came of it.
pub fn ask(args: &[String]) -> ExitCode {
    let [address, id] = args else { return ExitCode::from(2) };
    match Shim::connect(address, 3, id).or_else(|_| Shim::connect(address, 2, id)) {
        Ok(shim) => println!("answered by {}", shim.pid),
        Err(trouble) => println!("refused: {trouble:?}"),
    }
    ExitCode::SUCCESS
}

/// For a case: asks the shim at an address to go on as a program.
pub fn upgrade(args: &[String]) -> ExitCode {
    cases::upgrade_refused::ask(args)
}

fn run(words: &[String]) -> Result<ExitCode, String> {
    let mut options = suite::Options::default();
    let (mut shim, mut runc, mut long, mut every) = (PathBuf::new(), None, false, None);
    suite::read(&words[1..], |arg, value| {
        match arg {
            "--shim" => shim = value()?.into(),
            "--runc" => runc = Some(value()?.into()),
            "--long" => long = true,
            "--every" => every = suite::number(arg, value)?,
            _ => return options.take_option(arg, value),
        }
        Ok(true)
    })?;
    let look = || {
        let mut host = Host::look_at_shim(&shim)?;
        (host.runc, host.long, host.every, host.patience) = (runc, long, every, 40.0);
        Ok(host)
    };
    options.run(words, cases::all(), look, |_| 2)
}
