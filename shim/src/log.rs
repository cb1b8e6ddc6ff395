// SPDX-License-Identifier: Apache-2.0
//! The shim's log: one line per record into the FIFO `log` of the bundle, which containerd reads.
//!
//! It never waits: a record that does not fit is dropped, and the FIFO is kept for a containerd that comes back.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, open};

static LOG: OnceLock<(OwnedFd, bool)> = OnceLock::new();

/// Opens the FIFO in the working directory. Without one nothing is logged.
pub fn open_here(debug: bool) {
    // Read and write: then there is always a reader, and a write gives EAGAIN instead of EPIPE when containerd is away.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if let Ok(fd) = open("log", flags, Mode::empty())
        && rustix::fs::fstat(&fd)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_fifo())
    {
        let _ = LOG.set((fd, debug));
    }
}

/// The FIFO, and whether the log is verbose, for whoever goes on with it.
pub fn fifo() -> Option<(&'static OwnedFd, bool)> {
    LOG.get().map(|(fd, debug)| (fd, *debug))
}

/// Goes on with one.
pub fn go_on(fifo: OwnedFd, debug: bool) {
    let _ = LOG.set((fifo, debug));
}

/// Something is wrong, and goes on.
pub fn warn(text: &str) {
    write("warning", text);
}

/// Worth knowing.
pub fn info(text: &str) {
    write("info", text);
}

/// Told at `-debug` only.
pub fn debug(text: &str) {
    if LOG.get().is_some_and(|(_, debug)| *debug) {
        write("debug", text);
    }
}

fn write(level: &str, text: &str) {
    if let Some((fd, _)) = LOG.get() {
        let _ = rustix::io::write(fd, record(&corten::state::now(), level, text).as_bytes());
    }
}

/// As logrus writes its text records. At most a page, so that the kernel does not mix it with another one.
fn record(now: &str, level: &str, text: &str) -> String {
    const MOST: usize = 3500;
    let mut end = text.len().min(MOST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let quoted = serde_json::Value::from(&text[..end]);
    format!("time=\"{now}\" level={level} msg={quoted} runtime=io.containerd.corten.v2\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_record_is_one_line_of_bounded_length() {
        let line = super::record("T", "warning", "a \"b\"\nc");
        assert_eq!(
            line,
            "time=\"T\" level=warning msg=\"a \\\"b\\\"\\nc\" runtime=io.containerd.corten.v2\n"
        );
        let long = super::record("T", "debug", &"ä".repeat(9000));
        assert!(long.len() < 4096 && long.ends_with('\n'));
    }
}
