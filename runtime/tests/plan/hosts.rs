// SPDX-License-Identifier: Apache-2.0
//! Hosts to plan for, and the shortest way to a plan.

use std::path::PathBuf;

use corten::ask::Manager;
use corten::ask::{Create, Home};
use corten::cgroup::{Hierarchies, Hierarchy};
use corten::error::Result;
use corten::facts::Facts;
use corten::plan::Plan;
use corten::spec::Spec;

fn hierarchy(mount: &str, controllers: &[&str]) -> Hierarchy {
    let controllers = controllers.iter().map(|c| (*c).to_owned()).collect();
    Hierarchy { mount: mount.into(), own: "/".into(), controllers }
}

/// A plain host with the unified hierarchy.
pub fn v2() -> Facts {
    let cgroups = Hierarchies { v1: Vec::new(), v2: Some(hierarchy("/sys/fs/cgroup", &[])), user: None };
    Facts {
        euid: 0,
        in_userns: false,
        egid: 0,
        effective: (1 << 41) - 1,
        copies_mounts: true,
        setgroups_denied: false,
        ids: None,
        delegated: None,
        ignored: 1 << 12,
        last_cap: 40,
        grantable: (1 << 41) - 1,
        apparmor: true,
        selinux: true,
        cgroups,
        mount_setattr: true,
        below_sys: Vec::new(),
        permitted: corten::facts::Permitted::of("", true),
        mounts: Vec::new(),
        within: Default::default(),
    }
}

/// A host with legacy hierarchies, two controllers sharing one.
pub fn v1() -> Facts {
    let v1 = vec![
        hierarchy("/sys/fs/cgroup/systemd", &["name=systemd"]),
        hierarchy("/sys/fs/cgroup/memory", &["memory"]),
        hierarchy("/sys/fs/cgroup/devices", &["devices"]),
        hierarchy("/sys/fs/cgroup/pids", &["pids"]),
        hierarchy("/sys/fs/cgroup/blkio", &["blkio"]),
        hierarchy("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"]),
    ];
    Facts { cgroups: Hierarchies { v1, v2: None, user: None }, ..v2() }
}

/// Root of somebody else's user namespace.
pub fn nested() -> Facts {
    Facts { in_userns: true, ..v2() }
}

/// A user without privileges, whose own group (a session's) belongs to root.
pub fn user() -> Facts {
    let mut facts = v2();
    facts.cgroups.user = Some(1000);
    facts.cgroups.v2 = facts.cgroups.v2.map(|h| Hierarchy { own: "/user.slice/session".into(), ..h });
    Facts {
        euid: 1000,
        egid: 1000,
        effective: 0,
        grantable: u64::MAX,
        copies_mounts: false,
        delegated: Some(Vec::new()),
        ..facts
    }
}

/// The plan of container `box` in the bundle /bundle.
pub fn plan(spec: &Spec, facts: &Facts) -> Result<Plan> {
    plan_for(spec, facts, &Create::default())
}

/// The same with flags; the id is filled in.
pub fn plan_for(spec: &Spec, facts: &Facts, ask: &Create) -> Result<Plan> {
    let home = Home {
        root: PathBuf::from("/run/corten"),
        manager: Manager::Cgroupfs,
        rootless: None,
        warn: &|_| {},
        trace: None,
    };
    let ask = Create {
        id: "box".to_owned(),
        no_pivot: ask.no_pivot,
        listen_fds: ask.listen_fds,
        preserve_fds: ask.preserve_fds,
        ..Create::default()
    };
    Plan::new(spec, facts, &home, &ask, PathBuf::from("/bundle"))
}
