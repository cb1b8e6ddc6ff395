// SPDX-License-Identifier: Apache-2.0
//! Moving bytes. Between pipes by splice(2), which hands pages on and copies nothing; to and from a terminal, and into
//! a file that is appended to (which splice refuses), through a buffer.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use rustix::pipe::{SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, splice};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::open::Sink;
use crate::ready::Once;
use crate::{log, ready};

/// A pipe's usual size, and what is read at once where splice cannot.
const PIECE: usize = 64 << 10;
/// A pipe's size once it was full `TURN` times in a row, and the most that one splice moves. Kernel memory, taken only while
/// nobody reads.
const ROOM: usize = 256 << 10;
/// A terminal's own buffer is of 4 KiB.
const BUFFER: usize = 4 << 10;
/// After so many pieces others get their turn.
const TURN: usize = 16;
/// How long a deleted process's output waits for somebody to read some of it.
const LEAVE: Duration = Duration::from_secs(1);

/// Bytes that were read and could not be written yet. They stand here and not in the task that waits to write them, so that
/// another program can go on with them.
#[derive(Default)]
pub struct Carry(RefCell<Vec<u8>>);

impl Carry {
    /// One with these bytes.
    pub fn of(bytes: &[u8]) -> Carry {
        Carry(RefCell::new(bytes.to_vec()))
    }

    /// What there is.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.borrow().clone()
    }

    /// `left` is what is left to be written.
    fn hold(&self, left: &[u8]) {
        if self.0.borrow().len() != left.len() {
            self.0.replace(left.to_vec());
        }
    }
}

/// An output that is being moved.
pub struct OutputFlow {
    /// Our end of the container's pipe; the terminal without one.
    pub from: Option<OwnedFd>,
    pub sink: Sink,
    pub carry: Carry,
    /// The sink has failed: what comes is dropped.
    pub failed: Cell<bool>,
    /// The terminal's inner end, held so that a container whose processes have all closed it for a moment does not look like
    /// one that has ended.
    pub inner: RefCell<Option<OwnedFd>>,
}

impl OutputFlow {
    /// One that begins.
    pub fn new(from: Option<OwnedFd>, sink: Sink, console: Option<&OwnedFd>) -> Rc<OutputFlow> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let console = console.filter(|_| from.is_none());
        let inner = RefCell::new(console.and_then(|console| ioctl_tiocgptpeer(console, flags).ok()));
        Rc::new(OutputFlow { from, sink, carry: Carry::default(), failed: Cell::new(false), inner })
    }
}

/// Input that is being moved.
pub struct InputFlow {
    pub from: Rc<OwnedFd>,
    /// Our end of the container's pipe, or the terminal.
    pub to: Rc<OwnedFd>,
    pub carry: Carry,
}

/// From the container's pipe until its end; then waits until the FIFO's reader has all of it.
pub async fn output(flow: Rc<OutputFlow>, leaving: Rc<Once>) {
    let Some(from) = &flow.from else { return };
    let moved = match &flow.sink {
        _ if flow.failed.get() => Err(None),
        Sink::Fifo(to) => spliced(from, to, &leaving).await.map_err(Some),
        Sink::File(file) => copied(from, file, &flow.carry, &leaving).await.map_err(Some),
    };
    match moved {
        Ok(()) => emptied(&flow.sink, &leaving).await,
        Err(error) => {
            // A full disk, a FIFO that was truncated …: the container is not to notice (it would block or be killed).
            if let Some(error) = error {
                log::warn(&format!("output is dropped from here on: {error}"));
                flow.failed.set(true);
            }
            let _ = discarded(from).await;
        }
    }
}

/// From the terminal until the process is over and everything is read.
pub async fn terminal(console: Rc<OwnedFd>, flow: Rc<OutputFlow>, over: Rc<Notify>, leaving: Rc<Once>) {
    let Some(from) = ready::watched(console, "a terminal") else { return };
    let (sink, carry) = (&flow.sink, &flow.carry);
    let write = async |bytes: &[u8]| {
        if !flow.failed.get() {
            flow.failed.set(written(sink.fd(), bytes, carry, &leaving).await.is_err());
        }
    };
    write(&carry.bytes()).await;
    let mut buffer = vec![0; BUFFER];
    loop {
        let held = flow.inner.borrow().is_some();
        let ready = tokio::select! {
            ready = from.readable() => ready,
            () = over.notified(), if held => {
                flow.inner.take();
                continue;
            }
        };
        let Ok(mut ready) = ready else { return };
        match read(from.get_ref(), &mut buffer) {
            // EIO: every inner end is closed.
            Ok(0) | Err(Errno::IO) => break,
            Ok(count) => write(&buffer[..count]).await,
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    emptied(sink, &leaving).await;
}

/// From the client's FIFO to the container's pipe or terminal.
pub async fn input(flow: Rc<InputFlow>) {
    let moved = match rustix::termios::isatty(&flow.to) {
        true => typed(&flow).await,
        false => spliced(&flow.from, &flow.to, &Once::default()).await,
    };
    match moved {
        // The container has closed its input. The client is not told: it may still be interested in the output.
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
        Err(error) => log::debug(&format!("stdin: {error}")),
    }
}

/// Until the end of `from`.
async fn spliced(from: &OwnedFd, to: &OwnedFd, leaving: &Once) -> io::Result<()> {
    let source = ready::input(from.as_fd())?;
    // A pipe of which only the writing end is open reports errors as readiness to write.
    let target = ready::output(to.as_fd())?;
    let (mut turns, mut full, mut at_odds) = (0, 0, false);
    loop {
        match splice(from, None, to, None, ROOM, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Ok(0) => return Ok(()),
            Ok(moved) => {
                at_odds = false;
                turns += 1;
                full = if moved < PIECE { 0 } else { full + 1 };
                if full == TURN {
                    grow(from);
                    grow(to);
                }
                if turns % TURN == 0 {
                    yield_now().await;
                }
            }
            Err(Errno::INTR) => {}
            // One of the two is not ready, and splice does not say which.
            Err(Errno::AGAIN) => {
                let (readable, writable) = ready(from, to)?;
                if !readable {
                    source.readable().await?.clear_ready();
                } else if !writable {
                    tokio::select! {
                        ready = target.writable() => ready?.clear_ready(),
                        () = after_leaving(leaving) => return Err(unread()),
                    }
                } else if at_odds {
                    // Readable for its end, or a FIFO with less room than the kernel wants for a page.
                    sleep(Duration::from_millis(1)).await;
                } else {
                    // Most likely both have become so since.
                    at_odds = true;
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Much is coming: with more room the ends sleep and wake less for it. Not where a limit forbids it.
fn grow(pipe: &OwnedFd) {
    if fcntl_getpipe_size(pipe).is_ok_and(|size| size < ROOM) {
        let _ = fcntl_setpipe_size(pipe, ROOM);
    }
}

fn ready(from: &OwnedFd, to: &OwnedFd) -> io::Result<(bool, bool)> {
    let mut fds = [PollFd::new(from, PollFlags::IN), PollFd::new(to, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty()))
}

/// Into a file.
async fn copied(from: &OwnedFd, file: &Rc<OwnedFd>, carry: &Carry, leaving: &Once) -> io::Result<()> {
    written(file.as_fd(), &carry.bytes(), carry, leaving).await?;
    each(from, async |bytes| written(file.as_fd(), bytes, carry, leaving).await).await
}

async fn discarded(from: &OwnedFd) -> io::Result<()> {
    each(from, async |_| Ok(())).await
}

/// Reads away what comes, until its end: for a logger that has died.
pub async fn discard(from: OwnedFd) {
    let _ = discarded(&from).await;
}

async fn each(from: &OwnedFd, mut take: impl AsyncFnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let source = ready::input(from.as_fd())?;
    loop {
        let mut ready = source.readable().await?;
        // Allocated while there is something to read: an idle stream costs nothing.
        let mut buffer = vec![0; PIECE];
        loop {
            match read(from, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => take(&buffer[..count]).await?,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            yield_now().await;
        }
        ready.clear_ready();
    }
}

/// What a client types.
async fn typed(flow: &InputFlow) -> io::Result<()> {
    let source = ready::input(flow.from.as_fd())?;
    let write = async |bytes: &[u8]| written(flow.to.as_fd(), bytes, &flow.carry, &Once::default()).await;
    write(&flow.carry.bytes()).await?;
    let mut buffer = [0; 512];
    loop {
        match read(&flow.from, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => write(&buffer[..count]).await?,
            Err(Errno::AGAIN) => source.readable().await?.clear_ready(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits longer and longer, but once the process is being deleted no more than [`LEAVE`] in all.
struct Patience<'a> {
    leaving: &'a Once,
    pause: Duration,
    left: Duration,
}

impl Patience<'_> {
    fn of(leaving: &Once) -> Patience<'_> {
        Patience { leaving, pause: Duration::from_millis(1), left: LEAVE }
    }

    /// Whether there is any left, after a pause.
    async fn lasts(&mut self) -> bool {
        if self.left.is_zero() {
            return false;
        }
        sleep(self.pause).await;
        if self.leaving.has_happened() {
            self.left = self.left.saturating_sub(self.pause);
        }
        self.pause = (self.pause * 2).min(Duration::from_millis(50));
        true
    }
}

/// Writes everything; waits while there is no room. A terminal is registered for reading elsewhere already, and a
/// second registration of the same descriptor is refused: so this one asks now and then.
async fn written(
    to: rustix::fd::BorrowedFd<'_>,
    mut bytes: &[u8],
    carry: &Carry,
    leaving: &Once,
) -> io::Result<()> {
    let mut patience = Patience::of(leaving);
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(count) => {
                bytes = &bytes[count..];
                patience = Patience::of(leaving);
            }
            Err(Errno::AGAIN) => {
                carry.hold(bytes);
                if !patience.lasts().await {
                    return Err(unread());
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    carry.hold(bytes);
    Ok(())
}

/// Some time after the process is to be deleted.
async fn after_leaving(leaving: &Once) {
    leaving.wait().await;
    sleep(LEAVE).await;
}

fn unread() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "nobody reads it")
}

/// Waits until a FIFO's reader has read everything: what is in it would be lost when nobody but us has it open and we
/// close it, as after a restart of containerd. Not for long once the process is being deleted (`leaving`).
async fn emptied(sink: &Sink, leaving: &Once) {
    let Sink::Fifo(fifo) = sink else { return };
    let mut patience = Patience::of(leaving);
    while rustix::io::ioctl_fionread(fifo).is_ok_and(|left| left > 0) && patience.lasts().await {}
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, work)
    }

    fn fifo(name: &str) -> (std::path::PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("corten-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let fd = open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (path, fd)
    }

    /// More than both pipes hold, to a reader that comes late and reads in small pieces; then the end.
    #[test]
    fn a_slow_reader_gets_everything_and_the_end() {
        let (path, fd) = fifo("slow");
        let (from, to) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        fcntl_setfl(&from, OFlags::NONBLOCK).unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || {
            use std::io::Write;
            std::fs::File::from(to).write_all(&sent).unwrap();
        });
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            let mut file = std::fs::File::open(path).unwrap();
            let mut got = Vec::new();
            io::Read::read_to_end(&mut file, &mut got).unwrap();
            got
        });
        run(output(OutputFlow::new(Some(from), Sink::Fifo(fd), None), Rc::default()));
        assert!(reader.join().unwrap() == expected);
        writer.join().unwrap();
    }

    #[test]
    fn a_process_that_left_output_keeps_it_until_it_is_read() {
        let (path, fd) = fifo("late");
        let (from, to) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        fcntl_setfl(&from, OFlags::NONBLOCK).unwrap();
        write(&to, b"left").unwrap();
        drop(to);
        run(async move {
            let flow = OutputFlow::new(Some(from), Sink::Fifo(fd), None);
            let pump = tokio::task::spawn_local(output(flow, Rc::default()));
            sleep(Duration::from_millis(50)).await;
            assert!(!pump.is_finished());
            let reader = open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(read(&reader, &mut buffer), Ok(4));
            pump.await.unwrap();
            assert_eq!(read(&reader, &mut buffer), Ok(0));
            std::fs::remove_file(&path).unwrap();
        });
    }

    #[test]
    fn a_file_that_takes_nothing_does_not_stop_the_container() {
        let full = open("/dev/full", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let (from, to) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        fcntl_setfl(&from, OFlags::NONBLOCK).unwrap();
        let writer = std::thread::spawn(move || {
            use std::io::Write;
            std::fs::File::from(to).write_all(&[7; 300_000]).unwrap();
        });
        run(output(OutputFlow::new(Some(from), Sink::File(Rc::new(full)), None), Rc::default()));
        writer.join().unwrap();
    }
}
