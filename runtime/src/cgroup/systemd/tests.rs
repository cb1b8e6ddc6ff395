// SPDX-License-Identifier: Apache-2.0
//! What is done about each answer of systemd, which here says all its answers at once, before it is asked.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use corten_dbus::message;

use super::*;

/// Has `ask` talk to a systemd that gives these answers, numbered from 1; tells what came of it and what was heard.
fn talk<T>(answers: &[Vec<u8>], ask: impl FnOnce(&mut Systemd) -> T) -> (T, String) {
    let dir = std::env::temp_dir().join(format!("corten-systemd-{}-{:p}", std::process::id(), answers));
    let _ = std::fs::remove_file(&dir);
    let listener = UnixListener::bind(&dir).unwrap();
    let said = [b"OK 00\r\n".to_vec()].iter().chain(answers).flatten().copied().collect::<Vec<u8>>();
    let other = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.write_all(&said).unwrap();
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).unwrap();
        String::from_utf8_lossy(&heard).into_owned()
    });
    let address = Address { name: dir.to_str().unwrap().to_owned(), direct: true };
    let mut bus = Systemd::connect(&[address]).unwrap();
    let got = ask(&mut bus);
    drop(bus);
    std::fs::remove_file(dir).unwrap();
    (got, other.join().unwrap())
}

fn refusal(serial: u32, name: &str) -> Vec<u8> {
    message(3, serial, name, "s", &[Value::text("because")])
}

fn started(serial: u32, result: &str) -> Vec<u8> {
    let body = [Value::U32(1), Value::Path("/j".into()), Value::text("a.scope"), Value::text(result)];
    let mut bytes = message(2, serial, "", "o", &[Value::Path("/j".into())]);
    bytes.extend(message(4, 0, "JobRemoved", "uoss", &body));
    bytes
}

fn properties() -> Vec<Property> {
    let property = |name, newer| Property { name, value: Value::Bool(true), newer };
    vec![property("Delegate", false), property("AllowedCPUs", true)]
}

#[test]
fn one_call_starts_a_unit() {
    let (started, heard) =
        talk(&[started(1, "done")], |bus| start_transient_unit(bus, "a.scope", properties()));
    started.unwrap();
    assert_eq!(heard.matches("StartTransientUnit").count(), 1);
    assert!(!heard.contains("ResetFailedUnit") && heard.contains("AllowedCPUs"), "{heard:?}");
}

#[test]
fn an_older_systemd_is_asked_for_less() {
    let answers = [refusal(1, REFUSED_PROPERTY[0]), started(2, "done")];
    let (started, heard) = talk(&answers, |bus| start_transient_unit(bus, "a.scope", properties()));
    started.unwrap();
    assert_eq!((heard.matches("StartTransientUnit").count(), heard.matches("AllowedCPUs").count()), (2, 1));
    let answers = [refusal(1, REFUSED_PROPERTY[0]), refusal(2, REFUSED_PROPERTY[0])];
    let (refused, _) = talk(&answers, |bus| start_transient_unit(bus, "a.scope", properties()));
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("StartTransientUnit(a.scope)") && text.contains("PropertyReadOnly: because"),
        "{text}"
    );
}

#[test]
fn a_name_that_is_taken_is_tried_once_more() {
    let nothing = message(2, 2, "", "", &[]);
    let answers = [refusal(1, EXISTS), nothing.clone(), started(3, "done")];
    let (started, heard) = talk(&answers, |bus| start_transient_unit(bus, "a.scope", Vec::new()));
    started.unwrap();
    assert_eq!(heard.matches("ResetFailedUnit").count(), 1);
    let answers = [refusal(1, EXISTS), nothing, refusal(3, EXISTS)];
    let (refused, _) = talk(&answers, |bus| start_transient_unit(bus, "a.scope", Vec::new()));
    assert!(refused.unwrap_err().to_string().contains("UnitExists"));
}

#[test]
fn a_job_that_fails_is_an_error() {
    let (failed, _) = talk(&[started(1, "timeout")], |bus| start_transient_unit(bus, "a.scope", Vec::new()));
    let text = failed.unwrap_err().to_string();
    assert_eq!(text, "systemd: StartTransientUnit(a.scope): the job ended with \"timeout\"");
}

#[test]
fn paths_of_processes() {
    let v1 = "3:name=systemd:/a/x.scope\n2:memory:/\n0::/b\n";
    assert_eq!(path_in(v1, Version::V1), Some("/a/x.scope"));
    assert_eq!(path_in("0::/b\n", Version::V1), Some("/b"));
    assert_eq!(path_in(v1, Version::V2), Some("/b"));
    assert_eq!(path_in("", Version::V2), None);
}

#[test]
fn without_systemd_the_words_are_those_that_clients_know() {
    let error =
        Systemd::connect(&[Address { name: "/nonexistent/socket".into(), direct: true }]).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (Kind::Unsupported, None));
    assert_eq!(error.to_string(), format!("{ABSENT}: nobody listens at /nonexistent/socket"));
    let silent = BusError::Call { call: "poll(a)".into(), errno: Errno::TIMEDOUT };
    let error = no_answer(silent);
    assert_eq!((error.kind(), error.errno()), (Kind::Peer, Some(libc::ETIMEDOUT)));
    assert!(error.to_string().starts_with("systemd does not answer: poll(a): "), "{error}");
}
