// SPDX-License-Identifier: Apache-2.0
//! The cgroup drivers against real kernels. Needs root.
//!
//! Every case runs on what the host has (`natively`) and again on a pure cgroup v2 in a private mount namespace
//! (`in_pure_v2`, the same binary under unshare). In a guest with the v2 controllers, run `natively`. Groups are named
//! corten-test-PID… and are gone afterwards.

#[cfg(test)] // for clippy.toml's allow-unwrap-in-tests
mod cgroup_cases;

use std::process::Command;

use corten::cgroup::{Hierarchies, Version};

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("not run: needs root");
    }
    root
}

#[test]
fn natively() {
    if root() {
        cgroup_cases::all();
    }
}

#[test]
fn in_pure_v2() {
    if !root() || Hierarchies::probe().unwrap().version() == Version::V2 {
        return println!("not run again: the host has a pure cgroup v2");
    }
    let script = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "natively", "--nocapture", "--test-threads=1"])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn in_a_stand_in() {
    cgroup_cases::standin::all();
}

/// Not a test: what a child of the tests does when it is this program again. See `cgroup_cases::Child`.
#[test]
fn role() {
    if let Ok(role) = std::env::var("CORTEN_TEST_ROLE") {
        match role.split_once('=') {
            Some(("lifecycle", path)) => cgroup_cases::makes::lifecycle(path),
            Some(("devices", path)) => cgroup_cases::devices::answer(path),
            _ => cgroup_cases::children::play(&role),
        }
    }
}

/// What the steps cost, in microseconds (median and minimum): to be run alone, on a quiet machine.
#[test]
#[ignore = "measures"]
fn cost() {
    if root() {
        cgroup_cases::cost::print();
    }
}
