// SPDX-License-Identifier: Apache-2.0
//! Both ends of a connection in one process: the other one says what the test has it say, at once, before it is asked.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;

/// A connection whose other side has already said `bytes`, and that side.
fn greeted(direct: bool, bytes: &[u8]) -> Result<(Bus, UnixStream)> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(bytes).unwrap();
    let address = Address { name: "test".into(), direct };
    Bus::greet(ours.into(), &address, Some(1000)).map(|bus| (bus, theirs))
}

fn job(path: &str, result: &str) -> Vec<u8> {
    let body = [Value::U32(1), Value::Path(path.into()), Value::text("a.scope"), Value::text(result)];
    message(4, 0, "JobRemoved", "uoss", &body)
}

#[test]
fn a_call_and_its_job() {
    let mut said = b"OK 0123456789abcdef\r\n".to_vec();
    said.extend(job("/other", "failed"));
    said.extend(job("/job/7", "done"));
    said.extend(message(2, 1, "", "o", &[Value::Path("/job/7".into())]));
    let (mut bus, mut theirs) = greeted(true, &said).unwrap();
    let answer = bus.call("StopUnit", &[Argument::Text("a.scope")]).unwrap();
    assert_eq!(answer, Answer::Done("/job/7".into()));
    assert_eq!(bus.job("/job/7").unwrap(), "done");
    drop(bus);
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).unwrap();
    let text = String::from_utf8_lossy(&heard);
    assert!(text.starts_with("\0AUTH EXTERNAL 31303030\r\n") && text.contains("\r\nBEGIN\r\n"), "{text:?}");
    assert!(text.contains("StopUnit") && !text.contains("Hello"), "one call and nothing else: {text:?}");
}

#[test]
fn a_bus_is_greeted_with_the_first_call() {
    let mut said = b"DATA\r\nOK 00\r\nERROR\r\n".to_vec();
    said.extend(message(2, 1, "", "s", &[Value::text(":1.5")]));
    said.extend(message(2, 3, "", "", &[]));
    let (mut bus, mut theirs) = greeted(false, &said).unwrap();
    assert_eq!(bus.call("ResetFailedUnit", &[]).unwrap(), Answer::Done(String::new()));
    drop(bus);
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).unwrap();
    let text = String::from_utf8_lossy(&heard);
    assert!(
        text.contains("\r\nBEGIN\r\n") && text.contains("Hello") && text.contains("AddMatch"),
        "{text:?}"
    );
}

#[test]
fn refusals_are_told_in_one_line() {
    let mut said = b"OK 00\r\n".to_vec();
    said.extend(message(3, 1, "org.Error.X", "s", &[Value::text("first\nsecond")]));
    let (mut bus, _theirs) = greeted(true, &said).unwrap();
    let refused = Answer::Refused { name: "org.Error.X".into(), text: "first second".into() };
    assert_eq!(bus.call("StopUnit", &[]).unwrap(), refused);
}

#[test]
fn a_hostile_side_is_an_error() {
    for said in [&b"REJECTED EXTERNAL\r\n"[..], b"ERROR\r\n", b"DATA\r\nREJECTED\r\n", &[b'x'; 5000]] {
        let error = greeted(true, said).err().unwrap();
        assert!(matches!(error, BusError::Peer { .. }), "{error}");
    }
    let endless = [b'l', 2, 0, 1, 255, 255, 255, 127, 1, 0, 0, 0, 0, 0, 0, 0];
    for after in [&b"GET / HTTP/1.1\r\n\r\n"[..], &endless] {
        let mut said = b"OK 00\r\n".to_vec();
        said.extend(after);
        let (mut bus, _theirs) = greeted(true, &said).unwrap();
        let error = bus.call("StopUnit", &[]).unwrap_err();
        assert!(error.to_string().contains("no D-Bus message"), "{error}");
    }
    let (mut bus, theirs) = greeted(true, b"OK 00\r\n").unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    let error = bus.call("StopUnit", &[]).unwrap_err();
    assert!(matches!(error, BusError::Call { errno: Errno::CONNRESET, .. }), "{error}");
}

#[test]
fn silence_ends_at_the_deadline() {
    let (mut bus, _theirs) = greeted(true, b"OK 00\r\n").unwrap();
    bus.deadline = Instant::now();
    let error = bus.next("StopUnit").unwrap_err();
    assert!(matches!(error, BusError::Call { errno: Errno::TIMEDOUT, .. }), "{error}");
}

#[test]
fn nobody_there() {
    let nowhere = Address { name: "/nonexistent/socket".into(), direct: true };
    let error = Bus::connect(&[nowhere], None).unwrap_err();
    assert!(matches!(error, BusError::Absent { .. }), "{error}");
    assert_eq!(error.to_string(), "nobody listens at /nonexistent/socket");
    assert!(Bus::connect(&[], None).unwrap_err().to_string().contains("XDG_RUNTIME_DIR"));
}
