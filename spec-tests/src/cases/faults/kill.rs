// SPDX-License-Identifier: Apache-2.0
//! R01: the runtime, or the stage, is killed at any of its system calls.

#![forbid(unsafe_code)]

use super::Play;
use super::scenes::Scene;
use crate::harness::case::{Case, Verdict, case};
use crate::harness::test::Test;
use crate::harness::tracer::Fault;

/// Minutes, when every point is tried.
const SECONDS: f64 = 1200.0;

pub fn case_of(scene: Scene) -> Case {
    let name = format!("faults/killed-{}", scene.name());
    let told = name.clone();
    case(name, move |t| every_point(t, scene, &told))
        .needs(&scene.needs())
        .takes(SECONDS)
        .runc("at times: a22: writes its state last, and leaves groups that nothing names")
        .crun("at times: writes its state last; on a hybrid host it does not run")
}

fn every_point(t: &Test, scene: Scene, name: &str) -> Verdict {
    let mut play = Play::of(scene.ground(t)?);
    for point in play.points(|_, _| true)? {
        play.disturb(point, Fault::Kill, |_, _| Ok(()))?;
    }
    play.end(name)
}
