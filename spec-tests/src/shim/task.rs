// SPDX-License-Identifier: Apache-2.0
//! The task service as a client sees it: a connection to a shim, and a container (task) in it.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};

use super::daemon::{Daemon, RUNC_OPTIONS};
use super::ttrpc::{Answer, Client, Failure, Pending};
use super::wire::{Fields, Message};
use crate::harness::bundle::Bundle;
use crate::harness::case::{Trouble, Verdict, same};

/// The states of a process, as numbered by containerd.
pub const CREATED: u64 = 1;
pub const RUNNING: u64 = 2;
pub const STOPPED: u64 = 3;
pub const PAUSED: u64 = 4;

/// The type of an exec's process.
pub const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// The type of an update's resources.
pub const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// Paths of a process's input and output; empty for none.
#[derive(Debug, Clone, Default)]
pub struct Io {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

impl Io {
    pub fn null() -> Self {
        Self::default()
    }

    /// Both outputs to one place.
    pub fn both(path: &str) -> Self {
        Self { stdout: path.to_owned(), stderr: path.to_owned(), ..Self::default() }
    }
}

/// A connection to a shim.
pub struct Shim {
    pub client: Client,
    pub address: String,
    /// Of the task service.
    version: AtomicU8,
    pub id: String,
    pub pid: i32,
}

impl Shim {
    /// Connects and asks for the shim's pid.
    pub fn connect(address: &str, version: u64, id: &str) -> Result<Self, Trouble> {
        let client = Client::connect(address).map_err(|e| format!("connecting to {address}: {e}"))?;
        let version = AtomicU8::new(version as u8);
        let mut shim = Self { client, address: address.to_owned(), version, id: id.to_owned(), pid: 0 };
        shim.pid = shim.call("Connect", &Message::new().text(1, id))?.number(1) as i32;
        if shim.pid <= 0 {
            return Err("Connect tells no pid of the shim".into());
        }
        Ok(shim)
    }

    /// From here on, calls go to the task service of this version.
    pub fn speak(&self, version: u8) {
        self.version.store(version, Ordering::Relaxed);
    }

    pub fn service(&self) -> String {
        format!("containerd.task.v{}.Task", self.version.load(Ordering::Relaxed))
    }

    pub fn begin(&self, method: &str, message: &Message) -> Pending {
        self.client.begin(&self.service(), method, message)
    }

    pub fn call(&self, method: &str, message: &Message) -> Answer {
        self.begin(method, message).within(20.0)
    }
}

/// Every request of the task service.
pub const METHODS: [&str; 17] = [
    "State",
    "Create",
    "Start",
    "Delete",
    "Pids",
    "Pause",
    "Resume",
    "Checkpoint",
    "Kill",
    "Exec",
    "ResizePty",
    "CloseIO",
    "Update",
    "Wait",
    "Stats",
    "Connect",
    "Shutdown",
];
/// They are not about a container: containerd's own shim answers them whatever the id.
pub const OF_NOBODY: [&str; 2] = ["Connect", "Shutdown"];

/// What State tells.
#[derive(Debug, Clone)]
pub struct State {
    pub bundle: String,
    pub pid: u64,
    pub status: u64,
    pub io: Io,
    pub exit_status: u64,
    pub exited_at: f64,
}

/// What Wait and Delete tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    pub pid: u64,
    pub status: u64,
    pub at: f64,
}

/// A container in a shim.
#[derive(Clone)]
pub struct Task {
    pub shim: Arc<Shim>,
    pub id: String,
}

fn nothing(_: Fields) {}

fn broken(trouble: Trouble) -> Failure {
    Failure { code: super::ttrpc::SILENT, text: format!("{trouble:?}") }
}

impl Task {
    pub fn new(shim: Arc<Shim>, id: &str) -> Self {
        Self { shim, id: id.to_owned() }
    }

    /// A request that begins with this task's id and an exec's.
    fn about(&self, exec: &str) -> Message {
        Message::new().text(1, &self.id).text(2, exec)
    }

    pub fn create_request(&self, bundle: &Bundle, io: &Io, rootfs: &[Message], options: &Message) -> Message {
        let message = Message::new().text(1, &self.id).text(2, &bundle.dir.to_string_lossy());
        let message = rootfs.iter().fold(message, |message, mount| message.message(3, mount));
        let message = message.flag(4, io.terminal).text(5, &io.stdin).text(6, &io.stdout).text(7, &io.stderr);
        message.any(10, RUNC_OPTIONS, &options.0)
    }

    /// Create with the daemon's rootfs and options: the pid.
    pub fn create(&self, daemon: &Daemon, bundle: &Bundle, io: &Io) -> Result<u64, Trouble> {
        bundle.write()?;
        Ok(self.try_create(daemon, bundle, io)?)
    }

    /// The same without writing config.json.
    pub fn try_create(&self, daemon: &Daemon, bundle: &Bundle, io: &Io) -> Result<u64, Failure> {
        let request = self.create_request(bundle, io, &daemon.rootfs(), &daemon.options());
        self.shim.call("Create", &request).map(|answer| answer.number(1))
    }

    pub fn start(&self, exec: &str) -> Result<u64, Failure> {
        self.shim.call("Start", &self.about(exec)).map(|answer| answer.number(1))
    }

    pub fn state(&self, exec: &str) -> Result<State, Failure> {
        let answer = self.shim.call("State", &self.about(exec))?;
        let of = if exec.is_empty() { &self.id } else { exec };
        same("the id that State tells", &answer.text(1), &of.to_owned()).map_err(broken)?;
        Ok(State {
            bundle: answer.text(2),
            pid: answer.number(3),
            status: answer.number(4),
            io: Io {
                stdin: answer.text(5),
                stdout: answer.text(6),
                stderr: answer.text(7),
                terminal: answer.number(8) == 1,
            },
            exit_status: answer.number(9),
            exited_at: answer.time(10).map_err(broken)?,
        })
    }

    pub fn wait(&self, exec: &str) -> Pending {
        self.shim.begin("Wait", &self.about(exec))
    }

    /// Waits for the end: status and time.
    pub fn exit(&self, exec: &str) -> Result<Exit, Failure> {
        let answer = self.wait(exec).within(20.0)?;
        Ok(Exit { pid: 0, status: answer.number(1), at: answer.time(2).map_err(broken)? })
    }

    pub fn kill(&self, exec: &str, signal: u64, all: bool) -> Result<(), Failure> {
        self.shim.call("Kill", &self.about(exec).number(3, signal).flag(4, all)).map(nothing)
    }

    pub fn delete(&self, exec: &str) -> Result<Exit, Failure> {
        let answer = self.shim.call("Delete", &self.about(exec))?;
        let at = answer.time(3).map_err(broken)?;
        Ok(Exit { pid: answer.number(1), status: answer.number(2), at })
    }

    /// Adds an exec of these arguments.
    pub fn exec(&self, exec: &str, args: &[&str], io: &Io) -> Result<(), Failure> {
        self.exec_process(exec, &process(args), io)
    }

    /// Adds an exec of an OCI process.
    pub fn exec_process(&self, exec: &str, process: &Value, io: &Io) -> Result<(), Failure> {
        let message = self.about(exec).flag(3, io.terminal);
        let message = message.text(4, &io.stdin).text(5, &io.stdout).text(6, &io.stderr);
        self.shim.call("Exec", &message.any(7, PROCESS, process.to_string().as_bytes())).map(nothing)
    }

    /// Adds, starts, awaits and deletes an exec: its exit.
    pub fn execute(&self, exec: &str, args: &[&str], io: &Io) -> Result<Exit, Failure> {
        self.exec(exec, args, io)?;
        self.start(exec)?;
        self.exit(exec)?;
        self.delete(exec)
    }

    /// The host's pids, each with the id of the exec whose process it is.
    pub fn pids(&self) -> Result<Vec<(u64, String)>, Failure> {
        let answer = self.shim.call("Pids", &self.about(""))?;
        let one = |bytes: &[u8]| -> Result<(u64, String), Trouble> {
            let info = Fields::read(bytes)?;
            Ok((info.number(1), info.message(2)?.message(2)?.text(1)))
        };
        answer.all(1).map(one).collect::<Result<_, _>>().map_err(broken)
    }

    pub fn pause(&self) -> Result<(), Failure> {
        self.shim.call("Pause", &self.about("")).map(nothing)
    }

    pub fn resume(&self) -> Result<(), Failure> {
        self.shim.call("Resume", &self.about("")).map(nothing)
    }

    pub fn resize(&self, exec: &str, columns: u64, rows: u64) -> Result<(), Failure> {
        self.shim.call("ResizePty", &self.about(exec).number(3, columns).number(4, rows)).map(nothing)
    }

    pub fn close_stdin(&self, exec: &str) -> Result<(), Failure> {
        self.shim.call("CloseIO", &self.about(exec).flag(3, true)).map(nothing)
    }

    pub fn update(&self, resources: &Value) -> Result<(), Failure> {
        let message = self.about("").any(2, RESOURCES, resources.to_string().as_bytes());
        self.shim.call("Update", &message).map(nothing)
    }

    /// The metrics' type and message.
    pub fn stats(&self) -> Result<(String, Fields), Failure> {
        let any = self.shim.call("Stats", &self.about(""))?.message(1).map_err(broken)?;
        Ok((any.text(1), any.message(2).map_err(broken)?))
    }

    /// Kills the first process and waits for its end.
    pub fn end(&self) -> Verdict {
        self.kill("", 9, false)?;
        self.exit("")?;
        Ok(())
    }
}

/// An OCI process for an exec.
pub fn process(args: &[&str]) -> Value {
    json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
           "capabilities": {}, "noNewPrivileges": true})
}
