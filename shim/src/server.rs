// SPDX-License-Identifier: Apache-2.0
//! The ttrpc server: connections, requests, replies.
//!
//! Each request runs as a task of its own and to its end, whether its client stays or not; only what merely waits is
//! given up with the connection. Replies go out in the order in which they are ready. A connection is closed by its
//! client alone: containerd takes the end of its connection for the end of the shim.

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::{Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::spawn_local;

use crate::pod::Pod;
use crate::refusal::{Refusal, Result};
use crate::{log, rpc, ttrpc};

/// How many replies may wait for a client that does not read.
const OUTBOX: usize = 64;

/// Serves connections for ever.
pub async fn serve(listener: UnixListener, pod: Rc<Pod>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_ours(&stream) => {
                let (read, write) = stream.into_split();
                let (outbox, replies) = channel(OUTBOX);
                spawn_local(send(replies, write));
                spawn_local(receive(read, outbox, pod.clone()));
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

async fn receive(mut read: OwnedReadHalf, outbox: Sender<Vec<u8>>, pod: Rc<Pod>) {
    let _visit = pod.visit();
    // A client that does not read its replies is not read from, so that what is kept for it is bounded.
    while outbox.reserve().await.is_ok()
        && let Ok(Some((header, message))) = ttrpc::read(&mut read).await
    {
        pod.rest.wake();
        if header.kind != ttrpc::REQUEST {
            continue;
        }
        let Ok(message) = message else {
            let text = format!("message of {} bytes exceeds {}", header.length, ttrpc::MOST);
            reply(&outbox, header.stream, Err(Refusal::exhausted(text))).await;
            continue;
        };
        let (outbox, pod) = (outbox.clone(), pod.clone());
        spawn_local(async move {
            let result = if header.stream % 2 == 0 {
                Err(Refusal::invalid("stream id must be odd"))
            } else if header.flags & ttrpc::REMOTE_OPEN != 0 {
                Err(Refusal::unimplemented("streams"))
            } else {
                answer(&pod, &message, &outbox).await
            };
            reply(&outbox, header.stream, result).await;
        });
    }
}

async fn answer(pod: &Rc<Pod>, message: &[u8], outbox: &Sender<Vec<u8>>) -> Result<Vec<u8>> {
    let request = Request::parse_from_bytes(message)
        .map_err(|error| Refusal::invalid(format!("malformed request: {error}")))?;
    let limit = u64::try_from(request.timeout_nano).ok().filter(|limit| *limit > 0);
    if rpc::only_waits(&request.method) {
        // Nothing is lost when it is given up: its answer stays to be asked for.
        return tokio::select! {
            answer = within(limit, rpc::call(pod, &request)) => answer,
            () = outbox.closed() => Err(Refusal::late("the client has gone")),
        };
    }
    match limit {
        None => rpc::call(pod, &request).await,
        Some(_) => {
            let pod = pod.clone();
            let work = spawn_local(async move { rpc::call(&pod, &request).await });
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

async fn reply(outbox: &Sender<Vec<u8>>, stream: u32, result: Result<Vec<u8>>) {
    let mut response = Response::new();
    match result {
        Ok(payload) if payload.len() < ttrpc::MOST as usize - 64 => response.payload = payload,
        Ok(_) => response.set_status(Refusal::exhausted("the answer exceeds 4 MiB").status()),
        Err(refusal) => response.set_status(refusal.status()),
    }
    // A client that has gone wants no answer.
    let _ = outbox.send(ttrpc::frame(ttrpc::RESPONSE, stream, &response)).await;
}
