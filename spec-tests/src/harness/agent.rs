// SPDX-License-Identifier: Apache-2.0
//! A seccomp agent: receives a listener on a socket and answers the calls that come on it.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::Path;
use std::thread::JoinHandle;

use serde_json::Value;

use super::case::Trouble;
use super::console::Receiver;
use crate::{check, sys};

/// An agent at work.
pub struct Agent(JoinHandle<Result<Value, Trouble>>);

impl Agent {
    /// Listens at `path`; lets the first `calls` notified calls fail with `errno`.
    pub fn listen(path: &Path, calls: usize, errno: i32) -> Result<Self, Trouble> {
        let receiver = Receiver::listen(path)?;
        Ok(Self(std::thread::spawn(move || serve(&receiver, calls, errno))))
    }

    /// Waits for it to have answered; gives the message that came with the listener.
    pub fn join(self) -> Result<Value, Trouble> {
        self.0.join().unwrap_or_else(|_| Err("the agent panicked".into()))
    }
}

fn serve(receiver: &Receiver, calls: usize, errno: i32) -> Result<Value, Trouble> {
    let delivery = receiver.receive()?;
    check!(delivery.fds.len() == 1, "{} descriptors came, not 1", delivery.fds.len());
    for _ in 0..calls {
        let request = sys::seccomp_receive(delivery.fds[0].as_fd())?;
        check!(request.pid > 0 && request.nr >= 0, "a strange request");
        sys::seccomp_answer(delivery.fds[0].as_fd(), request.id, 0, errno)?;
    }
    Ok(serde_json::from_str(&delivery.text)?)
}
