// SPDX-License-Identifier: Apache-2.0
//! A service manager's notification socket (sd_notify(3)), as runc proxies it: /run/notify/notify.sock inside.

#![forbid(unsafe_code)]

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, case, same};
use crate::harness::test::Test;

const CRUN: &str = "binds the manager's own socket in";

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("notify/run-detached-returns-when-ready", |t| {
            let manager = Manager::listen(t)?;
            let b = ready(t)?.probe("notify READY=1 -- forever");
            let done = t.complete(manager.with_socket(t.bundle_command("run -d", &b)?))?;
            done.ok()?;
            same(
                "what came",
                manager.heard()?,
                vec!["READY=1".into(), format!("MAINPID={}", t.pid(&b)?), "BARRIER=1".into()],
            )
        })
        .crun(CRUN),
        case("notify/start-returns-when-ready", |t| {
            let manager = Manager::listen(t)?;
            let b = ready(t)?.probe("report-to /tmp/report -- notify READY=1 -- forever").writable();
            t.complete(manager.with_socket(t.bundle_command("create", &b)?))?.ok()?;
            let mut start = t.runtime();
            start.args(["start", &b.id]);
            t.complete(manager.with_socket(start))?.ok()?;
            same("what came", manager.heard()?.len(), 3)?;
            let report = std::fs::read_to_string(b.rootfs("tmp/report"))?;
            let r = crate::harness::report::Report(serde_json::from_str(&report)?);
            same("NOTIFY_SOCKET", r.variable("NOTIFY_SOCKET"), vec!["/run/notify/notify.sock"])?;
            r.mount("/run/notify")?.has(&["ro", "nosuid", "nodev", "noexec"]).map(drop)
        })
        .crun(CRUN),
        case("notify/in-the-foreground", |t| {
            let manager = Manager::listen(t)?;
            let b = ready(t)?.probe("notify READY=1 -- sleep 0.2 -- exit 7");
            t.complete(manager.with_socket(t.bundle_command("run", &b)?))?.exits(7)?;
            let heard = manager.heard()?;
            check!(heard.first().is_some_and(|first| first == "READY=1"), "{heard:?}");
            check!(heard.get(1).is_some_and(|second| second.starts_with("MAINPID=")), "{heard:?}");
            Ok(())
        })
        .crun(CRUN),
        case("notify/an-end-without-a-word", |t| {
            let manager = Manager::listen(t)?;
            let b = ready(t)?.probe("sleep 0.1");
            t.complete(manager.with_socket(t.bundle_command("run -d", &b)?))?.ok()?;
            manager.silent()
        })
        .runc("never returns: it looks for the process, which nobody reaps while it does"),
        case("notify/status-is-passed-on-and-main-pids-are-not", |t| {
            let manager = Manager::listen(t)?;
            let b = ready(t)?.probe("notify STATUS=halfway MAINPID=1 FDSTORE=1 -- notify READY=1 -- forever");
            t.complete(manager.with_socket(t.bundle_command("run -d", &b)?))?.ok()?;
            let heard = manager.heard()?;
            let want = ["STATUS=halfway".into(), "READY=1".into(), format!("MAINPID={}", t.pid(&b)?)];
            same("what came", heard.iter().take(3).collect::<Vec<_>>(), want.iter().collect::<Vec<_>>())
        })
        .runc("runc#3324: drops it")
        .crun(CRUN),
        case("notify/as-an-ordinary-user", |t| {
            let manager = Manager::listen(t)?;
            let b = ready(t)?.set("/process/user", json!({"uid": 1000, "gid": 1000})).user_namespace();
            let b = b.probe("notify READY=1 -- forever");
            t.complete(manager.with_socket(t.bundle_command("run -d", &b)?))?.ok()?;
            same("what came", manager.heard()?.len(), 3)
        })
        .crun(CRUN),
        case("notify/a-manager-that-is-not-there", |t| {
            let b = ready(t)?.probe("notify READY=1 -- forever");
            let mut command = t.bundle_command("run -d", &b)?;
            command.env("NOTIFY_SOCKET", t.path("absent"));
            let done = t.complete(command)?;
            check!(done.code != 0 && done.stderr.contains("absent"), "{done}");
            Ok(())
        })
        .runc("returns 0, and says nothing")
        .crun(CRUN),
    ]
}

fn ready(t: &Test) -> Result<Bundle, Trouble> {
    t.bundle()?.dir("run/notify", 0o755)
}

/// Who a service reports to: hears until the barrier.
struct Manager {
    path: std::path::PathBuf,
    heard: JoinHandle<Result<Vec<String>, String>>,
}

impl Manager {
    fn listen(t: &Test) -> Result<Manager, Trouble> {
        let path = t.path("manager");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        let heard = std::thread::spawn(move || {
            let mut all: Vec<String> = Vec::new();
            let mut text = [0; 4096];
            // A descriptor that comes along is closed by the kernel, which is what its sender waits for.
            while all.last().is_none_or(|last| last != "BARRIER=1") {
                let length = socket.recv(&mut text).map_err(|error| format!("{error} after {all:?}"))?;
                let text = String::from_utf8_lossy(&text[..length]);
                all.extend(text.lines().map(str::to_owned));
            }
            Ok(all)
        });
        Ok(Manager { path, heard })
    }

    fn with_socket(&self, mut command: Command) -> Command {
        command.env("NOTIFY_SOCKET", &self.path);
        command
    }

    fn heard(self) -> Result<Vec<String>, Trouble> {
        let heard = self.heard.join().unwrap_or_else(|_| Err("the manager panicked".into()));
        heard.map_err(|error| format!("the manager heard no barrier: {error}").into())
    }

    fn silent(self) -> Result<(), Trouble> {
        let heard = self.heard.join().unwrap_or_else(|_| Err("the manager panicked".into()));
        check!(heard.as_ref().is_err_and(|error| error.ends_with("after []")), "something came: {heard:?}");
        Ok(())
    }
}
