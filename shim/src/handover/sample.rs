// SPDX-License-Identifier: Apache-2.0
//! A state with one of everything, for the tests: what the kept hand-overs hold.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::Piece;
use super::state::{
    AskerState, AwaitingState, ConnectionState, ContainerState, DriverState, EndState, EventsState,
    InputState, LoggerState, OomState, OutputState, PhaseState, ProcessState, SandboxState, ServerState,
    StreamsState, WaitState,
};
use crate::options::Options;

/// The state; `piece` enters bytes.
pub fn sample(piece: &mut dyn FnMut(&[u8]) -> Piece) -> ServerState {
    let containers = vec![first(piece), second()];
    let wait = WaitState { stream: 5, request: piece(b"request"), left: Some(Duration::from_millis(1500)) };
    let connection = ConnectionState {
        socket: 18,
        partial: piece(b"\0\0"),
        received: 2,
        replies: vec![piece(b"reply")],
        waits: vec![wait],
    };
    ServerState {
        from: "0.1.0 (first)".into(),
        namespace: "n".into(),
        address: "unix:///s".into(),
        listener: 0,
        log: Some(1),
        debug: true,
        here: Some(2),
        events: EventsState { address: "/t".into(), queue: vec![piece(b"one"), piece(b"two")], lost: 3 },
        asked_to_end: true,
        shut_down: true,
        options: Options::default(),
        sandbox: None,
        containers,
        connections: vec![connection],
        asker: Some(AskerState { connection: 0, stream: 3, held_at: 123_456 }),
    }
}

/// The same with what version 2 has besides.
pub fn second_sample(piece: &mut dyn FnMut(&[u8]) -> Piece) -> ServerState {
    let sandbox = SandboxState {
        id: "p1".into(),
        bundle: "/b/p1".into(),
        driver: DriverState { program: None, root: "/run/x/n".into(), systemd: false, traces: None },
        root: "/r/p1".into(),
        state: "/s/p1".into(),
        wish: serde_json::json!({"hostname": "box", "network": "/n", "shares_pids": true}),
        phase: PhaseState::Running,
        pid: 4714,
        pidfd: Some(19),
        started_at: Some(Duration::new(1_764_000_000, 8)),
        ended: Some(EndState { status: 137, at: None }),
    };
    let options = Options { root: "/run/x".into(), ..Options::default() };
    ServerState { from: "0.1.0 (second)".into(), options, sandbox: Some(sandbox), ..sample(piece) }
}

fn first(piece: &mut dyn FnMut(&[u8]) -> Piece) -> ContainerState {
    let driver =
        DriverState { program: Some("/runc".into()), root: "/run/x/n".into(), systemd: true, traces: None };
    let init = init(piece);
    let added = ProcessState {
        exec_id: "added".into(),
        exec: Some(piece(b"{\"args\":[\"a\"]}")),
        ..ProcessState::default()
    };
    ContainerState {
        id: "c1".into(),
        bundle: "/b/c1".into(),
        driver,
        owner: (1000, 1001),
        mounted: true,
        own_pids: true,
        group: Some(corten::cgroup::Record { id: "c1".into(), ..Default::default() }),
        oom: Some(OomState { fd: 17, told: 2, noticed: true }),
        paused: true,
        init,
        execs: vec![added, ended()],
        ..ContainerState::default()
    }
}

/// Without a terminal, with a logger.
fn init(piece: &mut dyn FnMut(&[u8]) -> Piece) -> ProcessState {
    let input = InputState { to: Some(6), carry: piece(b"typed") };
    let left = piece(b"left");
    let streams = StreamsState {
        console: None,
        keep: Some(4),
        stdin: Some(5),
        input: Some(input),
        outputs: vec![
            OutputState { from: Some(7), to: 8, fifo: true, ..OutputState::default() },
            OutputState { from: Some(9), to: 10, carry: left, failed: true, ..OutputState::default() },
        ],
        logger: Some(LoggerState { pid: 4712, pidfd: 11, pipes: [12, 13], ended: false, ending: true }),
    };
    ProcessState {
        stdin: "/in".into(),
        stdout: "/out".into(),
        stderr: "/err".into(),
        pid: 4711,
        pidfd: Some(3),
        phase: PhaseState::Running,
        streams: Some(streams),
        ..ProcessState::default()
    }
}

/// An exec with a terminal.
fn ended() -> ProcessState {
    let streams = StreamsState {
        console: Some(14),
        input: Some(InputState::default()),
        outputs: vec![OutputState { to: 15, fifo: true, inner: Some(16), ..OutputState::default() }],
        ..StreamsState::default()
    };
    ProcessState {
        exec_id: "ended".into(),
        terminal: true,
        pid: 4713,
        phase: PhaseState::Stopped,
        streams: Some(streams),
        size: Some((24, 80)),
        ended: Some(EndState { status: 137, at: Some(Duration::new(1_764_000_000, 7)) }),
        ..ProcessState::default()
    }
}

/// One that its Start restores.
fn second() -> ContainerState {
    ContainerState {
        id: "c2".into(),
        awaiting: Some(AwaitingState { options: Options::default(), images: "/images".into() }),
        over: true,
        abandoned: true,
        ..ContainerState::default()
    }
}
