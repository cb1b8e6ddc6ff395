// SPDX-License-Identifier: Apache-2.0
//! Programs: golden ones, the order of any, what `check` refuses, and the bytes that the stage reads.
//!
//! `tests/data/program/NAME.program` is what `corten plan` says for a configuration, one step a line. With
//! `CORTEN_BLESS=1` in the environment they are written anew: read the diff before committing it.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

#[path = "program/cases.rs"]
mod cases;
#[path = "program/decoded.rs"]
mod decoded;
#[path = "plan/hosts.rs"]
#[allow(dead_code, reason = "the plan's tests use more")]
mod hosts;
#[path = "program/named.rs"]
mod named;
#[path = "program/order.rs"]
mod order;
#[path = "program/records.rs"]
mod records;
#[path = "program/refused.rs"]
mod refused;
#[path = "program/steps.rs"]
mod steps;
#[path = "program/wire.rs"]
mod wire;

use std::path::PathBuf;

use corten::program::{Op, Program, check, explain};

/// The program as text: side, pointer, sentence.
fn shown(program: &Program) -> String {
    let line = |step: &corten::program::Step| {
        let side = if matches!(step.op, Op::Host(_)) { "host" } else { "stage" };
        format!("{side:5} {:32} {}\n", step.at, explain::sentence(program, step))
    };
    program.steps.iter().map(line).collect()
}

#[test]
fn golden_programs() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/program");
    for (name, program) in cases::golden() {
        assert_eq!(check::check(&program), Ok(()), "{name}");
        let file = data.join(format!("{name}.program"));
        let shown = shown(&program);
        if std::env::var_os("CORTEN_BLESS").is_some() {
            std::fs::write(&file, &shown).unwrap();
        }
        let wanted = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(shown == wanted, "{name} differs from {}:\n{shown}", file.display());
    }
}

/// What a step does, and nobody says anything empty.
#[test]
fn every_step_has_a_sentence() {
    for (name, program) in cases::golden() {
        for step in &program.steps {
            assert!(!explain::sentence(&program, step).is_empty(), "{name}: {step:?}");
        }
    }
}
