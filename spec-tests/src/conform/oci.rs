// SPDX-License-Identifier: Apache-2.0
//! The OCI runtime-tools validation suite: what `lab/oci-run` printed, side by side.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::RUNTIMES;

/// Programs that no runtime passes here, because of themselves or of this machine.
const BROKEN: [(&str, &str); 18] = [
    ("delete", "demands that a created container cannot be deleted: a15"),
    ("hooks", "expects `post-start1` where its hooks write `post-start1 called`"),
    ("linux_cgroups_blkio", "weights need a block device whose scheduler has them"),
    ("linux_cgroups_hugetlb", "no hugetlb hierarchy on v1 here"),
    ("linux_cgroups_memory", "expects kernel memory limits, which Linux no longer has"),
    ("linux_cgroups_network", "no net_cls and net_prio hierarchies here"),
    ("linux_cgroups_relative_blkio", "as linux_cgroups_blkio"),
    ("linux_cgroups_relative_hugetlb", "as linux_cgroups_hugetlb"),
    ("linux_cgroups_relative_memory", "as linux_cgroups_memory"),
    ("linux_cgroups_relative_network", "as linux_cgroups_network"),
    ("misc_props", "runs /runtimetest, which it did not put into its bundle"),
    ("pidfile", "kills the process that the file names, which may be gone by then"),
    ("poststart_fail", "expects a warning; since 1.1 the specification stops the container"),
    ("prestart", "expects the hooks at `start`, as before 1.0"),
    ("process_capabilities", "grants itself CAP_SYS_RESOURCE, which root lacks on this machine"),
    (
        "process_capabilities_fail",
        "expects an error; the specification now says that unknown capabilities are warned of (P7)",
    ),
    ("process_rlimits", "raises a hard limit, for which root lacks CAP_SYS_RESOURCE on this machine"),
    ("process_rlimits_fail", "prints no result"),
];

/// Programs that a peer passes and Corten does not, on purpose.
const ON_PURPOSE: [(&str, &str); 5] = [
    (
        "linux_mount_label",
        "demands success where there is no SELinux: crun leaves the label out without a word, runc and Corten refuse",
    ),
    (
        "linux_ns_itype",
        "mounts without a mount namespace: the peers then mount in the host's own table, and leave it so",
    ),
    (
        "linux_process_apparmor_profile",
        "demands success where there is no AppArmor: crun leaves the profile out without a word, runc and Corten refuse",
    ),
    (
        "mounts",
        "takes the order of mountinfo for the order of mounting; since Linux 6.8 it is that of making, and Corten makes binds first (decisions/0020)",
    ),
    (
        "start",
        "demands that `start` without a process succeeds, while its own words, and the specification, want an error",
    ),
];

/// Program → runtime → outcome in words.
pub type Suite = BTreeMap<String, BTreeMap<&'static str, String>>;

/// Reads the logs that are there.
pub fn read(dir: &Path) -> Suite {
    let mut suite = Suite::new();
    for runtime in RUNTIMES {
        let text = fs::read_to_string(dir.join(format!("oci.{runtime}"))).unwrap_or_default();
        for (name, outcome) in text.lines().filter_map(|line| line.strip_prefix("OCI ")?.split_once(' ')) {
            suite.entry(name.to_owned()).or_default().insert(runtime, outcome.to_owned());
        }
    }
    suite
}

fn passes(row: &BTreeMap<&'static str, String>, runtime: &str) -> bool {
    row.get(runtime).is_some_and(|outcome| outcome == "pass")
}

/// Whether Corten passes what a peer passes.
pub fn holds(suite: &Suite) -> bool {
    let excused = |name: &str| ON_PURPOSE.iter().any(|(known, _)| *known == name);
    suite.iter().all(|(name, row)| {
        // What is listed and passes is wrong as well.
        if excused(name) {
            !passes(row, RUNTIMES[0])
        } else {
            passes(row, RUNTIMES[0]) || !RUNTIMES[1..].iter().any(|peer| passes(row, peer))
        }
    })
}

pub fn section(suite: &Suite) -> String {
    let count = |runtime: &str| suite.values().filter(|row| passes(row, runtime)).count();
    let mut text = String::from("## The OCI runtime-tools validation suite\n\n");
    let _ = writeln!(
        text,
        "{} programs, each on the host with cgroup v1, the only one they can read. ",
        suite.len()
    );
    text += "Corten passes what a peer passes, but for what is explained.\n\n";
    let _ = writeln!(text, "| program | {} | |\n|---|---|---|---|---|", RUNTIMES.join(" | "));
    for (name, row) in suite {
        let cells = RUNTIMES.map(|runtime| match row.get(runtime) {
            Some(outcome) => outcome.split(':').next().unwrap_or_default(),
            None => "not run",
        });
        let _ = writeln!(text, "| {name} | {} | {} |", cells.join(" | "), remark(name, row));
    }
    let sums: Vec<_> = RUNTIMES.iter().map(|runtime| count(runtime).to_string()).collect();
    let _ = writeln!(text, "| **passed** | {} | |", sums.join(" | "));
    text
}

/// Why it fails, if Corten does not pass: the list's words, or the program's own.
fn remark(name: &str, row: &BTreeMap<&'static str, String>) -> String {
    if passes(row, RUNTIMES[0]) {
        return String::new();
    }
    if let Some((_, reason)) = BROKEN.iter().chain(&ON_PURPOSE).find(|(known, _)| *known == name) {
        return (*reason).to_owned();
    }
    let words =
        row.get(RUNTIMES[0]).map_or("", |outcome| outcome.split_once(": ").map_or("", |(_, words)| words));
    words.replace('|', "/").chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(rows: &[(&str, [&str; 3])]) -> Suite {
        let row = |words: &[&str; 3]| RUNTIMES.into_iter().zip(words.map(str::to_owned)).collect();
        rows.iter().map(|(name, words)| (name.to_string(), row(words))).collect()
    }

    #[test]
    fn what_a_peer_passes_must_pass() {
        assert!(holds(&suite(&[
            ("a", ["pass", "fail: x", "pass"]),
            ("b", ["fail: y", "fail: y", "skip: z"])
        ])));
        assert!(!holds(&suite(&[("a", ["skip: x", "fail: x", "pass"])])));
        assert!(holds(&suite(&[("start", ["fail: x", "fail: x", "pass"])])));
        assert!(!holds(&suite(&[("start", ["pass", "fail: x", "pass"])])));
    }
}
