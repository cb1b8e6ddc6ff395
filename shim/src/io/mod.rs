// SPDX-License-Identifier: Apache-2.0
//! Input and output of a process: from what its client wants to descriptors, and what moves the bytes in between.
//!
//! ```text
//! container ─pipe─> splice ─> FIFO ─> client        no terminal, a FIFO
//! container ─pty──> copy ───> FIFO or file          a terminal
//! container ─pipe─> copy ───> file                  file://
//! container ─pipe─> the logger's descriptor 3       binary://
//! ```
//! A reader that stops reading stops its own stream only; what is under way is bounded by the pipes. The shim keeps
//! FIFOs open on its own, so that neither side sees an end while containerd is away.

#![forbid(unsafe_code)]

mod logger;
mod open;
mod passing;
mod pump;

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use corten::error::Context;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use self::logger::Logger;
pub use self::open::prepare;
use self::open::{Input, Sink};
use self::pump::{InputFlow, OutputFlow};
use crate::ready::Once;
use crate::reaper::Reaper;
use crate::refusal::Result;

/// What a client wants: paths of FIFOs, URIs, or nothing.
#[derive(Debug, Clone, Default)]
pub struct StreamPaths {
    pub terminal: bool,
    /// Where input comes from.
    pub stdin: String,
    /// Where output goes.
    pub stdout: String,
    /// Where errors go; not with a terminal.
    pub stderr: String,
}

/// Who the container's pipes belong to, and who it is for a logger.
#[derive(Debug, Clone, Default)]
pub struct Owner {
    /// Uid and gid, both 0 for root's.
    pub ids: (u32, u32),
    /// The container.
    pub id: String,
    pub namespace: String,
    /// Who hears of the logger's end.
    pub reaper: Reaper,
}

/// Opened, for a process that is about to be launched. Dropped, everything is closed again.
pub struct Prepared {
    input: Option<Input>,
    /// The container's outputs, as far as we move them: our end of the pipe (none with a terminal), and where to.
    outputs: Vec<(Option<OwnedFd>, Sink)>,
    logger: Option<Logger>,
}

/// What moves a running process's input and output. Dropped, it stops.
pub struct Streams {
    /// The terminal's outer end.
    console: Option<Rc<OwnedFd>>,
    /// Held so that input does not end while its client is away; dropped by CloseIO.
    keep: RefCell<Option<OwnedFd>>,
    /// The reading end of the client's FIFO. Held to the last, read or not: a client that still writes when the process
    /// has ended would get EPIPE, and containerd's then gives up the output that it has not read yet.
    stdin: Option<Rc<OwnedFd>>,
    /// The process has ended.
    over: Rc<Notify>,
    /// The process is being deleted.
    leaving: Rc<Once>,
    input: Option<(JoinHandle<()>, Weak<InputFlow>)>,
    /// The tasks that move output or wait for the logger.
    outputs: RefCell<Vec<JoinHandle<()>>>,
    /// What they move, while they do.
    flows: Vec<Weak<OutputFlow>>,
    logger: Option<Logger>,
}

impl Prepared {
    /// Begins to move, for a process that lives; `console` is its terminal's outer end.
    ///
    /// # Errors
    /// The failed call; the process is to be ended then.
    pub fn start(self, console: Option<OwnedFd>) -> Result<Streams> {
        let console = console.map(Rc::new);
        if let Some(console) = &console {
            rustix::io::ioctl_fionbio(console, true).call(|| "ioctl(console, FIONBIO)")?;
        }
        let begin = |(pipe, sink)| OutputFlow::new(pipe, sink, console.as_deref());
        let outputs = self.outputs.into_iter().map(begin).collect();
        let (keep, stdin, input) = match self.input {
            Some(Input { from, keep, to }) => {
                let (from, to) = (Rc::new(from), to.map(Rc::new).or_else(|| console.clone()));
                let flow =
                    to.map(|to| Rc::new(InputFlow { from: from.clone(), to, carry: Default::default() }));
                (Some(keep), Some(from), flow)
            }
            None => (None, None, None),
        };
        Ok(Parts { console, keep, stdin, input, outputs, logger: self.logger }.move_all())
    }
}

/// What is to be moved.
struct Parts {
    console: Option<Rc<OwnedFd>>,
    keep: Option<OwnedFd>,
    stdin: Option<Rc<OwnedFd>>,
    input: Option<Rc<InputFlow>>,
    outputs: Vec<Rc<OutputFlow>>,
    logger: Option<Logger>,
}

impl Parts {
    fn move_all(self) -> Streams {
        let over = Rc::new(Notify::new());
        let leaving: Rc<Once> = Rc::default();
        let flows = self.outputs.iter().map(Rc::downgrade).collect();
        let mut outputs = Vec::new();
        for flow in self.outputs {
            outputs.push(match (&flow.from, &self.console) {
                (Some(_), _) => spawn_local(pump::output(flow, leaving.clone())),
                (None, Some(console)) => {
                    spawn_local(pump::terminal(console.clone(), flow, over.clone(), leaving.clone()))
                }
                (None, None) => continue,
            });
        }
        if let Some(logger) = &self.logger {
            outputs.push(spawn_local(logger.attend()));
        }
        let input = self.input.map(|flow| {
            let weak = Rc::downgrade(&flow);
            (spawn_local(pump::input(flow)), weak)
        });
        Streams {
            console: self.console,
            keep: RefCell::new(self.keep),
            stdin: self.stdin,
            over,
            leaving,
            input,
            outputs: RefCell::new(outputs),
            flows,
            logger: self.logger,
        }
    }
}

impl Streams {
    /// Sets the terminal's size; without one nothing happens.
    ///
    /// # Errors
    /// That of TIOCSWINSZ.
    pub fn resize(&self, (rows, columns): (u16, u16)) -> Result<()> {
        let Some(console) = &self.console else { return Ok(()) };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(console.as_fd(), size).call(|| "ioctl(TIOCSWINSZ)")?)
    }

    /// No more input than what its client still has to say.
    pub fn close_stdin(&self) {
        self.keep.take();
    }

    /// The process has ended: input is read no more, a terminal's output ends with what is in it.
    pub fn over(&self) {
        if let Some((input, _)) = &self.input {
            input.abort();
        }
        self.keep.take();
        self.over.notify_one();
    }

    /// Waits until the output has been handed over, at most `limit`: somebody else may hold the other end of a pipe for
    /// ever. Output that nobody reads is given up sooner (`pump`).
    pub async fn drain(&self, limit: Duration) {
        self.leaving.happen();
        let mut outputs = self.outputs.take();
        let all = async {
            for output in &mut outputs {
                let _ = output.await;
            }
        };
        if timeout(limit, all).await.is_err() {
            outputs.iter().for_each(JoinHandle::abort);
        }
        if let Some(logger) = &self.logger {
            logger.end();
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.outputs.borrow().iter().for_each(JoinHandle::abort);
        if let Some((input, _)) = &self.input {
            input.abort();
        }
        if let Some(logger) = &self.logger {
            logger.end();
        }
    }
}
