// SPDX-License-Identifier: Apache-2.0
//! An attacker in a pid namespace, with CAP_SYS_PTRACE: looks at every process that appears there for what it should not have
//! brought along.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::lookout;
use crate::sys;

/// What was seen since the last word of forgetting.
#[derive(Default, PartialEq, Clone)]
struct Prey {
    /// Looks at processes that came.
    seen: u64,
    /// Times that the marker, a file of the host's, was there in a process's root.
    host_tree: u64,
    /// Capabilities beyond the hunter's own bounding set.
    spare: u64,
    /// The most descriptors from 3 on that a process held while it had too much.
    descriptors: usize,
    /// Times that a process that had too much could be seized, or its memory opened.
    taken: u64,
}

/// Hunts, and tells it in `dir` ([`lookout::watch`]).
pub fn hunt(dir: &str, marker: &str) -> Result<(), String> {
    let own = std::process::id().to_string();
    let allowed = capabilities("self", "CapBnd:").unwrap_or(0);
    let here = user_namespace("self");
    lookout::watch(dir, |prey| look(&own, marker, allowed, here.as_deref(), prey), shown)
}

fn shown(prey: &Prey) -> Value {
    json!({"seen": prey.seen, "host_tree": prey.host_tree, "spare": format!("{:x}", prey.spare),
        "descriptors": prey.descriptors, "taken": prey.taken})
}

fn look(own: &str, marker: &str, allowed: u64, here: Option<&Path>, prey: &mut Prey) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        if pid == own {
            continue;
        }
        prey.seen += 1;
        let host = fs::symlink_metadata(format!("/proc/{pid}/root{marker}")).is_ok();
        // Over a user namespace of its own, which holds nothing of anybody's, it may have what it likes.
        let elsewhere = here.zip(user_namespace(pid).as_deref()).is_some_and(|(here, other)| here != other);
        let spare = if elsewhere { 0 } else { capabilities(pid, "CapPrm:").unwrap_or(0) & !allowed };
        prey.host_tree += u64::from(host);
        prey.spare |= spare;
        if host || spare != 0 {
            let held = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count().saturating_sub(3));
            prey.descriptors = prey.descriptors.max(held);
            let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).is_ok();
            let seized = pid.parse().is_ok_and(sys::seize);
            prey.taken += u64::from(memory || seized);
        }
    }
}

fn user_namespace(pid: &str) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/user")).ok()
}

fn capabilities(pid: &str, set: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(set))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
