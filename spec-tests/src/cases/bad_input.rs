// SPDX-License-Identifier: Apache-2.0
//! What no runtime may accept, and what it must say: one line that names the field, the step or the errno; exit code
//! 1; and nothing left behind.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::json;

use super::{bad_files, bad_linux, bad_values};
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::test::Test;

/// One thing that is wrong.
pub struct Bad {
    name: &'static str,
    /// Makes the bundle bad.
    spoil: fn(Bundle) -> Bundle,
    /// What everybody must say.
    says: &'static [&'static str],
    /// What Corten must say besides: the field's name, above all.
    corten: &'static [&'static str],
    runc: &'static str,
    crun: &'static str,
}

/// A row of which both peers know what to say.
pub const fn bad(
    name: &'static str,
    spoil: fn(Bundle) -> Bundle,
    says: &'static [&'static str],
    corten: &'static [&'static str],
) -> Bad {
    Bad { name, spoil, says, corten, runc: "", crun: "" }
}

impl Bad {
    /// runc is known to do otherwise.
    pub const fn runc(mut self, reason: &'static str) -> Self {
        self.runc = reason;
        self
    }

    /// crun is known to do otherwise.
    pub const fn crun(mut self, reason: &'static str) -> Self {
        self.crun = reason;
        self
    }
}

/// The chapter.
pub fn cases() -> Vec<Case> {
    let linux = [bad_linux::NAMESPACES, bad_linux::ROOT, bad_linux::RESOURCES];
    let values = [bad_values::GENERAL, bad_values::SCHEDULING, bad_values::FILES, bad_values::RESOURCES];
    let tables = [PROCESS, PROGRAM].into_iter().chain(linux).chain(values).flatten();
    let mut all: Vec<Case> = tables.map(row).collect();
    all.extend(bad_files::cases());
    all
}

fn row(bad: &'static Bad) -> Case {
    let body = move |t: &Test| refused(t, (bad.spoil)(t.bundle()?), bad.says, bad.corten);
    case(format!("bad/{}", bad.name), body).peer("runc", bad.runc).peer("crun", bad.crun)
}

/// `run` and `create` and `start` fail with one line that says all this, and leave nothing.
fn refused(t: &Test, b: Bundle, says: &[&str], corten: &[&str]) -> Verdict {
    let before = t.snapshot();
    let done = t.run(&b)?;
    done.refuses(says)?;
    if t.host.name == "corten" {
        done.complains(corten)?;
    }
    t.unchanged_since(&before)?;
    let created = t.try_create("create", &b)?;
    if created.code == 0 {
        // What can be found out at create should be; what the exec of the program alone shows is told by start.
        t.cli(&format!("start {}", b.id))?.refuses(says)?;
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
    }
    t.unchanged_since(&before)
}

const PROCESS: &[Bad] = &[
    bad("args-empty", |b| b.set("/process/args", json!([])), &["args"], &["/process/args|process.args"])
        .crun("does not name the field"),
    bad("args-absent", |b| b.remove("/process/args"), &["args"], &["/process/args|process.args"])
        .crun("does not name the field"),
    bad(
        "args-of-wrong-type",
        |b| b.set("/process/args", json!("sh")),
        &["args|cannot unmarshal|parse"],
        &["/process/args|process.args"],
    )
    .crun("takes it for absent"),
    bad(
        "args-hold-a-number",
        |b| b.set("/process/args", json!([7])),
        &["args|cannot unmarshal|parse"],
        &["/process/args|process.args"],
    )
    .crun("takes it"),
    bad(
        "first-arg-empty",
        |b| b.set("/process/args", json!([""])),
        &["args|executable|exec"],
        &["/process/args|process.args"],
    )
    .crun("does not name the field"),
    bad("process-absent", |b| b.remove("/process"), &["process"], &["process"]).crun("start succeeds"),
    bad(
        "cwd-relative",
        |b| b.set("/process/cwd", json!("tmp")),
        &["cwd", "absolute"],
        &["/process/cwd|process.cwd"],
    )
    .crun("takes it"),
    bad("cwd-absent", |b| b.remove("/process/cwd"), &["cwd"], &["/process/cwd|process.cwd"]),
    bad(
        "cwd-is-a-file",
        |b| b.set("/process/cwd", json!("/etc/passwd")),
        &["/etc/passwd|cwd", "not a directory|ENOTDIR"],
        &["/process/cwd|process.cwd", "ENOTDIR|not a directory"],
    ),
    bad(
        "cwd-cannot-be-made",
        |b| b.set("/process/cwd", json!("/proc/none")),
        &["/proc/none|cwd", "no such file|ENOENT"],
        &["/process/cwd|process.cwd"],
    ),
    bad(
        "uid-of-wrong-type",
        |b| b.set("/process/user", json!({"uid": "root", "gid": 0})),
        &["uid|user|cannot unmarshal|parse|invalid"],
        &["/process/user/uid|process.user.uid"],
    )
    .crun("takes it for 0"),
    bad(
        "uid-too-large",
        |b| b.set("/process/user", json!({"uid": 4_294_967_295u64, "gid": 0})),
        &["uid|user"],
        &["/process/user/uid|process.user.uid", "4294967295"],
    )
    .crun("stays root with it"),
    bad(
        "gid-too-large",
        |b| b.set("/process/user", json!({"uid": 0, "gid": 4_294_967_295u64})),
        &["gid|user"],
        &["/process/user/gid|process.user.gid", "4294967295"],
    )
    .crun("stays root with it"),
    bad(
        "additional-gid-too-large",
        |b| b.set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [4_294_967_295u64]})),
        &["group|gid|invalid argument"],
        &["/process/user/additionalGids|process.user.additionalGids", "4294967295"],
    )
    .crun("leaves its cgroup behind"),
    bad(
        "uid-over-32-bit",
        |b| b.set("/process/user", json!({"uid": 4_294_967_296u64, "gid": 0})),
        &["uid|user|cannot unmarshal"],
        &["/process/user/uid|process.user.uid"],
    ),
    bad(
        "rlimit-unknown",
        |b| b.push("/process/rlimits", json!({"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1})),
        &["RLIMIT_NOSUCH"],
        &["/process/rlimits|process.rlimits"],
    )
    .crun("leaves its cgroup behind"),
    bad(
        "rlimit-twice",
        |b| b.push("/process/rlimits", json!({"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512})),
        &["RLIMIT_NOFILE"],
        &["/process/rlimits|process.rlimits"],
    )
    .runc("a10: the last one wins")
    .crun("a10: the last one wins"),
    bad(
        "rlimit-soft-over-hard",
        |b| b.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 9, "hard": 8}])),
        &["RLIMIT_CORE|rlimit", "invalid argument|soft|EINVAL"],
        &["/process/rlimits|process.rlimits"],
    )
    .crun("leaves its cgroup behind"),
    bad(
        "oom-score-out-of-range",
        |b| b.set("/process/oomScoreAdj", json!(2000)),
        &["oom", "invalid argument|range|EINVAL"],
        &["/process/oomScoreAdj|process.oomScoreAdj"],
    )
    .runc("several lines of error")
    .crun("leaves its cgroup behind"),
    bad(
        "scheduler-unknown",
        |b| b.set("/process/scheduler", json!({"policy": "SCHED_NOSUCH"})),
        &["SCHED_NOSUCH|scheduler"],
        &["/process/scheduler|process.scheduler"],
    ),
    bad(
        "ioprio-unknown",
        |b| b.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_NOSUCH", "priority": 1})),
        &["IOPRIO_CLASS_NOSUCH|ioPriority|io priority"],
        &["/process/ioPriority|process.ioPriority"],
    ),
    bad(
        "personality-unknown",
        |b| b.set("/linux/personality", json!({"domain": "LINUX99"})),
        &["LINUX99|personality"],
        &["/linux/personality|linux.personality"],
    ),
    bad(
        "console-size-negative",
        |b| {
            b.set("/process/terminal", json!(true))
                .set("/process/consoleSize", json!({"height": -1, "width": 0}))
        },
        &["consoleSize|cannot unmarshal|parse|terminal|console|tcgetattr"],
        &["consoleSize"],
    ),
    bad(
        "selinux-label-without-selinux",
        |b| b.set("/process/selinuxLabel", json!("a:b:c:d")),
        &["selinux|label|attr"],
        &["/process/selinuxLabel|process.selinuxLabel"],
    )
    .crun("in the guest: ignores it"),
    bad(
        "apparmor-profile-without-apparmor",
        |b| b.set("/process/apparmorProfile", json!("no-such-profile")),
        &["apparmor|attr"],
        &["/process/apparmorProfile|process.apparmorProfile"],
    )
    .crun("ignores it"),
];

const PROGRAM: &[Bad] = &[
    bad(
        "program-not-in-PATH",
        |b| b.args(&["no-such-program"]),
        &[
            "no-such-program",
            "executable file not found in $PATH|executable file `no-such-program` not found in $PATH",
        ],
        &[],
    ),
    bad("program-absent", |b| b.args(&["/no/such"]), &["/no/such", "no such file or directory"], &[]),
    bad(
        "program-not-executable",
        |b| b.args(&["/etc/passwd"]),
        &["/etc/passwd", "permission denied|not executable"],
        &["permission denied"],
    ),
    bad(
        "program-is-a-directory",
        |b| b.args(&["/etc"]),
        &["/etc", "permission denied|is a directory|not a regular file"],
        &["permission denied|is a directory"],
    ),
    bad("program-below-a-file", |b| b.args(&["/etc/passwd/x"]), &["/etc/passwd/x", "not a directory"], &[]),
    bad("program-of-another-machine", |b| elf(b, 0xb7), &["exec format error"], &["/program"])
        .runc("run exits with 255")
        .crun("start succeeds"),
    bad("program-is-text", |b| program(b, b"just text\n"), &["exec format error"], &["/program"])
        .runc("run exits with 255")
        .crun("start succeeds"),
    bad("program-is-empty", |b| program(b, b""), &["exec format error"], &["/program"])
        .runc("run exits with 255")
        .crun("start succeeds"),
    bad(
        "program-with-absent-interpreter",
        |b| program(b, b"#!/no/such/interpreter\n"),
        &["no such file or directory"],
        &["/program"],
    )
    .runc("run exits with 255")
    .crun("start succeeds"),
    bad(
        "program-is-a-loop-of-links",
        |b| linked(b, "program", "program"),
        &["/program", "too many levels of symbolic links|ELOOP"],
        &[],
    ),
];

fn program(b: Bundle, bytes: &[u8]) -> Bundle {
    use std::os::unix::fs::PermissionsExt;
    let at = b.rootfs("program");
    // A bundle that could not be spoilt makes the case fail: the program is then absent, which reads otherwise.
    let written =
        fs::write(&at, bytes).and_then(|()| fs::set_permissions(&at, fs::Permissions::from_mode(0o755)));
    if written.is_ok() { b.args(&["/program"]) } else { b }
}

/// The head of a program for the machine with this number.
fn elf(b: Bundle, machine: u8) -> Bundle {
    let mut head = vec![0u8; 128];
    head[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    (head[16], head[18], head[20]) = (2, machine, 1);
    program(b, &head)
}

fn linked(b: Bundle, name: &str, target: &str) -> Bundle {
    let made: Result<Bundle, Trouble> = b.clone().link(name, target);
    made.unwrap_or(b).args(&["/program"])
}
