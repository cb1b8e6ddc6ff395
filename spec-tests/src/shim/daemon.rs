// SPDX-License-Identifier: Apache-2.0
//! A containerd of our own: directories of bundles, the events server, and the calls of the shim's binary in the
//! dialects of containerd 1.6 to 2.4.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use super::events::Events;
use super::task::{Io, Shim, Task};
use super::wire::{Fields, Message};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Trouble, Verdict};
use crate::harness::hostdiff::descendants;
use crate::harness::pace::within;
use crate::harness::procs;
use crate::harness::test::Test;

/// What containerd tells the shim's binary, and what it takes for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// 1.6: options as an Any on stdin; a plain address back.
    V16,
    /// 1.7: more environment; a plain address or JSON up to version 2.
    V17,
    /// 2.0 to 2.2: the same with JSON up to version 3.
    V20,
    /// 2.3 and 2.4: BootstrapParams on stdin, BootstrapResult back.
    V23,
}

/// The answer of `start`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub raw: Vec<u8>,
    /// Without `unix://`.
    pub address: String,
    pub version: u64,
}

/// A finished call of the binary.
pub struct Called {
    pub code: Option<i32>,
    pub output: Vec<u8>,
    pub took: Duration,
}

impl Called {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

pub const GRPC_ADDRESS: &str = "/run/containerd/containerd.sock";
pub const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";

/// The daemon of one case.
pub struct Daemon<'t> {
    pub t: &'t Test,
    pub events: Events,
    pub namespace: String,
    pub dialect: Cell<Dialect>,
    /// Further environment of the shim's binary.
    pub environment: RefCell<Vec<(String, String)>>,
    /// What all containers have for a root file system.
    pub rootfs: PathBuf,
    shims: RefCell<Vec<Arc<Shim>>>,
    /// containerd holds both ends of each bundle's log.
    logs: RefCell<HashMap<String, fs::File>>,
    count: Cell<usize>,
}

impl<'t> Daemon<'t> {
    /// With a `/run` of its own.
    pub fn new(t: &'t Test) -> Result<Self, Trouble> {
        t.mount("tmpfs", "tmpfs", Path::new("/run"), MsFlags::empty(), "mode=755")?;
        fs::create_dir_all("/run/containerd")?;
        let template = t.bundle()?;
        let rootfs = template.dir.join("rootfs");
        if let Some(busybox) = &t.host.busybox {
            fs::create_dir_all(rootfs.join("bin"))?;
            fs::copy(busybox.join("bin/busybox"), rootfs.join("bin/busybox"))?;
            std::os::unix::fs::symlink("busybox", rootfs.join("bin/true"))?;
        }
        Ok(Self {
            t,
            events: Events::listen(&t.path("events.sock"))?,
            namespace: "spec-tests".into(),
            dialect: Cell::new(Dialect::V20),
            environment: RefCell::default(),
            rootfs,
            shims: RefCell::default(),
            logs: RefCell::default(),
            count: Cell::new(0),
        })
    }

    /// Where the bundles are.
    pub fn state(&self) -> PathBuf {
        self.t.path("state").join(&self.namespace)
    }

    /// Where the OCI runtime keeps its state.
    pub fn runtime_root(&self) -> PathBuf {
        self.t.path("runtime-root")
    }

    /// The rootfs all containers share, as a mount for Create.
    pub fn rootfs(&self) -> Vec<Message> {
        let source = self.rootfs.to_string_lossy();
        let mount = Message::new().text(1, "bind").text(2, &source).text(4, "rbind").text(4, "rw");
        vec![mount]
    }

    /// A new bundle: its container runs the probe with these words.
    pub fn bundle(&self, probe: &str) -> Result<Bundle, Trouble> {
        self.count.set(self.count.get() + 1);
        self.bundle_named(&format!("{}-s{}", self.t.place.mark, self.count.get()), probe)
    }

    pub fn bundle_named(&self, id: &str, probe: &str) -> Result<Bundle, Trouble> {
        let dir = self.state().join(id);
        fs::create_dir_all(dir.join("rootfs"))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        mkfifo(&dir.join("log"), Mode::from_bits_truncate(0o700))?;
        let mut both_ends = fs::OpenOptions::new();
        both_ends.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        self.logs.borrow_mut().insert(id.to_owned(), both_ends.open(dir.join("log"))?);
        let bundle = Bundle::without_files(dir, id.to_owned(), &format!("/{id}"))?.probe(probe);
        bundle.write()?;
        Ok(bundle)
    }

    /// The options every shim gets: where the runtime keeps its state.
    pub fn options(&self) -> Message {
        Message::new().text(7, &self.runtime_root().to_string_lossy())
    }

    /// The shim's binary as containerd calls it, ready for an action.
    pub fn command(&self, bundle: &Bundle) -> Command {
        let mut command = Command::new(&self.t.host.runtime);
        command.current_dir(&bundle.dir);
        command.args(["-namespace", &self.namespace, "-address", GRPC_ADDRESS]);
        command.args(["-publish-binary", "/usr/bin/containerd", "-id", &bundle.id]);
        self.set_environment(&mut command);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        let runc = self.t.host.runc.as_deref().and_then(Path::parent).map(|dir| dir.to_string_lossy());
        let criu = crate::harness::host::directory_of_criu().unwrap_or_else(|| "/usr/sbin".into());
        let criu = criu.to_string_lossy();
        let first = runc.as_deref().unwrap_or("/usr/local/bin");
        let path = [first, "/usr/sbin", "/usr/bin", "/sbin", "/bin", &criu];
        command.env_clear().env("PATH", path.join(":")).env("GOMAXPROCS", "2");
        command.envs(crate::harness::host::choice_of_mutant()).env("TTRPC_ADDRESS", &self.events.path);
        if self.dialect.get() != Dialect::V16 {
            command.env("GRPC_ADDRESS", GRPC_ADDRESS).env("NAMESPACE", &self.namespace);
            command.env("MAX_SHIM_VERSION", "2");
        }
        command.envs(self.environment.borrow().iter().map(|(name, value)| (name, value)));
    }

    /// What is on the standard input of `start`.
    pub fn stdin(&self, bundle: &Bundle, options: Option<&Message>) -> Vec<u8> {
        let any = options.map(|options| Message::new().text(1, RUNC_OPTIONS).bytes(2, &options.0));
        if self.dialect.get() != Dialect::V23 {
            return any.unwrap_or_default().0;
        }
        let mut params = Message::new().text(1, &bundle.id).text(2, &self.namespace).text(4, "2.4.0");
        params = params.text(5, &self.events.path.to_string_lossy()).text(6, GRPC_ADDRESS);
        params = params.text(7, "/usr/bin/containerd");
        any.map_or(params.clone(), |any| params.message(8, &Message::new().message(1, &any))).0
    }

    /// `start`, whatever comes of it. stdout and stderr are one pipe, and its end is waited for, as containerd does.
    pub fn call_start(&self, bundle: &Bundle) -> Result<Called, Trouble> {
        bundle.write()?;
        let mut command = self.command(bundle);
        command.arg("start");
        call(command, &self.stdin(bundle, Some(&self.options())), true)
    }

    /// A successful `start`.
    pub fn start(&self, bundle: &Bundle) -> Result<Reply, Trouble> {
        let called = self.call_start(bundle)?;
        check!(called.code == Some(0), "start ended with {:?}: {}", called.code, called.text());
        let reply = read_reply(&called.output, self.dialect.get())?;
        self.write_as_containerd(bundle, &reply)?;
        Ok(reply)
    }

    fn write_as_containerd(&self, bundle: &Bundle, reply: &Reply) -> Verdict {
        let text = json!({"version": reply.version, "address": format!("unix://{}", reply.address), "protocol": "ttrpc"});
        Ok(fs::write(bundle.dir.join("bootstrap.json"), text.to_string())?)
    }

    /// `start` and the connection.
    pub fn shim(&self, bundle: &Bundle) -> Result<Arc<Shim>, Trouble> {
        let reply = self.start(bundle)?;
        let shim = Arc::new(Shim::connect(&reply.address, reply.version, &bundle.id)?);
        self.shims.borrow_mut().push(shim.clone());
        Ok(shim)
    }

    /// A shim and its container, created.
    pub fn create(&self, bundle: &Bundle, io: &Io) -> Result<Task, Trouble> {
        let task = Task::new(self.shim(bundle)?, &bundle.id);
        task.create(self, bundle, io)?;
        Ok(task)
    }

    /// A shim and its container, started, without input or output.
    pub fn launch(&self, probe: &str) -> Result<(Bundle, Task), Trouble> {
        let bundle = self.bundle(probe)?;
        let task = self.create(&bundle, &Io::null())?;
        task.start("")?;
        Ok((bundle, task))
    }

    /// The binary's `delete` in `bundle`: the answer's pid, status and time.
    pub fn delete(&self, bundle: &Bundle) -> Result<(u64, u64, f64), Trouble> {
        let mut command = self.command(bundle);
        command.arg("-bundle").arg(&bundle.dir).arg("delete");
        let called = call(command, &[], false)?;
        check!(called.code == Some(0), "delete ended with {:?}: {}", called.code, self.log(bundle)?);
        within("delete, which containerd kills after 5 s,", called.took, Duration::from_secs(5))?;
        let answer = Fields::read(&called.output)?;
        Ok((answer.number(1), answer.number(2), answer.time(3)?))
    }

    /// What the shim has written to the bundle's log so far.
    pub fn log(&self, bundle: &Bundle) -> Result<String, Trouble> {
        let logs = self.logs.borrow();
        let mut fifo = logs.get(&bundle.id).ok_or("no log")?;
        let mut text = vec![0; 65536];
        let len = fifo.read(&mut text).unwrap_or(0);
        Ok(String::from_utf8_lossy(&text[..len]).into_owned())
    }

    /// Gives up the connections that `finish` would look at.
    pub fn forget_shims(&self) {
        self.shims.borrow_mut().clear();
    }

    /// Writes to the bundle's log until it takes no more.
    pub fn fill_log(&self, bundle: &Bundle) -> Verdict {
        let logs = self.logs.borrow();
        let mut fifo = logs.get(&bundle.id).ok_or("no log")?;
        while fifo.write(&[b'x'; 4096]).is_ok() {}
        Ok(())
    }

    /// Ends a container and its shim in the way of a client, and requires that each step works.
    pub fn end(&self, bundle: &Bundle, task: &Task) -> Verdict {
        task.kill("", 9, true)
            .or_else(|failure| if failure.code == super::ttrpc::NOT_FOUND { Ok(()) } else { Err(failure) })?;
        task.wait("").within(10.0)?;
        task.delete("")?;
        self.events.of_kind(&task.id, "delete")?;
        self.shut_down(&task.shim)?;
        self.remove(bundle)
    }

    /// Removes a bundle as containerd does: what is still mounted there shows as an error.
    pub fn remove(&self, bundle: &Bundle) -> Verdict {
        fs::remove_dir(bundle.dir.join("rootfs")).map_err(|e| format!("rootfs is left in use: {e}"))?;
        self.logs.borrow_mut().remove(&bundle.id);
        Ok(fs::remove_dir_all(&bundle.dir)?)
    }

    /// Shutdown of an idle shim, which must end and take its socket along.
    pub fn shut_down(&self, shim: &Shim) -> Verdict {
        shim.call("Shutdown", &Message::new().text(1, &shim.id)).or_else(|failure| {
            // The Go shim ends before its answer is out.
            if failure.code == super::ttrpc::CLOSED { Ok(Fields::default()) } else { Err(failure) }
        })?;
        self.is_gone(shim)
    }

    /// The shim's process ends soon, and its socket is no more.
    pub fn is_gone(&self, shim: &Shim) -> Verdict {
        self.t.until(|| "the end of the shim".into(), || Ok((!procs::is_alive(shim.pid)).then_some(())))?;
        self.t.reap();
        check!(!Path::new(&shim.address).exists(), "the shim left its socket");
        Ok(())
    }

    /// At the end of a case: the events followed the rules, and nothing of any shim is left.
    pub fn finish(&self) -> Verdict {
        self.events.follow_the_rules()?;
        self.t.reap();
        for shim in self.shims.borrow().iter() {
            check!(!procs::is_alive(shim.pid), "shim {} still runs", shim.pid);
        }
        let left: Vec<_> = descendants().into_iter().map(|p| format!("{} {}", p.pid, p.name)).collect();
        check!(left.is_empty(), "processes are left: {}", left.join(", "));
        self.is_empty(Path::new("/run/containerd/s"))?;
        self.is_empty(&self.runtime_root().join(&self.namespace))?;
        self.is_empty(&self.state())
    }

    fn is_empty(&self, dir: &Path) -> Verdict {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        // A shim may keep a lock beside its sockets.
        let left: Vec<_> =
            entries.map(|e| e.file_name()).filter(|n| !n.to_string_lossy().ends_with("lock")).collect();
        check!(left.is_empty(), "left in {}: {left:?}", dir.display());
        Ok(())
    }
}

/// Reads the answer of `start` as the containerd of this dialect does.
pub fn read_reply(raw: &[u8], dialect: Dialect) -> Result<Reply, Trouble> {
    let text = String::from_utf8_lossy(raw).trim().to_owned();
    let bad = || Trouble::from(format!("start answered {text:?} to {dialect:?}"));
    let local = |address: &str| address.strip_prefix("unix://").map(str::to_owned).ok_or_else(bad);
    if dialect == Dialect::V23
        && let Ok(result) = Fields::read(raw)
        && result.number(1) > 0
    {
        check!(result.text(3) == "ttrpc", "the protocol is {:?}", result.text(3));
        return Ok(Reply {
            raw: raw.to_owned(),
            address: local(&result.text(2))?,
            version: result.number(1),
        });
    }
    if text.starts_with('{') && dialect != Dialect::V16 {
        let value: Value = serde_json::from_str(&text)?;
        let version = value["version"].as_u64().unwrap_or(0);
        check!(version <= if dialect == Dialect::V17 { 2 } else { 3 }, "version {version} to {dialect:?}");
        check!(value["protocol"] == "ttrpc", "the protocol is {}", value["protocol"]);
        let address = local(value["address"].as_str().unwrap_or_default())?;
        return Ok(Reply { raw: raw.to_owned(), address, version });
    }
    Ok(Reply { raw: raw.to_owned(), address: local(&text)?, version: 2 })
}

/// Runs a command to its end and the end of its output, for at most 20 s. With `both`, stderr is part of the output.
pub fn call(mut command: Command, stdin: &[u8], both: bool) -> Result<Called, Trouble> {
    let begin = Instant::now();
    let (mut reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::piped());
    command.stderr(if both { Stdio::from(writer.try_clone()?) } else { Stdio::null() }).stdout(writer);
    let mut child = command.spawn()?;
    drop(command);
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(stdin).ok(); // who does not read it, need not
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut output = Vec::new();
        reader.read_to_end(&mut output).ok();
        sender.send(output).ok();
    });
    let output = receiver.recv_timeout(Duration::from_secs(20));
    if output.is_err() {
        child.kill().ok();
    }
    let code = child.wait()?.code();
    let output = output.map_err(|_| "the binary's output did not end within 20 s".to_owned())?;
    Ok(Called { code, output, took: begin.elapsed() })
}
