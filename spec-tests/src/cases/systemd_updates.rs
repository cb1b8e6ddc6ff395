// SPDX-License-Identifier: Apache-2.0
//! The systemd cgroup driver: updates, which systemd is told of and which it may then write in its own way.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use serde_json::json;

use super::systemd::{BELOW, MEMORY, SYSTEMD, bundle, create, on, systemctl};
use crate::check;
use crate::harness::case::{Case, case, same};
use crate::harness::host::Need;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("systemd/failed-update-changes-nothing", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            let b = b.set("/linux/resources/memory", json!({"reservation": 50_331_648}));
            create(t, &b)?;
            let group = Path::new("/sys/fs/cgroup/ctest.slice").join(&unit);
            let values =
                || ["memory.low", "pids.max", "cpu.max"].map(|file| fs::read_to_string(group.join(file)));
            let before = values().map(Result::ok);
            // The last is refused by the kernel: an idle group has no weight.
            let ask = json!({"pids": {"limit": 60}, "cpu": {"idle": 1, "period": 50_000},
                "unified": {"memory.low": "1048576", "cpu.weight": "50"}});
            let file = t.file("ask.json");
            fs::write(&file, ask.to_string())?;
            let done = on(t, &format!("update --resources {file} {}", b.id))?;
            check!(done.code == 1, "{done}");
            check!(values().map(Result::ok) == before, "{:?} became {:?}", before, values());
            systemctl(&["daemon-reload"]);
            check!(values().map(Result::ok) == before, "{:?} became {:?} after a reload", before, values());
            // Nor does a later one find the period that was never in force.
            fs::write(&file, json!({"cpu": {"quota": 50_000}}).to_string())?;
            on(t, &format!("update --resources {file} {}", b.id))?.ok()?;
            same("cpu.max", fs::read_to_string(group.join("cpu.max"))?.trim(), "50000 100000")
        })
        .needs(MEMORY)
        .runc("stops half way")
        .crun("stops half way"),
        case("systemd/idle-ends-for-systemd-too", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            create(t, &b)?;
            let idle = Path::new("/sys/fs/cgroup/ctest.slice").join(&unit).join("cpu.idle");
            let file = t.file("ask.json");
            for value in ["1", "0"] {
                fs::write(&file, format!(r#"{{"cpu":{{"idle":{value}}}}}"#))?;
                on(t, &format!("update --resources {file} {}", b.id))?.ok()?;
                systemctl(&["daemon-reload"]);
                same("cpu.idle", fs::read_to_string(&idle)?.trim(), value)?;
            }
            Ok(())
        })
        .needs(&[Need::Controller("cpu")])
        .runc("systemd makes it idle again")
        .crun(BELOW),
        case("systemd/a-limits-name-is-later-than-unified", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            let b = b.set("/linux/resources/unified", json!({"pids.max": "77"}));
            create(t, &b)?;
            let file = t.file("ask.json");
            fs::write(&file, r#"{"pids":{"limit":20}}"#)?;
            on(t, &format!("update --resources {file} {}", b.id))?.ok()?;
            systemctl(&["daemon-reload"]);
            let group = Path::new("/sys/fs/cgroup/ctest.slice").join(&unit);
            same("pids.max", fs::read_to_string(group.join("pids.max"))?.trim(), "20")
        })
        .needs(&[Need::Controller("pids")]),
        case("systemd/an-update-leaves-the-other-values", |t| {
            let (b, unit) = bundle(t, "ctest.slice")?;
            create(t, &b.clone().set("/linux/resources/cpu", json!({"period": 50_000})))?;
            let file = t.file("ask.json");
            // systemd has no period without a quota, and writes the quota with the weight.
            for ask in [
                r#"{"cpu":{"quota":-1}}"#,
                r#"{"cpu":{"period":50000,"shares":512}}"#,
                r#"{"cpu":{"shares":300}}"#,
                r#"{"memory":{"reservation":1048576}}"#,
            ] {
                fs::write(&file, ask)?;
                on(t, &format!("update --resources {file} {}", b.id))?.ok()?;
                let group = Path::new("/sys/fs/cgroup/ctest.slice").join(&unit);
                same(ask, fs::read_to_string(group.join("cpu.max"))?.trim(), "max 50000")?;
            }
            Ok(())
        })
        .needs(MEMORY)
        .runc("forgets the period")
        .crun(BELOW),
    ]
    .into_iter()
    .map(|case| case.needs(SYSTEMD))
    .collect()
}
