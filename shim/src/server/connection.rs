// SPDX-License-Identifier: Apache-2.0
//! A client's connection: the frame that is coming in, the replies that are going out, the requests that wait. All of it
//! stands here and not in the tasks that work on it, so that another program can go on with it (`server/passing.rs`).

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use containerd_shim_protos::ttrpc::Request;
use rustix::net::{Shutdown, shutdown};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::ready::Once;
use crate::ttrpc::{self, MessageHeader};

/// How many replies may wait for a client that does not read.
const OUTBOX: usize = 64;

/// A connection.
pub struct Connection {
    pub stream: UnixStream,
    pub incoming: RefCell<IncomingFrame>,
    /// Replies; what is written of the first is cut off it.
    pub outbox: RefCell<VecDeque<Vec<u8>>>,
    /// There is room in the outbox again, or the client reads no more.
    room: Notify,
    /// A task writes what is in the outbox.
    writing: Cell<bool>,
    /// Nothing can be written any more.
    broken: Cell<bool>,
    /// What has come has come to its end.
    pub gone: Once,
    /// Requests that merely wait, by the order in which they came.
    pub waits: RefCell<BTreeMap<u64, Rc<WaitingRequest>>>,
    next: Cell<u64>,
}

/// A request that can be asked again.
pub struct WaitingRequest {
    pub stream: u32,
    pub request: Request,
    /// Until when its client waits.
    pub until: Option<Instant>,
}

/// A wait's entry, until it is dropped.
pub struct WaitEntry(Rc<Connection>, u64);

impl Drop for WaitEntry {
    fn drop(&mut self) {
        self.0.waits.borrow_mut().remove(&self.1);
    }
}

impl Connection {
    pub fn new(stream: UnixStream, incoming: IncomingFrame, outbox: VecDeque<Vec<u8>>) -> Rc<Connection> {
        Rc::new(Connection {
            stream,
            incoming: RefCell::new(incoming),
            outbox: RefCell::new(outbox),
            room: Notify::new(),
            writing: Cell::new(false),
            broken: Cell::new(false),
            gone: Once::default(),
            waits: RefCell::default(),
            next: Cell::new(0),
        })
    }

    /// Enters a wait.
    pub fn waits(self: &Rc<Self>, waiting: Rc<WaitingRequest>) -> WaitEntry {
        let number = self.next.get();
        self.next.set(number + 1);
        self.waits.borrow_mut().insert(number, waiting);
        WaitEntry(self.clone(), number)
    }

    /// Waits until the outbox has room. `false`: the client reads no more.
    pub async fn has_room(&self) -> bool {
        while !self.broken.get() && self.outbox.borrow().len() >= OUTBOX {
            self.room.notified().await;
        }
        !self.broken.get()
    }

    /// Reads until a whole frame is there. `false` at the connection's end.
    ///
    /// # Errors
    /// Those of read(2); an end in the middle of a frame.
    pub async fn fill(&self) -> io::Result<bool> {
        while !self.incoming.borrow().is_whole() {
            let read = self.incoming.borrow_mut().take_in(|room| self.stream.try_read(room));
            match read {
                Ok(0) if self.incoming.borrow().received == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Others get their turn from a client that always has more.
                Ok(_) => consume_budget().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.readable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Puts a reply out: at once as far as it goes, the rest when the client has read. A client that has gone wants none.
    pub fn put(self: &Rc<Self>, reply: Vec<u8>) {
        if self.broken.get() {
            return;
        }
        self.outbox.borrow_mut().push_back(reply);
        self.write_out();
    }

    /// Writes what is in the outbox.
    pub fn write_out(self: &Rc<Self>) {
        if !self.writing.get() && !self.outbox.borrow().is_empty() && !self.write_some() {
            self.writing.set(true);
            let connection = self.clone();
            spawn_local(async move {
                while connection.stream.writable().await.is_ok() && !connection.write_some() {}
                connection.writing.set(false);
            });
        }
    }

    /// Whether there is nothing more to be written.
    fn write_some(&self) -> bool {
        let mut outbox = self.outbox.borrow_mut();
        while let Some(first) = outbox.front_mut() {
            match self.stream.try_write(first) {
                Ok(count) if count == first.len() => _ = outbox.pop_front(),
                Ok(count) => _ = first.drain(..count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.broken.set(true);
                    outbox.clear();
                    // The kernel may have had no memory: a client that is there must not wait for what will not come.
                    let _ = shutdown(&self.stream, Shutdown::Both);
                }
            }
        }
        self.room.notify_one();
        outbox.is_empty()
    }
}

/// A frame of which some has come.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IncomingFrame {
    head: [u8; 10],
    message: Vec<u8>,
    /// Bytes of it, those that were passed over as well.
    received: u64,
}

impl IncomingFrame {
    const HEAD: u64 = 10;

    /// One of which so much has been received; `kept` is what there is of it.
    pub fn resumed(kept: &[u8], received: u64) -> IncomingFrame {
        let mut frame = IncomingFrame { received, ..IncomingFrame::default() };
        let (head, message) = kept.split_at(kept.len().min(frame.head.len()));
        frame.head[..head.len()].copy_from_slice(head);
        if received >= Self::HEAD && !frame.is_too_large() {
            frame.message = message.to_vec();
            frame.message.resize(frame.header().length as usize, 0);
        }
        frame
    }

    /// What there is of it, and how much has been received.
    pub fn so_far(&self) -> (Vec<u8>, u64) {
        let head = self.received.min(Self::HEAD) as usize;
        let message = self.received.saturating_sub(Self::HEAD).min(self.message.len() as u64) as usize;
        ([&self.head[..head], &self.message[..message]].concat(), self.received)
    }

    fn header(&self) -> MessageHeader {
        MessageHeader::of(self.head)
    }

    fn is_too_large(&self) -> bool {
        self.header().length > ttrpc::MOST
    }

    fn is_whole(&self) -> bool {
        self.received >= Self::HEAD && self.received == Self::HEAD + u64::from(self.header().length)
    }

    /// Lets `read` fill some of what is missing.
    fn take_in(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let at = self.received as usize;
        let mut scrap;
        let room = if self.received < Self::HEAD {
            &mut self.head[at..]
        } else if self.is_too_large() {
            let left = Self::HEAD + u64::from(self.header().length) - self.received;
            scrap = [0; 4096];
            &mut scrap[..left.min(4096) as usize]
        } else {
            &mut self.message[at - Self::HEAD as usize..]
        };
        let count = read(room)?;
        self.received += count as u64;
        if self.received == Self::HEAD && self.message.is_empty() && !self.is_too_large() {
            self.message = vec![0; self.header().length as usize];
        }
        Ok(count)
    }

    /// The whole frame; one that is too large without its message. Another one begins.
    pub fn take(&mut self) -> (MessageHeader, Result<Vec<u8>, ()>) {
        let frame = std::mem::take(self);
        let message = if frame.is_too_large() { Err(()) } else { Ok(frame.message) };
        (MessageHeader::of(frame.head), message)
    }
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::protobuf::Message;

    use super::*;

    fn frames() -> Vec<u8> {
        let request = Request { service: "s".into(), method: "m".into(), ..Default::default() };
        let first = ttrpc::frame(ttrpc::REQUEST, 7, &request);
        let large = [&(ttrpc::MOST + 1).to_be_bytes()[..], &[0, 0, 0, 9, ttrpc::REQUEST, 0]].concat();
        [&first[..], &large, &vec![0; ttrpc::MOST as usize + 1], &[0, 0, 0, 0, 0, 0, 0, 11, 1, 0], &first]
            .concat()
    }

    /// Whatever the pieces in which it comes, and handed over after each of them.
    #[test]
    fn frames_come_in_pieces() {
        let bytes = frames();
        for piece in [1, 7, 11, 4096, 1 << 20] {
            let (mut rest, mut got, mut frame) = (&bytes[..], Vec::new(), IncomingFrame::default());
            while !rest.is_empty() {
                let read = |room: &mut [u8]| {
                    let count = room.len().min(piece).min(rest.len());
                    room[..count].copy_from_slice(&rest[..count]);
                    rest = &rest[count..];
                    Ok(count)
                };
                frame.take_in(read).unwrap();
                if piece > 1 || frame.received < 100 {
                    let (kept, received) = frame.so_far();
                    assert_eq!(IncomingFrame::resumed(&kept, received).so_far(), (kept, received));
                    let (kept, received) = frame.so_far();
                    frame = IncomingFrame::resumed(&kept, received);
                }
                if frame.is_whole() {
                    let (header, message) = frame.take();
                    let read = message.map(|message| Request::parse_from_bytes(&message).unwrap().method);
                    got.push((header.stream, read));
                }
            }
            let m = || Ok("m".to_owned());
            assert_eq!(got, [(7, m()), (9, Err(())), (11, Ok(String::new())), (7, m())], "{piece}");
            assert_eq!(frame, IncomingFrame::default());
        }
    }

    /// Of what nothing can be written to, nothing is read any more, and the other side sees its end.
    #[test]
    fn a_connection_on_which_a_reply_is_lost_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let connection = Connection::new(ours, IncomingFrame::default(), VecDeque::new());
            shutdown(&connection.stream, Shutdown::Write).unwrap();
            connection.put(b"a reply".to_vec());
            let end = tokio::time::timeout(std::time::Duration::from_secs(60), connection.fill()).await;
            assert!(!end.expect("it is still read from").unwrap());
            assert!(!connection.has_room().await);
            theirs.readable().await.unwrap();
            assert_eq!(theirs.try_read(&mut [0; 8]).unwrap(), 0);
        });
    }

    /// Frames that cost nothing but their reading, of which there is always another one.
    #[test]
    fn others_get_their_turn_from_a_client_that_floods() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let connection = Connection::new(ours, IncomingFrame::default(), VecDeque::new());
            theirs.writable().await.unwrap();
            let flood = [0, 0, 0, 0, 0, 0, 0, 1, ttrpc::RESPONSE, 0].repeat(1000);
            assert_eq!(theirs.try_write(&flood).unwrap(), flood.len());
            let turns = Rc::new(Cell::new(0));
            let others = turns.clone();
            spawn_local(async move {
                loop {
                    others.set(others.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            let reads = spawn_local(async move {
                let mut first = None;
                for _ in 0..1000 {
                    assert!(connection.fill().await.unwrap());
                    connection.incoming.borrow_mut().take().1.unwrap();
                    first.get_or_insert(turns.get());
                }
                assert!(Some(turns.get()) > first, "nobody had a turn");
            });
            reads.await.unwrap();
        });
    }
}
