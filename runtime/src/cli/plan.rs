// SPDX-License-Identifier: Apache-2.0
//! `plan`: what a `create` would do, step by step. Ours alone; no other runtime can tell.

use std::ffi::OsString;

use corten::verbs::PlanLine;
use corten::{ask, state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::{output, values};

/// show every step of a create, without doing any
///
/// Steps are in order; each names its side (the host, or the stage inside the container)
/// and the field of config.json that asked for it. Nothing is touched, and no privileges
/// are needed.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct PlanCommand {
    /// path to the root of the bundle directory, defaults to the current directory
    #[arg(long, short)]
    bundle: Option<OsString>,
    /// name of the specification file in the bundle (default: "config.json")
    #[arg(long, short = 'f')]
    config: Option<OsString>,
    /// show an array of JSON objects
    #[arg(long)]
    json: bool,
    /// show the steps of a restore instead, those that CRIU does included
    #[arg(long)]
    restore: bool,
    id: Option<String>,
}

impl Verb for PlanCommand {
    const NAME: &'static str = "plan";
    const USAGE: &'static str = "[command options] [container-id]";
    const ARITY: Arity = Arity { min: 0, max: 1 };

    fn run(self, session: &Session<'_>) -> Outcome {
        let id = self.id.unwrap_or_else(|| "ID".to_owned());
        state::check_id(&id)?;
        let bundle = values::path(self.bundle).unwrap_or_else(|| ".".into());
        let ask = ask::Create { id, bundle, config: values::path(self.config), ..ask::Create::default() };
        let lines = verbs::plan(&session.home, &ask, self.restore)?;
        if self.json {
            output::print_json_indented(&lines, "  ")?;
        } else {
            output::print(&table(&lines))?;
        }
        Ok(0)
    }
}

fn table(lines: &[PlanLine]) -> String {
    let field = |line: &PlanLine| if line.field.is_empty() { "-".to_owned() } else { line.field.clone() };
    let width = lines.iter().map(|line| field(line).chars().count()).max().unwrap_or(0).max("FIELD".len());
    let digits = lines.len().to_string().len();
    let mut text = format!("{:>digits$}  SIDE   {:width$}  STEP\n", "#", "FIELD");
    for (number, line) in (1..).zip(lines) {
        text.push_str(&format!(
            "{number:>digits$}  {:5}  {:width$}  {}\n",
            line.side,
            field(line),
            line.step
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_and_aligned() {
        let line = |side, field: &str, step: &str| PlanLine { side, field: field.into(), step: step.into() };
        let text = table(&[line("host", "", "lock"), line("stage", "/mounts/0", "mount proc on /proc")]);
        assert_eq!(
            text,
            "#  SIDE   FIELD      STEP\n1  host   -          lock\n2  stage  /mounts/0  mount proc on /proc\n"
        );
    }
}
