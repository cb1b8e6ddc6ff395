// SPDX-License-Identifier: Apache-2.0
//! Connections, handed over and gone on with: neither their clients nor whoever waits notices.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::Request;
use corten::error::Context;
use tokio::net::UnixStream;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::connection::{Connection, IncomingFrame, WaitingRequest};
use super::{Clients, wait};
use crate::handover::state::{ConnectionState, WaitState};
use crate::handover::{Handed, Outgoing};
use crate::pod::Pod;
use crate::refusal::{Refusal, Result};

/// Connections that were taken over and are not served yet.
pub struct Resumed(Vec<(Rc<Connection>, Vec<Rc<WaitingRequest>>)>);

impl Clients {
    /// Every connection, and the place of `asker`'s among them.
    pub fn pass(&self, asker: &Rc<Connection>, to: &mut Outgoing) -> (Vec<ConnectionState>, Option<usize>) {
        let connections = self.connections.borrow();
        let alive: Vec<_> = connections.iter().filter_map(std::rc::Weak::upgrade).collect();
        let place = alive.iter().position(|connection| Rc::ptr_eq(connection, asker));
        (alive.iter().map(|connection| connection.pass(to)).collect(), place)
    }

    /// Serves what was taken over.
    pub fn go_on(self: &Rc<Self>, resumed: Resumed, pod: &Rc<Pod>) {
        for (connection, waits) in resumed.0 {
            connection.write_out();
            for waiting in waits {
                let (pod, connection) = (pod.clone(), connection.clone());
                spawn_local(async move { wait(&pod, waiting, &connection).await });
            }
            self.attend(connection, pod);
        }
    }
}

impl Connection {
    fn pass(&self, to: &mut Outgoing) -> ConnectionState {
        let (kept, received) = self.incoming.borrow().so_far();
        let wait = |waiting: &Rc<WaitingRequest>, to: &mut Outgoing| WaitState {
            stream: waiting.stream,
            request: to.piece(&waiting.request.write_to_bytes().unwrap_or_default()),
            left: waiting.until.map(|until| until.saturating_duration_since(Instant::now())),
        };
        ConnectionState {
            socket: to.fd(&self.stream),
            partial: to.piece(&kept),
            received,
            replies: self.outbox.borrow().iter().map(|reply| to.piece(reply)).collect(),
            waits: self.waits.borrow().values().map(|waiting| wait(waiting, to)).collect(),
        }
    }
}

impl Resumed {
    /// Takes connections over.
    ///
    /// # Errors
    /// The failed call; a request that does not read.
    pub fn of(states: &[ConnectionState], from: &Handed) -> Result<Resumed> {
        states.iter().map(|state| resumed(state, from)).collect::<Result<_>>().map(Resumed)
    }

    /// The connection of that place.
    pub fn connection(&self, place: usize) -> Option<Rc<Connection>> {
        self.0.get(place).map(|(connection, _)| connection.clone())
    }
}

fn resumed(state: &ConnectionState, from: &Handed) -> Result<(Rc<Connection>, Vec<Rc<WaitingRequest>>)> {
    let socket: OwnedFd = from.fd(state.socket)?;
    let stream = UnixStream::from_std(StdStream::from(socket)).call(|| "epoll_ctl(connection)")?;
    let incoming = IncomingFrame::resumed(from.piece(state.partial), state.received);
    let outbox = state.replies.iter().map(|reply| from.piece(*reply).to_vec()).collect();
    let wait = |wait: &WaitState| {
        let request = Request::parse_from_bytes(from.piece(wait.request))
            .map_err(|error| Refusal::invalid(format!("the hand-over's waits: {error}")))?;
        let until = wait.left.map(|left| Instant::now() + left);
        Ok(Rc::new(WaitingRequest { stream: wait.stream, request, until }))
    };
    let waits = state.waits.iter().map(wait).collect::<Result<_>>()?;
    Ok((Connection::new(stream, incoming, outbox), waits))
}
