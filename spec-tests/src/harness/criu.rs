// SPDX-License-Identifier: Apache-2.0
//! CRIU's own commands beside a checkpoint or a restore: the page server, and the daemon that fetches pages when they are needed.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::bundle::Bundle;
use super::case::{Trouble, Verdict};
use super::host::criu_version;
use super::test::{Running, Test};
use crate::check;

/// Without what the CRIU that is here loses: it refuses such a container.
pub fn carried(b: Bundle) -> Bundle {
    if criu_version() < (3, 19) { b.set("/process/noNewPrivileges", serde_json::json!(false)) } else { b }
}

/// A `criu page-server` that writes into a directory of the case's.
pub struct PageServer {
    pub port: u16,
    running: Running,
}

/// A port that nobody uses at the moment.
fn free_port() -> Result<u16, Trouble> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until somebody listens there: a connection would be taken for the one.
fn listening(t: &Test, port: u16) -> Verdict {
    let mark = format!(":{port:04X} 00000000:0000 0A");
    t.until(
        || format!("somebody who listens on port {port}"),
        || Ok(fs::read_to_string("/proc/net/tcp")?.contains(&mark).then_some(())),
    )
}

fn criu(t: &Test, words: &str) -> Result<Running, Trouble> {
    let mut command = Command::new("criu");
    command.args(words.split_whitespace());
    t.spawn(command)
}

impl PageServer {
    pub fn start(t: &Test, dir: &str) -> Result<Self, Trouble> {
        let port = free_port()?;
        private(t, dir)?;
        let words = format!(
            "page-server --images-dir {} --address 127.0.0.1 --port {port} -v4 -o page-server.log",
            t.file(dir)
        );
        let running = criu(t, &words)?;
        listening(t, port)?;
        Ok(Self { port, running })
    }

    /// It ends when it has got everything.
    pub fn finish(self, t: &Test) -> Verdict {
        t.finish(self.running)?.ok().map(drop)
    }
}

/// A directory for images: nobody else may write there.
fn private(t: &Test, dir: &str) -> Verdict {
    use std::os::unix::fs::DirBuilderExt;
    Ok(fs::DirBuilder::new().recursive(true).mode(0o700).create(t.path(dir))?)
}

/// A checkpoint that still has the pages.
pub struct LazyPages {
    port: u16,
    running: Running,
}

impl LazyPages {
    /// `checkpoint --lazy-pages`, until it says that pages can be fetched.
    pub fn dump(t: &Test, b: &Bundle, flags: &str) -> Result<Self, Trouble> {
        let port = free_port()?;
        let (mut ready, status) = std::io::pipe()?;
        let mut command = t.runtime();
        let words = format!(
            "checkpoint --image-path {} {flags} --lazy-pages --status-fd 9 --page-server 127.0.0.1:{port} {}",
            t.file("images"),
            b.id
        );
        command.args(words.split_whitespace());
        crate::sys::with_fd(&mut command, status.as_raw_fd(), 9);
        let running = t.spawn(command)?;
        drop(status);
        let mut wait = [PollFd::new(std::os::fd::AsFd::as_fd(&ready), PollFlags::POLLIN)];
        check!(poll(&mut wait, PollTimeout::from(20_000_u16))? == 1, "nothing came through --status-fd");
        let mut byte = [1];
        if ready.read(&mut byte)? != 1 {
            t.finish(running)?.ok()?;
            return Err("the end of --status-fd, and no byte".into());
        }
        check!(byte == [0], "{byte:?} came through --status-fd");
        Ok(Self { port, running })
    }

    /// `criu lazy-pages`, which a restore asks.
    pub fn fetch(&self, t: &Test) -> Result<PageServer, Trouble> {
        private(t, "work")?;
        let words = format!(
            "lazy-pages --page-server --address 127.0.0.1 --port {} --images-dir {} --work-dir {} -v4 -o lazy.log",
            self.port,
            t.file("images"),
            t.file("work")
        );
        let running = criu(t, &words)?;
        t.until(
            || "the daemon's socket".into(),
            || Ok(t.path("work/lazy-pages.socket").exists().then_some(())),
        )?;
        Ok(PageServer { port: self.port, running })
    }

    /// It ends when every page has been fetched.
    pub fn finish(self, t: &Test) -> Verdict {
        t.finish(self.running)?.ok().map(drop)
    }
}
