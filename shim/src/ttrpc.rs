// SPDX-License-Identifier: Apache-2.0
//! ttrpc's frames: ten bytes of header, then a message. The server and the publisher of events are built on it.
//!
//! Decision 0023 says why the server is ours and not that of the ttrpc crate, whose messages are used here.

#![forbid(unsafe_code)]

use std::io;

use containerd_shim_protos::protobuf::Message;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest message (ttrpc's PROTOCOL.md).
pub const MOST: u32 = 4 << 20;
pub const REQUEST: u8 = 1;
pub const RESPONSE: u8 = 2;
/// The client means to send more: a stream, which none of our methods is.
pub const REMOTE_OPEN: u8 = 2;

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageHeader {
    /// Length of the message behind it.
    pub length: u32,
    /// The call it belongs to: odd, chosen by the client.
    pub stream: u32,
    /// [`REQUEST`] or [`RESPONSE`].
    pub kind: u8,
    /// Flags of streams.
    pub flags: u8,
}

impl MessageHeader {
    /// Reads it.
    pub fn of(bytes: [u8; 10]) -> MessageHeader {
        let [a, b, c, d, e, f, g, h, kind, flags] = bytes;
        MessageHeader {
            length: u32::from_be_bytes([a, b, c, d]),
            stream: u32::from_be_bytes([e, f, g, h]),
            kind,
            flags,
        }
    }
}

/// The next frame; `None` at the connection's end. A message that is too large is read away and comes as `Err`.
///
/// # Errors
/// The connection's.
pub async fn read(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(MessageHeader, Result<Vec<u8>, ()>)>> {
    let mut head = [0; 10];
    match from.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let header = MessageHeader::of(head);
    if header.length > MOST {
        let mut rest = (&mut *from).take(u64::from(header.length));
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        return Ok(Some((header, Err(()))));
    }
    let mut message = vec![0; header.length as usize];
    from.read_exact(&mut message).await?;
    Ok(Some((header, Ok(message))))
}

/// A whole frame around `message`.
pub fn frame(kind: u8, stream: u32, message: &impl Message) -> Vec<u8> {
    let length = message.compute_size();
    let mut bytes = Vec::with_capacity(10 + length as usize);
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    // Writing into memory cannot fail.
    let _ = message.write_to_vec(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::ttrpc::Request;

    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let request = Request { service: "s".into(), method: "m".into(), ..Default::default() };
        let mut bytes = frame(REQUEST, 7, &request);
        // One that is too large, then the first one again.
        let again = bytes.clone();
        bytes.extend_from_slice(&(MOST + 1).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 9, REQUEST, 0]);
        bytes.resize(bytes.len() + MOST as usize + 1, 0);
        bytes.extend_from_slice(&again);
        let mut input = bytes.as_slice();
        runtime.block_on(async {
            let (header, message) = read(&mut input).await.unwrap().unwrap();
            assert_eq!((header.stream, header.kind), (7, REQUEST));
            assert_eq!(Request::parse_from_bytes(&message.unwrap()).unwrap(), request);
            let (header, message) = read(&mut input).await.unwrap().unwrap();
            assert_eq!((header.stream, message), (9, Err(())));
            assert_eq!(read(&mut input).await.unwrap().unwrap().0.stream, 7);
            assert!(read(&mut input).await.unwrap().is_none());
            // Cut off in the middle of a message.
            assert!(read(&mut &again[..12]).await.is_err());
        });
    }
}
