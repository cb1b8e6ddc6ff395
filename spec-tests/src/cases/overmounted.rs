// SPDX-License-Identifier: Apache-2.0
//! What the runtime writes below procfs, while the container does what it can to have it written elsewhere (S18 of the list of
//! advisories: CVE-2025-52881): the container may mount, and lays trees of its own over /proc and over what is in there.
//!
//! Control: who joins the container's mount namespace and writes by path must write into the attacker's file first, and by its links into
//! another file of a real procfs: the score of the container's first process, which is nothing of the host's.

#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::json;

use super::procfs_writes::{Writes, labels};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::test::Test;
use crate::sys;

/// So many execs are attacked, and with `--long` so many.
const EXECS: usize = 100;
const MANY: usize = 1000;
/// Of which so many are looked at call by call, before the others.
const LOOKED_AT: usize = 5;
/// What a label is written into, and a process's score.
const LABEL: &CStr = c"/proc/self/attr/exec";
const FILES: [&str; 9] = [
    "attr/exec",
    "attr/current",
    "attr/keycreate",
    "attr/apparmor/exec",
    "oom_score_adj",
    "setgroups",
    "uid_map",
    "gid_map",
    "timens_offsets",
];
/// A score, since it may be led to one; no label, since it may be written where it belongs.
const CARELESS: &[u8] = b"7";
/// The score of the container's first process while it is bait; execs get another.
const BAIT: &str = "222";

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("race/S18-over-mounter-during-execs", over_mounter)
            .takes(120.0)
            .both("at times: writes what lies at /proc"),
    ]
}

/// The container whose first process mounts.
struct Attacker {
    bundle: Bundle,
    trap: Inotify,
}

impl Attacker {
    fn begin(t: &Test) -> Result<Self, Trouble> {
        let b = t.bundle()?.writable().dir("trap", 0o755)?.dir("real", 0o755)?.mount(
            "proc",
            "proc",
            "/real",
            &[],
        );
        let b = b.grants(&["SYS_ADMIN", "SYS_PTRACE", "KILL"]).set("/process/oomScoreAdj", json!(300)).mount(
            "tmpfs",
            "tmpfs",
            "/tmp",
            &["mode=1777"],
        );
        prepare(&b.rootfs("trap/written"), |file| fs::write(file, "bait"))?;
        prepare(&b.rootfs("trap/led"), |file| symlink("/real/1/oom_score_adj", file))?;
        let bundle = b.probe("overmount /trap");
        let trap = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        t.launch(&bundle)?;
        Ok(Self { bundle, trap })
    }

    /// A careless one must be caught in both ways.
    fn wins(&self, t: &Test) -> Verdict {
        fs::write(self.score_of_init(t)?, BAIT)?;
        let namespace = File::open(format!("/proc/{}/ns/mnt", t.pid(&self.bundle)?))?;
        for round in 1..=4000 {
            sys::write_in_mount_namespace(namespace.as_fd(), LABEL, CARELESS)?;
            if round % 50 == 0 && !self.is_untouched()? && self.score(t)? != BAIT {
                self.lay(t)?;
                return Ok(());
            }
        }
        Err(Trouble::NotRun("a careless writer was not caught by what was mounted over /proc".into()))
    }

    /// The bait anew, and who opens it from here on is noted.
    fn lay(&self, t: &Test) -> Verdict {
        fs::write(self.score_of_init(t)?, BAIT)?;
        let noted = AddWatchFlags::IN_OPEN | AddWatchFlags::IN_ACCESS | AddWatchFlags::IN_MODIFY;
        for name in FILES {
            let file = self.bundle.rootfs("trap/written/self").join(name);
            fs::write(&file, "bait")?;
            self.trap.add_watch(&file, noted).map_err(|errno| match errno {
                Errno::ENOSPC => Trouble::NotRun("the kernel gives no more inotify watches here".into()),
                other => other.into(),
            })?;
        }
        Ok(())
    }

    fn is_untouched(&self) -> Result<bool, Trouble> {
        let texts = FILES.map(|name| fs::read_to_string(self.bundle.rootfs("trap/written/self").join(name)));
        Ok(texts.into_iter().all(|text| text.is_ok_and(|text| text == "bait")))
    }

    fn score_of_init(&self, t: &Test) -> Result<PathBuf, Trouble> {
        Ok(PathBuf::from(format!("/proc/{}/oom_score_adj", t.pid(&self.bundle)?)))
    }

    fn score(&self, t: &Test) -> Result<String, Trouble> {
        Ok(fs::read_to_string(self.score_of_init(t)?)?.trim().to_owned())
    }

    /// Nothing was written there, and nothing read.
    fn caught_nothing(&self, t: &Test) -> Verdict {
        let opened = self.trap.read_events().map_or(0, |events| events.len());
        same("times that the attacker's files were opened", opened, 0)?;
        check!(self.is_untouched()?, "the attacker's files were written to");
        same("the score of another process, to which links lead", self.score(t)?.as_str(), BAIT)
    }

    fn end(self, t: &Test) -> Verdict {
        fs::write(self.bundle.rootfs("trap/stop"), "")?;
        t.await_status(&self.bundle, "stopped")?;
        t.cli(&format!("delete --force {}", self.bundle.id))?.ok().map(drop)
    }
}

/// A tree like a procfs, in which each of [`FILES`] is what `make` makes of it.
fn prepare(tree: &Path, make: impl Fn(&Path) -> std::io::Result<()>) -> Verdict {
    for name in FILES {
        let file = tree.join("self").join(name);
        fs::create_dir_all(file.parent().unwrap_or(tree))?;
        make(&file)?;
    }
    symlink("self", tree.join("thread-self"))?;
    Ok((1..100).try_for_each(|pid: u32| symlink("self", tree.join(pid.to_string())))?)
}

fn over_mounter(t: &Test) -> Verdict {
    let attacker = Attacker::begin(t)?;
    attacker.wins(t)?;
    let id = &attacker.bundle.id;
    let label = if labels(t) { "--apparmor corten-test" } else { "" };
    let mut writes = 0;
    for _ in 0..LOOKED_AT {
        let mut command = t.runtime();
        command.args(format!("exec {label} {id} /probe exit 0").split_whitespace());
        let seen = Writes::of(t, command)?;
        check!(seen.count > 0, "no write below procfs was seen");
        writes += seen.count;
        seen.are_nobodys()?;
    }
    // What the label forbids shows that it was written where it belongs.
    t.exec(&attacker.bundle, "", "/probe try mkdir /tmp/denied")?.ok()?;
    let (op, want) = ("create /tmp/denied/x", if labels(t) { "EACCES" } else { "ok|EEXIST" });
    let count = if t.host.long { MANY } else { EXECS };
    for _ in 0..count {
        let done = t.exec(&attacker.bundle, label, &format!("/probe try {op}"))?;
        t.compare(&done.ok()?.stdout, &[(op, want)])?;
    }
    attacker.caught_nothing(t)?;
    let label = if labels(t) { "a label and a score" } else { "a score" };
    eprintln!(
        "OVERMOUNTED {count} execs with {label}, {writes} writes in {LOOKED_AT} of them looked at, 0 caught"
    );
    attacker.end(t)
}
