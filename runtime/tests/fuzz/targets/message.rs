// SPDX-License-Identifier: Apache-2.0
//! What the host believes from inside: packets of any length, with any number of descriptors, on the socket to the stage,
//! and the words that it finds for them.
//!
//! An input is packets: a byte for the number of descriptors, one for the length in words of four bytes (odd: one byte
//! less), and the bytes.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use corten::host::{Channel, word_fault};
use corten::program::Program;
use corten::stage::wire::Message;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::mutate::Shape;
use crate::targets::Target;
use crate::{cases, holds};

pub const TARGET: Target = Target { name: "message", shape: Shape::Bytes(&WORDS), seeds, run, short: 3000 };

/// The beginnings of messages: kind and barrier, then the operation.
const WORDS: [&str; 8] = [
    "\x01\x06\0\0",
    "\x03\0\0\0",
    "\x04\0\0\0",
    "\x02\0\0\0",
    "\x01\0\x01\0",
    "\x07\0\x01\0",
    "\x1b[2J",
    "\n",
];

thread_local! {
    static PROGRAMS: Vec<Program> = cases::golden().into_iter().map(|(_, program)| program).collect();
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn run(input: &[u8]) -> bool {
    let (host, stage) = Channel::pair().unwrap();
    let before =
        if crate::random::hash(input).is_multiple_of(256) && crate::alone() { descriptors() } else { 0 };
    let mut rest = input;
    let mut whole = true;
    while let [count, length, tail @ ..] = rest {
        let (count, length) = (usize::from(count % 4), usize::from(*length) * 4 - usize::from(length & 1));
        let (packet, tail) = tail.split_at(length.min(tail.len()));
        rest = tail;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [stage.as_fd(), stage.as_fd(), stage.as_fd()];
        if count > 0 {
            ancillary.push(SendAncillaryMessage::ScmRights(&fds[..count]));
        }
        sendmsg(&stage, &[IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        match host.receive() {
            Ok(Some(incoming)) => {
                assert!(
                    packet.len() >= 16 && count < 2,
                    "a packet of {} bytes and {count} descriptors was taken",
                    packet.len()
                );
                assert_eq!(incoming.fd.is_some(), count == 1);
                let head: [u8; 16] = packet[..16].try_into().unwrap();
                assert_eq!(
                    (incoming.message, &incoming.output[..]),
                    (Message::from_bytes(head), &packet[16..])
                );
                PROGRAMS.with(|programs| {
                    let program = &programs[crate::random::hash(packet) as usize % programs.len()];
                    holds::one_line(&word_fault(program, &incoming).to_string());
                });
            }
            Err(error) => {
                assert!(packet.len() < 16 || count > 1, "{error}");
                holds::one_line(&error.to_string());
                whole = false;
            }
            Ok(None) => assert_eq!((packet.len(), count), (0, 0), "a packet was taken for the end"),
        }
    }
    if before > 0 {
        assert_eq!(descriptors(), before, "descriptors that nobody closed");
    }
    drop(stage);
    assert!(host.receive().unwrap().is_none());
    whole
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in 0..6 {
        for aux in [0_u32, 56, 59, 257, 0x1_0001, 0x1_0002, 0x1_0003, 0x1_0004, 0x1_0005, 0x1_0006, 0x1_0007]
        {
            let message = Message { kind, barrier: 6, zero: 0, op: aux % 60, errno: 2, aux };
            seeds.push([&[kind % 2, 4][..], &message.bytes()].concat());
        }
    }
    let fault = Message { kind: 3, op: 30, errno: 1, aux: 0x1_0001, ..Message::default() };
    seeds.push([&[0, 10][..], &fault.bytes(), b"cannot open\n\x1b[31mx\xff\xfe twenty"].concat());
    seeds.push(vec![0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    seeds
}
