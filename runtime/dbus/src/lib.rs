// SPDX-License-Identifier: Apache-2.0
//! A connection to systemd: the little of D-Bus that it takes to call a method of its manager and to wait for a job
//! (decisions/0014 says why it is not zbus). What is asked of systemd is not known here: see runtime/src/cgroup/systemd.rs.
//!
//! systemd's own socket is asked first: no bus daemon stands in between, nobody has to be greeted, and the end of a
//! job is told without having been subscribed to. Every wait ends at a deadline; what the other side says is bounded
//! in length and read with every byte checked (`wire`).

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

mod address;
mod error;
mod value;
mod wire;

pub use address::{Address, addresses};
pub use error::{BusError, Result};
pub use value::Value;
pub use wire::{Argument, message};

use error::NameCall;
use wire::{BusMessage, Call, FIXED, MessageType};

/// How long the other side may take to take a connection and to let us in.
const GREETING: Duration = Duration::from_secs(10);
/// How long a call and the job it starts may take (the time that runc gives as well).
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest line of the greeting.
const LINE: usize = 1024;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',\
                    member='JobRemoved',path='/org/freedesktop/systemd1'";

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done; of the body, the first text: a job's path.
    Done(String),
    /// It was refused.
    Refused {
        /// `org.freedesktop.systemd1.NoSuchUnit` …
        name: String,
        /// In words.
        text: String,
    },
}

/// A connection to a manager.
#[derive(Debug)]
pub struct Bus {
    socket: OwnedFd,
    /// For messages.
    name: String,
    serial: u32,
    /// What was received and not read yet.
    inbox: Vec<u8>,
    /// What must come before the first call; sent together with it.
    pending: Vec<u8>,
    /// Jobs that have ended: path and result.
    ended: Vec<(String, String)>,
    deadline: Instant,
}

impl Bus {
    /// Connects to the first of `addresses` that is there, as the user `uid`; without one, as whom the kernel says.
    ///
    /// In a user namespace our own uid is not the one that the other side sees: there it is not to be named.
    ///
    /// # Errors
    /// [`BusError::Absent`] when none is; any other when one is that does not let us in.
    pub fn connect(addresses: &[Address], uid: Option<u32>) -> Result<Bus> {
        for address in addresses {
            if let Some(socket) = dial(address)? {
                return Bus::greet(socket, address, uid);
            }
        }
        Err(BusError::Absent { addresses: addresses.to_vec() })
    }

    /// SASL EXTERNAL: the kernel tells who we are. The name is sent along if it is known.
    fn greet(socket: OwnedFd, address: &Address, uid: Option<u32>) -> Result<Bus> {
        let name = address.to_string();
        let deadline = Instant::now() + GREETING;
        let mut bus = Bus {
            socket,
            name,
            serial: 0,
            inbox: Vec::new(),
            pending: Vec::new(),
            ended: Vec::new(),
            deadline,
        };
        let who = match uid {
            None => "\r\nDATA".to_owned(),
            Some(uid) => {
                uid.to_string().bytes().fold(" ".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
            }
        };
        // All at once, and no call before the answer: systemd reads what comes together with BEGIN, and then waits for
        // more before it looks at it (as of 262).
        bus.send(format!("\0AUTH EXTERNAL{who}\r\nBEGIN\r\n").as_bytes(), "authentication")?;
        let mut line = bus.line()?;
        if line.starts_with("DATA") {
            line = bus.line()?;
        }
        if !line.starts_with("OK") {
            let words = line.trim_end().escape_default().to_string();
            return Err(BusError::peer(&bus.name, format!("authentication is answered with {words:?}")));
        }
        bus.deadline = Instant::now() + PATIENCE;
        if !address.direct {
            bus.queue(BUS_PATH, BUS, "Hello", &[], true);
            bus.queue(BUS_PATH, BUS, "AddMatch", &[Argument::Text(JOBS)], false);
        }
        Ok(bus)
    }

    fn queue(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        arguments: &[Argument<'_>],
        answered: bool,
    ) {
        self.serial += 1;
        let call = Call { destination: interface, path, interface, member, arguments, answered };
        self.pending.extend(wire::call(self.serial, &call));
    }

    /// Calls a method of systemd's manager object and waits for the answer.
    ///
    /// # Errors
    /// When the connection breaks, or at the deadline.
    pub fn call(&mut self, member: &'static str, arguments: &[Argument<'_>]) -> Result<Answer> {
        self.deadline = Instant::now() + PATIENCE;
        self.serial += 1;
        let serial = self.serial;
        let call = Call {
            destination: SYSTEMD,
            path: MANAGER_PATH,
            interface: MANAGER,
            member,
            arguments,
            answered: true,
        };
        let mut bytes = std::mem::take(&mut self.pending);
        bytes.extend(wire::call(serial, &call));
        self.send(&bytes, member)?;
        loop {
            let incoming = self.next(member)?;
            if incoming.answers != serial {
                // The bus may refuse to be greeted.
                if incoming.kind == MessageType::Error {
                    return Ok(refusal(&incoming));
                }
                continue;
            }
            match incoming.kind {
                MessageType::Return => {
                    return Ok(Answer::Done(incoming.text(0).unwrap_or_default().to_owned()));
                }
                MessageType::Error => return Ok(refusal(&incoming)),
                _ => {}
            }
        }
    }

    /// Waits for the end of a job; its result, `done` if all went well.
    ///
    /// # Errors
    /// As `call`.
    pub fn job(&mut self, path: &str) -> Result<String> {
        loop {
            if let Some((_, result)) = self.ended.iter().find(|(job, _)| job == path) {
                return Ok(result.clone());
            }
            self.next("the end of the job")?;
        }
    }

    /// The next message; the end of a job is noted.
    fn next(&mut self, what: &str) -> Result<BusMessage> {
        self.fill(FIXED, what)?;
        // systemd before 247 let us in at the first word, and now answers to the second.
        if self.inbox.starts_with(b"OK ") || self.inbox.starts_with(b"ERROR") {
            self.line()?;
            self.fill(FIXED, what)?;
        }
        let nonsense = |name: &str| BusError::peer(name, "sends what is no D-Bus message");
        let fixed = self.inbox.first_chunk::<FIXED>().and_then(wire::length);
        let length = fixed.ok_or_else(|| nonsense(&self.name))?;
        self.fill(length, what)?;
        let bytes: Vec<u8> = self.inbox.drain(..length).collect();
        let incoming = wire::read(&bytes).ok_or_else(|| nonsense(&self.name))?;
        if incoming.kind == MessageType::Signal
            && incoming.name == "JobRemoved"
            && let (Some(job), Some(result)) = (incoming.text(1), incoming.text(3))
        {
            // Jobs of others come along; ours is never far.
            if self.ended.len() >= 64 {
                self.ended.remove(0);
            }
            self.ended.push((job.to_owned(), result.to_owned()));
        }
        Ok(incoming)
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.inbox.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.inbox.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.inbox.len() > LINE {
                return Err(BusError::peer(&self.name, "the greeting does not end"));
            }
            self.fill(self.inbox.len() + 1, "authentication")?;
        }
    }

    /// Receives until there are `length` bytes.
    fn fill(&mut self, length: usize, what: &str) -> Result<()> {
        let mut buffer = [0u8; 4096];
        while self.inbox.len() < length {
            match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    return Err(BusError::call(format!("recv({}, {what})", self.name), Errno::CONNRESET));
                }
                Ok((_, count)) => self.inbox.extend(&buffer[..count.min(buffer.len())]),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, what)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(BusError::call(format!("recv({}, {what})", self.name), errno)),
            }
        }
        Ok(())
    }

    fn send(&mut self, mut bytes: &[u8], what: &str) -> Result<()> {
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, what)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(BusError::call(format!("send({}, {what})", self.name), errno)),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags, what: &str) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&timeout)) {
            Ok(0) => {
                let call = format!("poll({}, {what})", self.name);
                Err(BusError::call(call, Errno::TIMEDOUT))
            }
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(BusError::call(format!("poll({})", self.name), errno)),
        }
    }
}

fn refusal(incoming: &BusMessage) -> Answer {
    let line =
        |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect::<String>();
    Answer::Refused { name: line(&incoming.name), text: line(incoming.text(0).unwrap_or_default()) }
}

/// `None` where nobody is; a queue of connections that is full is waited for.
fn dial(address: &Address) -> Result<Option<OwnedFd>> {
    let call = || format!("connect({address})");
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .name_call(|| "socket(AF_UNIX)".to_owned())?;
    let to = match address.name.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(address.name.as_str()),
    };
    let to = to.name_call(call)?;
    let deadline = Instant::now() + GREETING;
    loop {
        match connect(&socket, &to) {
            Ok(()) => return Ok(Some(socket)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::CONNREFUSED | Errno::ACCESS) => return Ok(None),
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(BusError::call(call(), Errno::TIMEDOUT)),
            Err(errno) => return Err(BusError::call(call(), errno)),
        }
    }
}

#[cfg(test)]
mod tests;
