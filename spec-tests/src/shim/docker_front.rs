// SPDX-License-Identifier: Apache-2.0
//! `spec-tests docker-front LISTEN DOCKER`: passes what comes on the socket LISTEN on to dockerd's, and its answers back, with one change: who asks for
//! a negative oom_score_adj asks for 0. The kubelet's dockershim always asks so, and root without CAP_SYS_RESOURCE may not, with any runtime; containerd's
//! CRI has `restrict_oom_score_adj` for that, Docker has nothing. Must never change the length of what it passes on.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;

const KEY: &[u8] = b"\"OomScoreAdj\":-";

/// Serves until it is killed.
pub fn main(args: &[String]) -> ExitCode {
    let [listen, docker] = args else {
        eprintln!("usage: spec-tests docker-front LISTEN DOCKER");
        return ExitCode::from(2);
    };
    let listener = match UnixListener::bind(listen) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("bind({listen}): {error}");
            return ExitCode::FAILURE;
        }
    };
    for client in listener.incoming().flatten() {
        // Who finds no dockerd is told by the end of the connection.
        if let Err(error) = UnixStream::connect(docker).and_then(|server| join(client, server)) {
            eprintln!("connect({docker}): {error}");
        }
    }
    ExitCode::SUCCESS
}

/// Two threads, one for each direction; an end is passed on as one (an attached input ends before the output does).
fn join(client: UnixStream, server: UnixStream) -> io::Result<()> {
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = pass(&client, &server);
        let _ = server.shutdown(Shutdown::Write);
    });
    Ok(())
}

fn pass(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let (mut held, mut buffer) = (Vec::new(), vec![0; 65536]);
    loop {
        let count = from.read(&mut buffer)?;
        held.extend_from_slice(&buffer[..count]);
        let known = raise(&mut held);
        let ready = if count == 0 { held.len() } else { known };
        to.write_all(&held[..ready])?;
        held.drain(..ready);
        if count == 0 {
            return Ok(());
        }
    }
}

/// Makes each negative number of the key a 0 and blanks, which JSON allows there; says up to where all is known: a key or a number may go on in what follows.
fn raise(bytes: &mut [u8]) -> usize {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(KEY.len()).position(|window| window == KEY) {
        let start = at + found;
        let number = start + KEY.len();
        let digits = bytes[number..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if number + digits == bytes.len() {
            return start;
        }
        bytes[number - 1..number + digits].fill(b' ');
        bytes[number - 1] = b'0';
        at = number + digits;
    }
    let begun = (1..KEY.len()).rev().find(|length| bytes[at..].ends_with(&KEY[..*length])).unwrap_or(0);
    bytes.len() - begun
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte at a time, as badly as it can come.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut buffer[..1])
        }
    }

    #[test]
    fn numbers_are_raised_wherever_they_are_cut() {
        for (given, want) in [
            (r#"{"OomScoreAdj":-998,"a":1}"#, r#"{"OomScoreAdj":0   ,"a":1}"#),
            (r#"{"OomScoreAdj":998,"OomScoreAdj":-1}"#, r#"{"OomScoreAdj":998,"OomScoreAdj":0 }"#),
            (r#"{"OomScoreAdj":-"#, r#"{"OomScoreAdj":-"#),
            (r#"{"OomSc"#, r#"{"OomSc"#),
            ("", ""),
        ] {
            let (mut whole, mut drops) = (Vec::new(), Vec::new());
            pass(given.as_bytes(), &mut whole).unwrap();
            pass(Drops(given.as_bytes()), &mut drops).unwrap();
            assert_eq!(String::from_utf8(whole).unwrap(), want);
            assert_eq!(String::from_utf8(drops).unwrap(), want);
        }
    }
}
