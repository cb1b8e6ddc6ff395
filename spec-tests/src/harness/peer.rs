// SPDX-License-Identifier: Apache-2.0
//! A peer outside: a network namespace with a server that sends each line back, and another for the container, joined by a veth
//! pair. All of it is gone with the case.

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, setns, unshare};

use super::case::{Trouble, Verdict};
use super::test::Test;
use crate::check;

/// The server's address.
pub const SERVER: &str = "10.9.8.2:7000";
/// Where the container is.
pub const CONTAINER: &str = "10.9.8.1";

/// The peer.
pub struct NetPeer {
    /// The container's network namespace, to be joined by path.
    pub inside: PathBuf,
    /// The server's.
    pub outside: PathBuf,
    /// Connections that have ended.
    ended: Arc<AtomicUsize>,
}

/// ip(8), if this environment has it.
fn ip(words: &str) -> Verdict {
    let missing = |error: std::io::Error| Trouble::NotRun(format!("no ip(8) here: {error}"));
    let out = Command::new("ip").args(words.split_whitespace()).output().map_err(missing)?;
    let error = String::from_utf8_lossy(&out.stderr);
    check!(out.status.success(), "harness: ip {words}: {}", error.trim());
    Ok(())
}

fn joined<T>(thread: JoinHandle<Result<T, Trouble>>) -> Result<T, Trouble> {
    thread.join().unwrap_or_else(|_| Err("the thread panicked".into()))
}

/// A network namespace that lives at this path.
fn namespace(t: &Test, name: &str) -> Result<PathBuf, Trouble> {
    let path = t.path(name);
    std::fs::write(&path, "")?;
    let made = std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            ip("link set lo up")?;
            nix::mount::mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .map_err(Trouble::from)
        });
        made.join().unwrap_or_else(|_| Err("the thread panicked".into()))
    });
    made?;
    let at = path.clone();
    t.at_end(move || {
        nix::mount::umount2(&at, nix::mount::MntFlags::MNT_DETACH).ok();
    });
    Ok(path)
}

/// Does something in a network namespace.
pub fn inside<T: Send + 'static>(
    path: &Path,
    act: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let file = std::fs::File::open(path)?;
    joined(std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        act()
    }))
}

impl NetPeer {
    /// With a server, and nothing that joins the two.
    pub fn alone(t: &Test) -> Result<Self, Trouble> {
        let (within, outside) = (namespace(t, "net-inside")?, namespace(t, "net-outside")?);
        let ended = Arc::new(AtomicUsize::new(0));
        let listener = inside(&outside, || Ok(TcpListener::bind("0.0.0.0:7000")?))?;
        let count = Arc::clone(&ended);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let count = Arc::clone(&count);
                std::thread::spawn(move || {
                    if let Ok(mut to) = stream.try_clone() {
                        let lines = BufReader::new(stream).lines().map_while(Result::ok);
                        lines.into_iter().for_each(|line| _ = writeln!(to, "{line}"));
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Ok(Self { inside: within, outside, ended })
    }

    /// With the pair between both.
    pub fn joined(t: &Test) -> Result<Self, Trouble> {
        let peer = Self::alone(t)?;
        let outside = peer.outside.display().to_string();
        inside(&peer.inside, move || {
            ip(&format!("link add one type veth peer name other netns {outside}"))?;
            ip(&format!("addr add {CONTAINER}/24 dev one"))?;
            ip("link set one up")
        })?;
        inside(&peer.outside, || {
            ip("addr add 10.9.8.2/24 dev other")?;
            ip("link set other up")
        })?;
        Ok(peer)
    }

    /// A hook that joins the container of which it is told with the server. It takes its time: what the server sends again
    /// meanwhile finds an address, and no connection yet. The pair of a namespace that was left goes away only in time.
    pub fn hook(&self) -> serde_json::Value {
        let script = format!(
            "set -e; pid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p'); outside={}
            n=0; until ip link add one address 02:00:00:00:00:17 type veth peer name other netns $outside; do
                n=$((n+1)); [ $n -lt 100 ]; sleep 0.1
            done
            ip link set one netns $pid
            nsenter -t $pid -n ip addr add {CONTAINER}/24 dev one
            nsenter -t $pid -n ip link set one up
            nsenter --net=$outside ip addr add 10.9.8.2/24 dev other
            nsenter --net=$outside ip link set other address 02:00:00:00:00:18 up
            sleep 1",
            self.outside.display()
        );
        serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", script],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}])
    }

    /// How many connections have come to an end.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}
