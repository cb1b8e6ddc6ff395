// SPDX-License-Identifier: Apache-2.0
//! The end of CRIU's log, for an error's one line.

#![forbid(unsafe_code)]

use std::io::{Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, openat};

use crate::error::printable;

/// How much of its end, or of its beginning, is looked at.
const KEPT: u64 = 32 * 1024;
/// How many complaints are quoted.
const LINES: usize = 3;

/// What comes with every failure, or without one.
const NO_CAUSE: [&str; 3] = ["rlimit: Can't setup RLIMIT_NOFILE", "FAILED.", "cgroupd: recv req error"];

/// A log in this directory, which may be anybody's: no link is followed, nothing waited for.
fn open(dir: BorrowedFd<'_>, name: &str) -> Option<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(openat(dir, name, flags, Mode::empty()).ok()?);
    file.metadata().is_ok_and(|meta| meta.is_file()).then_some(file)
}

/// As much of it as is looked at, from where it stands.
fn read(file: std::fs::File) -> Option<String> {
    let mut bytes = Vec::new();
    file.take(KEPT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last complaints of a log in this directory, without their times: what CRIU says of its own set-up
/// (`rlimit: …`), which is no reason, is left out.
pub(crate) fn complaints(dir: BorrowedFd<'_>, name: &str) -> Option<String> {
    let mut file = open(dir, name)?;
    let length = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(length.saturating_sub(KEPT))).ok()?;
    quoted(&read(file)?)
}

/// The names by which CRIU called its runs, which stand where this log begins: its own, and on a restore that of the dump (CRIU 4).
pub(crate) fn run_ids(dir: BorrowedFd<'_>, name: &str) -> Vec<String> {
    let text = open(dir, name).and_then(read).unwrap_or_default();
    text.lines().filter_map(run_id).collect()
}

fn run_id(line: &str) -> Option<String> {
    let id = line.split_once("run id = ")?.1.trim();
    let is_id = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (!id.is_empty() && id.len() <= 64 && id.bytes().all(is_id)).then(|| id.to_owned())
}

fn quoted(text: &str) -> Option<String> {
    let complaint = |line: &'_ str| -> Option<String> {
        let at = line.find("Error (")?;
        let said = line[at..].split_once("): ")?.1;
        (!NO_CAUSE.iter().any(|words| said.contains(words))).then(|| said.trim().to_owned())
    };
    let mut said: Vec<String> = text.lines().filter_map(complaint).collect();
    said.dedup();
    // The first is the cause, the others follow from it.
    said.truncate(LINES);
    (!said.is_empty()).then(|| printable(&said.join("; ")).into_owned())
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn the_cause_is_quoted_and_the_rest_is_not() {
        let log = "(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
                   (00.2) Dumping processes\n\
                   (00.3) Error (criu/mount.c:753): mnt: 51:./x doesn't have a \x1bproper root mount\n\
                   (00.4) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";
        assert_eq!(quoted(log).unwrap(), "mnt: 51:./x doesn't have a \\u{1b}proper root mount");
        assert_eq!(quoted("all is well\n"), None);
    }
}
