// SPDX-License-Identifier: Apache-2.0
//! The cases. Each gets a [`Host`] of its own, whose groups lie below one directory that must be empty at the end.

mod changes;
pub mod children;
pub mod cost;
pub mod devices;
mod ends;
mod hung;
mod limits;
pub mod makes;
pub mod standin;

use std::path::Path;
use std::process::{Command, Stdio};

use corten::ask::Manager;
use corten::cgroup::{Group, GroupPlan, Hierarchies, Made, Placement, Version, decide_groups};
use corten::spec::Resources;

type Case = (&'static str, fn(&Host));

/// Runs every case.
pub fn all() {
    let h = Hierarchies::probe().unwrap();
    if h.version() == Version::None {
        return println!("not run: no cgroups are mounted");
    }
    println!("cgroup {:?}: {} hierarchies", h.version(), h.v1.len() + usize::from(h.v2.is_some()));
    sweep_after_us();
    for (number, (name, case)) in makes::CASES
        .iter()
        .chain(limits::CASES)
        .chain(changes::CASES)
        .chain(devices::CASES)
        .chain(ends::CASES)
        .enumerate()
    {
        println!("case {name}");
        let host = Host { h: h.clone(), base: format!("corten-test-{}-{number}", std::process::id()), name };
        case(&host);
        host.must_be_clean();
    }
}

/// A process that outlives this one, however it ends, and then removes what is left of its groups, with all in them.
fn sweep_after_us() {
    let script = r#"
        tail --pid="$1" -f /dev/null
        for try in $(seq 50); do
            dirs=$(find /sys/fs/cgroup -depth -type d -path "*/corten-test-$1-*") && [ -n "$dirs" ] || exit 0
            for dir in $dirs; do
                [ ! -e "$dir/cgroup.kill" ] || echo 1 >"$dir/cgroup.kill"
                [ ! -e "$dir/freezer.state" ] || echo THAWED >"$dir/freezer.state"
                kill -KILL $(cat "$dir/cgroup.procs")
                rmdir "$dir" || sleep 0.1
            done
        done"#;
    let mut command = Command::new("setsid");
    command.args(["--fork", "sh", "-c", script, "sh", &std::process::id().to_string()]);
    // Nobody may wait for the end of an output that it holds open.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
}

/// What a case works with.
pub struct Host {
    pub h: Hierarchies,
    /// The directory below which the case's groups lie.
    pub base: String,
    name: &'static str,
}

impl Host {
    pub fn v2(&self) -> bool {
        self.h.version() == Version::V2
    }

    /// Says that a part was not run.
    pub fn not_run(&self, why: &str) {
        println!("not run: {}: {why}", self.name);
    }

    pub fn try_plan(&self, group: &str, json: &str) -> corten::Result<GroupPlan> {
        let resources: Resources = corten::spec::read("resources", json.as_bytes()).unwrap();
        let path = format!("/{}/{group}", self.base);
        let mut plan = decide_groups(&self.h, Manager::Cgroupfs, "id", Some(&path), Some(&resources))?;
        "a test's".clone_into(&mut plan.record.mark);
        Ok(plan)
    }

    pub fn plan(&self, group: &str, json: &str) -> GroupPlan {
        self.try_plan(group, json).unwrap()
    }

    /// A group with its limits.
    pub fn group(&self, group: &str, json: &str) -> (Group, Placement) {
        let plan = self.plan(group, json);
        let (group, placement) = create(&plan).unwrap();
        apply(&group, &plan).unwrap();
        (group, placement)
    }

    /// Whether limits of this controller can be set here.
    pub fn has(&self, controller: &str) -> bool {
        match &self.h.v2 {
            Some(v2) if self.v2() => {
                let text = std::fs::read_to_string(format!("{}/cgroup.controllers", v2.mount)).unwrap();
                text.split_whitespace().any(|c| c == controller)
            }
            _ => self.h.hierarchy_of(controller).is_some(),
        }
    }

    /// The mount points that groups are made in.
    fn mounts(&self) -> Vec<&str> {
        match &self.h.v2 {
            Some(v2) if self.v2() => vec![&v2.mount],
            _ => self.h.v1.iter().chain(&self.h.v2).map(|h| h.mount.as_str()).collect(),
        }
    }

    /// The directories of a group, on every hierarchy.
    pub fn dirs(&self, group: &str) -> Vec<String> {
        self.mounts().iter().map(|mount| format!("{mount}/{}/{group}", self.base)).collect()
    }

    /// The directory of a group on the hierarchy of `controller`.
    pub fn dir(&self, controller: &str, group: &str) -> String {
        let mount = match &self.h.v2 {
            Some(v2) if self.v2() => &v2.mount,
            _ => &self.h.hierarchy_of(controller).unwrap().mount,
        };
        format!("{mount}/{}/{group}", self.base)
    }

    fn must_be_clean(&self) {
        for mount in self.mounts() {
            let base = format!("{mount}/{}", self.base);
            if Path::new(&base).exists() {
                let removed = std::fs::remove_dir(&base);
                assert!(removed.is_ok(), "{} left something in {base}: {removed:?}", self.name);
            }
        }
    }
}

/// Makes the groups, or nothing.
pub fn create(plan: &GroupPlan) -> corten::Result<(Group, Placement)> {
    let mut made = Made::default();
    Group::create(plan, &mut made, &mut |_| Ok(())).inspect_err(|_| made.undo().unwrap())
}

/// Limits, then device rules, as `create` does.
pub fn apply(group: &Group, plan: &GroupPlan) -> corten::Result<()> {
    group.apply_limits(plan)?;
    group.apply_devices(&plan.devices)
}

/// A file's content, trimmed.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}
