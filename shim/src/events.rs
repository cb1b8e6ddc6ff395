// SPDX-License-Identifier: Apache-2.0
//! Events to containerd: one queue, one sender, in the order in which they were put in.
//!
//! An event leaves the queue when containerd has acknowledged it; while containerd is away it waits. An event that was
//! on its way when containerd died may come twice; none is lost.

#![forbid(unsafe_code)]

mod passing;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::ttrpc::{Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::{clock, log, ttrpc};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// containerd's own limit for one event.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts to reach containerd.
const PAUSE: Duration = Duration::from_secs(2);
/// How many events are kept; some hundred bytes each. Beyond that the oldest go, and the log says so.
const MOST: usize = 20_000;

/// The queue.
pub struct Events {
    namespace: String,
    address: String,
    queue: RefCell<VecDeque<Rc<[u8]>>>,
    /// Something was put in.
    filled: Notify,
    /// The first event is not on its way any more: it was taken out, or stays.
    emptied: Notify,
    lost: Cell<u64>,
    /// The first event is on its way.
    sending: Cell<bool>,
}

impl Events {
    /// For events of `namespace` to the ttrpc socket `address`; without one they are dropped.
    pub fn new(namespace: &str, address: &str) -> Rc<Events> {
        Rc::new(Events {
            namespace: namespace.to_owned(),
            address: address.strip_prefix("unix://").unwrap_or(address).to_owned(),
            queue: RefCell::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            lost: Cell::new(0),
            sending: Cell::new(false),
        })
    }

    /// Puts an event in. `name` is its type (`TaskExit`), without the package.
    pub fn push<M: Message>(&self, topic: &str, name: &str, event: &M) {
        if self.address.is_empty() {
            return;
        }
        let event = Any {
            type_url: format!("containerd.events.{name}"),
            value: event.write_to_bytes().unwrap_or_default(),
            ..Default::default()
        };
        let envelope = Envelope {
            timestamp: MessageField::some(clock::now()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(event),
            ..Default::default()
        };
        let forward = ForwardRequest { envelope: MessageField::some(envelope), ..Default::default() };
        let mut queue = self.queue.borrow_mut();
        queue.push_back(forward.write_to_bytes().unwrap_or_default().into());
        if queue.len() > MOST {
            // Not the first: it may be on its way.
            queue.remove(1);
            self.lost.set(self.lost.get() + 1);
        }
        self.filled.notify_one();
    }

    /// Sends for ever.
    pub async fn publish(self: Rc<Self>) {
        let mut connection = None;
        let mut pause = Duration::from_millis(20);
        let mut stream = 1;
        loop {
            let next = self.queue.borrow().front().cloned();
            let Some(next) = next else {
                self.filled.notified().await;
                continue;
            };
            match self.undisturbed(timeout(PATIENCE, self.send(&mut connection, stream, &next))).await {
                Ok(Ok(())) => {
                    self.queue.borrow_mut().pop_front();
                    stream += 2;
                    pause = Duration::from_millis(20);
                    self.tell_losses();
                }
                failed => {
                    if let Ok(Err(error)) = failed {
                        log::debug(&format!("event: {error}"));
                    }
                    (connection, stream) = (None, 1);
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE);
                }
            }
        }
    }

    fn tell_losses(&self) {
        match self.lost.take() {
            0 => {}
            lost => log::warn(&format!("{lost} events were dropped while containerd was away")),
        }
    }

    async fn send(&self, connection: &mut Option<UnixStream>, stream: u32, event: &[u8]) -> io::Result<()> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(UnixStream::connect(&self.address).await?),
        };
        let request = Request {
            service: SERVICE.to_owned(),
            method: "Forward".to_owned(),
            payload: event.to_vec(),
            timeout_nano: PATIENCE.as_nanos() as i64,
            ..Default::default()
        };
        connection.write_all(&ttrpc::frame(ttrpc::REQUEST, stream, &request)).await?;
        loop {
            let Some((header, message)) = ttrpc::read(connection).await? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if header.kind != ttrpc::RESPONSE || header.stream != stream {
                continue;
            }
            let response = Response::parse_from_bytes(&message.unwrap_or_default())?;
            return match response.status.as_ref().filter(|status| status.code.value() != 0) {
                // Answered, so it will be answered like that again: an event that containerd does not want is not
                // kept in front of the others.
                Some(status) => {
                    log::warn(&format!("containerd refused an event: {}", status.message));
                    Ok(())
                }
                None => Ok(()),
            };
        }
    }

    /// Waits until everything is sent, at most `limit`.
    pub async fn flush(&self, limit: Duration) {
        let empty = async {
            while !self.queue.borrow().is_empty() {
                self.emptied.notified().await;
            }
        };
        let _ = timeout(limit, empty).await;
    }
}
