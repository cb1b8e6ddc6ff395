// SPDX-License-Identifier: Apache-2.0
//! The containers of the matrix of checkpoint and restore: what each has, how it is made and looked at.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use serde_json::json;

use super::checkpoint::{counts_on, lines, lost_nothing};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Trouble, Verdict, same};
use crate::harness::console::Receiver;
use crate::harness::criu::carried;
use crate::harness::host::Need;
use crate::harness::peer::{NetPeer, SERVER};
use crate::harness::terminal::Terminal;
use crate::harness::test::Test;

/// A container, and what belongs to it outside.
pub struct Scene {
    pub bundle: Bundle,
    /// What keeps it alive or is looked at.
    outside: Outside,
}

#[derive(Default)]
struct Outside {
    peer: Option<NetPeer>,
    socket: Option<UnixDatagram>,
    terminal: Option<RefCell<Terminal>>,
    before: RefCell<String>,
}

/// A row of the matrix.
pub struct Kind {
    pub name: &'static str,
    /// The flags without which it cannot be dumped, or is restored without something.
    pub flags: &'static str,
    pub needs: &'static [Need],
    pub make: fn(&Test) -> Result<Scene, Trouble>,
    /// It cannot be there twice on one machine.
    pub single: bool,
}

const fn kind(name: &'static str, flags: &'static str, make: fn(&Test) -> Result<Scene, Trouble>) -> Kind {
    Kind { name, flags, needs: &[], make, single: false }
}

/// Those that are restored.
pub const KINDS: [Kind; 14] = [
    kind("plain", "", |t| Scene::of(holds(t, "pair memory=3000000")?)),
    kind("terminal", "", terminal),
    Kind { single: true, ..kind("tcp", "--tcp-established", tcp) },
    Kind { single: true, ..kind("tcp-by-a-hook", "--tcp-established", tcp_by_a_hook) },
    kind("unix-socket", "--ext-unix-sk", unix_socket),
    Kind {
        single: true,
        ..kind("locks", "--file-locks", |t| Scene::of(holds(t, "lock=/one record-lock=/two")?))
    },
    kind("renamed-file", "--link-remap", |t| Scene::of(holds(t, "renamed=/file gone=/other")?)),
    Kind { single: true, ..kind("shared-pids", "", shared_pids) },
    Kind { needs: &[Need::Controller("pids")], ..kind("limits", "", limits) },
    kind("sub-group", "", sub_group),
    kind("processes-and-threads", "", |t| Scene::of(holds(t, "children=3 threads=3")?)),
    Kind { needs: &[Need::CriuFrom(3, 19)], ..kind("seccomp", "", seccomp) },
    kind("paused", "", |t| Scene::of(holds(t, "pair")?)),
    kind("user-namespace", "", |t| Scene::of(in_a_user_namespace(t)?)),
];

/// A container with these things.
pub fn holds(t: &Test, things: &str) -> Result<Bundle, Trouble> {
    Ok(carried(t.bundle()?.writable().probe(&format!("hold {things}"))))
}

fn terminal(t: &Test) -> Result<Scene, Trouble> {
    let b = holds(t, "terminal")?.set("/process/terminal", json!(true));
    let mut scene = Scene::of(b)?;
    scene.outside.terminal = Some(RefCell::new(Terminal::open(20, 80)?));
    Ok(scene)
}

/// It joins the network namespace of somebody else, as in a pod.
fn tcp(t: &Test) -> Result<Scene, Trouble> {
    in_network(t, &format!("tcp={SERVER}"))
}

/// A container with such a thing in a network namespace with a peer outside.
pub fn in_network(t: &Test, thing: &str) -> Result<Scene, Trouble> {
    let peer = NetPeer::joined(t)?;
    let b = holds(t, thing)?;
    let mut scene = Scene::of(b.namespace("network", Some(&peer.inside.to_string_lossy())))?;
    scene.outside.peer = Some(peer);
    Ok(scene)
}

/// It has its own, and a hook gives it an interface each time.
fn tcp_by_a_hook(t: &Test) -> Result<Scene, Trouble> {
    let peer = NetPeer::alone(t)?;
    let b = holds(t, &format!("tcp={SERVER}"))?.set("/hooks", json!({"createRuntime": peer.hook()}));
    let mut scene = Scene::of(b)?;
    scene.outside.peer = Some(peer);
    Ok(scene)
}

/// As /dev/log is: the same path inside and outside. CRIU finds the peer only in the container's network namespace.
fn unix_socket(t: &Test) -> Result<Scene, Trouble> {
    let dir = t.path("sockets");
    fs::create_dir(&dir)?;
    let path = dir.join("log").to_string_lossy().into_owned();
    let socket = UnixDatagram::bind(&path)?;
    socket.set_nonblocking(true)?;
    let dir = dir.to_string_lossy().into_owned();
    let b = holds(t, &format!("unix={path}"))?.mount("bind", &dir, &dir, &["bind"]);
    let mut scene = Scene::of(b.without_namespace("network"))?;
    scene.outside.socket = Some(socket);
    Ok(scene)
}

/// It joins the pid namespace of another container.
fn shared_pids(t: &Test) -> Result<Scene, Trouble> {
    let first = t.bundle()?.probe("forever");
    t.launch(&first)?;
    let path = format!("/proc/{}/ns/pid", t.pid(&first)?);
    Scene::of(holds(t, "pair")?.namespace("pid", Some(&path)))
}

fn limits(t: &Test) -> Result<Scene, Trouble> {
    Scene::of(holds(t, "children=2")?.set("/linux/resources/pids", json!({"limit": 50})))
}

/// It has made a group of its own, as systemd in a container does.
fn sub_group(t: &Test) -> Result<Scene, Trouble> {
    let dir = if t.host.is_v2() { "/sys/fs/cgroup/below" } else { "/sys/fs/cgroup/pids/below" };
    let b = holds(t, &format!("group={dir}"))?.namespace("cgroup", None).without_mount("/sys/fs/cgroup");
    Scene::of(b.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime"]))
}

fn seccomp(t: &Test) -> Result<Scene, Trouble> {
    let profile: serde_json::Value = serde_json::from_str(include_str!("docker-seccomp.json"))?;
    let b = holds(t, "threads=2")?.set("/process/noNewPrivileges", json!(true));
    Scene::of(b.set("/linux/seccomp", profile))
}

fn in_a_user_namespace(t: &Test) -> Result<Bundle, Trouble> {
    let b = holds(t, "pair")?.user_namespace();
    std::os::unix::fs::chown(b.rootfs(""), Some(100_000), Some(100_000))?;
    Ok(b)
}

impl Scene {
    fn of(bundle: Bundle) -> Result<Self, Trouble> {
        Ok(Self { bundle, outside: Outside::default() })
    }

    /// `VERB` with the bundle, and with the terminal if it has one.
    pub fn begin(&self, t: &Test, verb: &str, b: &Bundle) -> Result<crate::harness::done::Done, Trouble> {
        let Some(terminal) = &self.outside.terminal else { return t.try_create(verb, b) };
        let path = PathBuf::from(t.file(&format!("console-{}", b.id.len() + verb.len())));
        fs::remove_file(&path).ok();
        let receiver = Receiver::listen(&path)?;
        let done = t.try_create(&format!("{verb} --console-socket {}", path.display()), b)?;
        if done.code == 0 {
            let master = receiver.receive()?.fds.pop().ok_or("no terminal came")?;
            *terminal.borrow_mut() = Terminal::from_master(master)?;
        }
        Ok(done)
    }

    /// It runs, and counts.
    pub fn launch(&self, t: &Test) -> Verdict {
        self.begin(t, "create", &self.bundle)?.ok()?;
        t.cli(&format!("start {}", self.bundle.id))?.ok()?;
        counts_on(t, &self.bundle)?;
        self.outside.before.replace(self.groups(t, &self.bundle)?);
        Ok(())
    }

    fn groups(&self, t: &Test, b: &Bundle) -> Result<String, Trouble> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", t.pid(b)?))?;
        Ok(text.replace(&b.id, "ID"))
    }

    pub fn peer(&self) -> Option<&NetPeer> {
        self.outside.peer.as_ref()
    }

    /// It counts on, has lost nothing, and what it has to do with the outside is as before.
    pub fn goes_on(&self, t: &Test, b: &Bundle) -> Verdict {
        counts_on(t, b)?;
        lost_nothing(b)?;
        if let Ok(trouble) = fs::read_to_string(b.rootfs("trouble")) {
            return Err(Trouble::Fail(trouble));
        }
        same("its groups", self.groups(t, b)?, self.outside.before.borrow().clone())?;
        if let Some(peer) = &self.outside.peer {
            same("connections that have ended", peer.ended(), 0)?;
        }
        if let Some(socket) = &self.outside.socket {
            let mut bytes = [0; 64];
            // What came before the checkpoint.
            while socket.recv(&mut bytes).is_ok() {}
            t.until(|| "a datagram".into(), || Ok(socket.recv(&mut bytes).ok().map(drop)))?;
        }
        if let Some(terminal) = &self.outside.terminal {
            let mut terminal = terminal.borrow_mut();
            terminal.write(b"words\n")?;
            terminal.expect("got words")?;
        }
        if b.rootfs("one").exists() {
            let file = fs::File::open(b.rootfs("one"))?;
            check!(file.try_lock().is_err(), "the lock of the whole file is not held");
        }
        check!(lines(b) > 0, "nothing was counted");
        Ok(())
    }
}
