// SPDX-License-Identifier: Apache-2.0
//! containerd's ends of a container's FIFOs.

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::task::Io;
use super::ttrpc::locked;
use crate::check;
use crate::harness::case::Trouble;
use crate::harness::test::Test;

/// Makes a FIFO in the case's directory.
pub fn make(t: &Test, name: &str) -> Result<String, Trouble> {
    let path = t.path(name);
    mkfifo(&path, Mode::from_bits_truncate(0o700))?;
    Ok(path.to_string_lossy().into_owned())
}

/// Reads a FIFO in a thread until all writers have closed it.
pub struct Reader {
    text: Arc<Mutex<Vec<u8>>>,
    ended: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    /// Begins to read.
    pub fn open(path: &str) -> Result<Self, Trouble> {
        let mut file = open_reader(path)?;
        let (text, ended, stop) = <(Arc<Mutex<Vec<u8>>>, Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (its_text, its_end, its_stop) = (text.clone(), ended.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut block = vec![0; 65536];
            while !its_stop.load(Ordering::Relaxed) {
                match read_some(&mut file, &mut block) {
                    Some(0) => return its_end.store(true, Ordering::SeqCst),
                    Some(len) => locked(&its_text).extend_from_slice(&block[..len]),
                    None => {}
                }
            }
        });
        Ok(Self { text, ended, stop })
    }

    /// What was read so far.
    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&locked(&self.text)).into_owned()
    }

    /// True when all writers have closed the FIFO.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Waits for the end: all of it.
    pub fn to_end(&self) -> Result<String, Trouble> {
        wait(|| self.has_ended(), || format!("the end of the output; so far {:?}", self.so_far()))?;
        Ok(self.so_far())
    }

    /// Waits until this text has come.
    pub fn until(&self, text: &str) -> Result<String, Trouble> {
        wait(
            || self.so_far().contains(text),
            || format!("{text:?} in the output; so far {:?}", self.so_far()),
        )?;
        Ok(self.so_far())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn wait(done: impl Fn() -> bool, what: impl Fn() -> String) -> Result<(), Trouble> {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        check!(Instant::now() < end, "waited in vain for {}", what());
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Opens the reading end without waiting for a writer.
pub fn open_reader(path: &str) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Reads what is there, waiting a moment for it: None when nothing came, 0 when all writers are gone.
pub fn read_some(file: &mut File, block: &mut [u8]) -> Option<usize> {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    // A FIFO that no writer has opened yet neither has input nor is hung up.
    if poll(&mut fds, PollTimeout::from(20u8)).unwrap_or(0) == 0 {
        return None;
    }
    file.read(block).ok()
}

/// Opens the writing end when the shim has opened its own.
pub fn open_writer(path: &str) -> Result<File, Trouble> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path) {
            Ok(file) => return Ok(file),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                check!(Instant::now() < end, "nobody reads {path}");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The three streams of a process.
pub struct Streams {
    pub io: Io,
    pub out: Reader,
    pub err: Option<Reader>,
}

impl Streams {
    /// FIFOs named after `name`; with a terminal there is no stderr.
    pub fn make(t: &Test, name: &str, terminal: bool) -> Result<Self, Trouble> {
        let path = |kind: &str| make(t, &format!("{name}-{kind}"));
        let stderr = if terminal { String::new() } else { path("stderr")? };
        let io = Io { stdin: path("stdin")?, stdout: path("stdout")?, stderr, terminal };
        let err = if terminal { None } else { Some(Reader::open(&io.stderr)?) };
        Ok(Self { out: Reader::open(&io.stdout)?, err, io })
    }

    /// Writes to the process's standard input, and leaves it open.
    pub fn write(&self, text: &str) -> Result<(), Trouble> {
        let mut file = open_writer(&self.io.stdin)?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// All of standard output and error.
    pub fn to_end(&self) -> Result<(String, String), Trouble> {
        let err = self.err.as_ref().map_or(Ok(String::new()), Reader::to_end)?;
        Ok((self.out.to_end()?, err))
    }
}
