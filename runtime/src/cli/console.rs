// SPDX-License-Identifier: Apache-2.0
//! The relay between our own terminal (or whatever stdin and stdout are) and the container's.
//!
//! With one terminal on our side every byte passes unchanged: it is raw, the container's does the editing. Into a pipe, a file, or a
//! terminal that is not raw because it is another one than stdin's, or another job's, the container's terminal ends lines with a bare
//! newline, as under runc: `host/ready.rs` sees to that before the process runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use corten::Result;
use corten::error::Context;
use corten::sys::tty::{self, Raw};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{LocalModes, SpecialCodeIndex, tcgetattr};

/// What is read at once.
const BUFFER: usize = 16 * 1024;
/// What is written at once to a stdout that may block: a pipe that is ready takes this much (PIPE_BUF, pipe(7)).
const CHUNK: usize = 4096;

/// What poll(2) found.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// Of our stdin.
    pub stdin: PollFlags,
    /// Of the container's terminal.
    pub master: PollFlags,
    /// Of our stdout.
    pub stdout: PollFlags,
}

/// Bytes on their way.
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Buffer { bytes: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn pending(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Reads when empty. `Some(0)` is the end; `None` that nothing is there yet.
    fn fill(&mut self, from: BorrowedFd<'_>) -> rustix::io::Result<Option<usize>> {
        match read(from, &mut *self.bytes) {
            Ok(count) => {
                (self.start, self.end) = (0, count);
                Ok(Some(count))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Writes up to `limit` bytes, as many as are taken.
    fn drain(&mut self, to: BorrowedFd<'_>, limit: usize) -> rustix::io::Result<()> {
        let pending = self.pending();
        match write(to, &pending[..pending.len().min(limit)]) {
            Ok(count) => self.start += count,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    fn set(&mut self, content: &[u8]) {
        self.bytes[..content.len()].copy_from_slice(content);
        (self.start, self.end) = (0, content.len());
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }
}

/// The container's terminal and ours.
pub struct ConsoleRelay {
    master: OwnedFd,
    /// The terminal's inner end, held so that a container whose processes have all closed it for a moment does
    /// not look like one that has ended.
    inner: Option<OwnedFd>,
    /// Ours, raw until this is dropped.
    raw: Option<Raw>,
    input: Buffer,
    output: Buffer,
    /// The last byte that came from stdin.
    last: Option<u8>,
    stdin_open: bool,
    stdout_open: bool,
    master_open: bool,
}

impl ConsoleRelay {
    /// Takes over the terminal's outer end.
    ///
    /// # Errors
    /// The failed call; our terminal is as it was.
    pub fn attach(master: OwnedFd) -> Result<ConsoleRelay> {
        let mut console = ConsoleRelay::over(master)?;
        console.raw = Raw::enter(std::io::stdin().as_fd()).call(|| "tcsetattr(stdin)")?;
        console.resize();
        Ok(console)
    }

    /// The container's side alone.
    fn over(master: OwnedFd) -> Result<ConsoleRelay> {
        ioctl_fionbio(&master, true).call(|| "ioctl(console, FIONBIO)")?;
        let inner =
            ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        Ok(ConsoleRelay {
            master,
            inner: inner.ok(),
            raw: None,
            input: Buffer::new(),
            output: Buffer::new(),
            last: None,
            stdin_open: true,
            stdout_open: true,
            master_open: true,
        })
    }

    /// Gives the container's terminal the size of ours, if we have one.
    pub fn resize(&self) {
        // Without a terminal of ours the container's keeps its size.
        let _ = tty::copy_size(std::io::stdin(), &self.master)
            .or_else(|_| tty::copy_size(std::io::stdout(), &self.master))
            .or_else(|_| tty::copy_size(std::io::stderr(), &self.master));
    }

    /// Fills in what to wait for: stdin, the container's terminal, stdout.
    pub fn wishes<'fd>(&'fd self, stdin: BorrowedFd<'fd>, stdout: BorrowedFd<'fd>, fds: &mut [PollFd<'fd>]) {
        let mut master = PollFlags::empty();
        master.set(PollFlags::IN, self.output.is_empty());
        master.set(PollFlags::OUT, !self.input.is_empty());
        let stdin = (self.stdin_open && self.input.is_empty())
            .then(|| PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        let master = (self.master_open && !master.is_empty()).then(|| PollFd::new(&self.master, master));
        let stdout = (!self.output.is_empty()).then(|| PollFd::from_borrowed_fd(stdout, PollFlags::OUT));
        for (place, wish) in fds.iter_mut().zip([stdin, master, stdout]) {
            if let Some(wish) = wish {
                *place = wish;
            }
        }
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// The container's terminal fails in an unexpected way.
    pub fn step(&mut self, ready: Ready, stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>) -> Result<()> {
        if !ready.stdin.is_empty() {
            self.read_stdin(stdin);
        }
        if ready.master.intersects(PollFlags::OUT | PollFlags::ERR) && !self.input.is_empty() {
            match self.input.drain(self.master.as_fd(), BUFFER) {
                Err(Errno::IO) => self.master_open = false,
                result => result.call(|| "write(console)")?,
            }
        }
        if ready.master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && self.output.is_empty()
        {
            self.read_master()?;
        }
        if !ready.stdout.is_empty() {
            self.write_stdout(stdout);
        }
        Ok(())
    }

    /// After the process has ended: passes on what it left, and gives our terminal back.
    ///
    /// # Errors
    /// As [`Console::step`].
    pub fn finish(mut self) -> Result<()> {
        let result = self.finish_to(std::io::stdout().as_fd());
        drop(self.raw.take());
        result
    }

    fn finish_to(&mut self, stdout: BorrowedFd<'_>) -> Result<()> {
        self.inner = None;
        loop {
            while !self.output.is_empty() {
                match poll(&mut [PollFd::from_borrowed_fd(stdout, PollFlags::OUT)], None) {
                    Ok(_) | Err(Errno::INTR) => self.write_stdout(stdout),
                    Err(errno) => return Err(corten::Error::os("poll", errno)),
                }
            }
            // The kernel flushes what is under way before it says that there is nothing (n_tty_read).
            if !self.master_open || !self.read_master()? {
                return Ok(());
            }
        }
    }

    fn read_stdin(&mut self, stdin: BorrowedFd<'_>) {
        match self.input.fill(stdin) {
            Ok(None) => {}
            Ok(Some(count)) if count > 0 => self.last = self.input.pending().last().copied(),
            // The end, or EIO: we are in the background of a terminal. Nothing comes any more.
            Ok(_) | Err(_) => {
                self.stdin_open = false;
                self.end_input();
            }
        }
    }

    /// Passes the end of a pipe or file on as a terminal does: by its end-of-file character, twice behind an
    /// unfinished line. Not when nothing came at all: a shell that was given /dev/null stays, as under runc.
    fn end_input(&mut self) {
        let Some(last) = self.last else { return };
        if let Ok(modes) = tcgetattr(&self.master)
            && modes.local_modes.contains(LocalModes::ICANON)
        {
            let end = modes.special_codes[SpecialCodeIndex::VEOF];
            let count = if last == b'\n' { 1 } else { 2 };
            self.input.set(&[end; 2][..count]);
        }
    }

    /// Whether something was read.
    fn read_master(&mut self) -> Result<bool> {
        match self.output.fill(self.master.as_fd()) {
            Ok(None) => Ok(false),
            // EIO: every inner end is closed.
            Ok(Some(0)) | Err(Errno::IO) => {
                self.master_open = false;
                self.input.clear();
                Ok(false)
            }
            Ok(Some(_)) => {
                if !self.stdout_open {
                    self.output.clear();
                }
                Ok(true)
            }
            Err(errno) => Err(corten::Error::os("read(console)", errno)),
        }
    }

    /// A stdout that went away takes nothing any more; the container is not told, as nobody is.
    fn write_stdout(&mut self, stdout: BorrowedFd<'_>) {
        if self.output.drain(stdout, CHUNK).is_err() {
            self.stdout_open = false;
            self.output.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::read;
    use rustix::pipe::pipe;
    use rustix::pty::{grantpt, openpt, unlockpt};

    use super::*;

    /// A console, the container's end of it, a pipe for stdin (both ends), one for stdout (both ends).
    fn set_up() -> (ConsoleRelay, OwnedFd, (OwnedFd, OwnedFd), (OwnedFd, OwnedFd)) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        tty::plain_newlines(&master).unwrap();
        (ConsoleRelay::over(master).unwrap(), slave, pipe().unwrap(), pipe().unwrap())
    }

    /// Polls and moves until nothing happens for a moment.
    fn relay(console: &mut ConsoleRelay, stdin: &OwnedFd, stdout: &OwnedFd) {
        let idle = pipe().unwrap();
        let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        loop {
            let mut fds = [(); 3].map(|()| PollFd::new(&idle.0, PollFlags::empty()));
            console.wishes(stdin.as_fd(), stdout.as_fd(), &mut fds);
            if poll(&mut fds, Some(&pause)).unwrap() == 0 {
                return;
            }
            let ready = Ready { stdin: fds[0].revents(), master: fds[1].revents(), stdout: fds[2].revents() };
            console.step(ready, stdin.as_fd(), stdout.as_fd()).unwrap();
        }
    }

    fn read_text(from: &OwnedFd) -> String {
        let mut bytes = [0; 64 * 1024];
        let count = read(from, &mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn bytes_pass_both_ways_and_the_end_of_a_pipe_is_an_end_of_file() {
        let (mut console, slave, stdin, stdout) = set_up();
        write(&stdin.1, b"in\nrest").unwrap();
        write(&slave, b"out\n").unwrap();
        relay(&mut console, &stdin.0, &stdout.1);
        assert_eq!(read_text(&slave), "in\n");
        drop(stdin.1);
        relay(&mut console, &stdin.0, &stdout.1);
        assert_eq!(read_text(&slave), "rest");
        assert_eq!(read_text(&slave), "");
        // The terminal echoes what was typed.
        let said = read_text(&stdout.0);
        assert!(said.contains("out\n") && said.contains("in\n"), "{said:?}");
    }

    #[test]
    fn without_input_the_container_sees_no_end() {
        let (mut console, slave, stdin, stdout) = set_up();
        drop(stdin.1);
        relay(&mut console, &stdin.0, &stdout.1);
        assert!(!console.stdin_open);
        ioctl_fionbio(&slave, true).unwrap();
        assert_eq!(read(&slave, &mut [0; 1]), Err(Errno::AGAIN));
    }

    #[test]
    fn what_the_process_left_is_passed_on() {
        let (mut console, slave, _stdin, stdout) = set_up();
        let text = "0123456789abcde\n".repeat(200);
        write(&slave, text.as_bytes()).unwrap();
        drop(slave);
        console.finish_to(stdout.1.as_fd()).unwrap();
        drop(stdout.1);
        assert_eq!(read_text(&stdout.0), text);
    }

    #[test]
    fn a_container_may_close_its_terminal_for_a_moment() {
        let (mut console, slave, stdin, stdout) = set_up();
        drop(slave);
        relay(&mut console, &stdin.0, &stdout.1);
        assert!(console.master_open);
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&console.master, flags).unwrap();
        write(&slave, b"again\n").unwrap();
        relay(&mut console, &stdin.0, &stdout.1);
        assert_eq!(read_text(&stdout.0), "again\n");
    }

    #[test]
    fn a_reader_that_goes_away_does_not_stop_the_container() {
        let (mut console, slave, stdin, stdout) = set_up();
        drop(stdout.0);
        for _ in 0..100 {
            write(&slave, &[b'x'; 1000]).unwrap();
            relay_briefly(&mut console, &stdin.0, &stdout.1);
        }
        assert!(!console.stdout_open && console.output.is_empty());
    }

    /// Like [`relay`], but ends with the first pause of no length.
    fn relay_briefly(console: &mut ConsoleRelay, stdin: &OwnedFd, stdout: &OwnedFd) {
        let ready = Ready { stdin: PollFlags::empty(), master: PollFlags::IN, stdout: PollFlags::OUT };
        for _ in 0..3 {
            console.step(ready, stdin.as_fd(), stdout.as_fd()).unwrap();
        }
    }
}
