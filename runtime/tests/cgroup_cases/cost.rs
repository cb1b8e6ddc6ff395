// SPDX-License-Identifier: Apache-2.0
//! Measures a group's life with the default configuration's device rule.

use std::time::Instant;

use corten::ask::Manager;
use corten::cgroup::{Group, Hierarchies, decide_groups};
use corten::spec::Resources;

use super::{apply, create};

const USUAL: &str = r#"{"devices":[{"allow":false,"access":"rwm"}]}"#;

const STEPS: [&str; 6] = ["probe", "decide", "create", "apply", "open+kill", "destroy"];

/// Prints one line for each step.
pub fn print() {
    let rounds: usize = std::env::var("ROUNDS").map_or(300, |n| n.parse().unwrap());
    let resources: Resources =
        corten::spec::read("resources", std::env::var("RESOURCES").unwrap_or(USUAL.into()).as_bytes())
            .unwrap();
    let path = format!("/corten-test-{}", std::process::id());
    let mut times = vec![Vec::new(); STEPS.len()];
    for _ in 0..rounds {
        let mut step = 0;
        let mut last = Instant::now();
        let mut lap = || {
            times[step].push(last.elapsed().as_nanos());
            step += 1;
            last = Instant::now();
        };
        let h = Hierarchies::probe().unwrap();
        lap();
        let plan = decide_groups(&h, Manager::Cgroupfs, "id", Some(&path), Some(&resources)).unwrap();
        lap();
        let (group, placement) = create(&plan).unwrap();
        lap();
        apply(&group, &plan).unwrap();
        lap();
        let record = group.record().clone();
        drop((group, placement));
        let group = Group::open(record);
        group.kill().unwrap();
        lap();
        group.destroy().unwrap();
        lap();
    }
    for (name, times) in STEPS.iter().zip(&mut times) {
        times.sort_unstable();
        let micro = |n: u128| n as f64 / 1000.0;
        println!("{name:10} median {:8.1}  min {:8.1}", micro(times[times.len() / 2]), micro(times[0]));
    }
}
