// SPDX-License-Identifier: Apache-2.0
//! config-linux.md, "Cgroups Path", where the place is a special one: containers that nest, hybrid hosts, frozen groups.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::systemd;
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::pace::within;
use crate::harness::report::Report;
use crate::harness::test::Test;

/// Where hybrid hosts have the unified hierarchy.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
const HYBRID: &[Need] = &[Need::File("/sys/fs/cgroup/unified/cgroup.procs")];

/// The chapter.
pub fn cases() -> Vec<Case> {
    [nesting(), hybrid(), frozen(), umask()].into_iter().flatten().collect()
}

/// A container that has enabled controllers for groups below its own, as systemd and Docker do in one: its own group takes no
/// process any more (cgroups(7), "no internal processes").
fn nesting() -> Vec<Case> {
    vec![
        case("cgroup/exec-into-a-container-that-nests", |t| {
            let b = limited(t, t.bundle()?).probe("forever");
            t.launch(&b)?;
            nest(&Path::new("/sys/fs/cgroup").join(&b.id), t.pid(&b)?)?;
            let seen = t.exec(&b, "", "/probe report")?;
            is_in(&Report::read(&seen.ok()?.stdout)?, &format!("/{}/inner", b.id))?;
            // What is asked for by name is not looked for elsewhere.
            t.exec(&b, "--cgroup /inner", "/probe report")?.ok().map(drop)
        })
        .needs(&[Need::CgroupV2]),
        case("systemd/exec-into-a-container-that-nests", |t| {
            let (b, _) = systemd::bundle(t, "system.slice")?;
            systemd::create(t, &b)?;
            systemd::on(t, &format!("start {}", b.id))?.ok()?;
            let group = systemd::group_of(t.pid(&b)?)?;
            nest(&group, t.pid(&b)?)?;
            let seen = systemd::on(t, &format!("exec {} /probe report", b.id))?;
            is_in(&Report::read(&seen.ok()?.stdout)?, ".scope/inner")
        })
        .needs(systemd::SYSTEMD)
        .runc(systemd::REMOUNTS)
        .crun(systemd::BELOW),
    ]
}

/// Found by the twins: what the caller's umask takes away a container of another user misses in its own group.
fn umask() -> Vec<Case> {
    vec![
        case("cgroup/has-its-mode-whatever-the-callers-umask", |t| {
            let b = t.bundle()?.probe("forever");
            let mut command = t.bundle_command("create", &b)?;
            crate::sys::with_groups_and_umask(&mut command, Vec::new(), 0o077);
            t.complete(command)?.ok()?;
            let mut found = 0;
            for dir in t.host.hierarchies().into_iter().map(|dir| dir.join(&b.id)).filter(|dir| dir.exists())
            {
                let mode = fs::metadata(&dir)?.permissions().mode() & 0o777;
                check!(mode == 0o755, "{} has the mode {mode:o}", dir.display());
                found += 1;
            }
            check!(found > 0, "no group");
            Ok(())
        })
        .runc("takes the caller's umask"),
    ]
}

/// With a limit, so that there is a controller to hand on.
fn limited(t: &Test, b: Bundle) -> Bundle {
    match t.host.controllers.contains("hugetlb") {
        true => b.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 4_194_304}])),
        false => b,
    }
}

fn nest(group: &Path, init: i32) -> Verdict {
    let controllers = fs::read_to_string(group.join("cgroup.controllers"))?;
    let Some(first) = controllers.split_whitespace().next() else {
        return Err(Trouble::NotRun("no controller to hand on".into()));
    };
    fs::create_dir(group.join("inner"))?;
    fs::write(group.join("inner/cgroup.procs"), init.to_string())?;
    Ok(fs::write(group.join("cgroup.subtree_control"), format!("+{first}"))?)
}

fn is_in(report: &Report, end: &str) -> Verdict {
    let groups = report.at("/cgroup");
    let unified = groups.as_array().into_iter().flatten().filter_map(Value::as_str);
    let unified = unified.filter_map(|line| line.strip_prefix("0::")).next().unwrap_or_default();
    check!(unified.ends_with(end), "it is in {unified}, not in …{end}: {groups}");
    Ok(())
}

/// Programs, firewalls and BPF tell containers apart by their group on the unified hierarchy, on such hosts, too.
fn hybrid() -> Vec<Case> {
    vec![
        case("cgroup/hybrid-init-and-exec-are-in-the-unified-hierarchy", |t| {
            let b = t.bundle()?.probe("report -- forever");
            is_in(&t.launch(&b)?.report(t)?, &format!("/{}", b.id))?;
            let seen = t.exec(&b, "", "/probe report")?;
            is_in(&Report::read(&seen.ok()?.stdout)?, &format!("/{}", b.id))?;
            t.cli(&format!("delete --force {}", b.id))?.ok()?;
            let group = Path::new(UNIFIED).join(&b.id);
            check!(!group.exists(), "{} is left", group.display());
            Ok(())
        })
        .needs(HYBRID),
        case("cgroup/hybrid-frozen-group-is-refused", |t| {
            let b = t.bundle()?;
            let group = Path::new(UNIFIED).join(&b.id);
            freeze(t, &group)?;
            refused(&t.try_create("create", &b)?, &group)
        })
        .needs(HYBRID)
        .runc("looks at the freezer only, and hangs"),
    ]
}

/// What is made in a frozen group, or moved there, stands still: whoever made it would wait for ever.
fn frozen() -> Vec<Case> {
    vec![
        case("cgroup/frozen-group-is-refused", |t| {
            let b = t.bundle()?;
            let group = freezer(t, &b.id);
            freeze(t, &group)?;
            refused(&t.try_create("create", &b)?, &group)
        })
        .crun("hangs"),
        case("cgroup/group-below-a-frozen-one-is-refused", |t| {
            let b = t.bundle()?;
            let above = freezer(t, &b.id);
            freeze(t, &above)?;
            let b = b.clone().set("/linux/cgroupsPath", json!(format!("/{}/below", b.id)));
            refused(&t.try_create("create", &b)?, &above)?;
            check!(!above.join("below").exists(), "the group is left");
            Ok(())
        })
        .both("hangs"),
        case("systemd/frozen-group-is-refused", |t| {
            let (b, unit) = systemd::bundle(t, "system.slice")?;
            let group = Path::new("/sys/fs/cgroup/system.slice").join(unit);
            freeze(t, &group)?;
            refused(&systemd::act(t, "create", &b)?, &group)
        })
        .needs(systemd::SYSTEMD)
        .crun("at times: hangs"),
        case("systemd/scope-below-a-frozen-slice-is-refused", |t| {
            let (b, unit) = systemd::bundle(t, "ctest-frozen.slice")?;
            let slice = Path::new("/sys/fs/cgroup/ctest.slice/ctest-frozen.slice");
            t.at_end(|| drop(fs::remove_dir("/sys/fs/cgroup/ctest.slice")));
            freeze(t, slice)?;
            refused(&systemd::act(t, "create", &b)?, slice)?;
            check!(!slice.join(unit).exists(), "the scope is left");
            Ok(())
        })
        .needs(systemd::SYSTEMD)
        .runc("waits for ever")
        .crun("at times: waits for ever"),
    ]
}

/// The directory of a group by which it is frozen.
fn freezer(t: &Test, id: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(if t.host.is_v2() { "" } else { "freezer" }).join(id)
}

/// A frozen group, until the case is over.
fn freeze(t: &Test, group: &Path) -> Verdict {
    fs::create_dir_all(group)?;
    let v1 = group.join("freezer.state");
    let (file, on, off) = match v1.exists() {
        true => (v1, "FROZEN", "THAWED"),
        false => (group.join("cgroup.freeze"), "1", "0"),
    };
    fs::write(&file, on)?;
    let group = group.to_owned();
    t.at_end(move || {
        fs::write(file, off).ok();
        fs::remove_dir(group).ok();
    });
    Ok(())
}

/// Refused, and at once; the group is not the container's to take away.
fn refused(done: &Done, group: &Path) -> Verdict {
    done.refuses(&["frozen"])?;
    within("it", done.took, Duration::from_secs(2))?;
    check!(group.exists(), "{} is gone", group.display());
    Ok(())
}
