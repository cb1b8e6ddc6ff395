// SPDX-License-Identifier: Apache-2.0
//! Bytes that are no ttrpc, and messages that are no protobuf: the shim and its other clients must not mind.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::check;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::pace::within;
use crate::harness::procs;
use crate::harness::test::Test;
use crate::shim::daemon::Daemon;
use crate::shim::task::{METHODS, OF_NOBODY, RUNNING, Task};
use crate::shim::ttrpc::{Client, INVALID_ARGUMENT, REQUEST, RESPONSE, UNKNOWN, frame, request};
use crate::shim::wire::Message;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("frames/garbage", garbage),
        case("frames/malformed-requests", malformed_requests),
        case("frames/malformed-payloads", malformed_payloads),
        case("frames/too-large", too_large).runc("keeps 19 MB"),
        case("frames/odd-streams-and-types", odd_streams).runc("dies"),
        case("frames/byte-by-byte", byte_by_byte),
        case("frames/half-open", half_open),
        case("frames/pipelined", pipelined),
        case("frames/client-that-reads-nothing", reads_nothing).takes(60.0).runc("takes hundreds of MB"),
        case("frames/waits-of-gone-clients", waits_of_gone_clients).takes(60.0),
        case("frames/large-requests-that-wait", large_waits).takes(60.0).runc("takes hundreds of MB"),
    ]
}

/// The shim serves others as before.
fn is_well(task: &Task) -> Verdict {
    same("the state", task.state("")?.status, RUNNING)?;
    let begin = Instant::now();
    let client = Client::connect(&task.shim.address)?;
    client.call(&task.shim.service(), "Connect", &Message::new().text(1, &task.id))?;
    within("a new connection", begin.elapsed(), Duration::from_secs(1))?;
    Ok(())
}

fn garbage(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let texts: [&[u8]; 6] =
        [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", &[0; 64], &[0xff; 64], &[0, 0, 0, 9, 0, 0, 0, 1, 1]];
    for text in texts {
        let mut socket = UnixStream::connect(&task.shim.address)?;
        socket.write_all(text)?;
        drop(socket);
        is_well(&task)?;
    }
    d.end(&b, &task)?;
    d.finish()
}

fn malformed_requests(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let good = request(&task.shim.service(), "State", &Message::new().text(1, &b.id)).0;
    let cut: Vec<Vec<u8>> = (1..good.len()).map(|len| good[..len].to_owned()).collect();
    let wrong =
        [vec![0xff; 40], vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], vec![0x08, 1], vec![0x0b], vec![0; 3]];
    for bytes in cut.iter().chain(&wrong) {
        let client = Client::connect(&task.shim.address)?;
        let answer = client.begin_bytes("a malformed request", bytes).within(2.0);
        check!(answer.is_err(), "{bytes:?} was answered with {answer:?}");
    }
    is_well(&task)?;
    d.end(&b, &task)?;
    d.finish()
}

fn malformed_payloads(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    for method in METHODS.into_iter().filter(|method| !OF_NOBODY.contains(method)) {
        for bytes in [&[0x0a, 0x7f, b'x'][..], &[0xff; 20], &[0x0f], &[0x0a, 2, 0xff, 0xfe]] {
            let answer = task.shim.call(method, &Message(bytes.to_owned()));
            let Err(failure) = answer else {
                return Err(format!("{method} with {bytes:?} succeeded").into());
            };
            let codes = [INVALID_ARGUMENT, UNKNOWN, 5, 13, if method == "Checkpoint" { 12 } else { 3 }];
            check!(codes.contains(&failure.code), "{method} with {bytes:?}: {failure:?}");
        }
    }
    is_well(&task)?;
    d.end(&b, &task)?;
    d.finish()
}

/// Over 4 MiB: ResourceExhausted for that call, and nothing else happens.
fn too_large(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let before = procs::usage(task.shim.pid)?;
    let large = Message::new().text(1, &b.id).text(2, &"x".repeat(5 << 20));
    let answer = task.shim.call("State", &large);
    check!(answer.as_ref().is_err_and(|f| f.code == 8), "5 MiB: {answer:?}");
    is_well(&task)?;
    let answer = task.shim.call("State", &Message::new().text(1, &b.id).text(2, &"x".repeat(3 << 20)));
    check!(answer.as_ref().is_err_and(|f| f.code == 5), "3 MiB: {answer:?}");
    let after = procs::usage(task.shim.pid)?;
    check!(after.rss - before.rss < 5 << 10, "the shim keeps {} KiB more", after.rss - before.rss);
    d.end(&b, &task)?;
    d.finish()
}

fn odd_streams(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let good = request(&task.shim.service(), "State", &Message::new().text(1, &b.id)).0;
    for (stream, kind) in
        [(0, REQUEST), (2, REQUEST), (1, RESPONSE), (1, 3), (1, 0), (1, 77), (u32::MAX, REQUEST)]
    {
        let mut socket = UnixStream::connect(&task.shim.address)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.write_all(&frame(stream, kind, &good))?;
        // An answer, an end, or nothing.
        let _ = socket.read(&mut [0; 64]);
        is_well(&task).map_err(|trouble| format!("after type {kind} on stream {stream}: {trouble:?}"))?;
    }
    d.end(&b, &task)?;
    d.finish()
}

fn byte_by_byte(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let good = frame(1, REQUEST, &request(&task.shim.service(), "State", &Message::new().text(1, &b.id)).0);
    let mut socket = UnixStream::connect(&task.shim.address)?;
    for byte in good {
        socket.write_all(&[byte])?;
        std::thread::sleep(Duration::from_millis(1));
        task.state("")?;
    }
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (stream, kind, _) = crate::shim::ttrpc::read_frame(&mut socket)?;
    same("the answer's stream and type", (stream, kind), (1, RESPONSE))?;
    d.end(&b, &task)?;
    d.finish()
}

fn half_open(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let before = procs::usage(task.shim.pid)?;
    let sockets: Vec<_> =
        (0..100).map(|_| UnixStream::connect(&task.shim.address)).collect::<Result<_, _>>()?;
    for mut socket in &sockets {
        socket.write_all(&[0, 0, 0])?;
    }
    is_well(&task)?;
    drop(sockets);
    t.until(
        || "the shim to close its ends".into(),
        || Ok((procs::usage(task.shim.pid)?.fds <= before.fds).then_some(())),
    )?;
    d.end(&b, &task)?;
    d.finish()
}

fn pipelined(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let wait = task.wait("");
    let id = Message::new().text(1, &b.id);
    let calls: Vec<_> = (0..2000).map(|_| task.shim.begin("State", &id)).collect();
    for call in &calls {
        same("the state", call.within(10.0)?.number(4), RUNNING)?;
    }
    check!(wait.is_open(), "the Wait was answered");
    d.end(&b, &task)?;
    d.finish()
}

/// A client that asks and never reads costs bounded memory and disturbs nobody.
fn reads_nothing(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let before = procs::usage(task.shim.pid)?;
    let state = request(&task.shim.service(), "State", &Message::new().text(1, &b.id)).0;
    let mut socket = UnixStream::connect(&task.shim.address)?;
    socket.set_nonblocking(true)?;
    let end = Instant::now() + Duration::from_secs(2);
    for stream in (1..).step_by(2) {
        if Instant::now() > end {
            break;
        }
        if socket.write_all(&frame(stream, REQUEST, &state)).is_err() {
            std::thread::sleep(Duration::from_millis(5)); // full: a torn frame is all the same here
        }
    }
    is_well(&task)?;
    let grown = procs::usage(task.shim.pid)?.rss - before.rss;
    check!(grown < 8 << 10, "it costs {grown} KiB");
    drop(socket);
    is_well(&task)?;
    d.end(&b, &task)?;
    d.finish()
}

/// A client that goes away takes its Waits along, and the descriptor of its connection.
fn waits_of_gone_clients(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let before = procs::usage(task.shim.pid)?;
    let wait = request(&task.shim.service(), "Wait", &Message::new().text(1, &b.id)).0;
    for _ in 0..200 {
        let mut socket = UnixStream::connect(&task.shim.address)?;
        socket.write_all(&frame(1, REQUEST, &wait))?;
    }
    let kept = task.wait("");
    is_well(&task)?;
    t.until(
        || "the shim to close the connections of clients that have gone".into(),
        || Ok((procs::usage(task.shim.pid)?.fds <= before.fds).then_some(())),
    )?;
    check!(kept.is_open(), "the Wait of a client that stays was answered");
    d.end(&b, &task)?;
    d.finish()
}

/// Requests that wait cost what they say, not what was sent with it.
fn large_waits(t: &Test) -> Verdict {
    let d = Daemon::new(t)?;
    let (b, task) = d.launch("forever")?;
    let before = procs::usage(task.shim.pid)?;
    let unknown = Message::new().text(1, &b.id).bytes(99, &vec![b'x'; (4 << 20) - 200]);
    let client = Client::connect(&task.shim.address)?;
    let waits: Vec<_> = (0..40).map(|_| client.begin(&task.shim.service(), "Wait", &unknown)).collect();
    // Answered after they were all read.
    client.call(&task.shim.service(), "State", &Message::new().text(1, &b.id))?;
    check!(waits.iter().all(|wait| wait.is_open()), "a Wait was answered");
    is_well(&task)?;
    let grown = procs::peak(task.shim.pid)? - before.rss;
    task.end()?;
    for wait in waits {
        same("the status", wait.within(10.0)?.number(1), 137)?;
    }
    d.end(&b, &task)?;
    d.finish()?;
    check!(grown < 64 << 10, "40 Waits of 4 MiB cost {grown} KiB");
    Ok(())
}
