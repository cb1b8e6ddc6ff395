// SPDX-License-Identifier: Apache-2.0
//! The state of a server as it is handed over: version 1, and 2 with a sandbox. Plain data; what makes it and what makes of it stands with each
//! room (`io/passing.rs`, `pod/passing.rs`, `server/passing.rs`).
//!
//! A reader passes over fields that it does not know and takes absent ones for empty: so a field that an older program may
//! pass over without harm may be added. Anything else is a new version.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use corten::cgroup::Record;
use serde::{Deserialize, Serialize};

use super::{FdPlace, Piece};
use crate::options::Options;

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerState {
    /// Version and commit of the program that wrote it.
    pub from: String,
    /// containerd's namespace.
    pub namespace: String,
    /// Of our socket, with `unix://`.
    pub address: String,
    /// The listening socket.
    pub listener: FdPlace,
    /// The log, and whether it is verbose.
    pub log: Option<FdPlace>,
    pub debug: bool,
    /// The bundle that the server was started in.
    pub here: Option<FdPlace>,
    pub events: EventsState,
    /// SIGTERM or SIGINT came.
    pub asked_to_end: bool,
    /// Shutdown came.
    pub shut_down: bool,
    /// What the server was started with; a sandbox that is still to come takes it.
    #[serde(skip_serializing_if = "is_default")]
    pub options: Options,
    /// Version 2: an older program would lose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxState>,
    pub containers: Vec<ContainerState>,
    pub connections: Vec<ConnectionState>,
    /// Who asked for this.
    pub asker: Option<AskerState>,
}

fn is_default(options: &Options) -> bool {
    *options == Options::default()
}

/// A pod that is held without a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxState {
    pub id: String,
    pub bundle: PathBuf,
    /// Its runtime: the one inside.
    pub driver: DriverState,
    /// Where its files are.
    pub root: PathBuf,
    pub state: PathBuf,
    /// What it is to be, in the words of `sandbox/wish.rs`.
    pub wish: serde_json::Value,
    pub phase: PhaseState,
    /// What holds its namespaces.
    pub pid: i32,
    pub pidfd: Option<FdPlace>,
    pub started_at: Option<Duration>,
    pub ended: Option<EndState>,
}

/// Events that containerd has not acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventsState {
    /// containerd's ttrpc socket.
    pub address: String,
    /// ForwardRequests, the oldest first.
    pub queue: Vec<Piece>,
    /// How many were dropped.
    pub lost: u64,
}

/// Who is to be told how it went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AskerState {
    /// Its connection, by place.
    pub connection: usize,
    pub stream: u32,
    /// When the gate was closed: microseconds of CLOCK_MONOTONIC.
    pub held_at: u64,
}

/// A client's connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionState {
    pub socket: FdPlace,
    /// The beginning of a frame: its header and what came of its message.
    pub partial: Piece,
    /// How many bytes of the frame have come, kept or passed over.
    pub received: u64,
    /// What is still to be written: whole replies, but for the first.
    pub replies: Vec<Piece>,
    /// Requests without an answer, which can be asked again.
    pub waits: Vec<WaitState>,
}

/// A Wait without an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitState {
    pub stream: u32,
    /// The ttrpc Request.
    pub request: Piece,
    /// How long its client will still wait.
    pub left: Option<Duration>,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    pub id: String,
    pub bundle: PathBuf,
    pub driver: DriverState,
    /// Owner of its pipes.
    pub owner: (u32, u32),
    pub mounted: bool,
    pub own_pids: bool,
    /// Its control groups.
    pub group: Option<Record>,
    pub oom: Option<OomState>,
    /// Its Start restores it.
    pub awaiting: Option<AwaitingState>,
    pub paused: bool,
    /// Init has ended.
    pub over: bool,
    /// Starts of execs were given up.
    pub abandoned: bool,
    pub init: ProcessState,
    pub execs: Vec<ProcessState>,
}

/// Its runtime.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriverState {
    /// Another one than the one inside.
    pub program: Option<PathBuf>,
    /// Where it keeps containers.
    pub root: PathBuf,
    pub systemd: bool,
    /// Where it is told what takes how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<PathBuf>,
}

/// The watch for want of memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OomState {
    pub fd: FdPlace,
    pub told: u64,
    pub noticed: bool,
}

/// What a Start is to restore.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AwaitingState {
    pub options: Options,
    pub images: PathBuf,
}

/// Init or an exec.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessState {
    /// Empty for init.
    pub exec_id: String,
    pub terminal: bool,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    /// What an exec is to run: a process of config.json.
    pub exec: Option<Piece>,
    pub pid: i32,
    pub pidfd: Option<FdPlace>,
    pub phase: PhaseState,
    pub streams: Option<StreamsState>,
    /// Rows and columns for a terminal to come.
    pub size: Option<(u16, u16)>,
    pub ended: Option<EndState>,
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseState {
    #[default]
    Created,
    Running,
    Stopped,
}

/// How it ended, and when, since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndState {
    pub status: u32,
    pub at: Option<Duration>,
}

/// What is between a process and its client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamsState {
    /// The terminal's outer end.
    pub console: Option<FdPlace>,
    /// Our writing end of the client's FIFO, until CloseIO.
    pub keep: Option<FdPlace>,
    /// The reading end.
    pub stdin: Option<FdPlace>,
    /// Input that is still moved.
    pub input: Option<InputState>,
    /// Outputs that are still moved.
    pub outputs: Vec<OutputState>,
    pub logger: Option<LoggerState>,
}

/// Input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputState {
    /// Our end of the process's pipe; the terminal without one.
    pub to: Option<FdPlace>,
    /// Read from the client, and not written yet.
    pub carry: Piece,
}

/// An output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputState {
    /// Our end of the process's pipe; the terminal without one.
    pub from: Option<FdPlace>,
    pub to: FdPlace,
    /// It is a FIFO (or a logger's pipe), no file.
    pub fifo: bool,
    /// Read from the process, and not written yet.
    pub carry: Piece,
    /// What comes is dropped.
    pub failed: bool,
    /// The terminal's inner end, which is held until its process has ended.
    pub inner: Option<FdPlace>,
}

/// A logger.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoggerState {
    pub pid: i32,
    pub pidfd: FdPlace,
    pub pipes: [FdPlace; 2],
    pub ended: bool,
    /// It has been asked to end.
    pub ending: bool,
}

impl ServerState {
    /// The version that it is written as: the oldest that says all of it, so that an older program may come after this one
    /// wherever it can.
    pub fn version(&self) -> u32 {
        if self.sandbox.is_some() { 2 } else { 1 }
    }

    /// Every piece that it names.
    pub fn each_piece(&self, take: &mut dyn FnMut(Piece)) {
        self.events.queue.iter().for_each(|piece| take(*piece));
        for connection in &self.connections {
            take(connection.partial);
            connection.replies.iter().for_each(|piece| take(*piece));
            connection.waits.iter().for_each(|wait| take(wait.request));
        }
        for process in self.processes() {
            process.exec.into_iter().for_each(&mut *take);
            let Some(streams) = &process.streams else { continue };
            streams.input.iter().for_each(|input| take(input.carry));
            streams.outputs.iter().for_each(|output| take(output.carry));
        }
    }

    /// Every descriptor that it names.
    pub fn each_fd(&self, take: &mut dyn FnMut(FdPlace)) {
        take(self.listener);
        self.log.into_iter().chain(self.here).for_each(&mut *take);
        self.sandbox.iter().filter_map(|sandbox| sandbox.pidfd).for_each(&mut *take);
        self.connections.iter().for_each(|connection| take(connection.socket));
        self.containers.iter().filter_map(|container| container.oom.as_ref()).for_each(|oom| take(oom.fd));
        for process in self.processes() {
            process.pidfd.into_iter().for_each(&mut *take);
            process.streams.iter().for_each(|streams| streams.each_fd(take));
        }
    }

    fn processes(&self) -> impl Iterator<Item = &ProcessState> {
        self.containers.iter().flat_map(|container| std::iter::once(&container.init).chain(&container.execs))
    }
}

impl StreamsState {
    fn each_fd(&self, take: &mut dyn FnMut(FdPlace)) {
        [self.console, self.keep, self.stdin].into_iter().flatten().for_each(&mut *take);
        self.input.iter().filter_map(|input| input.to).for_each(&mut *take);
        for output in &self.outputs {
            take(output.to);
            [output.from, output.inner].into_iter().flatten().for_each(&mut *take);
        }
        if let Some(logger) = &self.logger {
            logger.pipes.into_iter().chain([logger.pidfd]).for_each(&mut *take);
        }
    }
}
