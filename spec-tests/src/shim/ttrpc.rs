// SPDX-License-Identifier: Apache-2.0
//! A lean ttrpc client: ten bytes of header (length, stream, type, flags), then a Request or Response message. Any
//! number of calls may be open on one connection; a thread reads the answers.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::wire::{Fields, Message};
use crate::harness::case::Trouble;

/// The types of frames.
pub const REQUEST: u8 = 1;
pub const RESPONSE: u8 = 2;

/// gRPC's codes, as a ttrpc Status bears them.
pub const UNKNOWN: u64 = 2;
pub const INVALID_ARGUMENT: u64 = 3;
pub const NOT_FOUND: u64 = 5;
pub const ALREADY_EXISTS: u64 = 6;
pub const FAILED_PRECONDITION: u64 = 9;
pub const UNIMPLEMENTED: u64 = 12;
/// Not on the wire: the connection ended, or nothing came in time.
pub const CLOSED: u64 = 1000;
pub const SILENT: u64 = 1001;

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub code: u64,
    pub text: String,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Fail(format!("a call failed with code {}: {}", failure.code, failure.text))
    }
}

/// What a call gave.
pub type Answer = Result<Fields, Failure>;

/// The mutex's content, also after a panic elsewhere.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One frame, ready to be sent.
pub fn frame(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(10 + payload.len());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend([kind, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads one frame: stream, type, payload.
pub fn read_frame(socket: &mut impl Read) -> std::io::Result<(u32, u8, Vec<u8>)> {
    let mut header = [0; 10];
    socket.read_exact(&mut header)?;
    let [a, b, c, d, e, f, g, h, kind, _] = header;
    let mut payload = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
    socket.read_exact(&mut payload)?;
    Ok((u32::from_be_bytes([e, f, g, h]), kind, payload))
}

pub fn request(service: &str, method: &str, payload: &Message) -> Message {
    Message::new().text(1, service).text(2, method).message(3, payload)
}

type Waiting = Arc<Mutex<Option<HashMap<u32, Sender<Vec<u8>>>>>>;

/// A connection.
pub struct Client {
    socket: Mutex<UnixStream>,
    waiting: Waiting,
    next: AtomicU32,
}

/// A call that was sent.
pub struct Pending(Receiver<Vec<u8>>, String);

impl Client {
    pub fn connect(path: &str) -> std::io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        let mut reader = socket.try_clone()?;
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let theirs = waiting.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _, payload)) = read_frame(&mut reader) {
                let sender = locked(&theirs).as_mut().and_then(|waiting| waiting.remove(&stream));
                sender.map(|sender| sender.send(payload));
            }
            *locked(&theirs) = None;
        });
        Ok(Self { socket: Mutex::new(socket), waiting, next: AtomicU32::new(1) })
    }

    /// Sends a call.
    pub fn begin(&self, service: &str, method: &str, payload: &Message) -> Pending {
        self.begin_bytes(method, &request(service, method, payload).0)
    }

    /// Sends what should be a Request message.
    pub fn begin_bytes(&self, name: &str, request: &[u8]) -> Pending {
        let (sender, receiver) = channel();
        let mut socket = locked(&self.socket);
        let stream = self.next.fetch_add(2, Ordering::Relaxed);
        if let Some(waiting) = locked(&self.waiting).as_mut() {
            waiting.insert(stream, sender);
        }
        // An error shows as the end of the connection.
        socket.write_all(&frame(stream, REQUEST, request)).ok();
        Pending(receiver, name.to_owned())
    }

    /// A call and its answer, for which it waits 20 s.
    pub fn call(&self, service: &str, method: &str, payload: &Message) -> Answer {
        self.begin(service, method, payload).within(20.0)
    }

    /// False when the other side has closed the connection.
    pub fn is_open(&self) -> bool {
        locked(&self.waiting).is_some()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        locked(&self.socket).shutdown(std::net::Shutdown::Both).ok();
    }
}

impl Pending {
    /// Waits for the answer.
    pub fn within(&self, seconds: f64) -> Answer {
        let payload = match self.0.recv_timeout(Duration::from_secs_f64(seconds)) {
            Ok(payload) => payload,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure {
                    code: CLOSED,
                    text: format!("{}: the shim closed the connection", self.1),
                });
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(Failure {
                    code: SILENT,
                    text: format!("{}: no answer within {seconds} s", self.1),
                });
            }
        };
        let broken = |_| Failure { code: SILENT, text: format!("{}: the answer is no protobuf", self.1) };
        let response = Fields::read(&payload).map_err(broken)?;
        let status = response.message(1).map_err(broken)?;
        if status.number(1) != 0 {
            return Err(Failure { code: status.number(1), text: status.text(2) });
        }
        response.message(2).map_err(broken)
    }

    /// True while there is no answer.
    pub fn is_open(&self) -> bool {
        self.within(0.0).is_err_and(|failure| failure.code == SILENT)
    }
}
