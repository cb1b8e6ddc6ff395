// SPDX-License-Identifier: Apache-2.0
//! `trace`: what a file of `--trace` says. Ours alone.

use std::ffi::OsString;
use std::path::Path;

use corten::error::{Context, WithStep};
use corten::trace::{chart::Chart, picture};

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::{output, values};

/// show where the time of a container's start went
///
/// FILE is what "--trace FILE" of create, start, run and exec has written. The ten steps
/// that took longest are printed: how many microseconds, what part of the whole, how
/// many system calls, and which field of config.json asked for the step. Perfetto and
/// Chrome's trace viewer show the file as well, with every system call of the stage's.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct TraceCommand {
    /// draw all steps as a waterfall, in SVG, into this file
    #[arg(long)]
    svg: Option<OsString>,
    file: OsString,
}

impl Verb for TraceCommand {
    const NAME: &'static str = "trace";
    const USAGE: &'static str = "[command options] <file>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, _: &Session<'_>) -> Outcome {
        let path = Path::new(&self.file);
        let bytes = std::fs::read(path).call(|| format!("open({})", path.display()))?;
        let chart =
            Chart::read(&bytes).map_err(|error| Failure::from(error.at(path.display().to_string())))?;
        if let Some(svg) = values::path(self.svg) {
            let written = std::fs::write(&svg, picture::draw(&chart));
            written.call(|| format!("write({})", svg.display())).step(|| "--svg")?;
        }
        output::print(&chart.text())?;
        Ok(0)
    }
}
