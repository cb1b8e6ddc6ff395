// SPDX-License-Identifier: Apache-2.0
//! One gRPC call over a UNIX socket, unary or answered by a stream, with as much of HTTP/2 (RFC 9113) as that takes.
//!
//! The answer's headers are not decoded: a call that succeeds brings a message, even if an empty one; a call that
//! fails brings none, and why stands in the log of containerd.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::wire::{Fields, Message};
use crate::check;
use crate::harness::case::{Trouble, Verdict};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// The setting, and the largest value that it may have.
const INITIAL_WINDOW_SIZE: u16 = 4;
const WINDOW: u32 = (1 << 31) - 1;
/// Of SETTINGS and PING, and of the last frame of a stream.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Calls `method` (`/package.Service/Name`).
pub fn call(socket: &Path, method: &str, request: &Message) -> Result<Fields, Trouble> {
    call_in(socket, None, method, request)
}

/// The same, in one of containerd's namespaces, as its own services want it.
pub fn call_in(
    socket: &Path,
    namespace: Option<&str>,
    method: &str,
    request: &Message,
) -> Result<Fields, Trouble> {
    let mut stream = send(socket, namespace, method, request)?;
    let mut answer = Vec::new();
    while let Some(data) = receive(&mut stream)? {
        answer.extend_from_slice(&data);
    }
    check!(answer.len() >= 5, "{method} failed");
    Fields::read(&answer[5..])
}

/// Calls `method`, which answers with any number of messages, until `each` has had enough.
pub fn stream(
    socket: &Path,
    method: &str,
    request: &Message,
    mut each: impl FnMut(Fields) -> bool,
) -> Verdict {
    let mut stream = send(socket, None, method, request)?;
    let mut answer = Vec::new();
    while let Some(data) = receive(&mut stream)? {
        answer.extend_from_slice(&data);
        while let Some([_, a, b, c, d]) = answer.first_chunk() {
            let end = 5 + u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let Some(message) = answer.get(5..end) else { break };
            if !each(Fields::read(message)?) {
                return Ok(());
            }
            answer.drain(..end);
        }
    }
    Ok(())
}

fn send(
    socket: &Path,
    namespace: Option<&str>,
    method: &str,
    request: &Message,
) -> Result<UnixStream, Trouble> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(100)))?;
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // As much as one can be allowed, of the stream and of the connection: no answer has to wait for more.
    let mut window = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    window.extend_from_slice(&WINDOW.to_be_bytes());
    frame(&mut out, SETTINGS, 0, 0, &window);
    frame(&mut out, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
    frame(&mut out, HEADERS, END_HEADERS, 1, &head(method, namespace));
    let mut body = vec![0];
    body.extend_from_slice(&(request.0.len() as u32).to_be_bytes());
    body.extend_from_slice(&request.0);
    frame(&mut out, DATA, END_STREAM, 1, &body);
    stream.write_all(&out)?;
    Ok(stream)
}

/// What a frame brings of the answer's body; none after the last one.
fn receive(stream: &mut UnixStream) -> Result<Option<Vec<u8>>, Trouble> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload)?;
        let mut reply = Vec::new();
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut reply, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut reply, PING, ACK, 0, &payload),
            DATA if flags & END_STREAM == 0 => return Ok(Some(payload)),
            HEADERS if flags & END_STREAM != 0 => return Ok(None),
            // Trailers come after all data of a gRPC answer.
            DATA => return Err("data that end an answer without trailers".into()),
            GOAWAY => return Err("containerd closed the connection".into()),
            _ => {}
        }
        stream.write_all(&reply)?;
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The request's headers, each as a literal that is not indexed (RFC 7541, 6.2.2).
fn head(method: &str, namespace: Option<&str>) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut out = Vec::new();
    let namespace = namespace.map(|namespace| ("containerd-namespace", namespace));
    for (name, value) in headers.into_iter().chain(namespace) {
        out.push(0);
        for text in [name, value] {
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}
