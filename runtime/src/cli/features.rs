// SPDX-License-Identifier: Apache-2.0
//! `features` (compatibility J6).

use super::command::{Arity, Outcome, Session, Verb};
use super::output;

/// show the enabled features
///
/// The result is JSON as defined by the runtime specification's features.md.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct FeaturesCommand {}

impl Verb for FeaturesCommand {
    const NAME: &'static str = "features";
    const USAGE: &'static str = "";
    const ARITY: Arity = Arity::exactly(0);

    fn run(self, _: &Session<'_>) -> Outcome {
        output::print_json_indented(&corten::features::features(), "    ")?;
        Ok(0)
    }
}
