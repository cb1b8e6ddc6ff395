// SPDX-License-Identifier: Apache-2.0
//! The matrix of checkpoint and restore: each container with each flag. A case is `matrix/CONTAINER/FLAG`, and ends in `/refused`
//! where a refusal in one line is what must come, after which the container runs on.

#![forbid(unsafe_code)]

use std::fs;

use super::checkpoint::{CRUN, FREEZER};
use super::checkpoint_scenes::{KINDS, Kind, Scene, holds};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::criu::{LazyPages, PageServer};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::harness::user::User;

/// What is done with a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A dump that ends it, and a restore.
    Round,
    /// A dump that lets it go on.
    Stays,
    /// A dump of the memory alone, and a whole one that goes on from it, before.
    Chain,
    /// A dump of the memory alone before.
    PreDump,
    /// The pages go through a page server.
    Served,
    /// They come when they are needed.
    Lazy,
}

/// A column.
struct Flag {
    name: &'static str,
    dump: &'static str,
    restore: &'static str,
    way: Way,
}

const fn both(name: &'static str, flags: &'static str) -> Flag {
    Flag { name, dump: flags, restore: flags, way: Way::Round }
}

const fn way(name: &'static str, way: Way) -> Flag {
    Flag { name, dump: "", restore: "", way }
}

/// `none` leaves out what the container needs, too.
const FLAGS: [Flag; 25] = [
    both("none", ""),
    both("needed", ""),
    way("leave-running", Way::Stays),
    both("work-path", "--work-path WORK"),
    both("tcp-established", "--tcp-established"),
    Flag { dump: "--tcp-skip-in-flight", ..both("tcp-skip-in-flight", "") },
    Flag { restore: "--tcp-close", ..both("tcp-close", "") },
    both("ext-unix-sk", "--ext-unix-sk"),
    both("file-locks", "--file-locks"),
    Flag { dump: "--link-remap", ..both("link-remap", "") },
    both("shell-job", "--shell-job"),
    both("cgroups-soft", "--manage-cgroups-mode soft"),
    both("cgroups-full", "--manage-cgroups-mode full"),
    both("cgroups-strict", "--manage-cgroups-mode strict"),
    both("cgroups-ignore", "--manage-cgroups-mode ignore"),
    both("empty-ns", "--empty-ns network"),
    both("auto-dedup", "--auto-dedup"),
    both("network-lock-iptables", "--network-lock iptables"),
    both("network-lock-nftables", "--network-lock nftables"),
    both("network-lock-skip", "--network-lock skip"),
    Flag { restore: "--lsm-profile apparmor:other", ..both("lsm-profile", "") },
    way("parent-path", Way::Chain),
    way("pre-dump", Way::PreDump),
    way("page-server", Way::Served),
    way("lazy-pages", Way::Lazy),
];

/// What must come of a cell.
enum Expected {
    Restored,
    /// No dump, for a reason with these words.
    NoDump(&'static str),
    /// No restore, for a reason with these words.
    NoRestore(&'static str),
}

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for kind in &KINDS {
        all.extend(FLAGS.iter().filter_map(|flag| cell(kind, flag)));
    }
    all.extend(FLAGS.iter().map(exec_inside));
    all.push(without_root());
    for case in &mut all {
        case.needs.extend([Need::Criu, CRUN]);
        case.differs("runc", FREEZER);
    }
    all
}

fn cell(kind: &'static Kind, flag: &'static Flag) -> Option<Case> {
    // Nothing is needed: the same as without.
    if kind.flags.is_empty() && flag.name == "needed" {
        return None;
    }
    let expected = expected(kind, flag);
    let refused = if let Expected::Restored = expected { "" } else { "/refused" };
    let made = case(format!("matrix/{}/{}{refused}", kind.name, flag.name), move |t| match &expected {
        Expected::Restored => round(t, kind, flag),
        Expected::NoDump(words) => refuses(t, kind, flag, words, true),
        Expected::NoRestore(words) => refuses(t, kind, flag, words, false),
    });
    // Each container is always tried once, on v2, and each flag, on v1.
    let usual = if kind.flags.is_empty() { "none" } else { "needed" };
    let short: &[Need] = match kind.name {
        "plain" if flag.name != usual => &[Need::LongUnlessV1],
        _ if flag.name == usual => &[Need::LongUnlessV2],
        _ => &[Need::Long],
    };
    let made = made.needs(kind.needs).needs(short).needs(match flag.way {
        Way::Chain | Way::PreDump => &[Need::DirtyTracking],
        // CRIU hands on more pages at once than a pipe holds without it.
        Way::Lazy => &[Need::Capability(CAP_SYS_RESOURCE)],
        _ => &[],
    });
    Some(differences(made, kind, flag).takes(60.0))
}

fn expected(kind: &Kind, flag: &Flag) -> Expected {
    match (kind.name, flag.name) {
        (_, "lsm-profile") => Expected::NoRestore("--lsm-profile: no AppArmor on this kernel"),
        (_, "cgroups-strict") => Expected::NoRestore("--manage-cgroups-mode strict"),
        ("sub-group", "cgroups-ignore") => Expected::NoRestore("is in another cgroup namespace"),
        ("tcp" | "tcp-by-a-hook", "none") => Expected::NoDump("tcp-established"),
        ("unix-socket", "none") => Expected::NoDump("ext-unix-sk"),
        ("locks", "none") => Expected::NoDump("file-locks"),
        ("renamed-file", "none") => Expected::NoDump("link-remap"),
        _ => Expected::Restored,
    }
}

/// linux/capability.h
const CAP_SYS_RESOURCE: u8 = 24;

fn differences(mut case: Case, kind: &Kind, flag: &Flag) -> Case {
    match (kind.name, flag.name) {
        ("user-namespace", "lazy-pages") => {
            case.differs(
                "corten",
                "its root may open no userfaultfd(2), unless vm.unprivileged_userfaultfd is 1",
            );
            case.runc("restores none")
        }
        (_, "network-lock-iptables" | "network-lock-nftables" | "network-lock-skip") => {
            case.runc("has no --network-lock")
        }
        (_, "tcp-close") => case.runc("has no --tcp-close"),
        // Its failure looks like the refusal.
        ("user-namespace", "lsm-profile" | "cgroups-strict") => case,
        ("user-namespace", "leave-running") => case.runc("on v2: cannot dump it"),
        ("user-namespace", _) => case.runc("restores none; on v2 it cannot dump it, either"),
        ("sub-group", "cgroups-ignore") => case.runc("restores it into the host's cgroup namespace"),
        ("paused", "cgroups-full") => {
            case.runc("on v1: CRIU freezes itself with the group, and the restore never ends")
        }
        _ => case,
    }
}

/// The flags of a command: those of the column, and what the container needs.
fn flags(t: &Test, kind: &Kind, flag: &Flag, column: &str) -> String {
    let needed = match kind.flags {
        _ if flag.name == "none" => "",
        // Whoever closes what was connected does not restore it.
        "--tcp-established" if column.contains("tcp-close") => "",
        same if column == same => "",
        other => other,
    };
    format!("{needed} {}", column.replace("WORK", &t.file("work")))
}

fn dump(t: &Test, kind: &Kind, flag: &Flag, b: &Bundle, more: &str) -> Result<Done, Trouble> {
    let flags = flags(t, kind, flag, flag.dump);
    t.cli(&format!("checkpoint --image-path {} {flags} {more} {}", t.file("images"), b.id))
}

fn restore(
    t: &Test,
    kind: &Kind,
    flag: &Flag,
    scene: &Scene,
    b: &Bundle,
    more: &str,
) -> Result<Done, Trouble> {
    let needed = flags(t, kind, flag, flag.restore).replace("--link-remap", "");
    scene.begin(t, &format!("restore --detach --image-path {} {needed} {more}", t.file("images")), b)
}

fn launched(t: &Test, kind: &Kind) -> Result<Scene, Trouble> {
    let scene = (kind.make)(t)?;
    scene.launch(t)?;
    if kind.name == "paused" {
        t.cli(&format!("pause {}", scene.bundle.id))?.ok()?;
    }
    Ok(scene)
}

fn round(t: &Test, kind: &Kind, flag: &Flag) -> Verdict {
    possible(t, kind, flag)?;
    let scene = launched(t, kind)?;
    let b = &scene.bundle;
    match flag.way {
        Way::Round => _ = dump(t, kind, flag, b, "")?.ok()?,
        Way::Stays => {
            dump(t, kind, flag, b, "--leave-running")?.ok()?;
            if kind.name == "paused" {
                t.has_status(b, "paused")?;
                t.cli(&format!("resume {}", b.id))?.ok()?;
            }
            return scene.goes_on(t, b);
        }
        Way::Chain | Way::PreDump => {
            let flags = flags(t, kind, flag, "");
            let into = |dir: &str, more: &str| {
                t.cli(&format!("checkpoint --image-path {} {flags} {more} {}", t.file(dir), b.id))?
                    .ok()
                    .map(drop)
            };
            into("before", "--pre-dump")?;
            let mut last = "--parent-path ../before";
            if flag.way == Way::Chain {
                into("middle", "--leave-running --parent-path ../before")?;
                last = "--parent-path ../middle";
            }
            dump(t, kind, flag, b, last)?.ok()?;
        }
        Way::Served => {
            let server = PageServer::start(t, "images")?;
            dump(t, kind, flag, b, &format!("--page-server 127.0.0.1:{}", server.port))?.ok()?;
            server.finish(t)?;
        }
        Way::Lazy => return lazily(t, kind, flag, &scene),
    }
    check!(t.cli(&format!("state {}", b.id))?.code != 0, "the container is still there after its checkpoint");
    restore(t, kind, flag, &scene, b, "")?.ok()?;
    check!(flag.name != "work-path" || t.path("work/restore.log").exists(), "no log in the work directory");
    match (flag.name, scene.peer()) {
        ("tcp-close", Some(_)) => closed(t, &scene),
        // Whether something comes in while nothing holds it off is chance.
        ("network-lock-skip", Some(_)) => scene.goes_on(t, b).or_else(|_| closed(t, &scene)),
        _ => scene.goes_on(t, b),
    }
}

/// What cannot be shown here.
fn possible(t: &Test, kind: &Kind, flag: &Flag) -> Verdict {
    if kind.single && flag.way == Way::Lazy {
        return Err(Trouble::NotRun("would be on this machine twice".into()));
    }
    if flag.name == "network-lock-iptables" && !in_path("iptables-restore") {
        return Err(Trouble::NotRun("no iptables-restore here".into()));
    }
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    if t.host.is_v2() && flag.name == "cgroups-full" && groups.lines().any(|line| !line.starts_with("0::")) {
        return Err(Trouble::NotRun("CRIU would write to groups of the host's v1 hierarchies".into()));
    }
    Ok(())
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// The connection is closed after the restore: the program is told.
fn closed(t: &Test, scene: &Scene) -> Verdict {
    t.until(
        || "word of the closed connection".into(),
        || Ok(scene.bundle.rootfs("trouble").exists().then_some(())),
    )
}

/// While its pages still come from the first, the second runs already.
fn lazily(t: &Test, kind: &Kind, flag: &Flag, scene: &Scene) -> Verdict {
    let first = &scene.bundle;
    let flags = flags(t, kind, flag, flag.dump);
    let lazy = LazyPages::dump(t, first, &flags)?;
    let mut second = first.clone();
    second.id = format!("{}-lazy", first.id);
    let second = second.set("/linux/cgroupsPath", serde_json::json!(format!("/{}-lazy", first.id)));
    let daemon = lazy.fetch(t)?;
    let done =
        restore(t, kind, flag, scene, &second, &format!("--lazy-pages --work-path {}", t.file("work")))?;
    done.ok()?;
    scene.goes_on(t, &second)?;
    daemon.finish(t)?;
    lazy.finish(t)?;
    check!(t.cli(&format!("state {}", first.id))?.code != 0, "the first is still there");
    scene.goes_on(t, &second)
}

/// Refused in one line: on dump the container runs on, on restore nothing is left.
fn refuses(t: &Test, kind: &Kind, flag: &Flag, words: &str, on_dump: bool) -> Verdict {
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if flag.name == "lsm-profile" && apparmor.trim() == "Y" {
        return Err(Trouble::NotRun("this kernel has AppArmor".into()));
    }
    let scene = launched(t, kind)?;
    let b = &scene.bundle;
    let complains = |done: &Done| -> Verdict {
        check!(done.code != 0, "it is not refused");
        if t.host.name == "corten" {
            done.refuses(&[words])?;
        }
        Ok(())
    };
    let done = dump(t, kind, flag, b, "")?;
    if on_dump {
        complains(&done)?;
        return scene.goes_on(t, b);
    }
    done.ok()?;
    let before = t.snapshot();
    complains(&restore(t, kind, flag, &scene, b, "")?)?;
    t.unchanged_since(&before)
}

/// Whatever the flag: what an exec brought in would be lost.
fn exec_inside(flag: &'static Flag) -> Case {
    let made = case(format!("matrix/exec-inside/{}/refused", flag.name), move |t| {
        let scene_kind = &KINDS[0];
        let b = holds(t, "pair")?;
        t.launch(&b)?;
        super::checkpoint::counts_on(t, &b)?;
        t.cli_words(&["exec", "--detach", &b.id, "/probe", "sleep", "1000"])?.ok()?;
        let more = match flag.way {
            Way::Stays => "--leave-running",
            Way::PreDump => "--pre-dump",
            _ => "",
        };
        let done = dump(t, scene_kind, flag, &b, more)?;
        check!(done.code != 0, "it is dumped");
        if t.host.name == "corten" {
            done.refuses(&["was brought in by an exec"])?;
        }
        t.has_status(&b, "running")?;
        super::checkpoint::counts_on(t, &b)
    });
    let made = made.needs(if flag.name == "none" { &[] } else { &[Need::Long] });
    // What it does not know, it refuses, too.
    match flag.dump.starts_with("--network-lock") || flag.way == Way::PreDump {
        true => made,
        false => made.runc("dumps without what the exec brought in, which is lost"),
    }
}

fn without_root() -> Case {
    case("matrix/without-root/none/refused", |t| {
        let user = User::new(t)?;
        let b = user.bundle()?.writable().probe("hold pair");
        user.launch(&b)?;
        super::checkpoint::counts_on(t, &b)?;
        fs::create_dir(t.path("images"))?;
        crate::harness::user::give(&t.path("images"))?;
        let done = user.cli(&format!("checkpoint --image-path {} {}", t.file("images"), b.id))?;
        check!(done.code != 0, "it is dumped");
        if t.host.name == "corten" {
            done.refuses(&["root"])?;
        }
        super::checkpoint::counts_on(t, &b)?;
        user.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
    })
}
