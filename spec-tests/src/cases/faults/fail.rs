// SPDX-License-Identifier: Apache-2.0
//! R02: any system call of the runtime or the stage fails. A peer's words are its own: of it is asked that it ends in time, and that its
//! `delete --force` finds what it left.

#![forbid(unsafe_code)]

use nix::errno::Errno;

use super::Play;
use super::scenes::{Before, Scene};
use crate::check;
use crate::harness::case::{Case, Verdict, case};
use crate::harness::done::Done;
use crate::harness::test::Test;
use crate::harness::tracer::{Fault, Point, Traced, name_of};

/// What calls fail with.
const ERRNOS: [Errno; 7] =
    [Errno::ENOMEM, Errno::EIO, Errno::ENOSPC, Errno::EMFILE, Errno::EINTR, Errno::EAGAIN, Errno::EPERM];

/// Minutes, when every point is tried.
const SECONDS: f64 = 3600.0;

pub fn case_of(scene: Scene) -> Case {
    let name = format!("faults/failing-{}", scene.name());
    let told = name.clone();
    case(name, move |t| every_point(t, scene, &told))
        .needs(&scene.needs())
        .takes(SECONDS)
        .runc("at times: what a failed launch has made stays, and nothing names it")
        .crun("at times: what a failed launch has made stays; on a hybrid host it does not run")
}

fn every_point(t: &Test, scene: Scene, name: &str) -> Verdict {
    let mut play = Play::of(scene.ground(t)?);
    let ours = t.host.name == "corten";
    for (number, point) in play.points(can_fail)?.into_iter().enumerate() {
        // Not every point with every errno: the next point gets the next ones.
        for errno in ERRNOS.iter().cycle().skip(number).take(if t.host.every == Some(1) { 2 } else { 1 }) {
            play.disturb(point, Fault::Errno(*errno), |play, came| {
                let alone = ours && !scene.fails_anyway() && came.done.code != 0;
                let Some(call) = came.hit.filter(|call| alone && !cannot_be(*call, came)) else {
                    return Ok(());
                };
                says_why(&came.done, call, *errno)?;
                match scene {
                    // It has undone what it did.
                    Scene { before: Before::Nothing, .. } => t.unchanged_since(&play.before),
                    Scene { verb: "pause", .. } => t.has_status(&play.ground.bundle, "running"),
                    _ => Ok(()),
                }
            })?;
        }
    }
    play.end(name)
}

/// What the kernel never refuses.
const NEVER: [i64; 12] = [
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
];

/// Whether a fault there says something of the runtime. Not before `main`: the C library and the standard library end a process whose
/// start fails. And not a call that the kernel never refuses: nobody looks at its answer.
fn can_fail(point: Point, calls: &[i64]) -> bool {
    let start = calls.iter().take(12).rposition(|call| *call == libc::SYS_sigaltstack);
    let started = point.process > 0 || point.call > start.unwrap_or(0);
    started && calls.get(point.call).is_some_and(|call| !NEVER.contains(call))
}

/// Whether nobody counts with it: the calls of a command are not always the same, so that a point is another call now and then. "The
/// CLOEXEC pipe failed": of all that the standard library does to start a hook, this it takes for impossible; and
/// a thread's start is as a program's.
fn cannot_be(call: i64, came: &Traced) -> bool {
    let of = |file: &str| came.done.stderr.contains(&format!("library/std/src/sys/{file}"));
    NEVER.contains(&call)
        || of("pal/unix/stack_overflow.rs")
        || (call == libc::SYS_recvfrom && of("process/unix"))
}

/// One line that names the call and the errno.
fn says_why(done: &Done, call: i64, errno: Errno) -> Verdict {
    check!(done.code < 128 || done.code == 255, "{done}");
    let lines = done.errors();
    check!(lines.len() == 1, "{} lines of error: {done}", lines.len());
    let name = name_of(call);
    let names = words_for(&name);
    // Who asks for a lock without waiting is told so that another has it; the C library has one errno for a thread that cannot be.
    // That a limit can be read nobody doubts: one that could not is taken for none.
    // A device that a group above refuses is not allowed, and nothing is said until it is opened.
    let by_design = (call == libc::SYS_flock && errno == Errno::EAGAIN)
        || (call == libc::SYS_write && lines[0].contains("process.terminal: openat2(): "))
        || (call == libc::SYS_prlimit64 && lines[0].contains("setrlimit(RLIMIT_NOFILE"))
        || lines[0].contains("clone(thread): ");
    // The standard library does not tell what it was at when it started a program: it is all its exec.
    let named = names.iter().chain([&"execve("]).any(|name| lines[0].contains(name));
    let named = named && lines[0].contains(&format!("({errno:?})"));
    check!(by_design || named, "does not name {names:?} and {errno:?}: {done}");
    Ok(())
}

/// What a call may be called: the kernel has several for one thing, libraries choose, and whoever reads or writes a file, or walks through a tree, opens it.
/// Clients match runc's words for a working directory (`chdir to cwd`), and Go's for a program (`exec: "…"`).
fn words_for(name: &str) -> Vec<&str> {
    let others: &[&str] = match name {
        "open" | "openat" | "openat2" => &["open", "read(", "write(", "walk(", "chdir to cwd"],
        "fstat" | "newfstatat" | "stat" | "lstat" | "statx" => &["stat", "read(", "exec: "],
        "faccessat2" | "faccessat" => &["access", "exec: "],
        "fchdir" | "getcwd" | "chdir" => &["chdir to cwd"],
        "execve" | "execveat" => &["exec /", "exec: "],
        "fcntl" => &["dup"],
        "getdents64" => &["walk(", "read(", "rmdir("],
        "ppoll" => &["poll"],
        "wait4" | "waitid" => &["wait"],
        "prlimit64" => &["setrlimit"],
        "pipe2" => &["pipe"],
        "pread64" => &["pread("],
        "pwrite64" => &["pwrite("],
        "mkdirat" => &["mkdir"],
        "unlinkat" => &["unlink", "rmdir"],
        "renameat" | "renameat2" => &["rename"],
        "fchownat" | "lchown" => &["chown"],
        "readlinkat" => &["readlink"],
        "mknodat" => &["mknod"],
        "clock_nanosleep" => &["nanosleep"],
        _ => &[],
    };
    others.iter().copied().chain([name]).collect()
}
