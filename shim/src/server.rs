// SPDX-License-Identifier: Apache-2.0
//! The ttrpc server: connections, requests, replies.
//!
//! Each request runs as a task of its own and to its end, whether its client stays or not; only what merely waits is
//! given up with the connection. Replies go out in the order in which they are ready. A connection is closed by its
//! client alone: containerd takes the end of its connection for the end of the shim.
//!
//! What clients can make us keep is bounded, however many they are: requests under way by their bytes (more are left
//! unread), those that merely wait by their number (more are refused; left unread, the end of their client's connection
//! would be, too), replies that nobody reads by theirs.

#![forbid(unsafe_code)]

mod connection;
mod passing;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::{Request, Response};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::task::spawn_local;
use tokio::time::Instant;

pub use self::connection::Connection;
use self::connection::{IncomingFrame, WaitingRequest};
pub use self::passing::Resumed;
use crate::pod::Pod;
use crate::refusal::{Refusal, Result};
use crate::work::PieceOfWork;
use crate::{log, rpc, ttrpc, work};

/// How many bytes of requests may be under way: four of the largest.
const UNDER_WAY: usize = 4 * ttrpc::MOST as usize;
/// What a request counts at least: it is a task here, whatever it says.
const LEAST: usize = 1 << 10;
/// How many requests may merely wait; each costs some hundred bytes.
const WAITING: usize = 8192;

static ROOM: Semaphore = Semaphore::const_new(UNDER_WAY);
static WAITS: Semaphore = Semaphore::const_new(WAITING);

/// Who is connected.
#[derive(Default)]
pub struct Clients {
    connections: RefCell<Vec<Weak<Connection>>>,
    /// Somebody wants another program in our place.
    asked: RefCell<Option<Successor>>,
    told: Notify,
    /// From then on until it is answered.
    asking: Cell<bool>,
}

/// Another program is to go on in our place.
pub struct Successor {
    pub connection: Rc<Connection>,
    pub stream: u32,
    /// What is asked, in the words of `upgrade/`.
    pub payload: Vec<u8>,
}

impl Clients {
    /// Waits until somebody asks for another program. Who asks meanwhile is refused, until `answer`.
    pub async fn wants_successor(&self) -> Successor {
        loop {
            if let Some(asked) = self.asked.take() {
                return asked;
            }
            self.told.notified().await;
        }
    }

    /// Answers who asked.
    pub fn answer(&self, connection: &Rc<Connection>, stream: u32, result: Result<Vec<u8>>) {
        self.asking.set(false);
        reply(connection, stream, result);
    }

    fn ask(&self, successor: Successor) {
        let peer = successor.connection.stream.peer_cred();
        let refusal = if !peer.is_ok_and(|peer| peer.uid() == 0) {
            Refusal::denied("only root may have a shim go on as another program")
        } else if self.asking.replace(true) {
            Refusal::state("another program is asked for already")
        } else {
            self.asked.replace(Some(successor));
            return self.told.notify_one();
        };
        reply(&successor.connection, successor.stream, Err(refusal));
    }

    /// Serves one more connection.
    fn attend(self: &Rc<Self>, connection: Rc<Connection>, pod: &Rc<Pod>) {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|known| known.strong_count() > 0);
        connections.push(Rc::downgrade(&connection));
        spawn_local(receive(connection, self.clone(), pod.clone()));
    }
}

/// Serves connections for ever.
pub async fn serve(listener: Rc<UnixListener>, clients: Rc<Clients>, pod: Rc<Pod>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_ours(&stream) => {
                let connection = Connection::new(stream, IncomingFrame::default(), Default::default());
                clients.attend(connection, &pod);
            }
            Ok(_) => log::warn("a connection of another user was refused"),
            Err(error) => {
                // EMFILE and its like: they pass, and must not make us spin.
                log::warn(&format!("accept: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The socket's mode says the same; this also holds for who got it by another way.
fn is_ours(stream: &UnixStream) -> bool {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    stream.peer_cred().is_ok_and(|peer| peer.uid() == uid && peer.gid() == gid)
}

async fn receive(connection: Rc<Connection>, clients: Rc<Clients>, pod: Rc<Pod>) {
    let _visit = pod.visit();
    // A client that does not read its replies is not read from, so that what is kept for it is bounded.
    while connection.has_room().await
        && let Ok(true) = connection.fill().await
    {
        work::may_begin().await;
        let (header, message) = connection.incoming.borrow_mut().take();
        pod.idle.wake();
        if header.kind != ttrpc::REQUEST {
            continue;
        }
        let Ok(message) = message else {
            let text = format!("message of {} bytes exceeds {}", header.length, ttrpc::MOST);
            reply(&connection, header.stream, Err(Refusal::exhausted(text)));
            continue;
        };
        let work = work::begin("a request");
        let Ok(room) = ROOM.acquire_many(message.len().max(LEAST) as u32).await else { break };
        let (connection, clients, pod) = (connection.clone(), clients.clone(), pod.clone());
        spawn_local(async move {
            let stream = header.stream;
            let result = if stream % 2 == 0 {
                Err(Refusal::invalid("stream id must be odd"))
            } else if header.flags & ttrpc::REMOTE_OPEN != 0 {
                Err(Refusal::unimplemented("streams"))
            } else {
                match Request::parse_from_bytes(&message) {
                    Ok(request) if rpc::wants_successor(&request) => {
                        let payload = request.payload;
                        return clients.ask(Successor { connection, stream, payload });
                    }
                    Ok(request) => {
                        drop(message);
                        return answer(&pod, request, &connection, stream, room, work).await;
                    }
                    Err(error) => Err(Refusal::invalid(format!("malformed request: {error}"))),
                }
            };
            reply(&connection, stream, result);
        });
    }
    connection.gone.happen();
}

async fn answer(
    pod: &Rc<Pod>,
    mut request: Request,
    connection: &Rc<Connection>,
    stream: u32,
    room: SemaphorePermit<'static>,
    work: PieceOfWork,
) {
    let limit = u64::try_from(request.timeout_nano).ok().filter(|limit| *limit > 0);
    if rpc::only_waits(&request) {
        rpc::shorten(&mut request);
        drop((room, work));
        let until = limit.map(|limit| Instant::now() + Duration::from_nanos(limit));
        return wait(pod, Rc::new(WaitingRequest { stream, request, until }), connection).await;
    }
    let named = work::begin(rpc::name(&request));
    drop(work);
    let result = match limit {
        None => rpc::call(pod, &request).await,
        Some(limit) => {
            let pod = pod.clone();
            // Work goes on when its client's time is over.
            let whole = work::begin(rpc::name(&request));
            let work = spawn_local(async move {
                let (_room, _whole) = (room, whole);
                rpc::call(&pod, &request).await
            });
            let until = Instant::now() + Duration::from_nanos(limit);
            within(Some(until), async {
                work.await.unwrap_or_else(|error| Err(Refusal::unknown(error.to_string())))
            })
            .await
        }
    };
    reply(connection, stream, result);
    drop(named);
}

/// Answers a request that merely waits. Nothing is lost when it is given up: its answer stays to be asked for.
async fn wait(pod: &Rc<Pod>, waiting: Rc<WaitingRequest>, connection: &Rc<Connection>) {
    let result = match WAITS.try_acquire() {
        Err(_) => Err(Refusal::exhausted(format!("{WAITING} requests wait already"))),
        Ok(_permit) => {
            let _entry = connection.waits(waiting.clone());
            tokio::select! {
                answer = within(waiting.until, rpc::call(pod, &waiting.request)) => answer,
                () = connection.gone.wait() => Err(Refusal::late("the client has gone")),
            }
        }
    };
    reply(connection, waiting.stream, result);
}

async fn within<T>(until: Option<Instant>, work: impl Future<Output = Result<T>>) -> Result<T> {
    match until {
        None => work.await,
        Some(until) => tokio::time::timeout_at(until, work)
            .await
            .unwrap_or_else(|_| Err(Refusal::late("context deadline exceeded"))),
    }
}

fn reply(connection: &Rc<Connection>, stream: u32, result: Result<Vec<u8>>) {
    let mut response = Response::new();
    match result {
        Ok(payload) if payload.len() < ttrpc::MOST as usize - 64 => response.payload = payload,
        Ok(_) => response.set_status(Refusal::exhausted("the answer exceeds 4 MiB").status()),
        Err(refusal) => response.set_status(refusal.status()),
    }
    connection.put(ttrpc::frame(ttrpc::RESPONSE, stream, &response));
}
