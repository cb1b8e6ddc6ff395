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

use std::rc::Rc;
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::{Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_local;

use crate::pod::Pod;
use crate::ready::Once;
use crate::refusal::{Refusal, Result};
use crate::{log, rpc, ttrpc};

/// How many replies may wait for a client that does not read.
const OUTBOX: usize = 64;
/// How many bytes of requests may be under way: four of the largest.
const UNDER_WAY: usize = 4 * ttrpc::MOST as usize;
/// What a request counts at least: it is a task here, whatever it says.
const LEAST: usize = 1 << 10;
/// How many requests may merely wait; each costs some hundred bytes.
const WAITING: usize = 8192;

static ROOM: Semaphore = Semaphore::const_new(UNDER_WAY);
static WAITS: Semaphore = Semaphore::const_new(WAITING);

/// A client, as its requests know it.
#[derive(Clone)]
struct Client {
    outbox: Sender<Vec<u8>>,
    /// Its connection has come to its end.
    gone: Rc<Once>,
}

/// Serves connections for ever.
pub async fn serve(listener: UnixListener, pod: Rc<Pod>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_ours(&stream) => {
                let (read, write) = stream.into_split();
                let (outbox, replies) = channel(OUTBOX);
                let client = Client { outbox, gone: Rc::default() };
                spawn_local(send(replies, write));
                spawn_local(receive(read, client, pod.clone()));
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

async fn send(mut replies: Receiver<Vec<u8>>, mut write: OwnedWriteHalf) {
    while let Some(reply) = replies.recv().await {
        if write.write_all(&reply).await.is_err() {
            return;
        }
    }
}

async fn receive(mut read: OwnedReadHalf, client: Client, pod: Rc<Pod>) {
    let _visit = pod.visit();
    // A client that does not read its replies is not read from, so that what is kept for it is bounded.
    while client.outbox.reserve().await.is_ok()
        && let Ok(Some((header, message))) = ttrpc::read(&mut read).await
    {
        pod.idle.wake();
        if header.kind != ttrpc::REQUEST {
            continue;
        }
        let Ok(message) = message else {
            let text = format!("message of {} bytes exceeds {}", header.length, ttrpc::MOST);
            reply(&client, header.stream, Err(Refusal::exhausted(text))).await;
            continue;
        };
        let Ok(room) = ROOM.acquire_many(message.len().max(LEAST) as u32).await else { break };
        let (client, pod) = (client.clone(), pod.clone());
        spawn_local(async move {
            let result = if header.stream % 2 == 0 {
                Err(Refusal::invalid("stream id must be odd"))
            } else if header.flags & ttrpc::REMOTE_OPEN != 0 {
                Err(Refusal::unimplemented("streams"))
            } else {
                answer(&pod, message, &client, room).await
            };
            reply(&client, header.stream, result).await;
        });
    }
    client.gone.happen();
}

async fn answer(
    pod: &Rc<Pod>,
    message: Vec<u8>,
    client: &Client,
    room: SemaphorePermit<'static>,
) -> Result<Vec<u8>> {
    let mut request = Request::parse_from_bytes(&message)
        .map_err(|error| Refusal::invalid(format!("malformed request: {error}")))?;
    drop(message);
    let limit = u64::try_from(request.timeout_nano).ok().filter(|limit| *limit > 0);
    if rpc::only_waits(&request.method) {
        let Ok(_permit) = WAITS.try_acquire() else {
            return Err(Refusal::exhausted(format!("{WAITING} requests wait already")));
        };
        rpc::shorten(&mut request);
        drop(room);
        // Nothing is lost when it is given up: its answer stays to be asked for.
        return tokio::select! {
            answer = within(limit, rpc::call(pod, &request)) => answer,
            () = client.gone.wait() => Err(Refusal::late("the client has gone")),
        };
    }
    match limit {
        None => rpc::call(pod, &request).await,
        Some(_) => {
            let pod = pod.clone();
            let work = spawn_local(async move {
                let _room = room;
                rpc::call(&pod, &request).await
            });
            within(limit, async {
                work.await.unwrap_or_else(|error| Err(Refusal::unknown(error.to_string())))
            })
            .await
        }
    }
}

async fn within<T>(limit: Option<u64>, work: impl Future<Output = Result<T>>) -> Result<T> {
    match limit {
        None => work.await,
        Some(limit) => tokio::time::timeout(Duration::from_nanos(limit), work)
            .await
            .unwrap_or_else(|_| Err(Refusal::late("context deadline exceeded"))),
    }
}

async fn reply(client: &Client, stream: u32, result: Result<Vec<u8>>) {
    let mut response = Response::new();
    match result {
        Ok(payload) if payload.len() < ttrpc::MOST as usize - 64 => response.payload = payload,
        Ok(_) => response.set_status(Refusal::exhausted("the answer exceeds 4 MiB").status()),
        Err(refusal) => response.set_status(refusal.status()),
    }
    // A client that has gone wants no answer.
    let _ = client.outbox.send(ttrpc::frame(ttrpc::RESPONSE, stream, &response)).await;
}
