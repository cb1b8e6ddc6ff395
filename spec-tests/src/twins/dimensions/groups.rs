// SPDX-License-Identifier: Apache-2.0
//! The container's group: a path that exists, is another container's, is frozen, has children, is delegated.

#![forbid(unsafe_code)]

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::super::plan::{Plan, Step};
use crate::harness::host::Host;

const ALONE: [&[&str]; 4] = [
    &["create @", ":look", "start @", ":report", "exec @", "kill @ KILL", ":stopped", "delete @"],
    &["create @", ":look", "delete --force @"],
    &["run @"],
    &[
        "create @",
        "start @",
        ":report",
        "pause @",
        "state @",
        "resume @",
        "ps @",
        "kill --all @ KILL",
        ":stopped",
        "delete @",
    ],
];

const TWO: [&[&str]; 5] = [
    &["create @", "create @2", "state @", ":look", "delete --force @2", "state @", "delete --force @"],
    &[
        "create @",
        "create @2",
        "start @",
        ":report",
        "ps @",
        "kill --all @ KILL",
        ":stopped",
        "delete @",
        "state @2",
        "delete --force @2",
    ],
    &[
        "create @",
        "start @",
        ":report",
        "create @2",
        "kill --all @2 KILL",
        "ps @2",
        "state @",
        "delete --force @",
    ],
    &[
        "run --detach @",
        ":report",
        "run --detach @2",
        "pause @",
        "state @2",
        "resume @",
        "delete --force @",
        "state @2",
        "delete --force @2",
    ],
    &["create @", ":end", "create @2", "state @", "state @2", "delete @", "delete --force @2"],
];

/// A path and what is there, or two containers with one path.
pub fn parts(host: &Host) -> BoxedStrategy<Plan> {
    let mut paths = vec![
        Plan::set("/linux/cgroupsPath", json!("/$ID/deep/er")),
        Plan::set("/linux/cgroupsPath", json!("$ID")),
        Plan::set("/linux/cgroupsPath", json!("/$ID/../$ID-up")),
        Plan::set("/linux/cgroupsPath", json!("/$ID/")),
        Plan::set("/linux/cgroupsPath", json!("/$ID")).thing("group $ID"),
        Plan::set("/linux/cgroupsPath", json!("/$ID/in")).thing("group $ID"),
        Plan::set("/linux/cgroupsPath", json!("/$ID")).thing("group $ID/child"),
        Plan::set("/linux/cgroupsPath", json!("/$ID")).thing("group $ID frozen"),
    ];
    if host.is_v2() {
        paths.push(delegated(true));
        paths.push(delegated(false));
        paths.push(
            Plan::set("/linux/namespaces/-", json!({"type": "cgroup"}))
                .tries(["list /sys/fs/cgroup", "stat /sys/fs/cgroup"]),
        );
    }
    let steps = |all: &'static [&'static [&'static str]]| {
        select(all).prop_map(|steps| Plan::default().steps(steps.iter().map(|step| Step::from(*step))))
    };
    let alone = (select(paths), steps(&ALONE)).prop_map(|(path, steps)| Plan::join([path, steps]));
    let two = (any::<bool>(), steps(&TWO)).prop_map(|(second_root, steps)| {
        let shared = Plan { second_root, ..Plan::set("/linux/cgroupsPath", json!("/$MARK-shared")) };
        Plan { second_root, ..Plan::join([shared, steps]) }
    });
    prop_oneof![3 => alone, 2 => two].boxed()
}

/// A user namespace whose root is to own the group, which it sees writable or not.
fn delegated(writable: bool) -> Plan {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", if writable { "rw" } else { "ro" }]});
    Plan::set("/linux/namespaces/-", json!({"type": "user"}))
        .and("/linux/namespaces/-", json!({"type": "cgroup"}))
        .and("/linux/uidMappings", map.clone())
        .and("/linux/gidMappings", map)
        .and("/mounts/6", mount)
        .tries([
            "stat /sys/fs/cgroup",
            "stat /sys/fs/cgroup/cgroup.procs",
            "stat /sys/fs/cgroup/cgroup.threads",
            "stat /sys/fs/cgroup/cgroup.subtree_control",
            "stat /sys/fs/cgroup/pids.max",
            "mkdir /sys/fs/cgroup/inner",
            "rmdir /sys/fs/cgroup/inner",
        ])
}
