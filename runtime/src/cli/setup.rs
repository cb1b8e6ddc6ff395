// SPDX-License-Identifier: Apache-2.0
//! `setup` (compatibility S20).

use std::path::PathBuf;

use corten::setup::{Setup, SetupAsk, SetupEngine, Trial};

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::output;

/// tell an engine of Corten: containerd, docker or podman
///
/// Edits the engine's configuration so that containers can be run on Corten by name, prints the difference, and runs a
/// container where the engine is there. Everything else in the file stays as it is, byte for byte; what cannot be told
/// apart with certainty is refused, with the lines to be added by hand. No engine is restarted: the command that is
/// needed is printed. Called again it changes nothing, and checks. As a user it is the user's own engine.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct SetupCommand {
    /// containerd, docker or podman
    engine: String,
    /// make Corten the runtime of containers that name none
    #[arg(long)]
    default: bool,
    /// take back what setup has written, and nothing else
    #[arg(long)]
    undo: bool,
    /// print the difference and change nothing
    #[arg(long)]
    dry_run: bool,
    /// edit this file and not the engine's own
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Verb for SetupCommand {
    const NAME: &'static str = "setup";
    const USAGE: &'static str = "[command options] containerd|docker|podman";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, _: &Session<'_>) -> Outcome {
        let engine = match self.engine.as_str() {
            "containerd" => SetupEngine::Containerd,
            "docker" => SetupEngine::Docker,
            "podman" => SetupEngine::Podman,
            other => {
                return Err(Failure::new(format!("unknown engine {other:?}: containerd, docker or podman")));
            }
        };
        if self.undo && self.default {
            return Err(Failure::new("--default and --undo exclude each other: --undo takes back all"));
        }
        let ask = SetupAsk { engine, default: self.default, undo: self.undo, config: self.config };
        let setup = Setup::prepare(&ask)?;
        let path = setup.path().display();
        if !setup.changes() {
            let what = if self.undo { "nothing of setup's is in it" } else { "already set up" };
            output::print(&format!("{path}: {what}\n"))?;
        } else if self.dry_run {
            output::print(&format!("{}{path}: would be changed\n", setup.difference()))?;
        } else {
            setup.perform()?;
            let next = setup.next().map(|command| format!("next: {command}\n"));
            output::print(&format!("{}{path}: changed\n{}", setup.difference(), next.unwrap_or_default()))?;
        }
        if self.dry_run || self.undo {
            return Ok(0);
        }
        match setup.check()? {
            Trial::Runs => output::print("checked: a container runs\n")?,
            Trial::NotTried(why) => output::print(&format!("not checked: {why}\n"))?,
            Trial::Fails(said) => {
                return Err(Failure::new(format!("the check's container does not run: {said}")));
            }
        }
        Ok(0)
    }
}
